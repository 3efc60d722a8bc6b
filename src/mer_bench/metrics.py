"""Scores from a confusion matrix (rows true, columns predicted). Pure functions on numpy arrays; names state averaging.

Everything is derived from counts, so that a new score needs no re-training. A class without a true or a predicted
utterance scores 0 where the ratio is undefined, as scikit-learn does with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


def confusion_matrix(true: Array, predicted: Array, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts [class, class] of true (row) against predicted (column) labels."""
    flat = np.asarray(true, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(matrix: Array) -> FloatArray:
    """Share of correct predictions; [..., class, class] -> [...]."""
    return _ratio(_hits(matrix).sum(-1), matrix.sum((-2, -1)))


def recall(matrix: Array) -> FloatArray:
    """Per-class recall; [..., class, class] -> [..., class]."""
    return _ratio(_hits(matrix), matrix.sum(-1))


def precision(matrix: Array) -> FloatArray:
    """Per-class precision; [..., class, class] -> [..., class]."""
    return _ratio(_hits(matrix), matrix.sum(-2))


def f1(matrix: Array) -> FloatArray:
    """Per-class F1 = 2 hits / (support + predicted); [..., class, class] -> [..., class]."""
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def weighted_f1(matrix: Array) -> FloatArray:
    """F1 averaged over classes with their support as weight; [..., class, class] -> [...]."""
    support = matrix.sum(-1)
    return _ratio((f1(matrix) * support).sum(-1), support.sum(-1))


def macro_f1(matrix: Array) -> FloatArray:
    """F1 averaged over the classes that occur (true or predicted); [..., class, class] -> [...]."""
    occurs = (matrix.sum(-1) + matrix.sum(-2)) > 0
    return _ratio((f1(matrix) * occurs).sum(-1), occurs.sum(-1))


def uar(matrix: Array) -> FloatArray:
    """Unweighted average recall over the classes that have support; [..., class, class] -> [...]."""
    supported = matrix.sum(-1) > 0
    return _ratio((recall(matrix) * supported).sum(-1), supported.sum(-1))


SCORES: dict[str, Callable[[Array], FloatArray]] = {
    "weighted_f1": weighted_f1,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "uar": uar,
}


def _hits(matrix: Array) -> Array:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(numerator: Array, denominator: Array) -> FloatArray:
    safe = np.where(denominator > 0, denominator, 1)
    return np.where(denominator > 0, numerator / safe, 0.0)
