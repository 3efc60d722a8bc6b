"""What a record keeps of the probabilities of its test utterances: enough to derive their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import BINS, SMALLEST, Array, brier_scores, calibration_error, log_losses, reliability
from mer_bench.schema import Count, NotNegative

UNIT = 100  #: sums are stored as whole numbers of hundredths
SLACK = 0.001  #: by which a rounded sum may leave its limits


@dataclass(frozen=True)
class Calibration:
    """Sums over test utterances, from probabilities in single precision.

    Those of clusters are in hundredths and rounded so that the first clusters together, and so all of them, are never
    wrong by more than half of one.
    """

    log_loss: list[Count]  #: by cluster, as ``test_by_cluster``: negative log-likelihood, in hundredths of a nat
    brier: list[Count]  #: by cluster: squared error summed over classes, in hundredths
    utterances: list[Count]  #: by bin of the probability of the predicted class, see ``metrics.reliability``
    correct: list[Count]  #: by bin: those whose predicted class is the true one
    confidence: list[NotNegative]  #: by bin: sum of the probability of the predicted class


def calibrate(probabilities: Array, true: Array, predicted: Array, cluster: Array) -> Calibration:
    """What to keep of the probabilities [utterance, class].

    Args:
        probabilities: In single precision.
        true: Class of each utterance.
        predicted: Class that was predicted for it, which has the largest probability.
        cluster: Number of its cluster; all from 0 on occur.
    """
    confidence = probabilities[np.arange(len(true)), predicted]
    utterances, correct, confidences = reliability(confidence, predicted == true)
    return Calibration(
        log_loss=_hundredths(np.bincount(cluster, log_losses(probabilities, true))),
        brier=_hundredths(np.bincount(cluster, brier_scores(probabilities, true))),
        utterances=utterances.astype(np.int64).tolist(),
        correct=correct.astype(np.int64).tolist(),
        confidence=confidences.round(4).tolist(),
    )


def _hundredths(sums: Array) -> list[int]:
    """Sums as whole numbers of hundredths; rounding the running total keeps the sum of all within half of one."""
    found: list[int] = np.diff(np.rint(UNIT * sums.cumsum()).astype(np.int64), prepend=0).tolist()
    return found


def probability_scores(parts: Sequence[Calibration]) -> tuple[float, float, float]:
    """Negative log-likelihood in nats, Brier score and expected calibration error, utterances pooled over ``parts``."""
    bins = np.array([[part.utterances, part.correct, part.confidence] for part in parts], np.float64).sum(0)
    total = UNIT * bins[0].sum()
    log_loss, brier = (sum(map(sum, (getattr(part, name) for part in parts))) for name in ("log_loss", "brier"))
    return float(log_loss / total), float(brier / total), float(calibration_error(bins))


def statements(found: Calibration, by_cluster: npt.NDArray[np.int64]) -> Iterator[tuple[bool, str]]:
    """What must hold of the confusion matrices [cluster, class, class] of the same utterances, each with its denial."""
    sizes = by_cluster.sum((1, 2))
    for name, most in (("log_loss", -np.log(SMALLEST)), ("brier", 2.0)):
        sums = np.array(getattr(found, name), np.float64)
        yield len(sums) == len(sizes), f"{name} of calibration does not have one sum per cluster"
        within = bool((sums <= UNIT * most * sizes + 1).all())
        yield within, f"{name} of calibration exceeds what the utterances of a cluster can have"
    utterances, correct, confidence = map(np.array, (found.utterances, found.correct, found.confidence))
    same = {len(utterances), len(correct), len(confidence)} == {BINS}
    yield same, f"calibration does not have {BINS} bins"
    yield int(utterances.sum()) == int(sizes.sum()), "calibration does not count the test utterances"
    hits = int(np.trace(by_cluster.sum(0)))
    yield int(correct.sum()) == hits, "calibration does not count the correct predictions of test_confusion"
    yield bool((correct <= utterances).all()), "a bin of calibration has more correct utterances than utterances"
    low, high = utterances * np.arange(BINS) / BINS, utterances * np.arange(1, BINS + 1) / BINS
    inside = bool(((low - SLACK <= confidence) & (confidence <= high + SLACK)).all())
    yield inside, "the confidence of a bin of calibration is outside of the bin"
