"""Nested shares of the training utterances: how a method learns with less data."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
SEED = 20261130  #: of the order in which clusters come, whatever the seed of the run


def nested_share(rows: Integers, cluster: Integers, labels: Integers, share: float) -> Integers:
    """The training rows of the first clusters, in an order that is the same for every share.

    A larger share thus contains every smaller one. Clusters come in a random order of all of the corpus, after those
    that are the first in it to have a class: a share has all classes if so many clusters can have them.

    Args:
        rows: Table rows of the training set, ascending.
        cluster: [table row], number of the cluster; clusters are taken as a whole.
        labels: [table row], class.
        share: Share of the clusters that have training rows, above 0; rounded up to whole ones.
    """
    if share >= 1:
        return rows
    place = np.random.default_rng(SEED).random(int(cluster.max()) + 1)
    order = sorted(set(cluster[rows].tolist()), key=lambda each: float(place[each]))
    seen: set[int] = set()
    first: list[int] = []
    rest: list[int] = []
    for each in order:
        found = set(labels[rows[cluster[rows] == each]].tolist())
        (rest if found <= seen else first).append(each)
        seen |= found
    wanted = math.ceil(round(share * len(order), 9))  # 0.1 * 30 is a little more than 3
    return rows[np.isin(cluster[rows], [*first, *rest][:wanted])]
