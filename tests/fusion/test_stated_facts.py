"""Facts of the authors' code that a docstring states, each against the statement and not against our layers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import random_batch
from torch import Tensor

from mer_bench.fusion import METHODS
from mer_bench.fusion.layers import fairseq_positions
from mer_bench.fusion.transformer import scaled_with_positions
from mer_bench.records import RunSpec, Training
from mer_bench.testing import CLASSES, DIMS
from mer_bench.training.build import build_method

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


@pytest.mark.parametrize("name", METHODS)
def test_every_method_weighs_its_emotions_by_class_and_only_if_so_trained(name: str) -> None:
    """With a weight for one class only, the labels of all others have no gradient in what is learnt of emotions."""
    torch.manual_seed(0)
    method = METHODS[name]
    module = method({n: DIMS[n] for n in method.accepted_modalities()[-1]}, CLASSES).eval()
    if not module.num_parameters:
        return
    batch = random_batch(module.dims, context=method.context)
    plain = module.losses(batch)
    module.class_counts.copy_(torch.tensor([1e12, 1.0, 1e12, 1e12]))
    assert {each: float(value.detach()) for each, value in module.losses(batch).items()} == {
        each: float(value.detach()) for each, value in plain.items()
    }
    module.training_options = Training(class_weights="balanced")
    relabelled = replace(batch, label=torch.where(batch.label == 0, 2, batch.label))
    for each, value in module.losses(batch).items():
        if each.endswith("cross_entropy"):
            assert float(value.detach()) == pytest.approx(float(module.losses(relabelled)[each].detach()), rel=1e-4)
            assert float(value.detach()) != pytest.approx(float(plain[each].detach()), rel=1e-4)


def test_validation_loss_is_not_weighted_by_class() -> None:
    module = METHODS["early_concat"](DIMS, CLASSES).eval()
    module.class_counts.copy_(torch.tensor([100.0, 1.0, 1.0, 1.0]))
    module.training_options = Training(class_weights="balanced", label_smoothing=0.1)
    module.validation_step(UTTERANCES, 0)
    expected = F.cross_entropy(module(UTTERANCES), UTTERANCES.label)
    assert float(module.validation_loss.compute()) == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize(
    ("options", "losses"),
    [({}, {"sentiment", "shift"}), ({"sentiments": ""}, set())],
    ids=["by name", "as the suite says"],
)
def test_a_run_of_graph_smile_takes_its_sentiments_from_the_names_of_the_classes(
    options: dict[str, str], losses: set[str]
) -> None:
    small = {"hidden": 8, "layers": 1}
    spec = RunSpec("meld", "four", "official", 1, {}, {}, "graph_smile", 0, {**small, **options}, Training(), 0)
    module = build_method(spec, DIMS, ("neutral", "joy", "anger", "sadness"))
    assert set(module.losses(random_batch(context="dialogue"))) == {"cross_entropy", *losses}
    if losses:
        assert module.sentiment_of_class.tolist() == [2, 0, 1, 1]  # "+", "-" and "0" in this order
