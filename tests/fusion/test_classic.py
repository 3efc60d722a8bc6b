"""The classic fusions against closed forms and naive loops: numpy, one utterance at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from factories import DIMS, assert_close, random_batch, sequence
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.compact_bilinear import CountSketch
from mer_bench.fusion.gated import GatedUnit
from mer_bench.fusion.graph_mfn import DynamicFusionGraph
from mer_bench.fusion.layers import resample
from mer_bench.fusion.linear import DECAYS
from mer_bench.fusion.low_rank import LowRankFusion
from mer_bench.fusion.mctn import Translator
from mer_bench.fusion.mfn import GatedMemory
from mer_bench.fusion.mmtm import TransferModule
from mer_bench.fusion.msaf import SplitAttention
from mer_bench.fusion.tensor_fusion import outer_product
from mer_bench.modalities import MODALITIES
from mer_bench.records import Training

CLASSES = 4
assert_close = partial(assert_close, atol=1e-6)
Naive = Callable[[FusionModule, Batch, int], Tensor]
#: Utterance 3 lacks everything, 1 has vision alone, 0 lacks text.
MISSING = {"text": [0, 1, 3], "audio": [1, 3], "vision": [3]}


def build(name: str, subset: tuple[str, ...] = MODALITIES, **options: Any) -> FusionModule:
    return METHODS[name]({m: DIMS[m] for m in subset}, CLASSES, **options).eval()


def array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def present(batch: Batch, row: int) -> list[int]:
    return [i for i, m in enumerate(MODALITIES) if batch.present[m][row]] or [0, 1, 2]


# Linear baseline


def test_linear_is_a_regression_on_the_functionals_of_all_modalities() -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module: Any = build("linear")
    with torch.no_grad():
        for parameter in module.parameters():  # so that the regressions differ
            parameter.normal_()
    joined = np.concatenate([batch.functionals[name].numpy() for name in MODALITIES], 1)
    expected = [joined @ array(head.weight).T + array(head.bias) for head in module.heads]
    np.testing.assert_allclose(array(module.regressions(batch)), expected, rtol=1e-4, atol=1e-4)
    for chosen in (0, 2):
        module.chosen.fill_(chosen)
        np.testing.assert_allclose(array(module(batch)), expected[chosen], rtol=1e-4, atol=1e-4)


def test_linear_trains_one_regression_per_weight_decay_and_the_first_with_that_of_the_suite() -> None:
    module: Any = build("linear")
    module.training_options = Training(weight_decay=0.3, learning_rate=0.02)
    groups = module.adamw().param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, *DECAYS[1:]]
    assert {group["lr"] for group in groups} == {0.02}
    assert [group["params"] for group in groups] == [list(head.parameters()) for head in module.heads]
    first = array(module.heads[0].weight)
    assert all(np.array_equal(array(head.weight), first) for head in module.heads)  # they start from the same weights
    assert module.num_parameters == sum(p.numel() for p in module.heads[0].parameters())


def test_linear_predicts_with_the_regression_that_is_best_on_validation() -> None:
    module: Any = build("linear")
    module.log_dict = lambda scores: None
    batch = random_batch(context="utterance")
    assert int(module.chosen) == 0  # without validation, the suite's own

    def validate(**right: bool) -> None:
        """Each regression predicts either every label, or class 0 alone."""
        biased = 9.0 * torch.eye(CLASSES)
        of_label, of_zero = biased[batch.label], biased[0].expand(len(batch), -1)
        module.regressions = lambda _: torch.stack([of_label if good else of_zero for good in right.values()])
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()

    validate(a=False, b=False, c=True, d=True)
    assert int(module.chosen) == 2  # of equal ones the first
    assert module._validation_scores["val/weighted_f1"] == 1
    assert module.validation_matrices[-1] == np.diag(np.bincount(batch.label)).tolist()
    validate(a=False, b=True, c=False, d=False)  # nothing is left of the epoch before
    assert int(module.chosen) == 1
    assert module.validation_matrices[-1] == np.diag(np.bincount(batch.label)).tolist()
    validate(a=False, b=False, c=False, d=False)
    assert int(module.chosen) == 0
    assert module._validation_scores["val/loss"] > 1


# Late fusion


@pytest.mark.parametrize("name", ["late_average", "late_product", "multiplicative"])
def test_late_fusion_averages_or_multiplies_the_probabilities_of_present_modalities(name: str) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build(name)
    found = module(batch).detach().exp().numpy()
    exponential = np.exp(module.unimodal_logits(batch).detach().numpy())
    for row in range(len(batch)):
        chosen = exponential[present(batch, row), row]
        chosen = chosen / chosen.sum(1, keepdims=True)
        joint = chosen.mean(0) if name == "late_average" else np.prod(chosen, 0)
        np.testing.assert_allclose(found[row], joint / joint.sum(), rtol=1e-5)


@pytest.mark.parametrize("beta", [0.3, 1.0, 0.0])
def test_multiplicative_loss_is_that_of_the_paper(beta: float) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("multiplicative", beta=beta)
    exponential = np.exp(5 * module.unimodal_logits(batch).detach().numpy().astype(np.float64))
    for name in MODALITIES:  # more confident than initially
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


# Tensor fusion and its low-rank form


def test_outer_product_is_that_of_numpy() -> None:
    vectors = [torch.randn(7, dim) for dim in (2, 3, 4)]
    a, b, c = (np.concatenate([np.ones((7, 1)), vector.numpy()], 1) for vector in vectors)
    expected = np.stack([np.multiply.outer(np.multiply.outer(a[i], b[i]), c[i]).ravel() for i in range(7)])
    np.testing.assert_allclose(outer_product(vectors).numpy(), expected, rtol=1e-6)


def test_low_rank_is_a_linear_map_of_the_outer_product() -> None:
    fusion = LowRankFusion(3, 4, 5, rank=3)
    nn.init.normal_(fusion.factors)
    nn.init.normal_(fusion.rank_weights)
    vectors = [torch.randn(7, 4) for _ in range(3)]
    a, b, c = fusion.factors
    weight = torch.einsum("r,rio,rjo,rko->oijk", fusion.rank_weights, a, b, c).flatten(1)
    assert_close(fusion(vectors), outer_product(vectors) @ weight.T + fusion.bias, atol=1e-4)


def test_low_rank_of_full_rank_reaches_every_linear_map_of_the_outer_product() -> None:
    size, out = 3, 5  # size = dim + 1; the map's tensor is sum over i, j of unit_i x unit_j x weight[:, i, j]
    weight = torch.randn(out, size, size, size)
    units = torch.eye(size)
    fusion = LowRankFusion(3, size - 1, out, rank=size * size)
    with torch.no_grad():
        fusion.rank_weights.fill_(1)
        fusion.factors[0] = units.repeat_interleave(size, 0)[..., None]
        fusion.factors[1] = units.repeat(size, 1)[..., None]
        fusion.factors[2] = weight.permute(1, 2, 3, 0).flatten(0, 1)
    vectors = [torch.randn(7, size - 1) for _ in range(3)]
    assert_close(fusion(vectors), outer_product(vectors) @ weight.flatten(1).T, atol=1e-5)


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


# A common time axis


def naive_resample(values: np.ndarray, steps: int) -> np.ndarray:
    """Average over spans of the frames' piecewise constant function, in slices so thin that they divide both."""
    if not len(values):
        return np.zeros((steps, values.shape[1]))
    slices = np.repeat(values, steps, 0)  # each frame in ``steps`` slices, each span in as many as there are frames
    return slices.reshape(steps, len(values), -1).mean(1)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_resample_averages_over_equal_spans(steps: int) -> None:
    length = torch.tensor([9, 4, 1, 0, 6])
    mask = torch.arange(11) < length[:, None]
    values = torch.randn(5, 11, 3) * mask[..., None]
    found = resample(PaddedSequence(values, mask), steps)
    for row, real in enumerate(length):
        np.testing.assert_allclose(found[row], naive_resample(values[row, :real].numpy(), steps), rtol=1e-4, atol=1e-6)


