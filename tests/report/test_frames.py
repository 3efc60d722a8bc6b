"""The tables as a DataFrame: what the leaderboard prints, as numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import consistent
from test_groups import grouped, rated
from test_leaderboard import clustered

import mer_bench
from mer_bench.records import load_records, write_record
from mer_bench.report.frames import COLUMNS, GROUP_COLUMNS
from mer_bench.report.tables import tables


def test_the_rows_are_ranked_as_in_the_leaderboard(tmp_path: Path) -> None:
    made = [clustered(name, seed, hits) for name, hits in (("a", 9), ("b", 9), ("c", 2)) for seed in range(3)]
    for each in (*made, clustered("majority", 0, 1, modalities=("text",))):
        write_record(consistent(each), tmp_path)
    found, (table,) = mer_bench.load_tables(tmp_path), tables(load_records(tmp_path)[0])
    assert list(found["method"]) == [row.method for row in table.rows]
    assert list(found["rank"].fillna(0)) == [table.ranks.get(row, 0) for row in table.rows]
    assert list(found["weighted_f1"]) == [row.weighted_f1 for row in table.rows]
    by_method = found.set_index("method")
    for row in table.rows:
        one = by_method.loc[row.method]
        if row in table.evidence:
            assert (one["low"], one["high"]) == table.evidence[row].interval
        if row in table.behind:
            assert (one["behind"], one["behind_p"]) == (table.behind[row][0].effect, table.behind[row][1])
    assert dict(by_method["tied"].dropna()) == {"a": True, "b": True, "c": False}
    assert by_method["tied"].isna()["majority"]
    assert by_method[["rank_low", "rank_high"]].dropna().to_numpy().tolist() == [[1, 2], [1, 2], [3, 3]]
    assert by_method["rank_low"].isna()["majority"]
    assert by_method["behind"].isna()[found["method"][0]]
    assert by_method.loc["a", "weighted_f1_sd"] > 0
    assert (by_method.loc["a", "table"], by_method.loc["a", "seeds"]) == (1, 3)
    assert set(COLUMNS) - {f"{name}_sd" for name in ("macro_f1", "uar")} <= set(
        mer_bench.load_tables.__doc__.replace(",", " ").split()
    )


def test_rows_with_fewer_than_three_seeds_are_neither_tied_nor_behind(tmp_path: Path) -> None:
    for name, hits, seeds in (("a", 9, 3), ("b", 7, 2), ("c", 2, 3)):
        for seed in range(seeds):
            write_record(consistent(clustered(name, seed, hits)), tmp_path)
    found = mer_bench.load_tables(tmp_path).set_index("method")
    assert dict(found["tied"].dropna()) == {"a": True, "c": False}
    assert found.loc["b", ["behind", "behind_low", "behind_high", "behind_p", "rank_low"]].isna().all()
    assert found.loc["b", "rank"] == 2


def test_without_records_the_columns_have_their_types(tmp_path: Path) -> None:
    found = mer_bench.load_tables(tmp_path)
    assert found.dtypes.astype(str).to_dict() == {name: kind for name, (kind, _) in COLUMNS.items()}
    with pytest.raises(mer_bench.Misuse, match="no folder of records"):
        mer_bench.load_tables(tmp_path / "nowhere")
    groups = mer_bench.load_groups(tmp_path)
    assert groups.dtypes.astype(str).to_dict() == {name: kind for name, (kind, _) in GROUP_COLUMNS.items()}


def test_scores_of_groups_and_against_raters_are_those_of_the_rows(tmp_path: Path) -> None:
    for seed in range(3):
        write_record(consistent(rated(grouped("a", seed))), tmp_path)
        write_record(consistent(grouped("b", seed)), tmp_path)
    found, (table,) = mer_bench.load_groups(tmp_path), tables(load_records(tmp_path)[0])
    assert set(GROUP_COLUMNS) <= set(mer_bench.load_groups.__doc__.replace(",", " ").split())
    rows = {row.method: row for row in table.rows}
    assert len(found) == sum(len(each.names) for row in rows.values() for each in row.groups.values())
    for (method, kind), part in found.groupby(["method", "kind"]):
        scores = rows[method].groups[kind]
        assert tuple(part["group"]) == scores.names
        assert list(part["utterances"]) == list(scores.sizes)
        assert list(part["group_weighted_f1"]) == scores.scores.tolist()
        (worst,) = part[part["worst"]].to_dict("records")
        assert worst["group"] == scores.names[scores.worst]
        assert (worst["gap"], (worst["gap_low"], worst["gap_high"])) == (scores.gap, scores.interval)
        assert part[~part["worst"]]["gap"].isna().all()
    raters = mer_bench.load_tables(tmp_path).set_index("method")[["rater_cross_entropy", "rater_divergence"]]
    assert raters.loc["a"].tolist() == pytest.approx([0.8, 0.2])
    assert raters.loc["b"].isna().all()
