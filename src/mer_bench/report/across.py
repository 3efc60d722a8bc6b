"""Methods over several tables: Friedman's test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mer_bench.metrics import SCORES
from mer_bench.report.rows import Row
from mer_bench.report.statistics import Friedman, friedman
from mer_bench.report.tables import Table


@dataclass(frozen=True)
class Across:
    """The methods that all tables of a track rank, over those tables; no ``test`` on fewer than three of either."""

    track: str
    simulated: bool
    tables: tuple[Table, ...]
    methods: tuple[str, ...]  #: best mean rank first where there is a test, else by name
    test: Friedman | None


def across(found: Sequence[Table]) -> list[Across]:
    """Each track over its tables that rank at least three methods; simulated corpora never beside real ones.

    A method is represented by the row that reads all of the table's modalities; of several, never chosen by their
    scores, the one with most seeds, then the first by label.
    """
    groups: dict[tuple[bool, str], list[tuple[Table, dict[str, Row]]]] = defaultdict(list)
    for table in found:
        rows = [row for row in table.rows if row.ranked and len(row.modalities) == len(table.features)]
        rows.sort(key=lambda row: (-row.complete, row.label, repr(row.training)))
        chosen = {row.method: row for row in reversed(rows)}
        if len(chosen) >= 3:
            groups[table.first.simulated, table.track].append((table, chosen))
    return [_across(track, simulated, group) for (simulated, track), group in sorted(groups.items(), reverse=True)]


def _across(track: str, simulated: bool, group: Sequence[tuple[Table, Mapping[str, Row]]]) -> Across:
    methods = sorted(set.intersection(*(set(rows) for _, rows in group)))
    tables = tuple(table for table, _ in group)
    if min(len(methods), len(tables)) < 3:
        return Across(track, simulated, tables, tuple(methods), None)
    scores = np.array([[SCORES["weighted_f1"](rows[name].pooled).mean() for name in methods] for _, rows in group])
    test = friedman(scores)
    ranks, names = zip(*sorted(zip(test.ranks, methods, strict=True)), strict=True)
    return Across(track, simulated, tables, names, replace(test, ranks=ranks))