# Compact bilinear pooling


def test_sketch_of_the_outer_product_is_the_naive_circular_convolution() -> None:
    module = CountSketch(3, 6, 11)
    x, everything = torch.randn(4, 3, 6), torch.ones(4, 3, dtype=torch.bool)
    found = module(x, everything)
    for row in range(4):
        expected = np.zeros(11)
        for i, j, k in product(range(6), repeat=3):
            index = int(module.bins[0, i] + module.bins[1, j] + module.bins[2, k]) % 11
            sign = float(module.signs[0, i] * module.signs[1, j] * module.signs[2, k])
            expected[index] += sign * float(x[row, 0, i] * x[row, 1, j] * x[row, 2, k])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_an_absent_modality_is_left_out_of_the_sketch() -> None:
    module = CountSketch(2, 6, 11)
    x = torch.randn(4, 2, 6)
    without = torch.tensor([True, False]).expand(4, 2)
    assert_close(module(x, without), module.sketch(x)[:, 0])


def test_inner_products_of_sketches_are_those_of_the_outer_products_on_average() -> None:
    x = torch.randn(2, 2, 8)
    everything = torch.ones(2, 2, dtype=torch.bool)
    sketches = [CountSketch(2, 8, 32, seed)(x, everything) for seed in range(2000)]
    inner = np.array([float(a @ b) for a, b in sketches])
    exact = float((x[0, 0] @ x[1, 0]) * (x[0, 1] @ x[1, 1]))
    error = inner.std() / len(inner) ** 0.5
    assert error < 0.1 * x.norm() ** 2
    assert abs(inner.mean() - exact) < 4 * error
    larger = [CountSketch(2, 8, 2048, seed)(x, everything) for seed in range(200)]
    assert np.std([float(a @ b) for a, b in larger]) < 0.3 * inner.std()


