"""Shorter forms of the long parts of a record's file; what is read of them is the record as it was.

``test_index``, table rows in ascending order, becomes gaps and runs in turn: how many rows are left out, then how many
follow one another. ``test_by_cluster``, of which most cells are zero, becomes gaps and counts in turn: how many cells
are zero, then the next count; so does ``by_cluster`` of each ``transfer``. ``curve`` becomes one list for each
quantity, and its numbers the shortest decimals of their values in single precision, in which they were computed. Files
that spell these parts out are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse

RUNS = "gaps_and_runs"
COUNTS = "gaps_and_counts"


def compact(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a record's file in the shorter forms; a part that has none stays as it is."""
    found = dict(content)
    index, clusters, curve = (found.get(name) for name in ("test_index", "test_by_cluster", "curve"))
    if index and _ascends(index) and len(index) == len(content["test_predictions"]):
        found["test_index"] = {RUNS: _runs(np.array(index, np.int64))}
    if clusters:
        found["test_by_cluster"] = _short(clusters, len(content["classes"]))
    if transfer := found.get("transfer"):
        found["transfer"] = {
            corpus: {**each, "by_cluster": _short(each["by_cluster"], len(content["classes"]))}
            for corpus, each in transfer.items()
        }
    if curve and all(epoch and epoch.keys() == curve[0].keys() for epoch in curve):
        found["curve"] = {name: [single(epoch[name]) for epoch in curve] for name in curve[0]}
    return found


def expand(content: Any, where: str) -> Any:
    """The content of a record's file with everything spelled out.

    Raises:
        Misuse: a shorter form does not describe what it should.
    """
    if not isinstance(content, dict):
        return content
    found = dict(content)
    forms = ("test_index", RUNS, _rows), ("test_by_cluster", COUNTS, _matrices_of_test)
    for name, form, expanded in forms:
        stated = found.get(name)
        if isinstance(stated, dict):
            try:
                found[name] = expanded(_numbers(stated, form), content)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise Misuse(f"{where}: {name} does not describe the test utterances") from error
    if isinstance(transfer := found.get("transfer"), dict):
        found["transfer"] = {corpus: _expand_transfer(each, content, where) for corpus, each in transfer.items()}
    if isinstance(curve := found.get("curve"), dict):
        lists = curve.values()
        if not all(isinstance(each, list) for each in lists) or len({len(each) for each in lists}) > 1:
            raise Misuse(f"{where}: curve does not have one number per epoch of each quantity")
        found["curve"] = [dict(zip(curve, values, strict=True)) for values in zip(*lists, strict=True)]
    return found


def _expand_transfer(stated: Any, content: Mapping[str, Any], where: str) -> Any:
    if not (isinstance(stated, dict) and isinstance(stated.get("by_cluster"), dict)):
        return stated
    try:
        numbers = _numbers(stated["by_cluster"], COUNTS)
        # each cluster has an utterance, so that there are at least as many counts as clusters
        return {**stated, "by_cluster": _matrices(numbers, len(content["classes"]), numbers.shape[1])}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Misuse(f"{where}: transfer does not describe the utterances of another corpus") from error


def single(number: float) -> float:
    """The number with the fewest digits that is the same in single precision; as it is where it is beyond that."""
    with np.errstate(over="ignore"):
        rounded = float(str(np.float32(number)))
    return rounded if np.isfinite(rounded) else number


def _short(clusters: list[list[list[int]]], classes: int) -> Any:
    """The matrices in the shorter form, if it can be read again: of a last one without a count nothing would remain."""
    if clusters and _square(clusters, classes) and any(map(any, clusters[-1])):
        return {COUNTS: _counts(np.array(clusters, np.int64))}
    return clusters


def _ascends(index: list[int]) -> bool:
    return index[0] >= 0 and all(a < b for a, b in pairwise(index))


def _square(matrices: list[list[list[int]]], classes: int) -> bool:
    return all(len(matrix) == classes and {len(row) for row in matrix} == {classes} for matrix in matrices)


def _runs(index: npt.NDArray[np.int64]) -> list[int]:
    first = np.flatnonzero(np.diff(index, prepend=-2) != 1)  # where a run begins
    lengths = np.diff(first, append=len(index))
    ends = np.concatenate([[0], index[first] + lengths])
    return _alternate(index[first] - ends[:-1], lengths)


def _counts(clusters: npt.NDArray[np.int64]) -> list[int]:
    cells = clusters.ravel()
    known = np.flatnonzero(cells)
    return _alternate(np.diff(known, prepend=-1) - 1, cells[known])


def _alternate(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> list[int]:
    return np.stack([first, second], 1).ravel().tolist()


def _numbers(stated: Mapping[str, Any], form: str) -> npt.NDArray[np.int64]:
    """Gaps and what follows them [2, pair]; raises ValueError and the like for what can be none."""
    numbers = stated[form]
    if len(stated) > 1 or not isinstance(numbers, list) or set(map(type, numbers)) - {int}:
        raise ValueError
    found = np.array(numbers, np.int64).reshape(-1, 2).T
    if (found < 0).any():
        raise ValueError
    return found


def _rows(numbers: npt.NDArray[np.int64], content: Mapping[str, Any]) -> list[int]:
    gaps, runs = numbers
    if runs.sum() != len(content["test_predictions"]) or max(runs, default=0) > len(content["test_predictions"]):
        raise ValueError
    starts = np.cumsum(gaps + runs) - runs
    offsets = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
    return (np.repeat(starts, runs) + offsets).tolist()


def _matrices_of_test(numbers: npt.NDArray[np.int64], content: Mapping[str, Any]) -> list[list[list[int]]]:
    return _matrices(numbers, len(content["classes"]), len(content["test_predictions"]))


def _matrices(numbers: npt.NDArray[np.int64], classes: int, utterances: int) -> list[list[list[int]]]:
    gaps, counts = numbers
    cells = int((gaps + 1).sum())
    clusters = -(-cells // classes**2)
    if max(gaps, default=0) > utterances * classes**2 or clusters > utterances:  # each cluster has an utterance
        raise ValueError
    found = np.zeros(clusters * classes**2, np.int64)
    found[np.cumsum(gaps + 1) - 1] = counts
    return found.reshape(clusters, classes, classes).tolist()
