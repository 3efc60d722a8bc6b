"""The classic fusions against closed forms and naive loops: numpy, one utterance at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories import DIMS, random_batch
from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.features import MODALITIES
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.gated import GatedUnit

CLASSES = 4
#: Utterance 3 lacks everything, 1 has vision alone, 0 lacks text.
MISSING = {"text": [0, 1, 3], "audio": [1, 3], "vision": [3]}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(name: str, subset: tuple[str, ...] = MODALITIES, **options: Any) -> FusionModule:
    return METHODS[name]({m: DIMS[m] for m in subset}, CLASSES, **options).eval()


def present(batch: Batch, row: int) -> list[int]:
    return [i for i, m in enumerate(MODALITIES) if batch.features[m].mask[row].any()] or [0, 1, 2]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


# Late fusion


@pytest.mark.parametrize("name", ["late_product", "multiplicative"])
def test_late_product_is_the_normalised_product_of_the_present_modalities_probabilities(name: str) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build(name)
    found = module(batch).detach().exp().numpy()
    exponential = np.exp(module.unimodal_logits(batch).detach().numpy())
    for row in range(len(batch)):
        chosen = exponential[present(batch, row), row]
        product = np.prod(chosen / chosen.sum(1, keepdims=True), 0)
        np.testing.assert_allclose(found[row], product / product.sum(), rtol=1e-5)


@pytest.mark.parametrize("beta", [0.3, 1.0, 0.0])
def test_multiplicative_loss_is_that_of_the_paper(beta: float) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("multiplicative", beta=beta)
    exponential = np.exp(5 * module.unimodal_logits(batch).detach().numpy().astype(np.float64))
    for name in MODALITIES:  # surer of themselves than at the start
        with torch.no_grad():
            module.heads[name].weight.mul_(5)
            module.heads[name].bias.mul_(5)
    total = 0.0
    for row in range(len(batch)):
        chosen = exponential[present(batch, row), row]
        p = (chosen / chosen.sum(1, keepdims=True))[:, int(batch.label[row])]
        for i in range(len(p)):
            doubt = np.prod([1 - p[j] for j in range(len(p)) if j != i])
            total -= doubt ** (beta / max(len(p) - 1, 1)) * np.log(p[i])
    np.testing.assert_allclose(float(module.losses(batch)["cross_entropy"].detach()), total / len(batch), rtol=1e-5)


def test_multiplicative_survives_a_modality_that_is_certain() -> None:
    batch = random_batch(context="utterance")
    module = build("multiplicative")
    module.unimodal_logits = lambda batch: logits  # type: ignore[method-assign]
    logits = torch.zeros(3, len(batch), CLASSES)
    logits[0].scatter_(1, batch.label[:, None], 200.0)  # 1 - p is zero in single precision
    logits.requires_grad_()
    loss = module.losses(batch)["cross_entropy"]
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# Gated multimodal unit


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_gated_unit_is_its_formula(modalities: int) -> None:
    unit = GatedUnit(modalities, 4, 5)
    x = [torch.randn(7, 4) for _ in range(modalities)]
    features = [np.tanh(v.numpy() @ layer.weight.detach().numpy().T) for v, layer in zip(x, unit.features, strict=True)]
    gate = 1 / (1 + np.exp(-np.concatenate([v.numpy() for v in x], 1) @ unit.gates.weight.detach().numpy().T))
    if modalities == 2:
        expected = gate * features[0] + (1 - gate) * features[1]
    else:
        expected = sum(gate[:, 5 * m : 5 * m + 5] * feature for m, feature in enumerate(features))
    np.testing.assert_allclose(unit(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gated_unit_takes_nothing_from_an_absent_modality() -> None:
    unit = GatedUnit(3, 4, 5)
    vectors = [torch.randn(7, 4), torch.zeros(7, 4), torch.randn(7, 4)]
    expected = unit(vectors)
    torch.nn.init.normal_(unit.features[1].weight)
    assert_close(unit(vectors), expected)