def test_compact_bilinear_takes_signed_roots_of_unit_norm() -> None:
    module = build("compact_bilinear", sketch=50)
    batch = random_batch(context="utterance")
    taken: list[Tensor] = []
    module.head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].detach()))
    module(batch)
    vectors = torch.stack([module.encoders[m](batch) for m in MODALITIES], 1)
    pooled = module.sketch(vectors, torch.ones(9, 3, dtype=torch.bool)).detach().numpy()
    root = np.sign(pooled) * np.sqrt(np.abs(pooled))
    np.testing.assert_allclose(taken[0], root / np.linalg.norm(root, axis=1, keepdims=True), atol=2e-3)


def test_compact_bilinear_draws_its_sketch_from_its_own_seed() -> None:
    first, again, other = build("compact_bilinear"), build("compact_bilinear"), build("compact_bilinear", seed=1)
    assert torch.equal(first.sketch.bins, again.sketch.bins)
    assert torch.equal(first.sketch.signs, again.sketch.signs)
    assert not torch.equal(first.sketch.bins, other.sketch.bins)


# Memory fusion networks: one utterance at a time, one step at a time, as the papers write them


def network(layers: nn.Module, x: Tensor) -> Tensor:
    first, _, _, second = layers
    return second.weight @ (first.weight @ x + first.bias).clamp(min=0) + second.bias


def naive_memory(memory: GatedMemory, steps: list[Tensor]) -> Tensor:
    u = torch.zeros(memory.memory)
    for x in steps:
        both = torch.cat([x, u])
        keep, write = network(memory.retain, both).sigmoid(), network(memory.update, both).sigmoid()
        u = keep * u + write * network(memory.proposal, x).tanh()
    return u


def naive_mfn(module: FusionModule, batch: Batch, row: int) -> Tensor:
    hidden = module.lstms.recurrent.shape[1]
    cells = []
    for position, (name, project) in enumerate(module.lstms.inputs.items()):
        cell = nn.LSTMCell(DIMS[name].frames, hidden)
        with torch.no_grad():
            cell.weight_ih.copy_(project.weight)
            cell.weight_hh.copy_(module.lstms.recurrent[position].T)
            cell.bias_ih.copy_(project.bias)
            cell.bias_hh.zero_()
        cells.append((cell, resample(batch.frames[name], module.steps)[row]))
    state = [(torch.zeros(hidden), torch.zeros(hidden)) for _ in cells]
    attended = []
    for step in range(module.steps):
        before = [c for _, c in state]
        state = [cell(x[step], old) for (cell, x), old in zip(cells, state, strict=True)]
        change = torch.cat([*before, *(c for _, c in state)])
        attended.append(network(module.attention, change).softmax(0) * change)
    return network(module.head, torch.cat([*(h for h, _ in state), naive_memory(module.memory, attended)]))


def naive_graph(graph: DynamicFusionGraph, singles: list[Tensor]) -> Tensor:
    """Written for up to three modalities, as the figure shows it: pairs, the triple, then the output."""
    names = "lav"[: len(singles)]
    edges = {"la": "l a", "lv": "l v", "av": "a v", "lav": "l a v la lv av"}
    order = [vertex for vertex in edges if set(vertex) <= set(names)]
    efficacies = iter(network(graph.efficacies, torch.cat(singles)).sigmoid())
    vertices = dict(zip(names, singles, strict=True))
    for vertex, layers in zip(order, graph.networks, strict=False):
        inputs = [vertices[source] * next(efficacies) for source in edges[vertex].split()]
        vertices[vertex] = network(layers, torch.cat(inputs))
    output = network(graph.networks[-1], torch.cat([vertex * next(efficacies) for vertex in vertices.values()]))
    assert next(efficacies, None) is None
    return output


