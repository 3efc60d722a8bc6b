"""Groups of the test utterances, such as speakers: what a record keeps so that each group can be scored by itself.

A kind of groups ("speaker") says of every test utterance to which group ("Ses05F") it belongs. With the confusion
matrices of clusters, which a record has already, little more is needed. Where no cluster is cut, the group of each
cluster; where the groups of a finer kind are not cut, the group of each of these; elsewhere how many of the utterances
in each cell of the clusters' matrices belong to each group but the last, which has the rest.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mer_bench.schema import Count, Digits, Name, Text

Counts = npt.NDArray[np.int64]
Numbers = Digits | list[Count]  #: characters of :data:`DIGITS`, or whole numbers where one of them has no character

DIGITS = string.digits + string.ascii_letters
VALUES = {digit: value for value, digit in enumerate(DIGITS)}
CLUSTERS, CELLS = "clusters", "cells"


@dataclass(frozen=True)
class Groups:
    """The groups of one kind."""

    names: list[Text]  #: ascending
    #: "clusters", or a finer kind: ``numbers`` is one list, the group of each of its clusters or groups; or "cells",
    #: those of ``test_by_cluster`` that are not zero: ``numbers`` is one list of counts for each group but the last
    within: Name
    numbers: list[Numbers]


def make_groups(
    kinds: Mapping[str, Sequence[str]], cluster: Counts, true: Counts, predicted: Counts, classes: int
) -> dict[str, Groups]:
    """What to keep of groups of utterances, the finest kind first.

    Args:
        kinds: Kind -> group of each utterance.
        cluster: Number of the cluster of each utterance; all from 0 on occur.
        true: Its class.
        predicted: The class that was predicted for it.
        classes: Number of classes.
    """
    cell = np.unique((cluster * classes + true) * classes + predicted, return_inverse=True)[1]
    found: dict[str, Groups] = {}
    finer = {CLUSTERS: cluster}
    for kind, of_each in kinds.items():
        names, group = np.unique(np.asarray(of_each, np.str_), return_inverse=True)
        within = next((name for name, parts in finer.items() if _are_whole(parts, group)), CELLS)
        if within == CELLS:
            numbers = [np.bincount(cell[group == number], minlength=cell.max() + 1) for number in range(len(names) - 1)]
            finer[kind] = group
        else:
            numbers = [group[np.unique(finer[within], return_index=True)[1]]]
        found[kind] = Groups(names.tolist(), within, [_written(each) for each in numbers])
    return found


def group_cells(groups: Mapping[str, Groups], kind: str, clusters: Counts) -> Counts:
    """How many utterances of a kind's groups are in each cell of the clusters' matrices that is not zero [group, cell].

    Args:
        groups: The groups of all kinds.
        kind: One of them.
        clusters: The confusion matrices of the clusters [cluster, class, class].

    Raises:
        ValueError: the groups are not those of such clusters.
    """
    found, cells = groups[kind], np.flatnonzero(clusters)
    counts = clusters.ravel()[cells].astype(np.int64)
    numbers = np.array([_read(each) for each in found.numbers], np.int64)
    if found.within == CELLS:
        stated = numbers.reshape(len(found.names) - 1, len(cells))
        return np.concatenate([stated, (counts - stated.sum(0))[None]])
    if found.within == CLUSTERS:
        (group,) = numbers.reshape(1, len(clusters))
        return np.where(group[cells // clusters[0].size] == np.arange(len(found.names))[:, None], counts, 0)
    if groups[found.within].within != CELLS:
        raise ValueError(f"{found.within} is in other groups itself")
    finer = group_cells(groups, found.within, clusters)
    (group,) = numbers.reshape(1, len(finer))
    return np.stack([finer[group == number].sum(0) for number in range(len(found.names))])


def group_totals(groups: Mapping[str, Groups], kind: str, clusters: Counts) -> Counts:
    """Confusion matrices of a kind's groups over all clusters [group, class, class]; arguments as for the cells."""
    parts = group_cells(groups, kind, clusters)
    found = np.zeros((clusters[0].size, len(parts)), np.int64)
    np.add.at(found, np.flatnonzero(clusters) % clusters[0].size, parts.T)
    return found.T.reshape(-1, *clusters.shape[1:])


def group_matrices(groups: Mapping[str, Groups], kind: str, name: str, clusters: Counts) -> Counts:
    """Confusion matrices of the group of that name in each cluster [cluster, class, class]."""
    found = np.zeros(clusters.size, np.int64)
    found[np.flatnonzero(clusters)] = group_cells(groups, kind, clusters)[groups[kind].names.index(name)]
    return found.reshape(clusters.shape)


def statements(groups: Mapping[str, Groups], clusters: Counts) -> Iterator[tuple[bool, str]]:
    """What must hold of groups and the confusion matrices [cluster, class, class], each with its denial."""
    for kind, found in groups.items():
        yield bool(found.names) and found.names == sorted({*found.names}), f"the groups of {kind} do not ascend"
        try:
            cells = group_cells(groups, kind, clusters)
        except (KeyError, ValueError, OverflowError):
            cells = np.empty((0, 0), np.int64)
        yield bool(cells.size), f"the groups of {kind} do not fit the clusters"
        sums = bool((cells >= 0).all()) and bool((cells.sum(0) == clusters[clusters > 0]).all())
        yield sums, f"the groups of {kind} do not sum to test_confusion"
        yield bool((cells.sum(1) > 0).all()), f"a group of {kind} has no utterance"


def _are_whole(parts: Counts, group: Counts) -> bool:
    """Whether each part lies in one group."""
    pairs = np.unique(np.stack([parts, group]), axis=1)
    return pairs.shape[1] == len(np.unique(parts))


def _written(numbers: npt.NDArray[Any]) -> str | list[int]:
    listed: list[int] = numbers.tolist()
    return "".join(DIGITS[each] for each in listed) if max(listed, default=0) < len(DIGITS) else listed


def _read(written: str | list[int]) -> list[int]:
    return [VALUES[each] for each in written] if isinstance(written, str) else written
