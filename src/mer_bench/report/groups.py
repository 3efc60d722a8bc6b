"""Scores of groups of test utterances, such as speakers, and how far the worst group is behind all others.

Groups never rank. The interval of a gap is the crossed bootstrap of :mod:`mer_bench.report.statistics` for the group
that is worst on the whole test set; that this group was chosen on the same data is not paid for. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mer_bench.groups import Groups, group_matrices
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
    pooled: Counts  #: confusion matrices [group, seed, class, class]
    worst_by_cluster: Counts  #: those of the group with the lowest score [seed, cluster, class, class]
    rest_by_cluster: Counts  #: likewise, of all utterances that are not in that group

    @property
    def sizes(self) -> tuple[int, ...]:
        """Test utterances of each group."""
        return tuple(self.pooled[:, 0].sum((1, 2)).tolist())

    @cached_property
    def scores(self) -> Floats:
        """Weighted F1 [group]."""
        return _scores(self.pooled)

    @property
    def worst(self) -> int:
        """Number of the group with the lowest score."""
        return int(self.scores.argmin())

    @property
    def gap(self) -> float:
        """Weighted F1 of all other utterances less that of the worst group."""
        return float(weighted_f1(self.rest_by_cluster.sum(1)).mean() - self.scores[self.worst])

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Interval of :attr:`gap`; None where the worst group, or the rest, is in fewer than :data:`LEAST` clusters."""
        worst, rest = self.worst_by_cluster, self.rest_by_cluster
        if min((each[0].sum((1, 2)) > 0).sum() for each in (worst, rest)) < LEAST:
            return None
        return interval(resample(rest).resampled - resample(worst).resampled)


def _scores(pooled: Counts) -> Floats:
    return weighted_f1(pooled).mean(1)


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
        # one seed at a time, twice: the matrices of many speakers in many seeds would fill the memory
        pooled = np.stack([_matrices(folds, kind, names).sum(1) for folds in seeds], 1)
        lowest = _scores(pooled).argmin()
        worst = np.stack([_matrices(folds, kind, names)[lowest] for folds in seeds])
        made = GroupScores(tuple(names), pooled, worst, np.stack([_clusters(folds) for folds in seeds]) - worst)
        split = sorted(zip(made.sizes, made.scores, strict=True))
        known = [sorted(zip(each.sizes, each.scores, strict=True)) for each in found.values()]
        if len(names) > 1 and (kind == AGREEMENT or split not in known):
            found[kind] = made
    return found


def _clusters(folds: Sequence[RunRecord]) -> Counts:
    """Confusion matrices [cluster, class, class], the clusters of all folds in turn."""
    return np.concatenate([each.clusters for each in folds if each.clusters is not None], dtype=np.int64)


def _groups(record: RunRecord) -> dict[str, Groups]:
    if record.clusters is None:
        return {}
    return {**(record.groups or {}), **({AGREEMENT: record.raters.agreement} if record.raters else {})}


def _matrices(folds: Sequence[RunRecord], kind: str, names: Sequence[str]) -> Counts:
    """Confusion matrices of groups [group, cluster, class, class], the clusters of all folds in turn."""
    parts = []
    for record in folds:
        assert record.clusters is not None
        groups, clusters = _groups(record), record.clusters.astype(np.int64)
        of_fold = np.zeros((len(names), *clusters.shape), np.int64)
        of_fold[[names.index(name) for name in groups[kind].names]] = group_matrices(groups, kind, clusters)
        parts.append(of_fold)
    return np.concatenate(parts, 1)
