"""The table "Balance": methods trained with a strategy beside the same without one, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pages as report
import pytest
from test_leaderboard import clustered, line, score_rows

from mer_bench.metrics import weighted_f1
from mer_bench.records import RunRecord, Training
from mer_bench.report.across import across, ranked
from mer_bench.report.balance import balance_lines, balance_notes
from mer_bench.report.compare import compare
from mer_bench.report.statistics import difference, holm
from mer_bench.report.tables import tables

NAMES = ("text", "audio", "vision")


def runs(method: str, hits: int, balance: str = "none", *, seeds: int = 5, **spec: object) -> list[RunRecord]:
    training = Training(balance=balance)
    return [clustered(method, seed, hits, training=training, **spec) for seed in range(seeds)]  # type: ignore[arg-type]


def right(count: int) -> list[list[int]]:
    """A matrix of twelve utterances of two classes, of which ``count`` of the first are right."""
    return [[count, 8 - count], [0, 4]]


def measured(record: RunRecord, by_subset: dict[str, int]) -> RunRecord:
    """The record with robustness and gradients, of classes happy and sad."""
    *_, last = by_subset.values()
    return replace(
        record, classes=("happy", "sad"), test_confusion=right(last), test_by_cluster=None,
        robustness={"only": {level: right(count) for level, count in by_subset.items()}},
        curve=[{}, {}], gradients={"text": [4.0, 2.0], "audio": [1.0, 0.5], "vision": [0.0, 0.3]},
    )  # fmt: skip


RECORDS = [
    *runs("early_concat", 6), *runs("early_concat", 9, "agm"), *runs("early_concat", 3, "ogm_ge"),
    *runs("tmc", 7), *runs("tmc", 7, "agm"), *runs("gated", 5), *runs("simbamm", 9, "agm"),
]  # fmt: skip


def test_rows_with_a_strategy_stand_beside_the_same_without_and_are_never_ranked() -> None:
    (table,) = tables(RECORDS)
    # of simbamm there is no row without a strategy, so that it is a row like any other, and says what it is
    assert [row.label for row in table.rows] == ['simbamm (balance="agm")', "tmc", "early_concat", "gated"]
    pairs = {(row.label, of.label) for row, of in table.strategies.items()}
    assert pairs == {
        ('early_concat (balance="agm")', "early_concat"), ('early_concat (balance="ogm_ge")', "early_concat"),
        ('tmc (balance="agm")', "tmc"),
    }  # fmt: skip
    page = report.leaderboard(RECORDS, [])
    names = [row[1].split(" `")[0] for row in score_rows(page)]
    assert names == ['simbamm (balance="agm") ¹', "tmc", "early_concat", "gated"]
    assert "- ¹ Trained with balance agm instead of none." in page


def test_effects_are_paired_with_the_plain_row_and_corrected_over_all_rows_of_the_table() -> None:
    (table,) = tables(RECORDS)
    rows = list(table.strategies)
    found = [difference(table.strategy_evidence[row], table.evidence[table.strategies[row]]) for row in rows]
    assert [table.strategy_effects[row] for row in rows] == list(
        zip(found, holm([one.p for one in found]), strict=True)
    )
    effect = {row.label: one.effect for row, (one, _) in table.strategy_effects.items()}
    assert effect['early_concat (balance="agm")'] == pytest.approx(
        next(r for r in rows if r.label == 'early_concat (balance="agm")').weighted_f1
        - next(r for r in table.rows if r.label == "early_concat").weighted_f1
    )
    lines = balance_lines(table)
    assert [each[:2] for each in lines] == [
        ("Balance", "Strategy"), ("TMC", "none"), ("", "agm"),
        ("Early concatenation", "none"), ("", "agm"), ("", "ogm_ge"),
    ]  # fmt: skip
    assert lines[1][3:6] == ("", "", "")
    assert lines[2][3].endswith("≈")
    assert lines[4][3].startswith("+")
    assert lines[5][3].startswith("-")
    assert {len(each) for each in lines} == {6 + 3 * 2 + 1}


def test_of_strategies_with_fewer_than_three_seeds_it_is_not_said_whether_they_help() -> None:
    few = [one for one in RECORDS if one.spec.training.balance == "none" or one.spec.seed < 2]
    (table,) = tables(few)
    assert table.strategies
    assert not table.strategy_effects
    assert [each[3:6] for each in balance_lines(table) if each[1] in ("agm", "ogm_ge")] == [("two seeds", "–", "–")] * 3
    page = report.leaderboard(few, [])
    assert line(page, "- `agm` changes weighted F1").endswith("; whether it helps or harms needs 3 seeds.")
    assert "is shown to help" not in page


def test_one_sentence_for_each_strategy_says_whom_it_helps() -> None:
    page = report.leaderboard(RECORDS, [])
    agm, ogm = line(page, "- `agm` changes weighted F1"), line(page, "- `ogm_ge` changes weighted F1")
    name = tables(RECORDS)[0].rows[2].name
    assert f"of 2 methods it is shown to help 1 ({name}) and to harm none." in agm.replace("\\", "")
    assert f"of 1 method it is shown to help none and to harm 1 ({name})." in ogm.replace("\\", "")


def test_a_page_without_strategies_says_nothing_of_them() -> None:
    plain = [each for each in RECORDS if each.spec.training.balance == "none"]
    assert "alance" not in report.leaderboard(plain, [])
    (table,) = tables(plain)
    assert (balance_lines(table), list(balance_notes(table)), table.strategies) == ([], [], {})


def test_no_other_table_takes_a_row_with_a_strategy_for_the_method() -> None:
    better = [*runs("a", 5), *runs("a", 9, "agm"), *runs("b", 6), *runs("c", 7), *runs("c", 9, "mmpareto")]
    (found,) = compare(better, "a", "b")
    assert found.first.spec.training.balance == "none"  # type: ignore[union-attr]
    assert found.difference is not None
    assert found.difference.effect < 0
    (found,) = compare(better, 'a (balance="agm")', "a")
    assert found.difference is not None
    assert found.difference.effect > 0.2
    (part,) = across(map(ranked, tables(better)))
    assert set(part.methods) == {"a", "b", "c"}
    three = [*runs("a", 5), *runs("a", 9, "agm", options={"hidden": 8}), *runs("b", 6), *runs("c", 7)]
    rows = tables(three)[0].rows  # the row with a strategy has other options than the plain one
    assert [row.label for row in rows] == ['a (hidden=8, balance="agm")', "c", "b", "a"]
    assert compare(three, "a", "b")[0].first.spec.training.balance == "none"  # type: ignore[union-attr]


def test_scores_shapley_shares_and_gradient_ratios_are_those_of_the_records() -> None:
    by_subset = {"text": 6, "audio": 3, "vision": 4, "audio+text": 7, "text+vision": 6, "audio+vision": 5, "all": 8}
    record = clustered("early_concat", 0, 5, modalities=NAMES, sets=dict(zip(NAMES, "abc", strict=True)))
    other = replace(record, spec=replace(record.spec, training=Training(balance="agm")))
    (table,) = tables([measured(record, by_subset), measured(other, by_subset)])
    (row,) = table.rows
    values = {frozenset(k.split("+")): float(weighted_f1(np.array(right(n)))) for k, n in by_subset.items()}
    values[frozenset(NAMES)] = float(weighted_f1(np.array(right(8))))
    values[frozenset()] = float(weighted_f1(np.array([[8, 0], [4, 0]])))  # the most frequent class
    assert row.subset_scores is not None
    assert {frozenset(k): v for k, v in row.subset_scores.items()} == pytest.approx(
        {k: v for k, v in values.items() if "all" not in k}
    )
    gained = values[frozenset(NAMES)] - values[frozenset()]
    expected = {}
    for name in NAMES:
        heads = [frozenset(order[: order.index(name)]) for order in permutations(NAMES)]
        expected[name] = float(np.mean([values[head | {name}] - values[head] for head in heads])) / gained
    assert row.shapley == pytest.approx(expected)
    assert sum(expected.values()) == pytest.approx(1)
    assert row.gradient_ratios == pytest.approx({"text": 1.0, "audio": 0.25, "vision": 0.05})
    head, plain, _ = balance_lines(table)
    assert head[6:15] == tuple(f"{what} {name}" for what in ("F1 with", "Shapley", "Gradient") for name in NAMES)
    assert plain[6:9] == tuple(f"{100 * values[frozenset([name])]:.1f}" for name in NAMES)
    assert plain[9:12] == tuple(f"{100 * expected[name]:.0f} %" for name in NAMES)
    assert plain[12:15] == ("1.00", "0.25", "0.05")


def test_what_was_not_measured_is_a_dash() -> None:
    (table,) = tables([*runs("tmc", 7), *runs("tmc", 7, "agm")])
    assert {each[6:12] for each in balance_lines(table)[1:]} == {("–",) * 6}
    (row,) = table.rows
    assert (row.subset_scores, row.shapley, row.gradient_ratios) == (None, None, None)


def test_the_html_report_has_the_same_cells() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from mer_bench.report.page import page

    text = page(RECORDS, published=[])
    (table,) = tables(RECORDS)
    assert "whether a strategy helps that keeps one modality from dominating" in text
    for each in balance_lines(table)[1:]:
        assert each[2] in text
    assert "shown to help 1" in text
    assert "keeps one modality from dominating" not in page(runs("tmc", 7), published=[])


def test_a_row_without_robustness_of_all_folds_has_no_scores_inside() -> None:
    record = clustered("tmc", 0, 7)
    partial = replace(record, robustness={"only": {"text": record.test_confusion}})
    (row,) = tables([partial])[0].rows
    assert row.subset_scores is None
