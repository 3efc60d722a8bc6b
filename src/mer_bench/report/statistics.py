"""Which differences are real: intervals and paired tests on confusion matrices. Needs numpy, never torch.

The evidence for a method is an array ``counts`` [seed, cluster, class, class]: what each of its trainings (one seed,
all folds) made of each cluster of test utterances. Utterances of one dialogue, or of one actor of RAVDESS, are not
independent, so clusters are what is resampled; trainings differ by their seed, so seeds are resampled as well, crossed
with the clusters. A method's score is the mean over seeds of the score of its matrices summed over clusters.

From n clusters, and likewise seeds, n - 1 are drawn at a time (Rao and Wu, "Resampling inference with complex survey
data", JASA 83, 1988): drawing n would make the variance too small by the factor (n - 1) / n, which matters for five
seeds. One seed cannot be resampled; what is said of a method that has but one holds for that training alone.

The generator's seed is fixed: equal counts give equal numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import SCORES, SCORES_FROM_MARGINS, margins

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95  #: of every interval; differences count from p < 1 - LEVEL


@dataclass(frozen=True, eq=False)
class Evidence:
    """A method's score, and what it might have been with other test clusters and other seeds."""

    score: float
    resampled: Floats  #: [resample]
    support: Counts  #: [cluster, class] utterances

    @property
    def interval(self) -> tuple[float, float]:
        """Where the score lies with 95 % confidence."""
        return _tails(self.resampled)


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that methods rank alike in every block, and Nemenyi's critical difference of mean ranks."""

    ranks: tuple[float, ...]  #: mean rank of each method, 1 = best; equal scores share their ranks' mean
    chi2: float  #: corrected for ties
    df: int
    p: float
    critical: float  #: mean ranks that are further apart differ, at :data:`LEVEL` for all pairs at once
    blocks: int


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another on the same test utterances, with its 95 % interval and p-value."""

    effect: float
    low: float
    high: float
    p: float


def resample(counts: Counts, score: str = "weighted_f1", *, stream: int = 0, resamples: int = RESAMPLES) -> Evidence:
    """Bootstrap over clusters, crossed with seeds.

    Args:
        counts: [seed, cluster, class, class].
        score: A name in :data:`mer_bench.metrics.SCORES`.
        stream: Methods that are compared need streams of their own: their seeds are drawn independently. Clusters are
            drawn alike in all streams, so that a comparison is paired.
        resamples: How many.
    """
    parts = np.stack(margins(counts)).astype(np.float32)  # [part, class, seed, cluster]
    # one product; whole numbers are exact in single precision up to 16 million utterances
    pooled = parts.reshape(-1, counts.shape[1]) @ _draws(counts.shape[1], resamples, -1)
    scores = SCORES_FROM_MARGINS[score](*pooled.astype(np.float64).reshape(*parts.shape[:-1], resamples))
    weights = _draws(len(counts), resamples, stream)  # and scores: [seed, resample]
    return Evidence(
        float(SCORES[score](counts.sum(1)).mean()), (scores * weights).sum(0) / weights.sum(0), counts[0].sum(-1)
    )


def difference(a: Evidence, b: Evidence) -> Difference:
    """Method a less method b.

    The p-value is the share of resamples that deviate from the difference by as much as it does from zero.

    Raises:
        ValueError: the two were not tested on the same utterances.
    """
    if not np.array_equal(a.support, b.support):
        raise ValueError("the two methods were not tested on the same utterances")
    effect, found = a.score - b.score, a.resampled - b.resampled
    p = (1 + (np.abs(found - effect) >= abs(effect)).sum()) / (1 + len(found))
    return Difference(effect, *_tails(found), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected for their number by Holm's step-down method."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    gc.freeze()  # it collects garbage in every call: not among thousands of records
    try:
        return [float(p) for p in multipletests(p_values, method="holm")[1]]
    finally:
        gc.unfreeze()


def significant(p: float) -> bool:
    """Whether a p-value, corrected where it is one of a family, says that there is a difference."""
    return p < 1 - LEVEL


def friedman(scores: Floats) -> Friedman:
    """Whether some methods rank higher than others over several blocks (Demsar, JMLR 7, 2006).

    The p-value is that of the chi-square distribution, the usual one; of few blocks it is somewhat too large.

    Args:
        scores: [block, method], higher is better; blocks are independent of each other.

    Raises:
        ValueError: fewer than three blocks or methods: there is nothing to test.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    blocks, methods = scores.shape
    if min(blocks, methods) < 3:
        raise ValueError(f"{blocks} blocks and {methods} methods; Friedman's test needs three of each")
    ranks = rankdata(-scores, axis=1).mean(0)
    equal = (scores == scores[:, :1]).all()  # nothing but ties: the statistic is 0 / 0
    chi2, p = (0.0, 1.0) if equal else friedmanchisquare(*scores.T)
    critical = studentized_range.ppf(LEVEL, methods, np.inf) * np.sqrt(methods * (methods + 1) / (12 * blocks))
    return Friedman(tuple(map(float, ranks)), float(chi2), methods - 1, float(p), float(critical), blocks)


def _tails(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@lru_cache(maxsize=16)
def _draws(n: int, resamples: int, stream: int) -> npt.NDArray[np.float32]:
    """How often each of n things is drawn [n, resample], n - 1 at a time; streams are independent."""
    if n == 1:
        return np.ones((1, resamples), np.float32)
    generator = np.random.default_rng((n, stream + 1))
    return np.ascontiguousarray(generator.multinomial(n - 1, np.full(n, 1 / n), size=resamples).T, dtype=np.float32)
