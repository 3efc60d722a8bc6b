"""Predictions made elsewhere: how they become external records, and where pages show them."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pages as report
import pytest
from fake_runs import consistent, external
from suites import RAVDESS, Call
from test_external import corpus, guesses, recorded, write  # noqa: F401
from test_leaderboard import clustered

import mer_bench
from mer_bench.errors import Misuse
from mer_bench.external import ExternalRecord, ExternalSpec, Statement, load_external, read_external, write_external
from mer_bench.records import Protocol, RunRecord, load_records, write_record
from mer_bench.report import elsewhere
from mer_bench.report.board import load
from mer_bench.report.compare import compare
from mer_bench.report.external import counts, read_predictions, score
from mer_bench.report.page import page
from mer_bench.report.printed import choose, print_tables
from mer_bench.report.statistics import difference
from mer_bench.report.tables import tables
from mer_bench.splits import LabelledSplits

RUNS = [clustered(name, seed, hits) for name, hits in (("a", 8), ("b", 5)) for seed in range(3)]
WHOLE = Statement("audio: WavLM | vision: <b>CLIP</b>", 1_234_567, "https://example.org/net", "validation")


def made(name: str, seed: int = 0, statement: Statement = WHOLE, *, like: RunRecord = RUNS[0]) -> ExternalRecord:
    """Predictions made elsewhere that are those of a run."""
    spec = like.spec
    return ExternalRecord(
        ExternalSpec(name, spec.dataset, spec.label_set, spec.protocol, max(spec.fold, 1), seed),
        statement, like.classes, Protocol(1, "One split."), like.test_index, like.test_predictions,
        like.test_by_cluster or [like.test_confusion], None, "0.1.0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> list[RunRecord]:
    return [consistent(each) for each in RUNS]


@pytest.fixture(scope="module")
def whole(runs: list[RunRecord]) -> list[ExternalRecord]:
    return [made("MyNet", seed, like=runs[seed]) for seed in range(3)]


def test_predictions_that_are_added_score_in_their_row_as_they_did_alone(
    root: Path,
    corpus: LabelledSplits,  # noqa: F811
    call: Call,
    tmp_path: Path,
) -> None:
    for seed in range(3):
        for each in recorded(root, guesses(corpus, 7 + seed, 0.4), "theirs", seed):
            write_record(each, tmp_path / "r")
    lines = [{**line, "seed": seed} for seed in range(3) for line in guesses(corpus, seed)]
    path = write(tmp_path / "p.csv", lines)
    where = ["--dataset", RAVDESS, "--data", root, "--results", tmp_path / "r"]
    added = call("score", path, *where, "--add", "MyNet", "--features", "audio: WavLM", "--selected-on", "validation")
    assert (added.code, added.err.count("18 records of MyNet")) == (0, 1)
    records, problems = load_external(tmp_path / "r")
    assert problems == []
    (table,) = tables(load_records(tmp_path / "r")[0], records)
    (row,) = table.external
    predictions = read_predictions(path, corpus)
    assert (row.counts == counts(predictions, corpus)).all()
    assert (row.complete, row.lacks) == (3, [])
    found = score(predictions, corpus, table.records, ["theirs"]).against[0].difference
    assert table.against_best[row][0].effect == pytest.approx(found.effect)
    assert table.against_best[row][0].p == pytest.approx(found.p, abs=0.01)
    again = call("score", path, *where, "--add", "MyNet", "--features", "audio: WavLM", "--selected-on", "validation")
    assert again.code == 0, "the same predictions may be added again"


def test_a_file_may_have_one_fold_and_one_seed(
    root: Path,
    corpus: LabelledSplits,  # noqa: F811
    call: Call,
    tmp_path: Path,
) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(8), 720)
    lines = [
        {**line, **{f"p_{name}": value for name, value in zip(corpus.classes, row, strict=True)}}
        for line, row in zip(guesses(corpus, 0), p, strict=True)
    ]
    path = write(tmp_path / "p.csv", [line for line in lines if line["fold"] == 2])
    where = ["--dataset", RAVDESS, "--data", root, "--results", tmp_path / "r"]
    assert call("score", path, *where, "--fold", "2", "--seed", "5", "--add", "MyNet").code == 0
    ((record,), _) = load_external(tmp_path / "r")
    assert (record.spec.fold, record.spec.seed, record.protocol.folds) == (2, 5, 6)
    assert record.statement == Statement()
    assert record.test_index == corpus.folds[2]["test"].tolist()
    one = score(read_predictions(path, corpus.only([2])), corpus.only([2])).probability_scores
    assert record.probability_scores == {name: pytest.approx(float(values[0])) for name, values in one.items()}
    assert "has the folds 1, 2, 3, 4, 5, 6, not 7" in call("score", path, *where, "--fold", "7").err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--add", "CFN-SR"], "'CFN-SR' is the built-in method cfn_sr"),
        (["--add", "Early_Concat"], "'Early_Concat' is the built-in method early_concat"),
        (["--add", "../x"], "the name given by --add '../x' must be a name of at most 100 letters"),
        (["--add", ""], "the name given by --add '' must be a name"),
        (["--add", "n", "--selected-on", "test"], "--selected-on takes validation alone, not 'test'"),
        (["--add", "n", "--url", "javascript:x"], "url must be an address that begins with http:// or https://"),
        (["--add", "n", "--features", "a\x1b[2J"], "features must be one line of text"),
        (["--add", "n", "--parameters", "-1"], "parameters must be"),
        (["--features", "audio"], "describe the row of --add NAME"),
        (["--add", "n", "--seed", "-1"], "spec.seed must be"),
    ],
)
def test_what_cannot_be_added_is_one_sentence_and_writes_nothing(
    root: Path,
    corpus: LabelledSplits,  # noqa: F811
    call: Call,
    tmp_path: Path,
    options: list[str],
    part: str,
) -> None:
    path = write(tmp_path / "p.csv", guesses(corpus, 0))
    said = call("score", path, "--dataset", RAVDESS, "--data", root, "--results", tmp_path / "r", *options)
    assert said.code == 2
    assert part in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_seed_is_given_once(root: Path, corpus: LabelledSplits, tmp_path: Path) -> None:  # noqa: F811
    path = write(tmp_path / "p.csv", [{**line, "seed": 0} for line in guesses(corpus, 0)])
    with pytest.raises(Misuse, match="has a column seed, so --seed cannot name another"):
        read_predictions(path, corpus, 1)


def test_what_a_name_has_is_never_replaced(tmp_path: Path) -> None:
    first = external("MyNet", selected_on="validation")
    (path,) = write_external([first], tmp_path)
    before = path.read_bytes()
    other = replace(first, test_predictions=[1, 0, 1])
    with pytest.raises(Misuse, match=r"'MyNet' has other predictions for fold 1 and seed 0 in .*: take another name"):
        write_external([external("MyNet", 1, selected_on="validation"), other], tmp_path)
    with pytest.raises(Misuse, match="another statement of features, parameters, address or selection"):
        write_external([external("MyNet", 1)], tmp_path)
    assert [each.read_bytes() for each in tmp_path.rglob("*.json")] == [before]
    assert len(write_external([external("MyNet", 1, selected_on="validation")], tmp_path)) == 1


def test_names_that_differ_in_a_colon_have_files_of_their_own(tmp_path: Path) -> None:
    write_external([external("a:b")], tmp_path)
    write_external([external("a.b")], tmp_path)
    records, problems = load_external(tmp_path)
    assert ({record.spec.name for record in records}, problems) == ({"a:b", "a.b"}, [])
    assert load_records(tmp_path) == ([], []), "no record of a run is there"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"test_predictions": [0, 1, 0]}, "test_by_cluster does not count test_predictions"),
        ({"test_predictions": [0, 1, 2]}, "names a class that does not exist"),
        ({"test_index": [0, 2, 1]}, "test_index does not ascend"),
        ({"test_index": [0, 2]}, "count different numbers of utterances"),
        ({"classes": ["sad", "sad"]}, "a class occurs twice"),
        ({"test_by_cluster": [[[1, 1], [0, 1]], [[0, 0], [0, 0]]]}, "has no utterance"),
        ({"test_by_cluster": []}, "does not have 2 rows and columns"),
        ({"version": "9"}, "was changed after it was written"),
        ({"sha256": None}, "was changed after it was written"),
        ({"rank": 1}, "unknown key in"),
        ({"spec": {"fold": 2}}, "holds other predictions than its path says"),
        ({"spec": {"name": "../x"}}, "spec.name must be a name"),
        ({"spec": {"name": "cfn_sr"}}, "than its path says"),
        ({"statement": {"selected_on": "test"}}, "statement.selected_on must be 'validation', not 'test'"),
        ({"protocol": {"folds": 0}}, "protocol.folds must be"),
    ],
)
def test_an_edited_external_record_is_left_out_with_one_sentence(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    (path,) = write_external([external("MyNet")], tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None or key != "sha256"}))
    records, (problem,) = load_external(tmp_path)
    assert records == []
    assert part in problem
    with pytest.raises(Misuse):
        read_external(path)


def test_a_built_in_name_is_refused_in_files_too(tmp_path: Path) -> None:
    record = external("cfn_sr")
    path = record.spec.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(record)), encoding="utf-8")
    assert "is the built-in method cfn_sr" in load_external(tmp_path)[1][0]


def test_a_page_without_predictions_made_elsewhere_says_nothing_of_them(
    runs: list[RunRecord], whole: list[ExternalRecord]
) -> None:
    plain = report.leaderboard(runs, [])
    assert report.leaderboard(runs, [], external=[]) == plain
    shown = report.leaderboard(runs, [], external=whole)
    start, end = shown.index("## Predictions made elsewhere"), shown.index("## Rows and their options")
    assert shown[:start] + shown[end:] == plain, "and no row of the table changes"
    assert "▷" not in plain
    assert "made elsewhere" not in page(runs, published=[]).lower()


def test_they_stand_below_the_table_with_their_statement_and_never_in_it(
    runs: list[RunRecord], whole: list[ExternalRecord]
) -> None:
    (table,) = tables(runs, whole)
    (row,) = table.external
    assert row not in table.rows
    assert set(table.ranks) == set(table.rows)
    shown = report.leaderboard(runs, [], external=whole)
    ranking, block = shown.split("## Predictions made elsewhere")
    assert "MyNet" not in ranking
    assert "so they have no rank in it" in " ".join(block.split())
    assert "| MyNet ▷        | audio: WavLM \\| vision: &lt;b>CLIP&lt;/b> |" in block
    assert "1,234,567" in block
    assert "+0.0 (" in block, "against the row that made the same predictions"
    text = page(runs, published=[], external=whole)
    assert "MyNet ▷" in text
    assert "&lt;b&gt;CLIP&lt;/b&gt;" in text
    assert "<b>CLIP" not in text


@pytest.mark.parametrize(
    ("seeds", "statement", "folds", "lacks"),
    [
        (3, WHOLE, 1, []),
        (2, WHOLE, 1, ["2 of 3 seeds with all folds"]),
        (3, replace(WHOLE, selected_on=None), 1, ["no statement of selection on validation"]),
        (1, Statement(), 1, ["1 of 3 seeds with all folds", "no statement of selection on validation"]),
        (3, WHOLE, 2, ["0 of 1 seeds with all folds"]),  # no row of the table has a complete seed
    ],
)
def test_a_place_needs_every_fold_as_many_seeds_as_the_rows_and_the_statement(
    runs: list[RunRecord], seeds: int, statement: Statement, folds: int, lacks: list[str]
) -> None:
    protocol = Protocol(folds, "Some folds.")
    records = [made("MyNet", seed, statement, like=runs[seed]) for seed in range(seeds)]
    (table,) = tables([replace(each, protocol=protocol) for each in runs], records)
    (row,) = table.external
    assert row.lacks == lacks
    block = report.leaderboard([replace(each, protocol=protocol) for each in runs], [], external=records)
    block = block.split("## Predictions")[1]
    (line,) = (line for line in block.splitlines() if line.startswith("|") and "MyNet" in line)
    assert line.split("|")[1].strip() == ("–" if lacks else "1")
    assert (f"MyNet ▷ has no place: {'; '.join(lacks)}." in block) == bool(lacks)


@pytest.mark.parametrize(("seeds", "of_rows", "said"), [(3, 3, "p "), (2, 3, "two seeds"), (3, 1, "–")])
def test_of_few_seeds_nothing_is_said_against_the_best_row(
    runs: list[RunRecord], seeds: int, of_rows: int, said: str
) -> None:
    beside = [made("MyNet", seed, like=runs[seed]) for seed in range(seeds)]
    (table,) = tables([each for each in runs if each.spec.seed < of_rows], beside)
    (row,) = table.external
    assert (row in table.against_best) == (said == "p ")
    head, cells = elsewhere.lines(table)
    assert said in cells[head.index("Against the best row")]


def test_rows_with_a_place_come_first_and_best_first(runs: list[RunRecord]) -> None:
    good = [made("Good", seed, like=runs[seed]) for seed in range(3)]
    bad = [made("Bad", seed, like=runs[3 + seed]) for seed in range(3)]
    best = [made("Unstated", seed, Statement(), like=runs[seed]) for seed in range(3)]
    (table,) = tables(runs, [*best, *bad, *good])
    assert [row.method for row in table.external] == ["Good", "Bad", "Unstated"]
    (other,) = tables(runs, [*good, *best, *bad][::-1])
    assert report.leaderboard(runs, [], external=[*good, *best, *bad]) == report.leaderboard(
        runs[::-1], [], external=[*bad, *best, *good]
    )
    assert [row.method for row in other.external] == ["Good", "Bad", "Unstated"]


def test_predictions_for_other_utterances_are_beside_no_table(runs: list[RunRecord], tmp_path: Path) -> None:
    for each in runs:
        write_record(each, tmp_path)
    shifted = made("Shifted", like=replace(runs[0], test_index=[index + 1 for index in runs[0].test_index]))
    (table,) = tables(runs, [shifted])
    assert table.external == []
    write_external([shifted], tmp_path)
    problems = load(tmp_path).problems
    assert ["the predictions of Shifted are beside no table: there are no records on" in one for one in problems] == [
        True
    ]


def test_every_format_has_them(runs: list[RunRecord], whole: list[ExternalRecord], tmp_path: Path) -> None:
    chosen = choose(runs, whole)
    assert "| MyNet ▷ " in print_tables(chosen, "markdown")
    latex = print_tables(chosen, "latex")
    assert r"MyNet $\triangleright$ & audio: WavLM \textbar{} vision:" in latex
    assert latex.count("begin{tabular}") == 2
    rows = list(csv.DictReader(print_tables(chosen, "csv").splitlines()))
    (mine,) = (row for row in rows if row["Provenance"] == "external")
    assert (mine["Rank"], mine["Method, code name"], mine["Seeds"]) == ("", "MyNet", "3")
    (table,) = json.loads(print_tables(chosen, "json"))
    assert [row["Method, code name"] for row in table["external"]] == ["MyNet"]
    assert "MyNet" not in str(table["rows"])
    for each in runs:
        write_record(each, tmp_path)
    write_external(whole, tmp_path)
    found = mer_bench.load_tables(tmp_path).set_index("method")
    assert found.loc["MyNet", "provenance"] == "external"
    assert found["rank"].isna()["MyNet"]
    assert found.loc["MyNet", "stated_features"] == WHOLE.features
    assert found.loc["MyNet", "weighted_f1"] == found.loc["a", "weighted_f1"]
    assert found.loc["MyNet", "low"] == pytest.approx(found.loc["a", "low"], abs=0.02)


def test_they_can_be_compared_with_a_method(runs: list[RunRecord], whole: list[ExternalRecord]) -> None:
    (found,) = compare(runs, "MyNet", "b", external=whole)
    (table,) = tables(runs, whole)
    b = next(row for row in table.rows if row.method == "b")
    assert found.difference == difference(table.external_evidence[table.external[0]], table.evidence[b])
    with pytest.raises(Misuse, match="did you mean 'MyNet'"):
        compare(runs, "MyNt", "b", external=whole)
