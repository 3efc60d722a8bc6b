"""Intervals cover the truth, and equal methods are found different, as often as their level states."""

from __future__ import annotations

import numpy as np
import pytest
import simulate

from mer_bench.metrics import SCORES
from mer_bench.report import statistics
from mer_bench.report.statistics import (
    Counts,
    Evidence,
    attained,
    difference,
    friedman,
    holm,
    paired_p_values,
    rank_intervals,
    resample,
)

CLASSES = 4
NOISE = simulate.Noise(0.3, 0.15)


def world(clusters: int, seeds: int, methods: int, generator: np.random.Generator) -> list[Counts]:
    """Methods of equal quality on the same test set of four classes."""
    return simulate.world(seeds, [0.0] * methods, generator, noise=NOISE, clusters=clusters, classes=CLASSES)


@pytest.mark.parametrize(("clusters", "seeds"), [(31, 5), (24, 3)])
def test_equal_methods_differ_in_about_five_percent_of_draws(clusters: int, seeds: int) -> None:
    generator, draws = np.random.default_rng(0), 400
    rejected = 0
    for _ in range(draws):
        a, b = world(clusters, seeds, 2, generator)
        found = difference(resample(a, stream=0, resamples=400), resample(b, stream=1, resamples=400))
        rejected += found.p < 0.05
    assert 0.02 <= rejected / draws <= 0.085  # 5 % within three standard errors


@pytest.mark.parametrize(("noise", "most"), [("utterance", 0.06), ("dialogue", 0.14)])
def test_holm_finds_a_row_behind_among_equal_methods_about_as_often_as_the_docs_say(noise: str, most: float) -> None:
    """The table of docs/protocol.md with fewer draws; the bounds fail without the correction."""
    two, ten = simulate.simulate((2, 10), 3, 120, 600, noise=noise, unequal=False)
    assert two.behind / two.draws <= most
    assert ten.behind / ten.draws <= most
    assert ten.uncorrected / ten.draws > 2 * most
    assert ten.equal / ten.draws / ten.rows >= 0.95  # intervals that hold all ranks


def test_intervals_of_ranks_hold_the_true_rank_of_unequal_methods_and_are_narrow() -> None:
    (ten,) = simulate.simulate((10,), 5, 50, 600)
    assert ten.unequal / ten.draws / ten.rows >= 0.95
    assert ten.width / ten.draws / ten.rows < 5  # of ten ranks


def test_with_one_seed_equal_methods_seem_to_be_behind_so_that_nothing_is_said() -> None:
    (ten,) = simulate.simulate((10,), 1, 60, 600, unequal=False)
    assert ten.behind / ten.draws > 0.2


def test_p_values_of_all_pairs_are_those_of_each_pair() -> None:
    methods = simulate.evidence(simulate.world(3, (0.4, 0.0, 0.0, -0.4), np.random.default_rng(12)), 300)
    p = paired_p_values(methods)
    for i, j in ((0, 1), (2, 1), (3, 0), (1, 3)):
        assert p[i, j] == p[j, i] == difference(methods[i], methods[j]).p
    assert (p.diagonal() == 1).all()
    (other,) = simulate.evidence(simulate.world(3, [0.0], np.random.default_rng(13)), 300)
    with pytest.raises(ValueError, match="not tested on the same utterances"):
        paired_p_values([*methods, other])


def test_an_interval_of_ranks_leaves_out_the_rows_shown_to_be_better_or_worse() -> None:
    """Three groups of two methods that are as good as equal, far from the next group."""
    generator, support = np.random.default_rng(14), np.ones((1, CLASSES), np.int64)
    scores = (0.90, 0.90, 0.60, 0.60, 0.30, 0.30)
    methods = [Evidence(score, score + generator.normal(0, 0.01, 2_000), support) for score in scores]
    assert rank_intervals(methods) == [(1, 2), (1, 2), (3, 4), (3, 4), (5, 6), (5, 6)]
    # of two ranked rows that are not tested, nothing is shown: they may stand anywhere
    assert rank_intervals(methods, 8) == [(1, 4), (1, 4), (3, 6), (3, 6), (5, 8), (5, 8)]
    assert rank_intervals(methods[:1]) == [(1, 1)]
    assert rank_intervals([]) == []


def test_intervals_of_ranks_are_corrected_for_the_other_rows_of_each_row() -> None:
    """A difference with a p-value of about 0.02 is shown between two rows, and not among four that are nearly equal."""
    generator, support = np.random.default_rng(15), np.ones((1, CLASSES), np.int64)
    scores = (0.0, -3.3, -1.5, -1.5)
    methods = [Evidence(score, score + generator.normal(0, 1, 4_000), support) for score in scores]
    assert 0.05 / 3 < paired_p_values(methods)[0, 1] < 0.05
    assert rank_intervals(methods[:2]) == [(1, 1), (2, 2)]
    assert rank_intervals(methods) == [(1, 4)] * 4


