"""The heat map of the diagnostic corpora and what parts add, from records whose scores are known by construction."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_compare import record

from mer_bench.fusion import METHODS
from mer_bench.modalities import MODALITIES
from mer_bench.records import RunRecord
from mer_bench.report.diagnostic import CORPORA, NOTHING, QUESTIONS, answers, collect, shares
from mer_bench.report.formatting import p_value, probability
from mer_bench.report.tables import tables
from mer_bench.training.suite import read_suite

#: of 60 utterances of three equal classes, 20 are right by chance and an ideal observer has 48, or 54 in dialogues
IDEAL = {"utterance": [4.0] * 12, "dialogue": [4.5] * 12}  # of five utterances in each of twelve dialogues


def run(
    method: str, corpus: str, right: int, *, seed: int = 0, track: str = "utterance", options: Any = (), size: int = 9
) -> RunRecord:
    made = record(method, seed, list(range(right, 60)))
    spec = replace(made.spec, dataset=f"simulated-{corpus}", protocol="independent", options=dict(options))
    return replace(
        made, spec=spec, simulated=True, context=track, ideal_by_cluster=IDEAL[track], parameters=size,
        provenance="reconstruction" if method == "sync_tva" else made.provenance,
    )  # fmt: skip


RECORDS = [
    *(run("majority", corpus, 20) for corpus in ("synergy", "redundant")),
    *(run("late_average", corpus, right) for corpus, right in (("synergy", 20), ("redundant", 48))),
    *(run("tensor_fusion", corpus, right) for corpus, right in (("synergy", 41), ("redundant", 45))),
    *(run("unimodal", corpus, right) for corpus, right in (("synergy", 17), ("redundant", 48))),
    run("sync_tva", "redundant", 54, track="dialogue", options={"hidden": 64}),
]


def test_lines_hold_shares_of_what_the_track_allows_best_mean_first() -> None:
    lines = collect(tables(RECORDS))
    assert [(line.row.method, line.track) for line in lines] == [
        ("tensor_fusion", "utterance"), ("late_average", "utterance"), ("unimodal", "utterance"),
        ("sync_tva", "dialogue"),
    ]  # fmt: skip
    by_name = {line.row.method: {name: each.share for name, each in line.shares.items()} for line in lines}
    assert by_name["late_average"] == pytest.approx({"redundant": 1, "synergy": 0})
    assert by_name["tensor_fusion"] == pytest.approx({"redundant": 25 / 28, "synergy": 21 / 28})
    assert by_name["unimodal"]["synergy"] == pytest.approx(-3 / 28)
    assert by_name["sync_tva"] == pytest.approx({"redundant": 1})  # the dialogue track allows 54
    assert lines[0].mean == pytest.approx((25 + 21) / 2 / 28)  # every corpus has the same weight


def test_the_table_has_the_corpora_in_their_order_and_a_mean_where_none_is_absent() -> None:
    lines = [re.split(r" *\| *", line)[1:-1] for line in shares(tables(RECORDS)).splitlines()]
    assert lines[0] == ["Method", "Track", "redundant", "synergy", "mean"]
    fused, deep = (next(line for line in lines if line[0].startswith(name)) for name in ("TFN", "Sync-TVA"))
    assert [re.sub(r" \(.*", "", cell) for cell in fused] == ["TFN `tensor_fusion`", "utterance", "89", "75", "82"]
    assert [deep[0], deep[-2:]] == ["Sync-TVA `sync_tva` (hidden=64) †", ["–", "–"]]
    share, low, high = map(int, re.findall(r"-?\d+", fused[3]))
    assert low < share < high
    # of several rows of a method, only those on most corpora are in the table
    ablation = run("tensor_fusion", "synergy", 60, options={"hidden": 3})
    assert shares(tables([*RECORDS, ablation])) == shares(tables(RECORDS))


def test_other_corpora_do_not_enter() -> None:
    real = [replace(one, simulated=False) for one in RECORDS]
    namesake = [replace(one, spec=replace(one.spec, protocol="official")) for one in RECORDS]
    for records in (real, namesake, []):
        assert shares(tables(records)) == answers(tables(records)) == NOTHING


def test_a_part_adds_the_difference_between_the_rows_with_and_without_it() -> None:
    base = {"hidden": 64, "layers": 1}
    made = [
        one
        for seed in range(3)
        for one in (
            run("sync_tva", "context", 48, seed=seed, track="dialogue", options=base, size=1200),
            run("sync_tva", "context", 30, seed=seed, track="dialogue", options={**base, "graph": "none"}, size=900),
            run("sync_tva", "context", 48, seed=seed, track="dialogue", options={**base, "graph": "within"}),
        )
    ]  # fmt: skip
    lines = [re.split(r" *\| *", line)[1:-1] for line in answers(tables(made)).splitlines()]
    graphs, across = lines[2:]
    assert graphs[:2] == ["Sync-TVA's graphs", "context"]
    gain, (low, high), p = float(graphs[4]), map(float, graphs[5].split(" to ")), float(graphs[6])
    assert gain == pytest.approx(float(graphs[2].split()[0]) - float(graphs[3].split()[0]), abs=0.1)
    assert 0 < low < gain < high
    assert p < 0.05
    assert graphs[7] == "+300"
    assert across[:2] == ["their edges across modalities", "context"]
    assert (across[4], float(across[6])) == ("+0.0", 1.0)
    two = [re.split(r" *\| *", line)[1:-1] for line in answers(tables(made[:6])).splitlines()]
    assert [line[6] for line in two[2:]] == ["two seeds"] * 2


def test_the_suites_run_every_method_and_all_that_questions_ask_about() -> None:
    suites = {path.stem: read_suite(path) for path in Path(__file__).parents[2].glob("benchmarks/diagnostic*.toml")}
    assert {row.method for row in suites["diagnostic"].rows} == set(METHODS)
    assert [name.removeprefix("simulated-") for name in suites["diagnostic"].datasets] == list(CORPORA)
    rows = [row for suite in suites.values() for row in suite.rows]
    for question in QUESTIONS:
        training = []
        for variant in (question.whole, question.without):
            found = [
                row
                for row in rows
                if row.method == variant.method
                and set(row.features) == set(variant.modalities or MODALITIES)
                and variant.options.items() <= row.options.items()
            ]
            assert found, variant
            training.append(found[0].training)
        assert training[0] == training[1], question


def test_the_picture_has_every_number_and_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mer_bench.report import plots

    assert plots.diagnostic([]) is None
    for name, records in (("first", RECORDS), ("second", RECORDS[::-1])):
        made = plots.write(records, tmp_path / name)
        assert [path.name for path in made] == ["diagnostic.svg"]  # one for all of these tables
    first = (tmp_path / "first" / "diagnostic.svg").read_text(encoding="utf-8")
    assert first == (tmp_path / "second" / "diagnostic.svg").read_text(encoding="utf-8")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", first)
    cells = [text for text in texts if re.fullmatch(r"[-−]?\d+|–", text)]
    assert cells == ["89", "75", "100", "0", "100", "-11", "100", "–"]
    assert {"TFN", "Sync-TVA", "redundant", "synergy"} <= set(texts)


def test_a_small_p_value_is_never_written_as_zero() -> None:
    written = [(probability(p), p_value(p)) for p in (0.0004, 0.001, 0.0234)]
    assert written == [("< 0.001", "p < 0.001"), ("0.001", "p = 0.001"), ("0.023", "p = 0.023")]
