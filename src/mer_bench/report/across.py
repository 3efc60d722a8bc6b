"""Comparison of methods over several tables with Friedman's test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mer_bench.report.statistics import Friedman, friedman
from mer_bench.report.tables import Table


@dataclass(frozen=True)
class Ranked:
    """What comparisons over tables need of one table, so that the rest of it can go."""

    dataset: str
    simulated: bool
    track: str
    scores: Mapping[str, tuple[str, float]]  #: method -> its title, and weighted F1 of its row on all modalities


@dataclass(frozen=True)
class Across:
    """The methods that all tables of a track rank."""

    track: str
    simulated: bool
    tables: tuple[Ranked, ...]
    methods: tuple[str, ...]  #: titles, best mean rank first where there is a test, else by code name
    test: Friedman | None  #: None for fewer than three tables or methods


def ranked(table: Table) -> Ranked:
    """The methods that a table ranks on all of its modalities.

    Of several such rows of a method, the one with most seeds counts, then one that was not tuned, then the first by
    label, so that none is chosen by its score.
    """
    rows = [row for row in table.rows if row.ranked and len(row.modalities) == len(table.features)]
    rows.sort(key=lambda row: (-row.complete, row.spec.tuned is not None, row.label, repr(row.spec.training)))
    scores = {row.method: (row.title, row.weighted_f1) for row in reversed(rows)}
    return Ranked(table.first.spec.dataset, table.first.simulated, table.track, scores)


def across(found: Iterable[Ranked]) -> list[Across]:
    """Compare the methods of each track over its tables that rank at least three methods.

    Simulated corpora are never mixed with real ones.
    """
    groups: dict[tuple[bool, str], list[Ranked]] = defaultdict(list)
    for table in found:
        if len(table.scores) >= 3:
            groups[table.simulated, table.track].append(table)
    return [_across(track, simulated, group) for (simulated, track), group in sorted(groups.items(), reverse=True)]


def _across(track: str, simulated: bool, group: Sequence[Ranked]) -> Across:
    methods = sorted(set.intersection(*(set(table.scores) for table in group)))
    titles = [group[0].scores[name][0] for name in methods]
    if min(len(methods), len(group)) < 3:
        return Across(track, simulated, tuple(group), tuple(titles), None)
    test = friedman(np.array([[table.scores[name][1] for name in methods] for table in group]))
    ranks, _, names = zip(*sorted(zip(test.ranks, methods, titles, strict=True)), strict=True)
    return Across(track, simulated, tuple(group), names, replace(test, ranks=ranks))