def naive_graph_mfn(module: FusionModule, batch: Batch, row: int) -> Tensor:
    states, fused = [], []
    for name, lstm in module.lstms.items():
        cell = nn.LSTMCell(DIMS[name].frames, lstm.hidden_size)
        cell.load_state_dict({key.removesuffix("_l0"): value for key, value in lstm.state_dict().items()})
        h = c = torch.zeros(lstm.hidden_size)
        states.append([h])
        for x in resample(batch.frames[name], module.steps)[row]:
            h, c = cell(x, (h, c))
            states[-1].append(h)
    for step in range(module.steps):
        singles = [
            (layer.weight @ torch.cat([own[step], own[step + 1]]) + layer.bias).clamp(min=0)
            for layer, own in zip(module.singles.values(), states, strict=True)
        ]
        fused.append(naive_graph(module.graph, singles))
    last = [own[-1] for own in states]
    return network(module.head, torch.cat([*last, naive_memory(module.memory, fused)]))


@pytest.mark.parametrize("subset", [("audio",), ("text", "vision"), MODALITIES])
@pytest.mark.parametrize(("name", "naive"), [("mfn", naive_mfn), ("graph_mfn", naive_graph_mfn)])
def test_memory_fusion_is_the_naive_recurrence(name: str, naive: Naive, subset: tuple[str, ...]) -> None:
    module = build(name, subset, hidden=5, memory=7, inner=6, steps=4)
    batch = random_batch({m: DIMS[m] for m in subset}, CLASSES, context="utterance", missing={subset[0]: [2]})
    expected = torch.stack([naive(module, batch, row) for row in range(len(batch))])
    assert_close(module(batch), expected)


@pytest.mark.parametrize(("modalities", "efficacies"), [(1, 1), (2, 5), (3, 19)])
def test_the_fusion_graph_has_an_efficacy_for_every_edge(modalities: int, efficacies: int) -> None:
    assert DynamicFusionGraph(modalities, 4, 5).efficacies[-1].out_features == efficacies


# Fusion sites


def tokens(widths: tuple[int, ...]) -> list[PaddedSequence]:
    """Sequences of unequal length and width; utterance 2 lacks the last of them, utterance 3 all."""
    last = len(widths) - 1
    return [sequence([5 - index, 2, 0 if index == last else 3, 0], width) for index, width in enumerate(widths)]


def real_mean(tokens: PaddedSequence, row: int) -> np.ndarray:
    values = tokens.values[row][tokens.mask[row]].numpy()
    return values.mean(0) if len(values) else np.zeros(values.shape[1])


