"""Scores from a confusion matrix (rows: true classes, columns: predicted classes), as pure functions on numpy arrays.

Records store confusion matrices, so that a new score needs no new training. An undefined ratio (a class without a true
or a predicted utterance) is 0, as in scikit-learn with ``zero_division=0``. Scores of probabilities come last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

BINS = 15  #: of the calibration error, of equal width
#: What smaller probabilities count as in the log-likelihood, as in scikit-learn for single precision: 16 nats at most.
SMALLEST = float(np.finfo(np.float32).eps)


def confusion_matrix(true: Array, predicted: Array, num_classes: int) -> npt.NDArray[np.int64]:
    """Count pairs of true (row) and predicted (column) labels: [class, class]."""
    flat = np.asarray(true, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def margins(matrix: Array) -> tuple[Array, Array, Array]:
    """Correct predictions, support and predictions of each class: [..., class, class] -> 3 x [class, ...]."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    first = (-1, *range(hits.ndim - 1))  # the classes; np.moveaxis takes ten times as long
    return hits.transpose(first), matrix.sum(-1).transpose(first), matrix.sum(-2).transpose(first)


def recall(matrix: Array) -> FloatArray:
    """Recall of each class; [..., class, class] -> [..., class]."""
    hits, support, _ = margins(matrix)
    return np.moveaxis(_ratio(hits, support), 0, -1)


def precision(matrix: Array) -> FloatArray:
    """Precision of each class; [..., class, class] -> [..., class]."""
    hits, _, predicted = margins(matrix)
    return np.moveaxis(_ratio(hits, predicted), 0, -1)


def f1(matrix: Array) -> FloatArray:
    """F1 = 2 hits / (support + predicted) of each class; [..., class, class] -> [..., class]."""
    return np.moveaxis(_f1(*margins(matrix)), 0, -1)


def _f1(hits: Array, support: Array, predicted: Array) -> FloatArray:
    return _ratio(2 * hits, support + predicted)


def _accuracy(hits: Array, support: Array, predicted: Array) -> FloatArray:
    """Share of correct predictions."""
    return _ratio(hits.sum(0), support.sum(0))


def _weighted_f1(hits: Array, support: Array, predicted: Array) -> FloatArray:
    """Mean F1 over the classes, weighted by their support."""
    return _ratio((_f1(hits, support, predicted) * support).sum(0), support.sum(0))


def _macro_f1(hits: Array, support: Array, predicted: Array) -> FloatArray:
    """Mean F1 over the classes that occur as true or predicted labels."""
    occurs = (support + predicted) > 0
    return _ratio((_f1(hits, support, predicted) * occurs).sum(0), occurs.sum(0))


def _uar(hits: Array, support: Array, predicted: Array) -> FloatArray:
    """Unweighted average recall (UAR) over the classes with support."""
    supported = support > 0
    return _ratio((_ratio(hits, support) * supported).sum(0), supported.sum(0))


def _ratio(numerator: Array, denominator: Array) -> FloatArray:
    """The ratio of counts or of their shares, of which the first is 0 where the second is; that is 0, too."""
    return np.asarray(numerator / np.maximum(denominator, np.finfo(np.float64).tiny))


def _of_matrix(score: Callable[[Array, Array, Array], FloatArray]) -> Callable[[Array], FloatArray]:
    return lambda matrix: score(*margins(matrix))


#: scores from :func:`margins`, for callers that resample these three numbers per class instead of matrices
SCORES_FROM_MARGINS: dict[str, Callable[[Array, Array, Array], FloatArray]] = {
    "weighted_f1": _weighted_f1,
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "uar": _uar,
}
#: the same scores from a confusion matrix; [..., class, class] -> [...]
SCORES = {name: _of_matrix(score) for name, score in SCORES_FROM_MARGINS.items()}
weighted_f1, accuracy, macro_f1, uar = SCORES.values()


def log_losses(probabilities: Array, true: Array) -> FloatArray:
    """Negative log-likelihood of each utterance in nats; [..., utterance, class], [utterance] -> [..., utterance]."""
    likelihood = np.asarray(probabilities, np.float64)[..., np.arange(len(true)), true]
    return -np.log(np.maximum(likelihood, SMALLEST))


def brier_scores(probabilities: Array, true: Array) -> FloatArray:
    """Squared error of each utterance summed over classes, 0 to 2; shapes as for :func:`log_losses`."""
    wanted = np.eye(np.shape(probabilities)[-1])[true]
    return ((np.asarray(probabilities, np.float64) - wanted) ** 2).sum(-1)


def bin_of(confidence: Array) -> npt.NDArray[np.int64]:
    """Number of the bin of each confidence."""
    return np.minimum((np.asarray(confidence, np.float64) * BINS).astype(np.int64), BINS - 1)


def reliability(confidence: Array, right: Array) -> FloatArray:
    """By bin of confidence: utterances, correct ones, and the sum of confidence [3, BINS].

    Args:
        confidence: Probability of the predicted class [utterance].
        right: Whether that class is the true one [utterance].
    """
    confidence = np.asarray(confidence, np.float64)
    index = bin_of(confidence)
    return np.stack([np.bincount(index, weights, BINS) for weights in (np.ones_like(confidence), right, confidence)])


def calibration_error(bins: Array) -> FloatArray:
    """Expected calibration error: mean gap of accuracy and confidence of the bins [..., 3, BINS], by utterances."""
    utterances, correct, confidence = np.moveaxis(bins, -2, 0)
    return np.abs(correct - confidence).sum(-1) / utterances.sum(-1)
