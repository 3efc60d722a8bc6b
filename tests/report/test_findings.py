"""The tables of docs/findings.md, on records whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_leaderboard import clustered

from mer_bench.records import RunRecord
from mer_bench.report import findings
from mer_bench.report.tables import real_tables, tables


def runs(method: str, hits: int, *, seeds: int = 3, **spec: object) -> list[RunRecord]:
    return [clustered(method, seed, hits, **spec) for seed in range(seeds)]  # type: ignore[arg-type]


def cells(text: str) -> list[list[str]]:
    """The lines of a Markdown table below its head."""
    return [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines()[2:]]


RECORDS = [
    *runs("tensor_fusion", 9),
    *runs("mmtm", 5),
    *runs("early_concat", 7),
    *runs("linear", 6),
    *runs("unimodal", 4, modalities=("text",)),
]


def test_fusion_is_compared_with_the_best_single_modality_and_with_the_linear_model() -> None:
    ((_, _, best, single, gain, linear, over, above),) = cells(findings.fusion(tables(RECORDS)))
    assert best.startswith("TFN, ")
    assert single.startswith("Single modality, text, ")
    assert linear.startswith("Linear, ")
    assert float(gain.split()[0]) > float(over.split()[0]) > 0
    assert above == "2 of 3"  # MMTM is below it
    alone = [*runs("tensor_fusion", 9, modalities=("text",)), *runs("mmtm", 5, modalities=("text",))]
    assert findings.fusion(tables(alone)) == findings.NOTHING  # nothing is fused


def test_methods_that_are_shown_to_be_ahead_of_a_simple_one_or_behind_it_are_counted() -> None:
    ((_, _, simple, ahead, behind, open_, *_),) = cells(findings.simple(tables(RECORDS)))
    assert simple.startswith("Early concatenation, ")
    assert (ahead, behind, open_) == ("1", "1", "0")
    same = [*runs("tensor_fusion", 7), *runs("early_concat", 7)]
    assert cells(findings.simple(tables(same)))[0][3:6] == ["0", "0", "1"]


def test_the_answers_in_short_are_those_of_the_tables() -> None:
    part = runs("cfn_sr", 5, options={"cross_modal": False})
    lines = findings.short(tables([*RECORDS, *runs("cfn_sr", 7), *part])).splitlines()
    assert lines == [
        "- The best fusion is shown to beat the best single modality in 1 of 1 tables.",
        "- The best fusion is shown to beat the linear model in 1 of 1 tables.",
        "- Of 3 comparisons with a simple method of the same table, 1 show a method to be better, 1 to be worse, and 1 "
        "nothing.",
        "- 1 of 4 ranked rows are tied with the best one of their table.",
        "- 1 of 1 ablations of the three papers' methods are shown to be worse than the whole.",
    ]
    assert findings.short(tables([each for each in RECORDS if each.spec.seed == 0])) == findings.NOTHING


def test_rows_with_few_seeds_say_so_and_decide_nothing() -> None:
    few = [record for record in RECORDS if record.spec.seed == 0]
    assert cells(findings.fusion(tables(few)))[0][4].endswith(", one seed")
    assert findings.simple(tables(few)) == findings.order(tables(few)) == findings.NOTHING


def test_ties_and_ranks_of_a_table_stand_in_one_line() -> None:
    ((_, _, tied, ranks, deviation, width, smallest),) = cells(findings.order(tables(RECORDS)))
    assert tied == "1 of 3"
    assert float(ranks) == 1
    assert min(float(each) for each in (deviation, width, smallest)) > 0


def test_parts_without_which_a_method_is_shown_to_be_worse_are_counted() -> None:
    part = [*runs("cfn_sr", 5, options={"cross_modal": False}), *runs("cfn_sr", 9, options={"residual": False})]
    found = tables([*runs("cfn_sr", 9), *part])
    ((_, _, whole, count, mean, _, shown),) = cells(findings.parts(found))
    assert whole.startswith("CFN-SR, ")
    assert (count, shown) == ("2", "1 worse, 0 better")
    assert float(mean) < 0
    one = [record for table in found for record in table.records if record.spec.seed == 0]
    assert cells(findings.parts(tables(one)))[0][-1] == "one seed"


def test_the_best_test_epoch_adds_what_the_records_hold() -> None:
    better = [[60, 60, 0], [0, 0, 0], [0, 0, 0]]
    best = [[100, 20, 0], [0, 0, 0], [0, 0, 0]]
    measured = [replace(each, test_confusion=better, literature=[better, best]) for each in runs("mmtm", 5)]
    ((_, _, rows, mean, _),) = cells(findings.selection(tables(measured)))
    assert rows == "1"
    assert float(mean) == pytest.approx(100 * (2 * 100 / 220 - 2 * 60 / 180), abs=0.05)


def test_the_effort_is_the_sum_of_the_seconds_of_all_runs() -> None:
    records = [replace(each, seconds=1800.0) for each in RECORDS]
    *_, (_, _, seeds, count, hours), total = cells(findings.effort(records))
    assert (seeds, count, hours) == ("3", "15", "7.5")
    assert total[3:] == ["15", "7.5"]


def test_tables_that_saw_labels_and_simulated_ones_answer_nothing() -> None:
    simulated = [replace(each, simulated=True) for each in RECORDS]
    assert real_tables(tables(simulated)) == []
    assert findings.tuned(tables(RECORDS)) == findings.raters(tables(RECORDS)) == findings.NOTHING