def affine(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 2)])
def test_transfer_module_is_the_naive_squeeze_and_excitation(widths: tuple[int, ...], double: bool) -> None:
    module = TransferModule(widths, 3, double=double)
    inputs = tokens(widths)
    outputs = module(inputs)
    for row in range(4):
        joint = np.maximum(affine(module.squeeze, np.concatenate([real_mean(x, row) for x in inputs])), 0)
        assert joint.shape == (2 * sum(widths) // 3,)
        gates = (1 + double) / (1 + np.exp(-affine(module.excite, joint)))
        start = 0
        for x, y in zip(inputs, outputs, strict=True):
            width = x.values.shape[2]
            expected = x.values[row].numpy() * gates[start : start + width]
            np.testing.assert_allclose(y.values[row].detach(), expected, rtol=1e-4, atol=1e-6)
            start += width


@pytest.mark.parametrize("lowest", [0.0, 0.3])
@pytest.mark.parametrize("widths", [(8,), (4, 12), (4, 8, 4)])
def test_split_attention_is_the_naive_loop_over_blocks(widths: tuple[int, ...], lowest: float) -> None:
    module = SplitAttention(widths, 4, reduction=2, lowest=lowest).eval()
    nn.init.normal_(module.norm.bias)
    inputs = tokens(widths)
    outputs = module(inputs)
    for row in range(4):
        total = np.zeros(4)
        for x, width in zip(inputs, widths, strict=True):
            for first in range(0, width, 4):
                total += real_mean(x, row)[first : first + 4]
        reduced = affine(module.reduce, total)
        normed = (reduced - reduced.mean()) / np.sqrt(reduced.var() + 1e-5)
        joint = np.maximum(normed * module.norm.weight.detach().numpy() + module.norm.bias.detach().numpy(), 0)
        scores, start = [], 0
        for x, width in zip(inputs, widths, strict=True):
            for _ in range(0, width, 4):
                score = affine(module.expand, joint)[start : start + 4]
                scores.append(np.exp(score) if x.mask[row].any() else np.zeros(4))
                start += 4
        weights = iter(np.array(scores) / np.maximum(np.sum(scores, 0), 1e-30))
        for x, y in zip(inputs, outputs, strict=True):
            for first in range(0, x.values.shape[2], 4):
                weight = lowest + (1 - lowest) * next(weights)
                expected = x.values[row, :, first : first + 4].numpy() * weight
                np.testing.assert_allclose(y.values[row, :, first : first + 4].detach(), expected, rtol=1e-3, atol=1e-5)


def test_split_attention_drops_whole_blocks_and_scales_the_others_up_once() -> None:
    module = SplitAttention((8, 4), 4, dropout=0.5)
    nn.init.zeros_(module.expand.weight)
    nn.init.zeros_(module.expand.bias)  # so that every weight is a third
    inputs = [PaddedSequence(torch.ones(200, 3, width), torch.ones(200, 3, dtype=torch.bool)) for width in (8, 4)]
    values = torch.cat([x.values for x in module(inputs)], -1).unflatten(-1, (3, 4)).detach()
    assert torch.equal(values, values[:, :1, :, :1].expand_as(values))
    found = values[:, 0, :, 0]
    assert_close(found[found > 0], torch.full_like(found[found > 0], 2 / 3))
    assert 0.4 < float((found > 0).float().mean()) < 0.6


@pytest.mark.parametrize(("name", "average"), [("mmtm", True), ("msaf", False)])
def test_streams_are_averaged_or_added_over_the_modalities_that_are_present(name: str, average: bool) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build(name)
    each = module.streams(batch)
    for row, logits in enumerate(module(batch)):
        chosen = [] if row == 3 else present(batch, row)
        total = sum((each[i, row] for i in chosen), torch.zeros(CLASSES))
        assert_close(logits, total / max(len(chosen), 1) if average else total)
        assert not each[[i for i in range(3) if i not in chosen], row].any()


# Cyclic translation


def test_mctn_predicts_from_the_source_alone() -> None:
    batch = random_batch(context="utterance")
    assert [build("mctn", subset).source for subset in (MODALITIES, ("audio", "vision"))] == ["text", "audio"]
    module = build("mctn", source="audio")
    assert module.targets == ["vision", "text"]
    alone = replace(batch, frames={"audio": batch.frames["audio"]})
    assert torch.equal(module(alone), module(batch))


@torch.no_grad()
def test_mctn_translates_there_and_back_as_a_naive_loop_does() -> None:
    module = build("mctn", hidden=6, steps=3)
    batch = random_batch(context="utterance", missing={"text": [1, 3], "vision": [2], "audio": [2, 3]})
    frames = {m: resample(batch.frames[m], 3) for m in MODALITIES}
    first, second = module.levels
    errors: dict[str, list[float]] = {"translation_vision": [], "translation_audio": [], "cycle_text": []}
    for row in (0, 2, 4, 5, 6, 7, 8):  # those with the source
        once = first.encode(module.enter["text"](frames["text"][row, None]))
        seen = module.leave["vision"](naive_decode(first, once[0]))
        spoken = module.leave["audio"](naive_decode(second, second.encode(once)[0]))
        said = module.leave["text"](naive_decode(first, first.encode(module.enter["vision"](seen[None]))[0]))
        if row != 2:
            errors["translation_vision"].append(float((seen - frames["vision"][row]).square().mean()))
            errors["translation_audio"].append(float((spoken - frames["audio"][row]).square().mean()))
        errors["cycle_text"].append(float((said - frames["text"][row]).square().mean()))
    losses = module.losses(batch)
    assert list(losses) == ["cross_entropy", *errors]
    assert_close(losses["cross_entropy"], nn.functional.cross_entropy(module(batch), batch.label))
    for name, values in errors.items():
        assert float(losses[name]) == pytest.approx(0.1 * float(np.mean(values)), rel=1e-4)


def naive_decode(translator: Translator, encoded: Tensor) -> Tensor:
    """Each step attends to [step, hidden] by the last hidden state, then advances an LSTM cell."""
    h = c = torch.zeros(encoded.shape[1])
    states = []
    for _ in encoded:
        scores = [translator.score((translator.key(e) + translator.query(h)).tanh()) for e in encoded]
        weights = torch.cat(scores).softmax(0)
        h, c = translator.cell(sum(w * e for w, e in zip(weights, encoded, strict=True)), (h, c))
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("subset", [("audio", "vision"), MODALITIES])
def test_mctn_without_its_cycle_has_no_idle_parameters(subset: tuple[str, ...]) -> None:
    module = build("mctn", subset, cycle=0.0, hidden=8, steps=4)
    batch = random_batch({m: DIMS[m] for m in subset}, CLASSES, context="utterance")
    losses = module.losses(batch)
    assert not [name for name in losses if name.startswith("cycle")]
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
