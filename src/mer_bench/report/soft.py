"""Intervals of scores of probabilities, which are sums over utterances: bootstrap over clusters crossed with seeds.

As in :mod:`mer_bench.report.statistics`, of which these are the means and the calibration error. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.calibration import GAP_UNIT, UNIT, Calibration, block_of
from mer_bench.records import RunRecord
from mer_bench.report.statistics import RESAMPLES, Counts, Floats, interval, mean_over_seeds, resampled_totals

Interval = tuple[float, float]


@dataclass(frozen=True)
class SoftScores:
    """Predicted probabilities against the distributions of several raters."""

    cross_entropy: Floats  #: [seed], in nats
    divergence: Floats  #: [seed], Jensen-Shannon divergence in nats
    cross_entropy_interval: Interval
    divergence_interval: Interval


def mean_intervals(sums: Counts, sizes: Counts, resamples: int = RESAMPLES) -> list[Interval]:
    """Interval of each of several means over utterances, averaged over seeds.

    Args:
        sums: Whole numbers [mean, seed, cluster].
        sizes: Utterances [cluster].
        resamples: Number of resamples.
    """
    total = np.maximum(resampled_totals(sizes, resamples), 1).astype(np.float64)
    return [interval(mean_over_seeds(each / total)) for each in resampled_totals(sums, resamples)]


def calibration_interval(gaps: Counts, sizes: Counts, score: float, resamples: int = RESAMPLES) -> Interval:
    """Interval of the expected calibration error, averaged over seeds.

    Resampling adds noise to each bin, which raises the sum of their absolute values above the score by about as much
    as the score itself is above the true error. So the interval is the basic one, which is reflected at the score.

    Args:
        gaps: Correct utterances less confidence [seed, block, bin], in tenths.
        sizes: Utterances [block].
        score: The error.
        resamples: Number of resamples.
    """
    total = GAP_UNIT * resampled_totals(sizes, resamples).astype(np.float64)
    errors = np.abs(resampled_totals(gaps.swapaxes(1, 2), resamples)).sum(1) / total
    low, high = interval(mean_over_seeds(errors))
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
    names = "log_loss", "brier"
    sums = [[[each for _, kept in folds for each in getattr(kept, name)] for folds in seeds] for name in names]
    found = dict(zip(names, _in_units(mean_intervals(np.array(sums), np.concatenate(sizes))), strict=True))
    gaps = [[kept.gaps for _, kept in folds] for folds in seeds]
    if all(fold is not None for folds in gaps for fold in folds):
        blocks = np.concatenate([np.bincount(block_of(len(each)), each).astype(np.int64) for each in sizes])
        known = np.array([[row for fold in folds for row in fold or ()] for folds in gaps])
        found["calibration_error"] = calibration_interval(known, blocks, error)
    return found


def soft_scores(seeds: Sequence[Sequence[RunRecord]]) -> SoftScores | None:
    """Scores against the raters of the records of each seed's folds; None if no utterance has raters."""
    found = [[record.raters for record in folds if record.raters is not None] for folds in seeds]
    if not found:
        return None
    sizes = np.array([each for kept in found[0] for each in kept.utterances])
    if not sizes.sum():
        return None
    names = "cross_entropy", "divergence"
    sums = np.array([[[each for kept in folds for each in getattr(kept, name)] for folds in found] for name in names])
    entropy, divergence = sums.sum(2) / (UNIT * sizes.sum())
    return SoftScores(entropy, divergence, *_in_units(mean_intervals(sums, sizes)))


def _in_units(found: Sequence[Interval]) -> list[Interval]:
    """Intervals of sums that are stored in hundredths."""
    return [(low / UNIT, high / UNIT) for low, high in found]