def test_the_interval_covers_the_truth_in_about_95_percent_of_draws() -> None:
    generator, draws = np.random.default_rng(1), 300
    (endless,) = world(4000, 40, 1, generator)
    truth = resample(endless, resamples=2).score
    covered = 0
    for _ in range(draws):
        (counts,) = world(31, 5, 1, generator)
        low, high = resample(counts, resamples=400).interval
        covered += low <= truth <= high
    assert 0.90 <= covered / draws <= 0.985


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(2)
    worse, better = simulate.world(5, (0.0, 0.6), generator, noise=NOISE, classes=CLASSES)
    found = difference(resample(better, stream=0), resample(worse, stream=1))
    assert found.p < 0.001
    assert 0 < found.low < found.effect < found.high


def test_the_score_is_the_mean_over_seeds_of_pooled_scores() -> None:
    (counts,) = world(10, 3, 1, np.random.default_rng(3))
    for name, score in SCORES.items():
        found = resample(counts, name, resamples=10)
        assert found.score == pytest.approx(np.mean([score(seed.sum(0)) for seed in counts]))


def test_resampling_is_the_loop_over_draws() -> None:
    """Each resample is the score of clusters and seeds drawn with replacement, one fewer than there are."""
    (counts,) = world(2, 1, 1, np.random.default_rng(4))
    either = {round(float(SCORES["weighted_f1"](counts[0, cluster])), 12) for cluster in (0, 1)}
    assert {round(value, 12) for value in resample(counts, resamples=200).resampled} == either


def test_a_method_does_not_differ_from_itself() -> None:
    (counts,) = world(20, 1, 1, np.random.default_rng(5))
    found = difference(resample(counts, stream=0), resample(counts, stream=1))
    assert (found.effect, found.low, found.high, found.p) == (0, 0, 0, 1)
    np.testing.assert_array_equal(resample(counts).resampled, resample(counts.copy()).resampled)


def test_only_the_same_utterances_are_compared() -> None:
    generator = np.random.default_rng(6)
    (a,), (b,) = world(20, 1, 1, generator), world(20, 1, 1, generator)
    with pytest.raises(ValueError, match="not tested on the same utterances"):
        difference(resample(a), resample(b))


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_holm_s_correction_is_that_of_another_library_ties_included(count: int) -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for values in (np.random.default_rng(count).uniform(0, 0.2, (3, count)).round(2), np.full((1, count), 0.02)):
        for p_values in values.tolist():
            assert holm(p_values) == multitest.multipletests(p_values, method="holm")[1].tolist()


#: AUC of C4.5, with m tuned, with cf tuned, with both tuned on 14 corpora: Demsar (JMLR 7, 2006), table 6, as ranks
DEMSAR = [
    (4, 3, 2, 1), (1, 2, 3, 4), (4, 1, 2, 3), (4, 1, 3, 2), (4, 2, 3, 1), (1, 2.5, 4, 2.5), (3, 2, 4, 1),
    (2.5, 2.5, 4, 1), (4, 3, 2, 1), (2.5, 2.5, 2.5, 2.5), (4, 2.5, 1, 2.5), (3, 2, 4, 1), (4, 1, 2, 3), (3, 1, 4, 2),
]  # fmt: skip


def test_friedman_and_the_critical_difference_are_those_of_a_worked_example() -> None:
    found = friedman(-np.array(DEMSAR, np.float64))
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)  # as printed
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    ties = 6 + 6 + 60 + 6  # sum of t^3 - t; the paper's 9.28 is not corrected for them
    assert found.chi2 * (1 - ties / (14 * (4**3 - 4))) == pytest.approx(9.28, abs=5e-3)
    assert (found.df, found.blocks) == (3, 14)
    assert found.p == pytest.approx(0.0167, abs=5e-4)  # the upper tail of chi-square(3) at 10.23


def test_the_critical_difference_agrees_with_nemenyi_s_test_of_another_library() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    scores = np.random.default_rng(8).normal(np.linspace(0, 1.5, 6), 1, (12, 6))
    found = friedman(scores)
    apart = np.abs(np.subtract.outer(found.ranks, found.ranks)) > found.critical
    np.testing.assert_array_equal(apart, posthocs.posthoc_nemenyi_friedman(scores).to_numpy() < 0.05)
    assert apart.any()
    assert not apart.all()


