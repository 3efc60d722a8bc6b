"""The paired differences of each two rows of a table, which the comparison on the HTML page reads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mer_bench.report.cache import Cache
from mer_bench.report.names import slug
from mer_bench.report.statistics import difference
from mer_bench.report.tables import Table

Pairs = list[list[float] | None]  #: [effect, low, high, p], the first three in points


def pairs(table: Table) -> Pairs:
    """The difference of each two rows: a row minus a later one, for all pairs in the order of the rows.

    It is None where one of the two has no complete seed or no counts by cluster.
    """
    found: Pairs = []
    for a, b in combinations([table.evidence.get(row) for row in table.rows], 2):
        one = difference(a, b) if a and b and np.array_equal(a.support, b.support) else None
        points = [round(100 * part, 3) for part in (one.effect, one.low, one.high)] if one else []
        found.append([*points, round(one.p, 4)] if one else None)
    return found


@dataclass(frozen=True)
class Kept:
    """The pairs of a table as the cache keeps them."""

    made_from: bytes  #: hash
    pairs: Pairs


def kept_pairs(table: Table, cache: Cache) -> Pairs:
    """The :func:`pairs` of a table: those in the cache, if they were made from the same records."""
    kept = cache.get(f"pairs {slug(table)}", Kept)
    if kept is None or kept.made_from != table.content:
        kept = Kept(table.content, pairs(table))
        cache.put(f"pairs {slug(table)}", kept)
    return kept.pairs
