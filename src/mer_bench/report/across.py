"""Comparison of methods over several tables with Friedman's test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mer_bench.report.rows import few_seeds
from mer_bench.report.statistics import Friedman, friedman
from mer_bench.report.tables import Table, headlines


@dataclass(frozen=True)
class Ranked:
    """What comparisons over tables need of one table, so that the rest of it can go."""

    dataset: str
    label_set: str
    protocol: str
    simulated: bool
    track: str
    #: method -> its title, and weighted F1 of its row on all modalities, where that has enough seeds
    scores: Mapping[str, tuple[str, float]]


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
    label, so that none is chosen by its score. Rows with too few seeds for a test do not count. A table whose features
    saw labels of its corpus is compared with no other, and so names none.
    """
    every = len(table.features)
    rows = [row for row in table.rows if row.ranked and len(row.modalities) == every and not few_seeds(row)]
    rows = [] if table.saw_labels else rows
    rows.sort(key=lambda row: (-row.complete, row.spec.tuned is not None, row.label, repr(row.spec.training)))
    scores = {row.method: (row.title, row.weighted_f1) for row in reversed(rows)}
    spec = table.first.spec
    return Ranked(spec.dataset, spec.label_set, spec.protocol, table.first.simulated, table.track, scores)


def across(found: Iterable[Ranked]) -> list[Across]:
    """Compare the methods of each track over its tables that rank at least three methods.

    Simulated corpora are never mixed with real ones, and a corpus takes part with one label set and protocol.
    """
    groups: dict[tuple[bool, str], list[Ranked]] = defaultdict(list)
    eligible = [table for table in found if len(table.scores) >= 3]
    chosen = headlines((each.dataset, each.label_set, each.protocol) for each in eligible)
    for table in eligible:
        if (table.dataset, table.label_set, table.protocol) in chosen:
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
