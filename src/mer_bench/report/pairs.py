"""What the comparison of two rows on the HTML page needs, as JSON-able data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mer_bench.metrics import f1
from mer_bench.report.cache import Cache
from mer_bench.report.names import slug
from mer_bench.report.rows import few_seeds
from mer_bench.report.statistics import difference
from mer_bench.report.tables import Table


def pairs(table: Table) -> dict[str, Any]:
    """F1 by class of each row, and the paired difference of each two rows.

    A difference is [effect, low, high, p] with the first three in points: the row minus a later one, for all pairs in
    the order of the rows. It is None where one of the two has no complete seed or no counts by cluster.
    """
    present = list(table.support)
    found = []
    for a, b in combinations([table.evidence.get(row) for row in table.rows], 2):
        one = difference(a, b) if a and b and np.array_equal(a.support, b.support) else None
        found.append(one and [round(100 * part, 3) for part in (one.effect, one.low, one.high)] + [round(one.p, 4)])
    return {
        "classes": [table.first.classes[index] for index in present],
        "support": list(table.support.values()),
        "f1": [[round(100 * float(score), 2) for score in f1(row.pooled).mean(0)[present]] for row in table.rows],
        "few": [few_seeds(row) for row in table.rows],
        "scores": [f"{100 * row.weighted_f1:.2f}" for row in table.rows],
        "names": [f"{row.name} ({row.reads})" for row in table.rows],
        "methods": [row.method for row in table.rows],
        "dataset": table.first.spec.dataset,
        "pairs": found,
    }


@dataclass(frozen=True)
class Kept:
    """The pairs of a table as the cache keeps them."""

    made_from: bytes  #: hash
    pairs: dict[str, Any]


def kept_pairs(table: Table, cache: Cache) -> dict[str, Any]:
    """The :func:`pairs` of a table: those in the cache, if they were made from the same records."""
    kept = cache.get(f"pairs {slug(table)}", Kept)
    if kept is None or kept.made_from != table.content:
        kept = Kept(table.content, pairs(table))
        cache.put(f"pairs {slug(table)}", kept)
    return kept.pairs