def test_friedman_agrees_with_scipy_also_where_scores_are_equal() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(10)
    for blocks, methods in ((3, 3), (4, 6), (9, 5), (20, 12)):  # even and odd degrees of freedom
        scores = generator.integers(0, 4, (blocks, methods)).astype(np.float64)
        found, (chi2, p) = friedman(scores), stats.friedmanchisquare(*scores.T)
        assert (found.chi2, found.p) == (pytest.approx(chi2, rel=1e-9), pytest.approx(p, rel=1e-9))
        assert found.ranks == tuple(stats.rankdata(-scores, axis=1).mean(0))
        quantile = found.critical / np.sqrt(methods * (methods + 1) / (12 * blocks))
        assert quantile == pytest.approx(stats.studentized_range.ppf(0.95, methods, np.inf), rel=1e-9)


def test_seeds_that_tested_other_utterances_are_each_scored_on_their_own() -> None:
    counts = np.random.default_rng(11).integers(0, 5, (3, 4, 2, 2))  # supports differ between seeds
    both, alone = resample(counts), [resample(counts[[seed]]).resampled for seed in range(3)]
    weights = statistics._draws(3, statistics.RESAMPLES, 0)
    np.testing.assert_allclose(both.resampled, (np.stack(alone) * weights).sum(0) / weights.sum(0))


def test_methods_that_rank_alike_differ_in_at_most_five_percent_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_studentized_range", lambda *_: 1.0)  # slow, and p does not depend on it
    generator = np.random.default_rng(9)
    p = np.array([friedman(generator.normal(size=(8, 5))).p for _ in range(400)])
    assert 0.015 <= (p < 0.05).mean() <= 0.075


def test_equal_scores_are_no_difference_and_few_blocks_no_test() -> None:
    assert (friedman(np.ones((3, 4))).chi2, friedman(np.ones((3, 4))).p) == (0, 1)
    for shape in ((2, 5), (5, 2)):
        with pytest.raises(ValueError, match="needs three of each"):
            friedman(np.zeros(shape))


def test_the_smallest_p_value_is_one_over_the_resamples_and_the_one_that_was_seen() -> None:
    right, wrong = np.zeros((2, 1, 20, CLASSES, CLASSES), np.int64)
    for true in range(CLASSES):
        right[..., true, true] = wrong[..., true, (true + 1) % CLASSES] = 5
    found = difference(resample(right, resamples=999), resample(wrong, stream=1, resamples=999))
    assert (found.effect, found.low, found.high) == (1, 1, 1)
    assert found.p == 1 / (1 + 999)
    assert difference(resample(right), resample(wrong, stream=1)).p == 1 / 10_001  # as many as the docs state


def test_an_interval_leaves_out_as_much_below_as_above() -> None:
    evidence = Evidence(0.5, np.arange(1001) / 1000, np.zeros((1, CLASSES), np.int64))
    assert evidence.interval == pytest.approx((0.025, 0.975))


def test_a_p_value_counts_deviations_to_both_sides() -> None:
    support = np.ones((1, CLASSES), np.int64)
    none = Evidence(0.0, np.zeros(4), support)
    # deviations from the effect of 0.2: -0.2, 0.2, 0.1, -0.1
    some = Evidence(0.2, np.array([0.0, 0.4, 0.3, 0.1]), support)
    assert difference(some, none).p == pytest.approx((1 + 2) / (1 + 4))
    assert difference(none, some).p == pytest.approx((1 + 2) / (1 + 4))


def test_who_has_the_hits_of_an_ideal_observer_attains_all_in_every_resample_whatever_the_luck_of_the_draw() -> None:
    """The same luck is in the method, in the floor and in the ideal observer, so that it cancels."""
    method, floor = world(31, 3, 2, np.random.default_rng(3))
    hits = np.trace(method, axis1=2, axis2=3)
    floor = np.where(np.eye(CLASSES, dtype=bool), floor // 4, floor)
    (found,) = attained([method[:1]], floor, hits[0].astype(float))
    assert (found.share, found.low, found.high) == pytest.approx((1, 1, 1))
    (nothing,) = attained([floor[:1]], floor[:1], hits[0].astype(float))
    assert (nothing.share, nothing.low, nothing.high) == (0, 0, 0)
    of_all, _ = attained([method, floor], floor, hits.max(0) + 0.5)
    lowest = np.trace(floor, axis1=2, axis2=3).mean(0).sum()
    assert of_all.share == pytest.approx((hits.sum(1).mean() - lowest) / (hits.max(0).sum() + 15.5 - lowest))
    assert of_all.low < of_all.share < of_all.high
    assert attained([method], floor, np.zeros(31)) == []  # nothing is better than the floor here
