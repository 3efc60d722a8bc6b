"""Which differences are real: intervals and paired tests on confusion matrices. Needs numpy, but not torch.

The data of a method are an array ``counts`` [seed, cluster, class, class]: the confusion matrix of each of its
trainings (one seed, all folds) on each cluster of test utterances. Utterances of one dialogue, or of one actor of
RAVDESS, are not independent, so whole clusters are resampled. Trainings differ by their seed, so seeds are resampled as
well, crossed with the clusters. The score of a method is the mean over seeds of the score of its matrices summed over
clusters.

From n clusters, and from n seeds, n - 1 are drawn at a time (Rao and Wu, "Resampling inference with complex survey
data", JASA 83, 1988): drawing n would make the variance too small by the factor (n - 1) / n, which matters for five
seeds. One seed cannot be resampled: the results of a method with only one seed hold for that training alone.

The seed of the random generator is fixed: equal counts give equal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import SCORES, SCORES_FROM_MARGINS, margins

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95  #: level of every interval; differences are significant for p < 1 - LEVEL
#: Complete seeds without which a method is said to be neither better nor worse nor tied: its seeds cannot be resampled,
#: or hardly. With one seed, one of ten equally good methods seems to be behind in half of all draws.
LEAST_SEEDS = 3


@dataclass(frozen=True, eq=False)
class Evidence:
    """Bootstrap of a method's score."""

    score: float
    resampled: Floats  #: its value [resample] on resampled clusters and seeds
    support: Counts  #: test utterances [cluster, class]

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Interval of the score at :data:`LEVEL`."""
        return interval(self.resampled)


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that methods rank alike in every block, and Nemenyi's critical difference of mean ranks."""

    ranks: tuple[float, ...]  #: mean rank of each method, 1 = best; equal scores share the mean of their ranks
    chi2: float  #: test statistic, corrected for ties
    df: int  #: degrees of freedom
    p: float
    critical: float  #: mean ranks that are further apart differ, at :data:`LEVEL` for all pairs together
    blocks: int


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another on the same test utterances, with its 95 % interval and p-value."""

    effect: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Attained:
    """Share of what is possible that a method gains, with its 95 % interval."""

    share: float
    low: float
    high: float


def resample(
    counts: Counts, score: str = "weighted_f1", *, stream: int = 0, resamples: int = RESAMPLES, bank: int = 0
) -> Evidence:
    """Bootstrap over clusters, crossed with seeds.

    Args:
        counts: [seed, cluster, class, class].
        score: A name in :data:`mer_bench.metrics.SCORES`.
        stream: Number of an independent random stream for the seeds. Methods that are compared need different ones.
            Clusters are drawn alike in all streams, so that comparisons are paired.
        resamples: Number of resamples.
        bank: Number of an independent random stream for the clusters: the clusters of another corpus need another one.
    """
    hits, support, predicted = margins(counts)  # each [class, seed, cluster]
    pooled = resampled_totals(np.stack([hits, predicted]), resamples, bank)
    scores = np.empty((len(counts), resamples))
    for seed in range(len(counts)):  # one at a time, so that its numbers stay in the processor's cache
        right, said = pooled[:, :, seed].astype(np.float64)
        known = np.ascontiguousarray(support[:, seed])
        drawn = _support_draws(known.tobytes(), known.shape[1], resamples, bank)
        scores[seed] = SCORES_FROM_MARGINS[score](right, drawn, said)
    resampled = mean_over_seeds(scores, stream)
    return Evidence(float(SCORES[score](counts.sum(1)).mean()), resampled, counts[0].sum(-1))


def resampled_totals(counts: npt.ArrayLike, resamples: int = RESAMPLES, bank: int = 0) -> npt.NDArray[np.float32]:
    """Totals [..., resample] of whole numbers [..., cluster] over resampled clusters, as :func:`resample` draws them.

    One matrix product in single precision, in which whole numbers are exact up to 16 million.
    """
    parts = np.asarray(counts, np.float32)
    drawn = parts.reshape(-1, parts.shape[-1]) @ _cluster_draws(parts.shape[-1], resamples, bank)
    return drawn.reshape(*parts.shape[:-1], resamples)


def mean_over_seeds(values: Floats, stream: int = 0) -> Floats:
    """Mean over resampled seeds, as :func:`resample` draws them: [..., seed, resample] -> [..., resample]."""
    weights = _seed_draws(*values.shape[-2:], stream)
    return np.asarray((values * weights).sum(-2) / weights.sum(0))


def difference(a: Evidence, b: Evidence) -> Difference:
    """Score of method a minus that of method b, paired.

    The p-value is the share of resamples that deviate from the difference by at least as much as it differs from zero.

    Raises:
        ValueError: the two were not tested on the same utterances.
    """
    if not np.array_equal(a.support, b.support):
        raise ValueError("the two methods were not tested on the same utterances")
    effect, found = a.score - b.score, a.resampled - b.resampled
    p = (1 + (np.abs(found - effect) >= abs(effect)).sum()) / (1 + len(found))
    return Difference(effect, *interval(found), float(p))


def attained(methods: Sequence[Counts], floor: Counts, ideal: Floats) -> list[Attained]:
    """Share of the hits of an ideal observer beyond the floor that methods have: (hits - floor) / (ideal - floor).

    All three are of the same test utterances, also in each resample, so that luck in their draw cancels. Empty where
    the ideal observer is not better than the floor.

    Args:
        methods: [seed, cluster, class, class] of each method.
        floor: Likewise, of the method that counts as nothing; the mean over its seeds is taken.
        ideal: [cluster], expected number of hits of the ideal observer.
    """
    lowest = np.trace(floor, axis1=2, axis2=3).mean(0)
    possible = ideal.sum() - lowest.sum()
    if possible <= 0:
        return []
    draws = _cluster_draws(len(ideal), RESAMPLES, 0)
    nothing, whole = lowest @ draws, (ideal - lowest) @ draws
    found = []
    for counts in methods:
        hits = np.trace(counts, axis1=2, axis2=3)  # [seed, cluster]
        drawn = mean_over_seeds(resampled_totals(hits).astype(np.float64))
        share = float((hits.sum(1).mean() - lowest.sum()) / possible)
        found.append(Attained(share, *interval((drawn - nothing) / whole)))
    return found


def interval(values: Floats) -> tuple[float, float]:
    """The interval at :data:`LEVEL` of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected for their number by Holm's step-down method, in the same order.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - smaller)))
        corrected[index] = largest
    return corrected


