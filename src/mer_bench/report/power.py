"""The smallest difference that a table could show, as it is and with more seeds or clusters. Needs no torch.

The score of one training of a method on n clusters is taken apart into one value per cluster, its jackknife
pseudo-value: n times the score of all clusters, less n - 1 times that without this one. Over seeds s and clusters c
these values have an analysis of variance with one value per cell,

    y[s, c] = mean + cluster[c] + seed[s] + rest[s, c].

Of two methods a and b, the difference D[c] of the means over seeds leaves out what clusters have in common. Its
expected variance over clusters is C + R_a / S_a + R_b / S_b for S seeds, where R is the mean square of the rest. The
variance between seeds of a method's means over n clusters is expected to be T + R / n. Hence the estimates

    C = var_c(D) - R_a / S_a - R_b / S_b,    T_m = var_s(y_m[s, .]) - R_m / n,    none of them below zero,

and the variance of the difference of the two scores with N clusters and S seeds:

    V(N, S) = C / N + sum over both methods of (T_m / S + R_m / (N S)).

The crossed bootstrap counts the rest three times in expectation (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 1, 2007): B(N, S) = C / N + sum of (T_m / S + 3 R_m / (N S)). A test at the level alpha finds a true
difference d with 80 % power where d = z(1 - alpha / 2) sqrt(B) + z(0.8) sqrt(V). This is the smallest difference that
a table could show; of all pairs of its rows the median is stated. Alpha is 5 % for two rows that are named beforehand,
and 5 % / (k - 1) for the best of k rows against another, which is what Holm's correction asks of its smallest p-value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.metrics import SCORES_FROM_MARGINS, margins
from mer_bench.records import Protocol
from mer_bench.report.formatting import plain, points
from mer_bench.report.statistics import LEAST_SEEDS, LEVEL, Counts, Floats
from mer_bench.report.tables import Table

POWER = 0.8  #: probability with which the smallest difference is found


@dataclass(frozen=True, eq=False)
class Variances:
    """Components of the variance of the difference of each two methods, as the module explains them.

    Attributes:
        clusters: C of each pair [pair], for one cluster.
        seeds: T of both methods of each pair [pair, 2], for one seed.
        rest: R of both methods of each pair [pair, 2], for one seed and cluster.
        cluster_count: Clusters that the methods were tested on.
        seed_counts: Seeds of both methods of each pair [pair, 2].
    """

    clusters: Floats
    seeds: Floats
    rest: Floats
    cluster_count: int
    seed_counts: Floats

    def with_more(self, *, seeds: int | None = None, clusters: int | None = None) -> Variances:
        """The same components for another number of seeds per method, or of clusters."""
        counts = self.seed_counts if seeds is None else np.full_like(self.seed_counts, seeds)
        return replace(self, cluster_count=clusters or self.cluster_count, seed_counts=counts)

    def variance(self, *, bootstrap: bool = False) -> Floats:
        """Variance of the difference of each pair [pair], or what the bootstrap takes it for in expectation."""
        rest = (3 if bootstrap else 1) * self.rest / self.cluster_count
        return self.clusters / self.cluster_count + ((self.seeds + rest) / self.seed_counts).sum(1)

    def smallest_difference(self, tests: int = 1) -> float:
        """The difference of scores that is found with a power of :data:`POWER`, median over pairs.

        Args:
            tests: In a family of how many tests; the level of each is divided by it.
        """
        normal = NormalDist()
        reached, needed = normal.inv_cdf(POWER), normal.inv_cdf(1 - (1 - LEVEL) / 2 / tests)
        return float(np.median(needed * np.sqrt(self.variance(bootstrap=True)) + reached * np.sqrt(self.variance())))


def variances(methods: Sequence[Counts], score: str = "weighted_f1") -> Variances:
    """Estimate the components from at least two methods on the same clusters, each with at least two seeds.

    Args:
        methods: Confusion matrices of each method by seed and cluster [seed, cluster, class, class].
        score: A name in :data:`mer_bench.metrics.SCORES`.
    """
    means, seeds, rest = [], [], []
    for counts in methods:
        values = pseudo_values(counts, score)
        of_seed, of_cluster = values.mean(1), values.mean(0)
        left = values - of_seed[:, None] - of_cluster + values.mean()
        rest.append((left**2).sum() / ((len(of_seed) - 1) * (len(of_cluster) - 1)))
        seeds.append(max(0.0, of_seed.var(ddof=1) - rest[-1] / len(of_cluster)))
        means.append(of_cluster)
    one, other = np.triu_indices(len(methods), 1)
    pairs = np.stack([one, other], 1)
    together = np.cov(np.array(means))
    differences = together[one, one] + together[other, other] - 2 * together[one, other]
    of_rest, counted = np.array(rest)[pairs], np.array([float(len(each)) for each in methods])[pairs]
    clusters = np.maximum(0, differences - (of_rest / counted).sum(1))
    return Variances(clusters, np.array(seeds)[pairs], of_rest, methods[0].shape[1], counted)


def pseudo_values(counts: Counts, score: str) -> Floats:
    """Jackknife pseudo-values of the score of each training: [seed, cluster, class, class] -> [seed, cluster]."""
    parts = margins(counts)  # each [class, seed, cluster]
    totals = [part.sum(-1, keepdims=True) for part in parts]
    whole = SCORES_FROM_MARGINS[score](*totals)
    without = SCORES_FROM_MARGINS[score](*(total - part for total, part in zip(totals, parts, strict=True)))
    clusters = counts.shape[1]
    return np.asarray(clusters * whole - (clusters - 1) * without)


def variances_of(table: Table) -> Variances | None:
    """The components of a table; None where fewer than two ranked rows have enough seeds, or there is one cluster."""
    counts = [row.counts for row in table.tested if row.counts is not None]
    return variances(counts) if len(counts) > 1 and counts[0].shape[1] > 1 else None


def resolution(table: Table) -> str:
    """The smallest differences that a table could show, in one sentence; empty where that is not known."""
    now = variances_of(table)
    if now is None:
        return ""
    tests, most = len(table.tested) - 1, int(now.seed_counts.max())
    more = max(10, 2 * most)

    def written(each: Variances) -> str:
        return f"{points(each.smallest_difference())} and {points(each.smallest_difference(tests))}"

    return (
        f"With a power of {100 * POWER:.0f} % this table could show a difference of "
        f"{points(now.smallest_difference())} points between two rows that are named beforehand, and of "
        f"{points(now.smallest_difference(tests))} between the best of {tests + 1} rows and another (Holm); with "
        f"{more} seeds {written(now.with_more(seeds=more))}, with twice the {clusters_of(table)} "
        f"{written(now.with_more(clusters=2 * now.cluster_count))}."
    )


def clusters_of(table: Table) -> str:
    """What the test utterances of a table are clustered by."""
    return table.protocol.clusters if table.protocol else Protocol.clusters


def power(tables: Sequence[Table], seeds: int | None = None, clusters: int | None = None) -> str:
    """For each table, the smallest difference that it could show now, and with these numbers, as plain text.

    Args:
        tables: The tables, at least one; those without two ranked rows that have enough seeds are only named.
        seeds: Seeds of each row; None = as they are.
        clusters: Clusters of test utterances; None = as they are.

    Raises:
        Misuse: in no table two ranked rows have enough seeds.
    """
    found = [(table, variances_of(table)) for table in tables]
    known = [_power(table, each, seeds, clusters) for table, each in found if each]
    lacking = "; ".join(f"{table.title} ({_most_seeds(table)})" for table, each in found if each is None)
    needs = f"the variance over seeds needs two ranked rows with {LEAST_SEEDS} complete seeds"
    if not known:
        raise Misuse(f"{needs}, and no table has them: {lacking}")
    return "\n\n".join([*known, *([f"{needs}; these tables have not: {lacking}"] if lacking else [])])


def _most_seeds(table: Table) -> str:
    most = max((row.complete for row in table.ranks), default=0)
    return f"at most {most} seed{'s' * (most > 1)} a row" if most else "no ranked row"


def _power(table: Table, now: Variances, seeds: int | None, clusters: int | None) -> str:
    name, rows = clusters_of(table), len(table.tested)
    asked = now.with_more(seeds=seeds, clusters=clusters)
    lines = [("", "seeds", name, "standard error", "two named rows", f"best of {rows} rows (Holm)")]
    for what, each in {"now": now, "asked": asked, "any number of seeds": asked.with_more(seeds=10**9)}.items():
        if each is asked and seeds is None and clusters is None:
            continue
        fewest, most = int(each.seed_counts.min()), int(each.seed_counts.max())
        counted = "any" if fewest >= 10**9 else str(fewest) if fewest == most else f"{fewest} to {most}"
        error = points(float(np.median(np.sqrt(each.variance()))))
        found = (points(each.smallest_difference()), points(each.smallest_difference(rows - 1)))
        lines.append((what, counted, str(each.cluster_count), error, *found))
    sets = ", ".join(f"{modality} {each}" for modality, each, _ in table.sets)
    over = [100 * float(np.median(np.sqrt(each))) for each in (now.clusters, now.seeds.sum(1), now.rest.sum(1))]
    return (
        f"{table.title} ({sets}): smallest difference in points of weighted F1 that is found with a power of "
        f"{100 * POWER:.0f} % at {100 * (1 - LEVEL):.0f} %, two-sided\n{plain(lines, '<>>>>>')}\n"
        f"standard deviation of the difference of two rows, median of {len(now.clusters)} pairs: {over[0]:.1f} for one "
        f"of the {name}, {over[1]:.1f} for one seed, {over[2]:.1f} for one seed on one of the {name} (the rest)"
    )
