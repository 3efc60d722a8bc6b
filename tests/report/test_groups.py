"""Groups of test utterances, raters and temperatures in tables, and what is measured of corpora."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pages as report
import pandas as pd
import pytest
from test_columns import calibrated
from test_leaderboard import cells, line, make

from mer_bench.calibration import Scaled
from mer_bench.datasets import DATASETS
from mer_bench.groups import group_matrices, make_groups
from mer_bench.metrics import weighted_f1
from mer_bench.raters import RaterScores
from mer_bench.records import RunRecord
from mer_bench.report import statistics
from mer_bench.report.archive import make_kept, unpack
from mer_bench.report.columns import PAGE, columns, print_table
from mer_bench.report.groups import LEAST, group_scores
from mer_bench.report.measure import against_others, overlap, texts_of, words
from mer_bench.report.measured import Overlap, all_measured, rater_score
from mer_bench.report.soft import calibration_interval, mean_intervals, soft_scores
from mer_bench.report.tables import tables

CLASSES = 3


def grouped(
    method: str = "a", seed: int = 0, fold: int = 1, *, clusters: int = 24, behind: float = 0.3, **spec: Any
) -> RunRecord:
    """A run on dialogues of two speakers, one of whom is taken for the next class more often by ``behind``."""
    draw = np.random.default_rng([seed, fold, *method.encode()])
    cluster = np.repeat(np.arange(clusters), 10)
    fixed = np.random.default_rng(fold)  # labels and groups are those of the corpus
    true, speaker = fixed.integers(0, CLASSES, (len(cluster))), np.tile([0, 1], 5 * clusters)
    wrong = draw.random(len(cluster)) < 0.2 + behind * speaker
    predicted = np.where(wrong, (true + 1) % CLASSES, true)
    kinds = {
        "speaker": [f"Ses0{fold}{'FM'[each]}" for each in speaker],
        "gender": np.array(["female", "male"])[speaker].tolist(),
        "scene": np.where(cluster % 2, "scripted", "improvised").tolist(),
    }
    matrices = np.zeros((clusters, CLASSES, CLASSES), np.int64)
    np.add.at(matrices, (cluster, true, predicted), 1)
    made = make(method, seed, fold, confusion=matrices.sum(0).tolist(), **spec)
    groups = make_groups(kinds, cluster, true, predicted, CLASSES)
    return replace(made, test_by_cluster=matrices.tolist(), groups=groups)


def rated(record: RunRecord) -> RunRecord:
    """The record with scores against raters; on the utterances of one speaker all of them agree."""
    assert record.groups is not None
    assert record.clusters is not None
    sizes = record.clusters.sum((1, 2)).tolist()
    agreement = replace(record.groups["speaker"], names=["all", "most"])
    return replace(record, raters=RaterScores([80 * n for n in sizes], [20 * n for n in sizes], sizes, agreement))


def test_a_group_is_scored_by_its_own_utterances_pooled_over_folds() -> None:
    seeds = [[grouped(seed=seed, fold=fold) for fold in (1, 2)] for seed in range(3)]
    found = group_scores(seeds)
    assert list(found) == ["scene", "gender", "speaker"]
    assert found["speaker"].names == ("Ses01F", "Ses01M", "Ses02F", "Ses02M")
    assert found["speaker"].sizes == (120, 120, 120, 120)
    for kind, scores in found.items():
        total = np.array([sum(np.array(r.test_confusion) for r in folds) for folds in seeds])
        np.testing.assert_array_equal(scores.pooled.sum(0), total), kind
    gender, speaker = found["gender"], found["speaker"]
    np.testing.assert_array_equal(gender.pooled[1], speaker.pooled[1] + speaker.pooled[3])
    assert gender.names[gender.worst] == "male"
    expected = weighted_f1(gender.pooled[0]).mean() - weighted_f1(gender.pooled[1]).mean()
    assert gender.gap == pytest.approx(expected)
    rest = speaker.pooled.sum(0) - speaker.pooled[speaker.worst]
    assert speaker.gap == pytest.approx(weighted_f1(rest).mean() - speaker.scores[speaker.worst])


def test_the_interval_of_a_gap_is_the_bootstrap_over_clusters_crossed_with_seeds() -> None:
    runs = [grouped(seed=seed) for seed in range(3)]
    found = group_scores([[each] for each in runs])["gender"]
    clusters, seeds = (statistics._draws(n, statistics.RESAMPLES, stream) for n, stream in ((24, -1), (3, 0)))
    kept = [(each.groups or {}, each.clusters) for each in runs]
    counts = np.array(
        [[group_matrices(groups, "gender", name, each) for groups, each in kept] for name in found.names], float
    )
    values = []
    for draw in range(2000):
        pooled = np.tensordot(counts, clusters[:, draw], ([2], [0]))
        scores = weighted_f1(pooled) @ (seeds[:, draw] / seeds[:, draw].sum())
        values.append(scores[0] - scores[1])
    assert found.interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)
    low, high = found.interval or (0, 0)
    assert low < found.gap < high


def test_a_kind_that_splits_as_another_is_left_out_and_so_is_a_single_group() -> None:
    assert list(group_scores([[grouped()]])) == ["scene", "gender"]  # one session: the speakers are the genders
    one = grouped(clusters=1)
    assert list(group_scores([[one]])) == ["gender"]
    assert group_scores([]) == group_scores([[replace(one, groups=None)]]) == {}


def test_there_is_no_interval_where_a_group_is_in_few_clusters() -> None:
    for clusters, known in ((2 * LEAST, True), (2 * LEAST - 1, False)):
        found = group_scores([[grouped(clusters=clusters)]])
        assert (found["scene"].interval is not None) == known
        assert found["gender"].interval is not None


def test_tables_show_few_groups_each_and_the_worst_of_many() -> None:
    facts = {"dataset": "lab", "protocol": "loso"}
    records = [grouped("lmf", seed, fold, **facts) for seed in range(2) for fold in (1, 2)]
    (table,) = tables(records)
    page = report.leaderboard(records)
    head = cells(line(page, "| Groups "))
    assert head == [
        "Groups", "Modalities", "Improvised", "Scripted", "Gap by scene", "Female", "Male", "Gap by gender",
        "Worst speaker", "Gap by speaker",
    ]  # fmt: skip
    row = dict(zip(head, cells(page[page.index("| Groups ") :].splitlines()[2]), strict=True))
    (of,) = table.rows
    gender, speaker = of.groups["gender"], of.groups["speaker"]
    assert row["Male"] == f"{100 * gender.scores[1]:.1f}"
    low, high = gender.interval or (0, 0)
    assert row["Gap by gender"] == f"{100 * gender.gap:.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    assert row["Worst speaker"] == f"{100 * speaker.scores.min():.1f} ({speaker.names[speaker.worst]})"
    (body,) = csv.DictReader(print_table(table, "csv").splitlines())
    assert float(body["Gap by gender"]) == pytest.approx(100 * gender.gap, abs=1e-3)
    assert float(body["Gap by gender, lower end"]) == pytest.approx(100 * low, abs=1e-3)
    assert body["Gap by gender, group"] == "male"
    assert {"Improvised", "Worst speaker", "Gap by speaker"} <= {column.name for column in columns(table, PAGE)}
    without = [replace(record, groups=None) for record in records]
    assert "| Groups " not in report.leaderboard(without)


def test_kept_records_make_the_same_page() -> None:
    records = [calibrated(rated(grouped("lmf", seed, dataset="lab"))) for seed in range(2)]
    records = [replace(record, temperature=Scaled(2.0, record.calibration)) for record in records]
    assert report.leaderboard([unpack(make_kept(record)) for record in records]) == report.leaderboard(records)


def test_scores_against_raters_and_after_a_temperature_stand_below_the_table() -> None:
    records = [calibrated(rated(grouped("lmf", seed, dataset="lab"))) for seed in range(2)]
    records = [replace(record, temperature=Scaled(2.0, record.calibration)) for record in records]
    page = report.leaderboard(records)
    assert cells(line(page, "| Raters "))[2:] == [
        "Weighted F1", "Cross-entropy", "JS divergence", "All agree", "Most agree",
    ]  # fmt: skip
    body = cells(page[page.index("| Raters ") :].splitlines()[2])
    assert body[3:5] == ["0.800 (0.800 to 0.800)", "0.200 (0.200 to 0.200)"]
    assert "*One rater*" not in page
    assert cells(line(page, "| Temperature "))[2:] == [
        "NLL", "Brier", "ECE", "Temperature", "NLL at it", "Brier at it", "ECE at it",
    ]  # fmt: skip
    (table,) = tables(records)
    (row,) = table.rows
    low, high = row.probability_intervals["calibration_error"]
    assert row.probability_scores is not None
    assert low <= float(row.probability_scores.calibration_error.mean()) <= high
    assert soft_scores([[record] for record in records]) is not None


def test_no_run_against_raters_is_needed_for_the_score_of_one_rater() -> None:
    known = all_measured()["iemocap", "six", "session5"]
    assert known.rater is not None
    page = report.leaderboard([grouped("lmf", dataset="iemocap", label_set="six", protocol="session5")])
    one = cells(line(page, "| *One rater* "))
    assert one == ["*One rater*", "–", rater_score(known.rater)]
    scripted = known.texts["scripted"]
    assert f"{scripted.texts:,} scripted ones {100 * scripted.identical / scripted.texts:.0f} % identically" in page
    with_raters = report.leaderboard([rated(grouped("lmf", dataset="iemocap", label_set="six", protocol="session5"))])
    head, body = cells(line(with_raters, "| Raters ")), cells(line(with_raters, "| *One rater* "))
    assert dict(zip(head, body, strict=True))["Like one rater"] == one[2]


def test_what_is_printed_of_corpora_was_measured_for_all_their_labels_and_protocols() -> None:
    corpus = DATASETS["iemocap"]
    assert {key for key in all_measured() if key[0] == "iemocap"} == {
        ("iemocap", labels, protocol) for labels in corpus.label_sets for protocol in corpus.protocols
    }
    for each in all_measured().values():
        assert all(one.identical <= one.nearly <= one.texts for one in each.texts.values())
        assert each.rater is None or each.rater.low < each.rater.weighted_f1 < each.rater.high


# Texts


def test_words_have_neither_case_nor_punctuation() -> None:
    assert words("[LAUGHTER] Don't -- you, YOU... know?") == ("don't", "you", "you", "know")


def test_texts_of_few_words_do_not_count_and_nearly_is_by_shared_words() -> None:
    train = ["Do you have your forms here?", "one two three four", "a b c d e f g h i j"]
    assert overlap(["do you have your forms HERE", "one two three four"], train) == {
        "texts": 1, "identical": 1, "nearly": 1,
    }  # fmt: skip
    assert overlap(["a b c d e f g h"], train) == {"texts": 1, "identical": 0, "nearly": 1}  # 8 of 10
    assert overlap(["a b c d e f g h x"], train) == {"texts": 1, "identical": 0, "nearly": 0}  # 8 of 11
    assert overlap(["j i h g f e d c b a"], train) == {"texts": 1, "identical": 0, "nearly": 1}
    assert overlap(["words of another kind altogether"], train) == {"texts": 1, "identical": 0, "nearly": 0}


def test_overlap_is_counted_by_scene_over_folds() -> None:
    text = ["five words that all say", "one two three four five", "five words that all say", "six seven eight nine ten"]
    table, scene = pd.DataFrame({"text": text}), ["scripted", "improvised"] * 2
    splits = [{"test": np.array([0, 1]), "train": np.array([2, 3])}, {"test": np.array([2, 3]), "train": np.array([0])}]
    folds: Any = [SimpleNamespace(table=table, rows=rows, groups=lambda table: {"scene": scene}) for rows in splits]
    assert texts_of(folds) == {"scripted": Overlap(2, 2, 2), "improvised": Overlap(2, 0, 0)}


# One rater


def test_one_rater_answers_where_the_others_agree() -> None:
    ratings = {
        "u0": {"E1": ["neu"], "E2": ["neu"], "E3": ["neu"]},  # three right answers
        "u1": {"E1": ["neu"], "E2": ["neu"], "E3": ["fru"]},  # one wrong answer: of the two others no class has more
        "u2": {"E1": ["fru"], "E2": ["fru"], "E3": ["sur"]},  # one wrong answer, outside of the classes
        "u3": {"E1": ["sur"], "E2": ["sur"], "E3": ["fru"]},  # none: the others agree on what is no class
        "u4": {"E1": ["neu"], "E2": ["neu"], "E3": ["neu", "fru"]},  # half right, and two others who prefer neu
        "u5": {"E1": ["neu"]},  # none: there is no other
    }
    corpus: Any = SimpleNamespace(ratings=ratings, class_of={"neu": 0, "fru": 1}, num_classes=2)
    counts, met = against_others(corpus, list(ratings), np.array([0, 0, 0, 1, 1, 1]))
    assert met.tolist() == [3, 1, 1, 0, 3, 0]
    assert (counts / 60).tolist() == [[[3, 1, 0], [0, 0, 1], [0, 0, 0]], [[2.5, 0.5, 0], [0, 0, 0], [0, 0, 0]]]


# Intervals of probabilities


def test_the_interval_of_a_mean_is_that_of_its_clusters() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(1, 0.5, (200, 10)) + draw.normal(0, 0.5, (200, 1))
    hundredths = np.rint(100 * values.sum(1)).astype(np.int64)
    ((low, high),) = np.array(mean_intervals(hundredths[None, None], np.full(200, 10))) / 100
    deviation = values.mean(1).std(ddof=1) / np.sqrt(200)
    assert (high - low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.05)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.01)


def test_the_interval_of_the_calibration_error_holds_the_true_one_where_resampling_alone_would_not() -> None:
    """A true error of 0.04 in each of 15 bins, 24 clusters of 40 utterances: the plain percentiles lie above it."""
    draw, bins, held, plain = np.random.default_rng(0), 15, 0, 0
    for _ in range(150):
        bin_, shift = draw.integers(0, bins, (24, 40)), draw.normal(0, 0.05, (24, 1))
        confidence = 0.2 + 0.05 * bin_
        right = draw.random((24, 40)) < confidence + 0.04 * np.where(bin_ % 2, 1, -1) + shift
        gaps = np.stack([np.bincount(b, r - c, bins) for b, r, c in zip(bin_, right, confidence, strict=True)])
        sizes = np.full(24, 40)
        score = float(np.abs(gaps.sum(0)).sum() / sizes.sum())
        tenths = np.rint(10 * gaps).astype(np.int64)
        low, high = calibration_interval(tenths[None], sizes, score, resamples=400)
        held += low <= 0.04 <= high
        plain += 2 * score - high <= 0.04 <= 2 * score - low
    assert held >= 0.9 * 150
    assert plain < 0.6 * 150
