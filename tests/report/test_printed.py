"""Tables for a paper: which are printed, how, and the papers of their methods."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from fake_runs import consistent
from suites import Call
from test_leaderboard import clustered, make

from mer_bench.errors import Misuse
from mer_bench.records import write_record
from mer_bench.report.printed import bibtex, choose, print_tables

METHODS = (("cfn_sr", 9), ("msaf", 9), ("late_product", 2))
RUNS = [clustered(name, seed, hits) for name, hits in METHODS for seed in range(3)]
OTHERS = [make("mmgcn", context="dialogue", dataset="meld", protocol="official")]
BOTH = [*RUNS, *OTHERS]


def test_the_best_row_and_those_tied_with_it_are_bold() -> None:
    chosen = choose(RUNS)
    for format, bold in (("markdown", r"\*\*[\d.]+ ± [\d.]+\*\*"), ("latex", r"\\textbf\{[\d.]+ \$\\pm\$ [\d.]+\}")):
        lines = [line for line in print_tables(chosen, format).splitlines() if re.search(bold, line)]
        assert len(lines) == 2, format
        assert not any("late" in line for line in lines)


def test_a_row_with_fewer_than_three_seeds_is_not_bold_and_the_caption_says_why() -> None:
    runs = [each for each in RUNS if each.spec.method != "msaf" or each.spec.seed < 2]
    sentence = "With fewer than 3 seeds no row is said to be behind the best or tied with it."
    for format in ("markdown", "latex"):
        assert (sentence in print_tables(choose(runs), format), sentence in print_tables(choose(RUNS), format)) == (
            1,
            0,
        )
    text = print_tables(choose(runs), "markdown")
    assert [("two seeds" in line, "**" in line) for line in text.splitlines() if "MSAF" in line] == [(True, False)]
    few = print_tables(choose([each for each in RUNS if each.spec.seed < 2]), "markdown")
    assert "Bold" not in few
    assert "**" not in few


def test_a_caption_has_the_protocol_and_the_hashes_in_the_form_of_the_format() -> None:
    chosen = choose(RUNS)
    ((number, table),) = chosen.items()
    hashes = [digest[:12] for *_, digest in table.sets]
    first, blank, *_ = print_tables(chosen, "markdown").splitlines()
    assert all(digest in first for digest in hashes)
    assert blank == ""
    head = print_tables(chosen, "latex").split(r"\begin")[0].splitlines()
    assert all(line.startswith("% ") for line in head)
    assert all(digest in " ".join(head) for digest in hashes)
    (data,) = json.loads(print_tables(chosen, "json"))
    assert {name: each["sha256"] for name, each in data["features"].items()} == {m: h for m, _, h in table.sets}
    assert data["number"] == number
    assert data["caption"].startswith(table.title)
    assert [row["Behind the best, tied"] for row in data["rows"]] == ["yes", "yes", "no"]
    assert data["rows"][0]["Rank"] == 1


def test_several_tables_are_printed_one_after_the_other_except_as_csv() -> None:
    chosen = choose(BOTH)
    assert len(chosen) == 2
    assert len(json.loads(print_tables(chosen, "json"))) == 2
    assert print_tables(chosen, "latex").count("begin{tabular}") == 2
    with pytest.raises(Misuse, match=r"csv holds one table, but 2 match: choose one by --number.* of 1 \(.*; 2 \(meld"):
        print_tables(chosen, "csv")
    (head, *rows) = csv.reader(print_tables(choose(BOTH, number=2), "csv").splitlines())
    assert dict(zip(head, rows[0], strict=True))["Method, code name"] == "mmgcn"


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"dataset": "meldd"}, "unknown dataset among the tables 'meldd': did you mean 'meld'"),
        ({"dataset": "meld", "protocol": "offical"}, "did you mean 'official'"),
        ({"track": "dialog"}, "did you mean 'dialogue'"),
        ({"number": 3}, "there are tables 1 to 2, not 3"),
    ],
)
def test_a_table_that_is_not_there_is_named_with_those_that_are(given: dict[str, object], part: str) -> None:
    with pytest.raises(Misuse, match=part):
        choose(BOTH, **given)  # type: ignore[arg-type]


def test_without_records_and_in_an_unknown_format_there_is_no_table() -> None:
    with pytest.raises(Misuse, match="there are no records"):
        choose([])
    with pytest.raises(Misuse, match="did you mean 'latex'"):
        print_tables(choose(RUNS), "latx")


def test_methods_of_one_paper_share_an_entry_and_no_author_is_invented() -> None:
    found = bibtex(choose(RUNS))
    assert re.findall(r"@misc\{(\w+),", found) == ["late_product", "cfn_sr"]
    assert "note = {Paper of Late product and MSAF}" in found
    assert "eprint = {2111.02172}" in found
    assert "year = {2021}" in found
    assert "author" not in found
    assert found.count("{") == found.count("}")


def test_the_command_prints_what_its_options_leave(call: Call, tmp_path: Path) -> None:
    for each in RUNS:
        write_record(consistent(each), tmp_path)
    found = call("table", "--results", tmp_path, "--dataset", "meld", "--format", "json", "--track", "utterance")
    assert (found.code, found.err) == (0, "")
    assert [data["track"] for data in json.loads(found.out)] == ["utterance"]
    assert "eprint = {2111.02172}" in call("table", "--results", tmp_path, "--bibtex").out
    wrong = call("table", "--results", tmp_path, "--dataset", "meldd")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
