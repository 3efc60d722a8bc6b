"""What records keep of probabilities: sums and counts from which the scores of the probabilities follow."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from mer_bench.calibration import (
    UNIT,
    block_of,
    calibrate,
    fit_temperature,
    log_of,
    probability_scores,
    scaled,
    statements,
)
from mer_bench.metrics import SMALLEST, brier_scores, calibration_error, log_losses, reliability


def drawn(
    utterances: int, clusters: int, seed: int = 0, sharp: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of six classes, true classes, predictions and clusters."""
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.full(6, 1 / sharp), utterances).astype(np.float32)
    true = np.where(draw.random(utterances) < 0.6, p.argmax(1), draw.integers(0, 6, utterances))
    return p, true, p.argmax(1), np.sort(draw.permutation(utterances) % clusters)


def test_scores_of_few_probabilities_are_those_by_hand() -> None:
    p, true = np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]), np.array([0, 1, 1])
    assert log_losses(p, true) == pytest.approx([np.log(2), np.log(10), -np.log(SMALLEST)])
    assert brier_scores(p, true) == pytest.approx([0.5, 1.62, 2.0])
    bins = reliability(p.max(1), p.argmax(1) == true)
    assert bins.shape == (3, 15)
    assert bins[:, 7].tolist() == [1, 1, 0.5]
    assert bins[:, 13].tolist() == [1, 0, 0.9]
    assert bins[:, 14].tolist() == [1, 0, 1.0]
    assert calibration_error(bins) == pytest.approx((0.5 + 0.9 + 1.0) / 3)


@pytest.mark.parametrize("sharp", [1.0, 50.0])  # with 50 most sums of a cluster are below one hundredth
def test_the_scores_follow_from_what_is_kept(sharp: float) -> None:
    p, true, predicted, cluster = drawn(600, 300, sharp=sharp)
    found = calibrate(p, true, predicted, cluster)
    log_loss, brier, error = probability_scores([found])
    assert log_loss == pytest.approx(log_losses(p, true).mean(), abs=0.006 / 600)
    assert brier == pytest.approx(brier_scores(p, true).mean(), abs=0.006 / 600)
    assert error == pytest.approx(calibration_error(reliability(p.max(1), predicted == true)), abs=1e-5)
    for kept, by_utterance in ((found.log_loss, log_losses), (found.brier, brier_scores)):
        assert len(kept) == 300
        assert np.array(kept) / UNIT == pytest.approx(np.bincount(cluster, by_utterance(p, true)), abs=0.0101)


def test_utterances_are_pooled_over_the_folds_of_a_seed() -> None:
    parts = [drawn(200, 8, seed=0), drawn(100, 5, seed=1)]
    p, true, predicted, _ = (np.concatenate(each) for each in zip(*parts, strict=True))
    pooled = probability_scores([calibrate(*part) for part in parts])
    assert pooled == pytest.approx(
        (
            log_losses(p, true).mean(),
            brier_scores(p, true).mean(),
            calibration_error(reliability(p.max(1), predicted == true)),
        ),
        abs=1e-4,
    )


def test_the_predicted_class_is_what_was_predicted_even_where_another_has_an_equal_probability() -> None:
    p = np.full((4, 2), 0.5, np.float32)
    found = calibrate(p, np.array([1, 1, 1, 0]), np.array([1, 1, 1, 1]), np.zeros(4, np.int64))
    assert sum(found.correct) == 3


def test_it_takes_little_room_in_a_record() -> None:
    for clusters, utterances in ((72, 576), (120, 960), (151, 1200)):
        kept = asdict(calibrate(*drawn(utterances, clusters)))
        assert len(json.dumps(kept, separators=(",", ":"))) < 2400


@pytest.mark.parametrize("clusters", [1, 5, 16, 31, 280])
def test_gaps_are_kept_by_blocks_of_neighbouring_clusters_and_sum_to_those_of_the_bins(clusters: int) -> None:
    p, true, predicted, cluster = drawn(600, clusters)
    found = calibrate(p, true, predicted, cluster)
    blocks = block_of(clusters)
    assert len(found.gaps or ()) == len(set(blocks)) == min(clusters, 16)
    assert np.bincount(blocks).max() - np.bincount(blocks).min() <= 1
    assert (np.diff(blocks) >= 0).all()
    for block, gaps in enumerate(found.gaps or ()):
        inside = blocks[cluster] == block
        _, correct, confidence = reliability(p[inside].max(1), (predicted == true)[inside])
        assert np.array(gaps) / 10 == pytest.approx(correct - confidence, abs=0.1001)
    assert np.sum(found.gaps or (), 0) / 10 == pytest.approx(np.subtract(found.correct, found.confidence), abs=0.0502)
    matrices = np.zeros((clusters, 6, 6), np.int64)
    np.add.at(matrices, (cluster, true, predicted), 1)
    assert all(holds for holds, _ in statements(found, matrices))
    shifted = replace(found, gaps=[[each + 3 for each in found.gaps[0]], *found.gaps[1:]] if found.gaps else None)
    wrong = [text for holds, text in statements(shifted, matrices) if not holds]
    assert wrong == ["the gaps of calibration are not those of its bins"]


def test_the_temperature_is_the_one_that_made_the_logits_too_large() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (20_000, 4))
    p = scaled(logits, 1.0)
    true = (p.cumsum(1) > draw.random((len(p), 1))).argmax(1)
    assert fit_temperature(3 * logits, true) == pytest.approx(3, rel=0.03)
    assert fit_temperature(0.5 * logits, true) == pytest.approx(0.5, rel=0.03)
    assert fit_temperature(log_of(scaled(logits, 0.5)), true) == pytest.approx(2, rel=0.03)
    at = [log_losses(scaled(3 * logits, each), true).mean() for each in (2.5, fit_temperature(3 * logits, true), 3.5)]
    assert at[1] == min(at)


def test_temperatures_stay_within_their_limits() -> None:
    sure = np.array([[5.0, 0.0], [5.0, 0.0]])
    assert fit_temperature(sure, np.array([0, 0])) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(sure, np.array([1, 1])) == pytest.approx(20, rel=1e-3)