def paired_p_values(methods: Sequence[Evidence]) -> Floats:
    """The p-value of :func:`difference` for each two methods: [method, method], 1 on the diagonal.

    All pairs share the resamples of the methods, so that no new ones are drawn.

    Raises:
        ValueError: some were not tested on the same utterances.
    """
    if any(not np.array_equal(each.support, methods[0].support) for each in methods):
        raise ValueError("the methods were not tested on the same utterances")
    scores = np.array([each.score for each in methods])
    resampled = np.array([each.resampled for each in methods])
    p = np.ones((len(methods), len(methods)))
    for at in range(len(methods) - 1):
        effect = (scores[at] - scores[at + 1 :])[:, None]
        found = resampled[at] - resampled[at + 1 :]
        found -= effect
        extreme = np.count_nonzero(np.abs(found, out=found) >= np.abs(effect), axis=1)
        p[at, at + 1 :] = p[at + 1 :, at] = (1 + extreme) / (1 + resampled.shape[1])
    return p


def rank_intervals(methods: Sequence[Evidence], ranked: int | None = None) -> list[tuple[int, int]]:
    """Interval at :data:`LEVEL` of each method's rank, 1 = best.

    A method is tested against all others, Holm-corrected over them. Its rank is at least 1 + those that are shown to be
    better, and at most all less those that are shown to be worse. The level holds for each method by itself.

    Args:
        methods: Those that are tested.
        ranked: How many share the ranks; None = those that are tested. Of others nothing is shown.
    """
    every = len(methods) if ranked is None else ranked
    scores, found = [each.score for each in methods], []
    for at, p_values in enumerate(paired_p_values(methods) if methods else ()):
        others = [other for other in range(len(methods)) if other != at]
        corrected = holm([float(p_values[other]) for other in others])
        shown = [other for other, p in zip(others, corrected, strict=True) if significant(p)]
        better = sum(scores[other] > scores[at] for other in shown)
        found.append((1 + better, every - (len(shown) - better)))
    return found


