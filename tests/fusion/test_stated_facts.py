"""Facts of the authors' code that a docstring states, each against the statement and not against our layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from factories import random_batch
from torch import Tensor

from mer_bench.fusion import METHODS
from mer_bench.fusion.layers import fairseq_positions
from mer_bench.fusion.transformer import scaled_with_positions
from mer_bench.testing import CLASSES, DIMS

UTTERANCES = random_batch(context="utterance")


def test_multiplicative_weights_have_no_gradient() -> None:
    """The gradient with respect to a modality's logits is the weight times that of its own cross-entropy."""
    module = METHODS["multiplicative"](DIMS, CLASSES, beta=1.0)
    logits = torch.randn(3, len(UTTERANCES), CLASSES, requires_grad=True)
    module.unimodal_logits = lambda batch: logits  # type: ignore[operator, assignment]
    module.losses(UTTERANCES)["cross_entropy"].backward()
    p = logits.detach().softmax(-1).numpy().astype(np.float64)
    true = np.eye(CLASSES)[UTTERANCES.label]
    doubt = 1 - (p * true).sum(-1)
    for modality in range(3):
        others = [other for other in range(3) if other != modality]
        weight = np.prod(doubt[others], 0) ** 0.5
        expected = weight[:, None] * (p[modality] - true) / len(UTTERANCES)
        assert logits.grad is not None
        np.testing.assert_allclose(logits.grad[modality], expected, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 3, 4, 30, 41])
def test_positions_of_fairseq_count_from_one_with_sines_before_cosines(dim: int) -> None:
    half = dim // 2
    found = fairseq_positions(6, dim, torch.device("cpu"))
    assert found.shape == (6, dim)
    for row in range(6):
        angles = [(row + 1) * 10_000 ** (-k / max(half - 1, 1)) for k in range(half)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles] + [0.0] * (dim % 2)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_transformers_of_mult_scale_their_input_and_add_positions_of_fairseq() -> None:
    values: Tensor = torch.randn(2, 5, 8)
    expected = math.sqrt(8) * values + fairseq_positions(5, 8, values.device)
    torch.testing.assert_close(scaled_with_positions(values), expected)
