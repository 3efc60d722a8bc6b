"""Facts of the authors' code that a docstring states, each against the statement and not against our layers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import random_batch, sequence
from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.fusion import METHODS
from mer_bench.fusion.layers import fairseq_positions
from mer_bench.fusion.mmtm import TransferModule
from mer_bench.fusion.transformer import scaled_with_positions
from mer_bench.records import RunSpec, Training
from mer_bench.testing import CLASSES, DIMS
from mer_bench.training.build import build_method
from mer_bench.training.suite import read_suite

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

    def losses(batch: Batch) -> dict[str, float]:
        torch.manual_seed(0)  # for methods that drop modalities at random
        found = {each: float(value.detach()) for each, value in module.losses(batch).items()}
        return {each: value for each, value in found.items() if each != "contrast"}  # MultiEMO's always has weights

    plain = losses(batch)
    module.class_counts.copy_(torch.tensor([1e12, 1.0, 1e12, 1e12]))
    assert losses(batch) == plain
    module.training_options = Training(class_weights="balanced")
    relabelled = losses(replace(batch, label=torch.where(batch.label == 0, 2, batch.label)))
    for each, value in losses(batch).items():
        if each.endswith("cross_entropy"):
            assert value == pytest.approx(relabelled[each], rel=1e-4)
            assert value != pytest.approx(plain[each], rel=1e-4)


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


@pytest.mark.parametrize(("double", "gate"), [(False, 0.5), (True, 1.0)])
def test_gates_of_mmtm_halve_channels_at_first_as_in_the_code_or_keep_them_as_in_the_paper(
    double: bool, gate: float
) -> None:
    module = TransferModule([4, 3], double=double)
    torch.nn.init.zeros_(module.excite.weight)
    torch.nn.init.zeros_(module.excite.bias)
    tokens = [sequence([2, 5], width) for width in (4, 3)]
    for before, after in zip(tokens, module(tokens), strict=True):
        torch.testing.assert_close(after.values, gate * before.values)
    (first, *_) = (each for each in METHODS["mmtm"](DIMS, CLASSES).modules() if isinstance(each, TransferModule))
    assert first.gain == 1


MELD = {
    "dialogue_gcn": {"relations": "same_other"},
    "cogmen": {"relations": "same_other"},
    "mm_dfn": {"text_speaker": 1.5, "audio_speaker": 0.5, "vision_speaker": 0.5},
    # but for the width, which was chosen on the development set
    "sdt": {"temperature": 8.0, "learned_gates": False, "dropout": 0.5, "hidden": 128},
    "m3net": {"hidden": 512, "frequency_layers": 3, "dropout": 0.4},
    "graph_smile": {
        "hidden": 384, "layers": 5, "window_past": 3, "window_future": 3, "shift_window": 3, "sentiment_weight": 0.5,
        "shift_weight": 0.2, "dropout": 0.2,
    },
}  # fmt: skip


def test_suites_of_meld_have_the_settings_of_the_authors_for_it() -> None:
    rows = [row for name in ("meld", "meld_audio") for row in read_suite(Path(f"benchmarks/{name}.toml")).rows]
    for method, settings in MELD.items():
        found = [row for row in rows if row.method == method]
        assert found
        assert all(dict(row.options).items() <= {"dropout": 0.4, **settings}.items() for row in found)
        assert settings.items() <= {name: value for row in found for name, value in row.options.items()}.items()