def significant(p: float) -> bool:
    """Whether a p-value, corrected if it is one of a family, shows a difference at :data:`LEVEL`."""
    return p < 1 - LEVEL


def friedman(scores: Floats) -> Friedman:
    """Test whether some methods rank higher than others over several blocks (Demsar, JMLR 7, 2006).

    The p-value is that of the usual chi-square approximation; with few blocks it is somewhat too large.

    Args:
        scores: [block, method], higher is better; blocks are independent of each other.

    Raises:
        ValueError: fewer than three blocks or methods: there is nothing to test.
    """
    blocks, methods = scores.shape
    if min(blocks, methods) < 3:
        raise ValueError(f"{blocks} blocks and {methods} methods; Friedman's test needs three of each")
    better = (scores[:, None, :] > scores[:, :, None]).sum(2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(2)
    ranks = better + (equal + 1) / 2
    squares = float((ranks.sum(0) ** 2).sum())
    chi2 = 12 * squares / (blocks * methods * (methods + 1)) - 3 * blocks * (methods + 1)
    # sum of t³ - t over the groups of t equal scores, each of which is met t times
    ties = 1 - float((equal**2 - 1).sum()) / (blocks * methods * (methods**2 - 1))
    chi2, p = (chi2 / ties, _chi2_tail(chi2 / ties, methods - 1)) if ties else (0.0, 1.0)  # only ties: 0 / 0
    critical = _studentized_range(methods) * math.sqrt(methods * (methods + 1) / (12 * blocks))
    return Friedman(tuple(map(float, ranks.mean(0))), chi2, methods - 1, p, critical, blocks)


def _chi2_tail(x: float, df: int) -> float:
    """Probability that a chi-square variable of ``df`` degrees of freedom exceeds x: a finite sum."""
    half = max(x, 0.0) / 2
    first = 0.5 if df % 2 else 0.0
    powers = (half ** (first + i) / math.gamma(first + i + 1) for i in range(df // 2))
    return (math.erfc(math.sqrt(half)) if df % 2 else 0.0) + math.exp(-half) * sum(powers)


def _studentized_range(groups: int) -> float:
    """Quantile, at :data:`LEVEL`, of the range of that many independent standard normal variables."""
    z = np.arange(-9, 9, 0.05)  # the trapezoidal rule is exact to rounding for a density that vanishes at both ends
    below = _normal(z)
    density = 0.05 * groups * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    low, high = 0.0, 20.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        reached = float((density * (below - _normal(z - middle)) ** (groups - 1)).sum())
        low, high = (middle, high) if reached < LEVEL else (low, middle)
    return high


def _normal(z: Floats) -> Floats:
    """Distribution function of the standard normal distribution."""
    return np.array([math.erfc(-one / math.sqrt(2)) / 2 for one in z.tolist()])


@lru_cache(maxsize=4)
def _cluster_draws(n: int, resamples: int, bank: int) -> npt.NDArray[np.float32]:
    return _draws(n, resamples, -1, bank)


@lru_cache(maxsize=64)
def _seed_draws(n: int, resamples: int, stream: int) -> npt.NDArray[Any]:
    return _draws(n, resamples, stream).astype(np.min_scalar_type(n))  # small, as each row of a table has its own


@lru_cache(maxsize=16)
def _support_draws(support: bytes, clusters: int, resamples: int, bank: int) -> Floats:
    """Support [class, resample] on resampled clusters, of the bytes of a table of whole numbers [class, cluster].

    All rows and seeds of a table have the same, as a rule.
    """
    parts = np.frombuffer(support, np.int64).reshape(-1, clusters).astype(np.float32)
    return (parts @ _cluster_draws(clusters, resamples, bank)).astype(np.float64)


def _draws(n: int, resamples: int, stream: int, bank: int = 0) -> npt.NDArray[np.float32]:
    """How often each of n items is drawn [n, resample] in n - 1 draws; streams are independent, and so are banks."""
    if n == 1:
        return np.ones((1, resamples), np.float32)
    generator = np.random.default_rng((n, stream + 1, bank) if bank else (n, stream + 1))
    return np.ascontiguousarray(generator.multinomial(n - 1, np.full(n, 1 / n), size=resamples).T, dtype=np.float32)
