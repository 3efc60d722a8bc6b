"""Every score equals scikit-learn's (1e-12) and torchmetrics' (1e-6), whichever classes are absent from the labels."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from mer_bench import metrics

Labels = npt.NDArray[np.int64]
EXACT = {"rel": 0, "abs": 1e-12}


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Labels, Labels, int]:
    """True labels, predictions and the number of classes; any class may be absent from both."""
    num_classes = draw(st.integers(1, 8))
    label = st.integers(0, num_classes - 1)
    pairs = np.array(draw(st.lists(st.tuples(label, label), min_size=1, max_size=60)), np.int64)
    return pairs[:, 0], pairs[:, 1], num_classes


def case(true: list[int], predicted: list[int], num_classes: int) -> tuple[Labels, Labels, int]:
    return np.array(true), np.array(predicted), num_classes


#: class 2 is predicted but never true; class 3 is neither
PREDICTED_BUT_ABSENT = case([0, 0, 0, 1, 1], [0, 2, 2, 1, 0], 4)
NEVER_PREDICTED = case([0, 1, 2, 2], [0, 0, 0, 0], 3)


@given(labelled())
@example(PREDICTED_BUT_ABSENT)
@example(NEVER_PREDICTED)
def test_scores_equal_scikit_learn(data: tuple[Labels, Labels, int]) -> None:
    true, predicted, num_classes = data
    matrix = metrics.confusion_matrix(true, predicted, num_classes)
    classes = list(range(num_classes))
    with warnings.catch_warnings():  # scikit-learn warns about a 1 x 1 matrix
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        assert (matrix == reference.confusion_matrix(true, predicted, labels=classes)).all()
    per_class = reference.precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0)
    for score, expected in zip((metrics.precision, metrics.recall, metrics.f1), per_class, strict=False):
        assert score(matrix) == pytest.approx(expected, **EXACT)
    expected_scores = {
        "accuracy": reference.accuracy_score(true, predicted),
        "weighted_f1": reference.f1_score(true, predicted, average="weighted", zero_division=0),
        "macro_f1": reference.f1_score(true, predicted, average="macro", zero_division=0),
        "uar": reference.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0),
    }
    assert {name: float(score(matrix)) for name, score in metrics.SCORES.items()} == pytest.approx(
        expected_scores, **EXACT
    )


@given(labelled())
@example(PREDICTED_BUT_ABSENT)
def test_uar_is_the_balanced_accuracy_of_scikit_learn(data: tuple[Labels, Labels, int]) -> None:
    true, predicted, num_classes = data
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        expected = reference.balanced_accuracy_score(true, predicted)
    assert metrics.uar(metrics.confusion_matrix(true, predicted, num_classes)) == pytest.approx(expected, **EXACT)


@given(labelled())
@example(PREDICTED_BUT_ABSENT)
def test_weighted_f1_and_accuracy_equal_torchmetrics(data: tuple[Labels, Labels, int]) -> None:
    true, predicted, num_classes = data
    num_classes = max(2, num_classes)  # torchmetrics refuses one class
    matrix = metrics.confusion_matrix(true, predicted, num_classes)
    tensors = torch.from_numpy(predicted), torch.from_numpy(true)
    f1 = multiclass_f1_score(*tensors, num_classes, average="weighted").item()
    micro = multiclass_accuracy(*tensors, num_classes, average="micro").item()
    assert metrics.weighted_f1(matrix) == pytest.approx(f1, rel=0, abs=1e-6)
    assert metrics.accuracy(matrix) == pytest.approx(micro, rel=0, abs=1e-6)


def test_macro_accuracy_of_torchmetrics_is_not_uar() -> None:
    """torchmetrics counts a class that is predicted but never true as a recall of 0, which UAR must not."""
    true, predicted, num_classes = PREDICTED_BUT_ABSENT
    macro = multiclass_accuracy(torch.from_numpy(predicted), torch.from_numpy(true), num_classes, average="macro")
    assert metrics.uar(metrics.confusion_matrix(true, predicted, num_classes)) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert macro.item() == pytest.approx((1 / 3 + 1 / 2) / 3)


@given(st.lists(labelled(), min_size=1, max_size=4))
def test_leading_axes_are_scored_one_by_one(data: list[tuple[Labels, Labels, int]]) -> None:
    stack = np.stack([metrics.confusion_matrix(true, predicted, 8) for true, predicted, _ in data])
    for score in [*metrics.SCORES.values(), metrics.f1, metrics.recall, metrics.precision]:
        assert np.array_equal(score(stack), np.stack([score(matrix) for matrix in stack]))


def test_no_utterances_score_zero() -> None:
    empty = metrics.confusion_matrix(np.array([], np.int64), np.array([], np.int64), 3)
    assert empty.shape == (3, 3)
    assert all(float(score(empty)) == 0 for score in metrics.SCORES.values())
