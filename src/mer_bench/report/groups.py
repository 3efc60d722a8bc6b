"""Scores of groups of test utterances, such as speakers, and how far the worst group is behind all others.

Groups never rank. The interval of a gap is the crossed bootstrap of :mod:`mer_bench.report.statistics` for the group
that is worst on the whole test set; that this group was chosen on the same data is not paid for. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.groups import Groups, group_matrices, group_totals
from mer_bench.metrics import weighted_f1
from mer_bench.records import RunRecord
from mer_bench.report.statistics import Counts, Floats, interval, resample

AGREEMENT = "agreement"  #: kind of groups by how far raters agree, which records with that measure have
ORDER = ("scene", "gender", "speaker")  #: kinds that come first
LEAST = 8  #: clusters that a group needs for an interval: with fewer, many resamples have next to nothing of it
FEW = 3  #: number of groups up to which tables show each of them


@dataclass(frozen=True, eq=False)
class GroupScores:
    """Weighted F1 of the groups of one kind, mean over seeds."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]  #: test utterances of each group
    scores: Floats  #: weighted F1 [group]
    pooled: Counts  #: confusion matrices [group, seed, class, class]
    gap: float  #: weighted F1 of all utterances that are not in the worst group, less that of this group
    #: of :attr:`gap`; None where the worst group, or the rest, is in fewer than :data:`LEAST` clusters
    interval: tuple[float, float] | None

    @property
    def worst(self) -> int:
        """Number of the group with the lowest score."""
        return int(self.scores.argmin())


def group_scores(seeds: Sequence[Sequence[RunRecord]]) -> dict[str, GroupScores]:
    """Scores of the groups of each kind that all records have; of kinds that split the utterances alike, the first.

    Args:
        seeds: Of each seed the records of its folds.
    """
    kept = [[_groups(record) for record in folds] for folds in seeds]
    kinds = set.intersection(*(set(each) for folds in kept for each in folds)) if kept else set()
    found: dict[str, GroupScores] = {}
    for kind in sorted(kinds, key=lambda name: (*(name != each for each in ORDER), name)):
        names = sorted({name for folds in kept for each in folds for name in each[kind].names})
        pooled = np.stack([_totals(folds, kind, names) for folds in seeds], 1)
        sizes, scores = tuple(pooled[:, 0].sum((1, 2)).tolist()), weighted_f1(pooled).mean(1)
        split = sorted(zip(sizes, scores, strict=True))
        known = [sorted(zip(each.sizes, each.scores, strict=True)) for each in found.values()]
        if len(names) > 1 and (kind == AGREEMENT or split not in known):
            worst = np.stack([_matrices(folds, kind, names[scores.argmin()]) for folds in seeds])
            rest = np.stack([_clusters(folds) for folds in seeds]) - worst
            gap = float((weighted_f1(rest.sum(1)) - weighted_f1(worst.sum(1))).mean())
            found[kind] = GroupScores(tuple(names), sizes, scores, pooled, gap, _interval(worst, rest))
    return found


def _interval(worst: Counts, rest: Counts) -> tuple[float, float] | None:
    """Interval of the difference of two groups [seed, cluster, class, class], where both are in enough clusters."""
    if min((each[0].sum((1, 2)) > 0).sum() for each in (worst, rest)) < LEAST:
        return None
    return interval(resample(rest).resampled - resample(worst).resampled)


def _clusters(folds: Sequence[RunRecord]) -> Counts:
    """Confusion matrices [cluster, class, class], the clusters of all folds in turn."""
    return np.concatenate([each.clusters for each in folds if each.clusters is not None], dtype=np.int64)


def _groups(record: RunRecord) -> dict[str, Groups]:
    if record.clusters is None:
        return {}
    return {**(record.groups or {}), **({AGREEMENT: record.raters.agreement} if record.raters else {})}


def _totals(folds: Sequence[RunRecord], kind: str, names: Sequence[str]) -> Counts:
    """Confusion matrices of groups over all folds [group, class, class]."""
    classes = len(folds[0].classes)
    found = np.zeros((len(names), classes, classes), np.int64)
    for record in folds:
        assert record.clusters is not None
        groups = _groups(record)
        found[[names.index(name) for name in groups[kind].names]] += group_totals(groups, kind, record.clusters)
    return found


def _matrices(folds: Sequence[RunRecord], kind: str, name: str) -> Counts:
    """Confusion matrices of a group [cluster, class, class], the clusters of all folds in turn; some folds lack it."""
    parts = []
    for record in folds:
        assert record.clusters is not None
        groups, clusters = _groups(record), record.clusters
        known = name in groups[kind].names
        parts.append(group_matrices(groups, kind, name, clusters) if known else np.zeros_like(clusters, np.int64))
    return np.concatenate(parts)
