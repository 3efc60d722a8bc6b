"""Intervals of scores of probabilities, which are sums over utterances: bootstrap over clusters crossed with seeds.

As in :mod:`mer_bench.report.statistics`, of which these are the means and the calibration error. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.calibration import GAP_UNIT, UNIT, Calibration, block_of
from mer_bench.records import RunRecord
from mer_bench.report.statistics import RESAMPLES, Floats, bootstrap_weights, interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class SoftScores:
    """Predicted probabilities against the distributions of several raters."""

    cross_entropy: Floats  #: [seed], in nats
    divergence: Floats  #: [seed], Jensen-Shannon divergence in nats
    cross_entropy_interval: Interval
    divergence_interval: Interval


def mean_interval(sums: Floats, sizes: Floats, resamples: int = RESAMPLES) -> Interval:
    """Interval of a mean over utterances, averaged over seeds.

    Args:
        sums: [seed, cluster].
        sizes: Utterances [cluster].
        resamples: Number of resamples.
    """
    clusters, seeds = bootstrap_weights(len(sizes), len(sums), resamples)
    total = sizes @ clusters
    means = np.divide(sums @ clusters, total, out=np.zeros((len(sums), resamples)), where=total > 0)
    return interval((means * seeds).sum(0) / seeds.sum(0))


def calibration_interval(gaps: Floats, sizes: Floats, score: float, resamples: int = RESAMPLES) -> Interval:
    """Interval of the expected calibration error, averaged over seeds.

    Resampling adds noise to each bin, which raises the sum of their absolute values above the score by about as much
    as the score itself is above the true error. So the interval is the basic one, which is reflected at the score.

    Args:
        gaps: Correct utterances less confidence [seed, block, bin].
        sizes: Utterances [block].
        score: The error.
        resamples: Number of resamples.
    """
    blocks, seeds = bootstrap_weights(len(sizes), len(gaps), resamples)
    errors = np.stack([np.abs(each.T @ blocks).sum(0) / (sizes @ blocks) for each in gaps])
    low, high = interval((errors * seeds).sum(0) / seeds.sum(0))
    return max(2 * score - high, 0.0), max(2 * score - low, 0.0)


def probability_intervals(
    seeds: Sequence[Sequence[tuple[RunRecord, Calibration]]], error: float
) -> dict[str, Interval]:
    """Intervals of the scores of the probabilities by their name in :class:`mer_bench.report.rows.ProbabilityScores`.

    Args:
        seeds: Of each seed the records of its folds, with their calibration.
        error: The expected calibration error, mean over the seeds.

    Returns:
        Those that the records have the sums for; records that are kept for a page have none.
    """
    clusters = [record.clusters for record, _ in seeds[0]]
    counts = [0 if each is None else len(each) for each in clusters]
    if any(counts != [len(kept.log_loss) for _, kept in folds] for folds in seeds):
        return {}
    sizes = [each.sum((1, 2)) for each in clusters if each is not None]
    found = {
        name: mean_interval(
            np.array([[each for _, kept in folds for each in getattr(kept, name)] for folds in seeds]) / UNIT,
            np.concatenate(sizes).astype(np.float64),
        )
        for name in ("log_loss", "brier")
    }
    gaps = [[kept.gaps for _, kept in folds] for folds in seeds]
    known = [np.array([row for fold in folds if fold is not None for row in fold]) / GAP_UNIT for folds in gaps]
    if all(fold is not None for folds in gaps for fold in folds):
        blocks = np.concatenate([np.bincount(block_of(len(each)), each) for each in sizes])
        found["calibration_error"] = calibration_interval(np.stack(known), blocks, error)
    return found


def soft_scores(seeds: Sequence[Sequence[RunRecord]]) -> SoftScores | None:
    """Scores against the raters of the records of each seed's folds; None if no utterance has raters."""
    found = [[record.raters for record in folds if record.raters is not None] for folds in seeds]
    if not found:
        return None
    sizes = np.array([each for kept in found[0] for each in kept.utterances], np.float64)
    if not sizes.sum():
        return None
    entropy, divergence = (
        np.array([[each for kept in folds for each in getattr(kept, name)] for folds in found]) / UNIT
        for name in ("cross_entropy", "divergence")
    )
    means = (each.sum(1) / sizes.sum() for each in (entropy, divergence))
    return SoftScores(*means, *(mean_interval(each, sizes) for each in (entropy, divergence)))
