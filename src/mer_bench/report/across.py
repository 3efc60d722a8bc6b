"""Comparison of methods over several tables with Friedman's test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mer_bench.report.rows import ResultRow
from mer_bench.report.statistics import Friedman, friedman
from mer_bench.report.tables import Table


@dataclass(frozen=True)
class Across:
    """The methods that all tables of a track rank."""

    track: str
    simulated: bool
    tables: tuple[Table, ...]
    methods: tuple[str, ...]  #: titles, best mean rank first where there is a test, else by code name
    test: Friedman | None  #: None for fewer than three tables or methods


def across(found: Sequence[Table]) -> list[Across]:
    """Compare the methods of each track over its tables that rank at least three methods.

    Simulated corpora are never mixed with real ones. The row of a method is the one that reads all modalities of the
    table; of several such rows, the one with most seeds, then the first by label, so that none is chosen by its score.
    """
    groups: dict[tuple[bool, str], list[tuple[Table, dict[str, ResultRow]]]] = defaultdict(list)
    for table in found:
        rows = [row for row in table.rows if row.ranked and len(row.modalities) == len(table.features)]
        rows.sort(key=lambda row: (-row.complete, row.label, repr(row.spec.training)))
        chosen = {row.method: row for row in reversed(rows)}
        if len(chosen) >= 3:
            groups[table.first.simulated, table.track].append((table, chosen))
    return [_across(track, simulated, group) for (simulated, track), group in sorted(groups.items(), reverse=True)]


def _across(track: str, simulated: bool, group: Sequence[tuple[Table, Mapping[str, ResultRow]]]) -> Across:
    methods = sorted(set.intersection(*(set(rows) for _, rows in group)))
    titles = [group[0][1][name].title for name in methods]
    tables = tuple(table for table, _ in group)
    if min(len(methods), len(tables)) < 3:
        return Across(track, simulated, tables, tuple(titles), None)
    scores = np.array([[rows[name].weighted_f1 for name in methods] for _, rows in group])
    test = friedman(scores)
    ranks, _, names = zip(*sorted(zip(test.ranks, methods, titles, strict=True)), strict=True)
    return Across(track, simulated, tables, names, replace(test, ranks=ranks))
