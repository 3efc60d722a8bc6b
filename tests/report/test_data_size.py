"""The table "Training data": rows on a share of the data stand beside those on all, and are never ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pages as report
import pytest
from test_leaderboard import clustered, score_rows

from mer_bench.records import RunRecord
from mer_bench.report.across import ranked
from mer_bench.report.data_size import data_size_lines, data_size_notes, learning_curves
from mer_bench.report.statistics import difference
from mer_bench.report.tables import tables


def runs(method: str, hits: int, share: float = 1.0, seeds: int = 3) -> list[RunRecord]:
    made = [clustered(method, seed, hits, share=share) for seed in range(seeds)]
    return [replace(each, rows={**each.rows, "train": round(900 * share)}) for each in made]


RECORDS = [
    *runs("early_concat", 6), *runs("early_concat", 5, 0.5), *runs("early_concat", 3, 0.1),
    *runs("gated", 8), *runs("gated", 9, 0.5), *runs("tmc", 7), *runs("mult", 9, 0.25),
]  # fmt: skip


def test_rows_on_a_share_are_in_no_ranking_and_facts_count_all_data() -> None:
    (table,) = tables(RECORDS)
    assert [row.label for row in table.rows] == ["gated", "tmc", "early_concat"]
    assert {row.label: of and of.label for row, of in table.reduced.items()} == {
        "early_concat (share=0.5)": "early_concat", "early_concat (share=0.1)": "early_concat",
        "gated (share=0.5)": "gated", "mult (share=0.25)": None,
    }  # fmt: skip
    assert len(table.ranks) == 3
    assert not any("share" in str(entry) for entry in vars(ranked(table)).values())
    page = report.leaderboard(RECORDS, [])
    assert [row[0] for row in score_rows(page)] == ["1", "2", "3"]
    assert "train 900, " in page


def test_the_table_has_each_share_with_its_utterances_and_its_difference_from_all_data() -> None:
    (table,) = tables(RECORDS)
    head, *lines = data_size_lines(table)
    assert head[2:5] == ("Share", "Utterances", "Weighted F1")
    assert [(line[0], line[2], line[3], line[-1]) for line in lines] == [
        ("GMU", "50 %", "450", "3"), ("", "100 %", "900", "3"),
        ("Early concatenation", "10 %", "90", "3"), ("", "50 %", "450", "3"), ("", "100 %", "900", "3"),
        ("MulT", "25 %", "225", "3"),
    ]  # fmt: skip
    small, whole = learning_curves(table)[1][0], learning_curves(table)[1][-1]
    lost = difference(table.reduced_evidence[small], table.evidence[whole])
    assert lines[2][6] == f"{100 * lost.effect:+.1f}"
    assert lost.high < 0
    assert lines[4][6:8] == ("", "")  # all data, against which the others are compared
    assert lines[5][6:8] == ("–", "–")  # there is no such row
    (note,) = data_size_notes(table)
    assert "Never ranked" in note
    assert note in report.leaderboard(RECORDS, [])


def test_without_a_share_there_is_no_such_table_and_the_page_is_as_before() -> None:
    full = [record for record in RECORDS if record.spec.share == 1]
    (table,) = tables(full)
    assert (data_size_lines(table), list(data_size_notes(table))) == ([], [])
    assert "Training data" not in report.leaderboard(full, [])


def test_where_no_run_had_all_data_the_rows_stand_in_without_a_rank() -> None:
    (table,) = tables(runs("gated", 8, 0.5))
    assert [(row.label, row.ranked) for row in table.rows] == [("gated (share=0.5)", False)]
    assert table.best is None
    assert "gated" in report.leaderboard(runs("gated", 8, 0.5), [])


def test_the_picture_has_a_curve_for_each_method_with_its_utterances(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mer_bench.report import plots

    made = {path.name: path for path in plots.write(RECORDS, tmp_path)}
    (name,) = [name for name in made if name.endswith("-data-size.svg")]
    text = made[name].read_text(encoding="utf-8")
    assert all(f">{each}<" in text for each in ("GMU", "Early concatenation", "90", "225", "450", "900"))
    assert not any(name.endswith("-data-size.svg") for name in (p.name for p in plots.write(runs("tmc", 7), tmp_path)))
