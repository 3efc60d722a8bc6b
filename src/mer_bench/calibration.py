"""What a record keeps of the probabilities of its test utterances: enough to derive their scores and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import BINS, SMALLEST, Array, bin_of, brier_scores, calibration_error, log_losses, reliability
from mer_bench.schema import AboveZero, Count, NotNegative, Whole

UNIT = 100  #: sums are stored as whole numbers of hundredths
GAP_UNIT = 10  #: gaps of confidence and accuracy are stored in tenths of an utterance
BLOCKS = 16  #: of neighbouring clusters, by which such gaps are stored, if there are as many clusters
LIMITS = 0.05, 20.0  #: of a temperature
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
    #: by block of clusters (see :func:`block_of`) and bin: ``correct`` less ``confidence``, in tenths; None = not kept
    gaps: list[list[Whole]] | None = None


@dataclass(frozen=True)
class Scaled:
    """The same after the logits were divided by the temperature at which validation is most likely.

    Both are None where the protocol has no validation to fit it on.
    """

    temperature: AboveZero | None
    calibration: Calibration | None


def calibrate(probabilities: Array, true: Array, predicted: Array, cluster: Array) -> Calibration:
    """What to keep of the probabilities [utterance, class].

    Args:
        probabilities: In single precision.
        true: Class of each utterance.
        predicted: Class that was predicted for it, which has the largest probability.
        cluster: Number of its cluster; all from 0 on occur.
    """
    confidence = probabilities[np.arange(len(true)), predicted]
    clusters = int(cluster.max()) + 1
    gap = np.zeros((min(BLOCKS, clusters), BINS))
    np.add.at(
        gap, (block_of(clusters)[cluster], bin_of(confidence)), (predicted == true) - confidence.astype(np.float64)
    )
    utterances, correct, confidences = reliability(confidence, predicted == true)
    return Calibration(
        log_loss=hundredths(np.bincount(cluster, log_losses(probabilities, true))),
        brier=hundredths(np.bincount(cluster, brier_scores(probabilities, true))),
        utterances=utterances.astype(np.int64).tolist(),
        correct=correct.astype(np.int64).tolist(),
        confidence=confidences.round(4).tolist(),
        gaps=np.diff(np.rint(GAP_UNIT * gap.cumsum(0)).astype(np.int64), axis=0, prepend=0).tolist(),
    )


def block_of(clusters: int) -> npt.NDArray[np.int64]:
    """The block of each cluster: at most :data:`BLOCKS`, of neighbours, as equal as can be."""
    return np.arange(clusters) * min(BLOCKS, clusters) // clusters


def fit_temperature(log_probabilities: Array, true: Array) -> float:
    """The temperature, within :data:`LIMITS`, at which the true classes are most likely.

    The likelihood has one maximum in it, which the golden section finds to four digits. Source: Guo et al., "On
    calibration of modern neural networks", ICML 2017.

    Args:
        log_probabilities: Logits, or logarithms of probabilities [utterance, class].
        true: Class of each utterance.
    """
    low, high = np.log(LIMITS)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(position: float) -> float:
        return float(log_losses(scaled(log_probabilities, np.exp(position)), true).mean())

    while high - low > 1e-5:
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, second) if loss(first) <= loss(second) else (first, high)
    return round(float(np.exp((low + high) / 2)), 4)


def scaled(log_probabilities: Array, temperature: float) -> Array:
    """Probabilities [utterance, class] of logits that are divided by the temperature."""
    logits = np.asarray(log_probabilities, np.float64) / temperature
    found = np.exp(logits - logits.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def log_of(probabilities: Array) -> Array:
    """Logarithms of probabilities, which count as those in single precision: none is minus infinity."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))


def hundredths(sums: Array) -> list[int]:
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
    if found.gaps is not None:
        blocks = min(BLOCKS, len(sizes))
        shape = [BINS] * blocks == [len(each) for each in found.gaps]
        yield shape, f"calibration does not have a gap for each of {blocks} blocks and {BINS} bins"
        missed = np.abs(np.array(found.gaps).sum(0) / GAP_UNIT - (correct - confidence))
        yield bool((missed <= 0.5 / GAP_UNIT + SLACK).all()), "the gaps of calibration are not those of its bins"
