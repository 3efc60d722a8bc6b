"""Shorter forms of the long parts of a record's file; what is read of them is the record as it was.

``test_index``, table rows in ascending order, becomes gaps and runs in turn: how many rows are left out, then how many
follow one another. ``test_by_cluster``, of which most cells are zero, becomes gaps and counts in turn: how many cells
are zero, then the next count; so does ``by_cluster`` of each ``transfer``. ``curve`` becomes one list for each
quantity, and its numbers the shortest decimals of their values in single precision, in which they were computed. Files
that spell these parts out are read as well.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse
from mer_bench.schema import LARGEST, Count, Real, Text

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


def expand(content: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """The content of a record's file without what has a shorter form, and what these forms stand for.

    The second result is by attribute of the record: fields, of the types that they have, and as arrays ``index``, which
    is ``test_index``, and ``clusters``, which is ``test_by_cluster``. These fields are empty in the first result, which
    is left for the schema to check. A curve that is none is spelled out in the first, for the schema to say why.

    Raises:
        Misuse: a shorter form does not describe what it should.
    """
    if not isinstance(content, dict):
        return content, {}
    rest = dict(content)
    found: dict[str, Any] = {}
    forms = ("test_index", RUNS, _rows), ("test_by_cluster", COUNTS, _matrices_of_test)
    for name, form, expanded in forms:
        stated = rest.get(name)
        if isinstance(stated, dict):
            try:
                found |= expanded(_numbers(stated, form), content)
            except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
                raise Misuse(f"{where}: {name} does not describe the test utterances") from error
            rest[name] = []
    if isinstance(transfer := rest.get("transfer"), dict):
        rest["transfer"] = {corpus: _expand_transfer(each, content, where) for corpus, each in transfer.items()}
    if isinstance(curve := rest.get("curve"), dict):
        lists = curve.values()
        if not all(isinstance(each, list) for each in lists) or len({len(each) for each in lists}) > 1:
            raise Misuse(f"{where}: curve does not have one number per epoch of each quantity")
        try:
            found["curve"] = _epochs(msgspec.convert(curve, dict[Text, list[Real]]))
            rest["curve"] = []
        except (msgspec.ValidationError, UnicodeEncodeError):
            rest["curve"] = _epochs(curve)
    return rest, found


def _epochs(curve: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]


def _expand_transfer(stated: Any, content: Mapping[str, Any], where: str) -> Any:
    if not (isinstance(stated, dict) and isinstance(stated.get("by_cluster"), dict)):
        return stated
    try:
        numbers = _numbers(stated["by_cluster"], COUNTS)
        # each cluster has an utterance, so that there are at least as many counts as clusters
        return {**stated, "by_cluster": _matrices(numbers, len(content["classes"]), numbers.shape[1]).tolist()}
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
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
    if len(stated) > 1:
        raise ValueError
    return np.frombuffer(array("q", msgspec.convert(stated[form], list[Count])), np.int64).reshape(-1, 2).T


def _rows(numbers: npt.NDArray[np.int64], content: Mapping[str, Any]) -> dict[str, Any]:
    gaps, runs = numbers
    utterances = len(content["test_predictions"])
    if runs.max(initial=0) > utterances or runs.sum() != utterances:
        raise ValueError
    if int(gaps.max(initial=0)) * len(gaps) > LARGEST - utterances:  # the last row is no count, or a sum not exact
        raise ValueError
    left_out = np.repeat(np.cumsum(gaps), runs)  # before each row
    found = left_out + np.arange(utterances)
    return {"test_index": found.tolist(), "index": found}


def _matrices_of_test(numbers: npt.NDArray[np.int64], content: Mapping[str, Any]) -> dict[str, Any]:
    found = _matrices(numbers, len(content["classes"]), len(content["test_predictions"]))
    return {"test_by_cluster": found.tolist(), "clusters": found}


def _matrices(numbers: npt.NDArray[np.int64], classes: int, utterances: int) -> npt.NDArray[np.int64]:
    gaps, counts = numbers
    if gaps.max(initial=0) > utterances * classes**2:  # a sum of such gaps might not be exact
        raise ValueError
    ends = np.cumsum(gaps + 1)
    clusters = -(-int(ends.max(initial=0)) // classes**2)
    if clusters > utterances:  # each has an utterance
        raise ValueError
    flat = np.zeros(clusters * classes**2, np.int64)
    flat[ends - 1] = counts
    return flat.reshape(clusters, classes, classes)
