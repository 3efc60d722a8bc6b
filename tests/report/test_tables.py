"""Rows and statistics of a table: which runs are a row, what is compared, and which p-values are corrected."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pages as report
import pytest
from test_compare import record
from test_leaderboard import cells, clustered, line, make, score_rows
from test_plots import ERRORS, over_tables

from mer_bench.exposure import Exposure
from mer_bench.metrics import SCORES
from mer_bench.records import Efficiency, FeatureFacts, Protocol, RunRecord, Training
from mer_bench.report.across import across, ranked
from mer_bench.report.columns import NAMED, print_table
from mer_bench.report.compare import claims, compare, describe
from mer_bench.report.rows import ResultRow
from mer_bench.report.statistics import difference
from mer_bench.report.table_page import ablation_lines
from mer_bench.report.tables import Table, best_single, gain, headlines, tables


def run(method: str, hits: int, *, seeds: int = 3, **spec: object) -> list[RunRecord]:
    """Runs of a method that is right in about ``hits`` of 10 utterances of each dialogue."""
    return [clustered(method, seed, hits, **spec) for seed in range(seeds)]  # type: ignore[arg-type]


def by_method(table: Table) -> dict[str, ResultRow]:
    return {row.method: row for row in table.rows}


def holm_by_hand(p_values: Sequence[float]) -> list[float]:
    """The smallest of n p-values times n, the next times n - 1 ..., none below one before it, and none above 1."""
    order, found, before = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        before = max(before, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = before
    return found


# What is compared


FOUR = [*run("a", 8), *run("b", 7), *run("c", 6), *run("d", 6)]


def test_every_page_prints_p_values_that_are_corrected_for_the_number_of_rows() -> None:
    (table,) = tables(FOUR)
    best, *others = table.ranks
    assert [row.method for row in (best, *others)] == ["a", "b", "d", "c"]
    raw = [difference(table.evidence[best], table.evidence[row]).p for row in others]
    corrected = holm_by_hand(raw)
    assert list(table.behind) == others
    assert [p for _, p in table.behind.values()] == pytest.approx(corrected)
    # the last is significant by itself, and not among three
    assert raw[2] < 0.05 < corrected[2]
    assert corrected[1] < 0.05
    assert [table.tied(row) for row in others] == [True, False, True]

    found = [NAMED["Behind the best"].cell(table, row) for row in others]
    assert [cell.tip.splitlines()[1] for cell in found] == [f"Holm-corrected p = {p:.3f}" for p in corrected]
    assert [cell.text.endswith("≈") for cell in found] == [True, False, True]
    head, _, *lines = csv.reader(print_table(table, "csv").splitlines())
    column = head.index("Behind the best, p")
    assert [float(each[column]) for each in lines] == pytest.approx(corrected, abs=1e-4)
    assert [row[5].endswith("≈") for row in score_rows(report.leaderboard(FOUR))] == [False, True, False, True]


def test_of_a_row_with_fewer_than_three_seeds_neither_is_said() -> None:
    records = [*run("a", 8), *run("b", 7), *run("c", 2, seeds=2), *run("d", 2, seeds=1), *run("e", 2)]
    (table,) = tables(records)
    row = by_method(table)
    assert table.best is row["a"]
    assert [each.method for each in table.behind] == ["b", "e"]
    assert [table.tied(row[name]) for name in "abcde"] == [True, True, None, None, False]
    # the family of tests is that of the rows that are tested
    raw = [difference(table.evidence[row["a"]], table.evidence[row[name]]).p for name in "be"]
    assert [p for _, p in table.behind.values()] == pytest.approx(holm_by_hand(raw))
    cell = {name: NAMED["Behind the best"].cell(table, row[name]) for name in "abcde"}
    assert (cell["c"].text, cell["d"].text) == ("two seeds", "one seed")
    assert [(cell[name].value, cell[name].more) for name in "cd"] == [(None, {})] * 2
    assert not cell["e"].text.endswith("≈")
    # two rows may be anywhere, so that the last of the others may have rank 3
    assert [NAMED["Ranks"].cell(table, row[name]).text for name in "abcde"] == ["1-4", "1-4", "–", "–", "3-5"]
    page = report.leaderboard(records)
    assert "With fewer than 3 seeds no row is said to be behind the best or tied with it.\n" in page
    bold = print_table(table, bold=True)
    assert bold.count("**") == 2 * 2  # a and b
    (head, *lines) = csv.reader(print_table(table, "csv").splitlines())
    at = head.index("Behind the best, tied")
    assert {line[head.index("Method, code name")]: line[at] for line in lines} == {
        "a": "yes", "b": "yes", "c": "", "d": "", "e": "no"
    }  # fmt: skip


def test_where_the_best_row_has_fewer_than_three_seeds_nothing_is_said_of_any() -> None:
    records = [*run("a", 9, seeds=2), *run("b", 5), *run("c", 2)]
    (table,) = tables(records)
    row = by_method(table)
    assert not table.behind
    assert [table.tied(row[name]) for name in "abc"] == [None, None, None]
    assert [NAMED["Behind the best"].cell(table, row[name]).text for name in "abc"] == ["two seeds", "–", "–"]
    # ranks are those among the rows that are tested, and the third may be better or worse than each
    assert [NAMED["Ranks"].cell(table, row[name]).text for name in "abc"] == ["–", "1-2", "2-3"]
    page = report.leaderboard(records)
    assert "≈ marks rows that are tied" not in page
    assert " No row is said to be behind the best or tied with it: the best row, a, has two seeds.\n" in page
    assert "**" not in print_table(table, bold=True)


def test_ablations_and_claims_of_one_seed_are_neither_equal_nor_different() -> None:
    part = {"options": {"residual": False}}
    records = [*run("cfn_sr", 7), *run("cfn_sr", 7, seeds=1, **part), *run("early_concat", 3)]
    (table,) = tables(records)
    assert not table.ablation_effects
    assert ablation_lines(table)[-1][3] == "one seed"
    lines = [cells(text) for text in claims(tables(records)).splitlines()[2:]]
    assert [each[-2:] for each in lines] == [["< 0.001", "holds"]]
    one = [each for each in records if each.spec.method == "cfn_sr" or not each.spec.seed]
    lines = [cells(text) for text in claims(tables(one)).splitlines()[2:]]
    assert [each[-2:] for each in lines] == [["–", "one seed"]]
    assert lines[0][3].startswith("+")


def test_the_headline_of_a_table_counts_the_tied_rows() -> None:
    from mer_bench.report.page_data import headline

    (table,) = tables(FOUR)
    assert headline(table)["tied"] == "2 of 3"


def test_a_row_is_behind_by_the_points_that_the_best_one_has_more() -> None:
    (table,) = tables([*run("a", 8), *run("c", 4)])
    ((row, (found, _)),) = table.behind.items()
    assert row.method == "c"
    assert found.effect == pytest.approx(by_method(table)["a"].weighted_f1 - row.weighted_f1)
    assert 0 < found.low < found.effect < found.high


def test_seeds_of_different_rows_are_drawn_independently() -> None:
    """Otherwise two methods with equal counts would not differ by chance at all."""
    one = run("cfn_sr", 7)
    other = [replace(each, spec=replace(each.spec, method="lmf")) for each in one]
    part = [replace(each, spec=replace(each.spec, options={"residual": False})) for each in one]
    (table,) = tables([*one, *other, *part])
    ((_, (between, _)),) = table.behind.items()
    ((_, (against, _)),) = table.ablation_effects.items()
    for found in (between, against):
        assert found.effect == 0
        assert found.low < -0.001
        assert found.high > 0.001


def test_p_values_of_ablations_are_corrected_for_the_ablations_of_their_method() -> None:
    parts = ({"residual": False}, {"self_attention": False}, {"cross_modal": False})
    several = [each for hits, part in zip((7, 6, 5), parts, strict=True) for each in run("cfn_sr", hits, options=part)]
    records = [*run("cfn_sr", 7), *several, *run("tacfn", 8), *run("tacfn", 7, options={"residual": False})]
    (table,) = tables(records)
    whole = by_method(table)
    for method, count in (("cfn_sr", 3), ("tacfn", 1)):
        rows = [row for row, of in table.ablations.items() if of is whole[method]]
        assert len(rows) == count
        found = [difference(table.ablation_evidence[row], table.evidence[whole[method]]) for row in rows]
        corrected = holm_by_hand([one.p for one in found])
        assert [table.ablation_effects[row][1] for row in rows] == pytest.approx(corrected)
        assert [table.ablation_effects[row][0].effect for row in rows] == pytest.approx(
            [row.weighted_f1 - whole[method].weighted_f1 for row in rows]
        )


def test_p_values_of_claims_are_corrected_for_the_number_of_claims() -> None:
    methods = {"unimodal": 6, "early_concat": 6, "cfn_sr": 7, "tacfn": 8}
    records = [
        each
        for name, hits in methods.items()
        for each in run(name, hits, modalities=("text",) * (name == "unimodal") or ("audio", "text"))
    ]
    lines = [cells(text) for text in claims(tables(records)).splitlines()[2:]]
    raw = []
    for first, second in (
        ("early_concat", "unimodal"),
        ("cfn_sr", "early_concat"),
        ("tacfn", "early_concat"),
        ("tacfn", "cfn_sr"),
    ):
        (found,) = compare(records, first, second)
        assert found.difference is not None
        raw.append(found.difference.p)
    corrected = holm_by_hand(raw)
    assert [each[5] for each in lines] == [f"{p:.3f}" for p in corrected]
    assert raw[3] < 0.05 < corrected[3]
    assert [each[-1] for each in lines] == ["not shown", "not shown", "holds", "not shown"]


def test_an_ablation_with_another_training_is_no_ablation_of_the_row() -> None:
    records = [*run("cfn_sr", 7), *run("cfn_sr", 6, options={"residual": False}, training=Training(epochs=3))]
    (table,) = tables(records)
    assert len(table.rows) == 2
    assert not table.ablations


def test_where_all_rows_read_the_one_modality_none_is_a_fusion() -> None:
    text = ("text",)
    (table,) = tables([*run("bc_lstm", 8, modalities=text), *run("unimodal", 6, modalities=text)])
    assert [row.method for row in table.ranks] == ["bc_lstm"]
    assert gain(table) is None
    assert best_single(table) is table.rows[0]


# Which runs are a row


def test_one_method_with_two_training_recipes_is_two_rows() -> None:
    long = Training(epochs=50)
    records = [
        make("lmf", seed, hits=hits, training=training)
        for seed in range(2)
        for hits, training in ((12, Training()), (21, long))
    ]
    (table,) = tables(records)
    assert [(row.spec.training.epochs, row.complete, row.score("accuracy")) for row in table.rows] == [
        (50, 2, "70.00 ± 0.00"), (30, 2, "40.00 ± 0.00")
    ]  # fmt: skip
    assert [row[4] for row in score_rows(report.leaderboard(records))] == ["70.00 ± 0.00", "40.00 ± 0.00"]


def test_the_newest_version_counts_wherever_its_record_stands() -> None:
    records = [make("a", hits=15, version=2), make("a", hits=30), make("b", hits=3)]
    for order in (records, records[::-1]):
        assert {row[1]: row[4] for row in score_rows(report.leaderboard(order))} == {"a": "50.00", "b": "10.00"}


def test_rows_of_equal_scores_are_in_the_order_of_their_labels() -> None:
    names = [f"m{number}" for number in range(8)]
    found = [*(make(name, hits=12) for name in names), *(make("m3", hits=12, options={"k": k}) for k in (2, 1))]
    (table,) = tables(found)
    assert [row.label for row in table.rows] == sorted([*names, "m3 (k=1)", "m3 (k=2)"])
    assert list(table.ranks.values()) == list(range(1, 11))


@pytest.mark.parametrize(
    "other", [{"compile": True}, {"num_nodes": 2}, {"devices": 2}, {"devices": 2, "compile": True}]
)
def test_of_equal_runs_the_one_on_the_fewest_devices_and_uncompiled_counts(other: dict[str, object]) -> None:
    records = [make("a", fold=fold, protocol="p", hits=hits, **each)  # type: ignore[arg-type]
               for fold in range(8) for hits, each in ((15, {}), (30, other))]  # fmt: skip
    (row,) = score_rows(report.leaderboard(records))
    assert row[4] == "50.00"  # in each of eight folds, so that it is no accident of the order of hashes


def test_seeds_and_folds_of_a_row_ascend() -> None:
    """Clusters of different rows then stand side by side, whatever the hashes of their runs."""
    records = [clustered("a", seed, 7, fold=fold, protocol="p") for seed in range(3) for fold in range(4)]
    ((row,),) = [table.rows for table in tables(records)]
    found = [(seed, [each.spec.fold for each in folds]) for seed, folds in row.seeds.items()]
    assert found == [(seed, [0, 1, 2, 3]) for seed in range(3)]
    assert row.counts is not None
    for seed in range(3):
        clusters = [each for run in records[4 * seed : 4 * seed + 4] for each in run.test_by_cluster or []]
        np.testing.assert_array_equal(row.counts[seed], clusters)


# What was measured of a row


def test_what_remains_is_the_ratio_of_the_means_over_seeds() -> None:
    def matrix(hits: int) -> list[list[int]]:
        return [[hits, 30 - hits, 0], [0, 0, 0], [0, 0, 0]]

    pairs = ((30, 6), (12, 12))  # hits without and with the disturbance
    (table,) = tables([
        replace(make("a", seed, hits=before), robustness={"noise": {"0": matrix(after)}})
        for seed, (before, after) in enumerate(pairs)
    ])  # fmt: skip
    score = SCORES["weighted_f1"]
    before, after = (np.mean([score(np.array(matrix(pair[index]))) for pair in pairs]) for index in (0, 1))
    retention = table.rows[0].retention
    assert retention is not None
    assert retention.shares["noise", "0"] == pytest.approx(float(after / before))


def test_the_best_test_epoch_is_that_of_the_best_weighted_f1() -> None:
    accurate = [[0, 10, 0], [0, 20, 0], [0, 0, 0]]  # the larger class alone: accuracy 67, weighted F1 53
    balanced = [[9, 1, 0], [10, 10, 0], [0, 0, 0]]  # accuracy 63, weighted F1 64
    (table,) = tables([replace(make("a", confusion=accurate), literature=[accurate, balanced])])
    found = table.rows[0].test_selection
    assert found is not None
    assert found.best.tolist() == [SCORES["weighted_f1"](np.array(balanced))]


def test_costs_are_medians_over_the_runs() -> None:
    def timed(seed: int, factor: float) -> RunRecord:
        times = Efficiency("X", 1, 0.001, 1, 0.01 * factor, 32)
        run = replace(make("a", seed), flops_per_utterance=int(1e6 * factor), peak_memory_mib=10.0 * factor)
        return replace(run, efficiency=times, seconds=factor)

    (table,) = tables([timed(seed, factor) for seed, factor in enumerate((1, 2, 6, 9))])
    (row,) = table.rows
    assert (row.flops, row.memory) == (4e6, 40)
    assert row.cost is not None
    assert row.cost.throughput == pytest.approx((32 / 0.02 + 32 / 0.06) / 2)
    assert NAMED["Rank"].cell(table, row).text == "1"


# Side by side and over tables


@pytest.mark.parametrize("method", ["b", "c", "d", "e"])
def test_of_equally_frequent_predictions_that_of_the_lowest_seed_counts(tmp_path: Path, method: str) -> None:
    for wrong, count in (([3, 4], 2), ([], 0)):  # of the first seed; the second is wrong where the first is not
        other = [row for row in (3, 4) if row not in wrong]
        runs = [*(record("a", seed, []) for seed in range(2)), record(method, 0, wrong), record(method, 1, other)]
        (found,) = compare(runs, "a", method)
        assert f"they differ on {count} of 60 utterances" in describe(found, tmp_path, 0)


def test_gains_by_class_are_means_over_seeds(tmp_path: Path) -> None:
    def lopsided(seed: int) -> RunRecord:
        return make(
            "b", seed, confusion=[[20, 10, 0], [0, 30, 0], [0, 0, 0]] if seed else [[5, 25, 0], [0, 30, 0], [0, 0, 0]]
        )

    records = [
        *(make("a", seed, confusion=[[30, 0, 0], [0, 30, 0], [0, 0, 0]]) for seed in range(2)),
        *map(lopsided, range(2)),
    ]
    (found,) = compare(records, "a", "b")
    expected = 100 * np.mean([2 * 20 / (2 * 20 + 10), 2 * 5 / (2 * 5 + 25)])
    gains = cells(line(describe(found, tmp_path, 0), "| angry"))
    assert gains[1:] == ["100.0", f"{expected:.1f}", f"{100 - expected:+.1f}"]


def test_the_row_of_a_method_over_tables_is_the_one_with_most_seeds_on_all_modalities() -> None:
    def scores(records: list[RunRecord]) -> dict[str, float]:
        (found,) = across(map(ranked, tables(records)))
        assert found.test is not None
        return dict(zip(found.methods, found.test.ranks, strict=True))

    plain = over_tables(ERRORS)
    usual = scores(plain)
    # the best of all by far, with as many seeds and a later label, is another row of d: it does not count
    other = [replace(each, spec=replace(each.spec, options={"hidden": 9})) for each in over_tables({"d": [0, 0, 0]})]
    assert scores([*plain, *other]) == usual
    # with one seed more it does
    more = [*other, *(replace(each, spec=replace(each.spec, seed=3)) for each in other)]
    assert scores([*plain, *more])["d"] == 1
    # a row of d on two of three modalities never does
    three, two = (
        [with_features(each, names) for each in runs]
        for runs, names in ((plain, ("text", "audio", "vision")), (more, ("text", "audio")))
    )
    assert scores([*three, *two]) == usual


def test_claims_and_comparisons_over_tables_read_one_protocol_of_a_corpus() -> None:
    other = ("iemocap", "four", "loso")
    known = [
        ("iemocap", "six", "session5"),
        other,
        ("ravdess", "eight", "folds6"),
        ("lab", "a", "x"),
        ("lab", "b", "x"),
    ]
    assert headlines(known) == set(known) - {other}
    assert headlines([*known, ("iemocap", "six", "loso")]) == {*known[2:], ("iemocap", "six", "loso")}
    assert headlines([("iemocap", "six", "unknown"), other]) == {("iemocap", "six", "unknown")}


def test_an_actor_that_two_folds_test_is_one_cluster_of_a_row() -> None:
    one = run("a", 7, seeds=1)[0]
    protocol = Protocol(2, "Two sentences.", "actors", folds_per_cluster=2)
    both = [replace(one, spec=replace(one.spec, fold=fold), protocol=protocol) for fold in (1, 2)]
    ((row,),) = (table.rows for table in tables(both))
    assert one.clusters is not None
    assert row.counts is not None
    assert row.counts.tolist() == [(2 * one.clusters).tolist()]


def with_features(run: RunRecord, modalities: Sequence[str]) -> RunRecord:
    """The run on the feature set of its text in each of the modalities."""
    name = run.spec.features["text"]
    chosen = dict.fromkeys(modalities, name)
    return replace(run, spec=replace(run.spec, features=chosen, features_sha256=chosen))


# What extractors saw


def exposed(records: Sequence[RunRecord], kind: str, modality: str = "text") -> list[RunRecord]:
    """The records with a statement about the extractor of one of their modalities, where they have it."""
    statement = Exposure(kind, "somebody said so")  # type: ignore[arg-type]

    def stated(record: RunRecord) -> dict[str, FeatureFacts]:
        return {
            name: replace(facts, exposure=statement) if name == modality else facts
            for name, facts in record.features.items()
        }

    return [replace(record, features=stated(record)) for record in records]


def both(kind: str) -> list[RunRecord]:
    """Methods on text, audio and vision, on audio and vision, and on each alone; a statement about the text."""
    sets = {"audio": "mfcc", "text": "minilm", "vision": "faces"}
    found = [make(name, seed, modalities=("audio", "text", "vision"), sets=sets) for name in "abc" for seed in range(3)]
    found += [make(name, seed, modalities=("audio", "vision"), sets=sets) for name in "abc" for seed in range(3)]
    found += [make("unimodal", seed, modalities=(name,), sets=sets) for name in sets for seed in range(3)]
    return exposed(found, kind)


def test_features_that_saw_labels_are_in_no_table_with_features_that_did_not() -> None:
    (together,) = tables(both("unlabelled"))
    assert len(together.rows) == 9
    assert not together.saw_labels
    assert "labels" not in together.title
    apart = {frozenset(modality for modality, *_ in table.features): table for table in tables(both("labels"))}
    assert set(apart) == {frozenset({"audio", "vision"}), frozenset({"audio", "text", "vision"})}
    for features, table in apart.items():
        assert table.saw_labels == ("text" in features)
        assert table.saw_labels == table.title.endswith(", features that saw its labels")
        assert {"text" in row.modalities for row in table.rows} == {table.saw_labels}
    assert {row.modalities for row in apart[frozenset({"audio", "vision"})].rows if row.alone} == {
        ("audio",),
        ("vision",),
    }
    page = report.leaderboard(both("labels"))
    assert "text: saw labels of this corpus (somebody said so)" in line(page, "What the extractors", "saw labels")
    assert page.count("the table is ranked beside no other, and in no claim") == 1


def test_one_statement_that_labels_were_seen_is_enough() -> None:
    found = both("none")
    assert not any(table.saw_labels for table in tables(found))
    (first,) = exposed(found[:1], "labels")
    assert sum(table.saw_labels for table in tables([first, *found[1:]])) == 1
    assert sum(table.saw_labels for table in tables([*found[1:], first])) == 1


def test_tables_whose_features_saw_labels_are_in_no_claim_and_in_no_test_over_tables() -> None:
    records = [*run("early_concat", 8), *run("unimodal", 6)]
    assert len(claims(tables(records)).splitlines()) > 2
    assert len(claims(tables(exposed(records, "labels"))).splitlines()) == 2
    assert [len(ranked(table).scores) for table in tables(FOUR)] == [4]
    assert [len(ranked(table).scores) for table in tables(exposed(FOUR, "labels"))] == [0]


def validated(records: Sequence[RunRecord], hits: int, of: int = 10) -> list[RunRecord]:
    """The records with a validation on which ``hits`` of ``of`` utterances of each class are right."""
    matrix = [[(hits, of - hits, 0)[(found - true) % 3] for found in range(3)] for true in range(3)]
    return [replace(record, validation_confusion=matrix) for record in records]


def test_a_validation_far_above_test_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    same, near, far = (tables([*validated(run("a", 6), hits), *run("b", 5)])[0] for hits in (7, 8, 10))
    row = by_method(far)["a"]
    assert row.validation_f1 == 1.0
    assert far.far_above == {row: 1 - row.weighted_f1}
    assert same.far_above == {}
    best = by_method(near)["a"]
    assert near.evidence[best].interval[1] < 0.8
    assert 0.09 < (best.validation_f1 or 0) - best.weighted_f1 < 0.1
    assert near.far_above == {}  # above the interval, but by less than ten points
    with monkeypatch.context() as patch:
        patch.setattr("mer_bench.report.tables.FAR", 0.0)
        (within,) = tables([*validated(run("a", 6), 15, 20), *run("b", 5)])
        best = by_method(within)["a"]
        assert best.weighted_f1 < (best.validation_f1 or 0) < within.evidence[best].interval[1]
        assert within.far_above == {}  # within the interval
    page = report.leaderboard([*validated(run("a", 6), 10), *run("b", 5)])
    assert "in 1 of 2 rows" in line(page, "Warning: validation is far above test")
    assert "far above test" not in report.leaderboard([*validated(run("a", 6), 6), *run("b", 5)])
