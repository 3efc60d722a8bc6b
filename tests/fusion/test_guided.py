"""The blocks of CFN-SR, TACFN and Sync-TVA against straight evaluations of their formulas, one token at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories import DIMS, assert_close, naive_attention, random_batch, sequence
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.cfn_sr import CrossModalBlock
from mer_bench.fusion.guided import GuidedAttention, SelfSelection
from mer_bench.fusion.sync_tva import Addition, Concatenation, CrossAttention, Enhancement, GatedSum
from mer_bench.fusion.transformer import TransformerEncoder
from mer_bench.modalities import MODALITIES

Array = npt.NDArray[Any]
GAPS = {"text": [0, 3], "audio": [1, 3], "vision": [2, 3]}


def disturbed(module: nn.Module) -> Any:
    """The module in evaluation with biases that are not zero, as if it had been trained."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def tokens_of(sequence: PaddedSequence, row: int) -> Tensor:
    """The real tokens of one utterance."""
    return sequence.values[row, sequence.mask[row]]


def linear(layer: nn.Linear, x: Array) -> Array:
    bias = 0.0 if layer.bias is None else array(layer.bias)
    return array(layer.weight) @ x + bias


# Guided attention


def reinforced(block: GuidedAttention, x: Array, guide: Array | None) -> Array:
    """Tokens x_t [time, dim] of one utterance -> w_t x_t + x_t, where w = softmax_t(v^T tanh(W [x_t ; a] + b))."""
    weight = array(block.target.weight)
    if block.guide is not None:
        weight = np.hstack([weight, array(block.guide.weight)])
    scores = []
    for token in x:
        joined = token if guide is None else np.concatenate([token, guide])
        scores.append(float(linear(block.score, np.tanh(weight @ joined + array(block.target.bias)))[0]))
    exponentials = np.exp(scores)
    weights = exponentials / exponentials.sum() * (len(x) if block.scale else 1)
    return np.stack([w * token + (token if block.residual else 0) for w, token in zip(weights, x, strict=True)])


@pytest.mark.parametrize("guide", [0, 5])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("residual", [True, False])
def test_guided_attention_is_its_formula(residual: bool, scale: bool, guide: int) -> None:
    block = disturbed(GuidedAttention(3, guide, 6, residual=residual, scale=scale))
    target, vectors = sequence([4, 1, 0, 6], 3), torch.randn(4, 5)
    found = block(target, vectors)
    assert torch.equal(found.mask, target.mask)
    assert not found.values[~target.mask].any()
    for row in (0, 1, 3):
        x = array(tokens_of(target, row))
        expected = reinforced(block, x, array(vectors[row]) if guide else None)
        np.testing.assert_allclose(array(tokens_of(found, row)), expected, rtol=1e-4, atol=1e-5)


# Self-attention within a modality


def naive_encoder(encoder: TransformerEncoder, target: Tensor, source: Tensor | None = None) -> Tensor:
    """One sequence [time, dim], with every token computed by itself from those that it may attend to."""
    dim = target.shape[1]

    def embed(values: Tensor) -> Tensor:
        rows = []
        for time, value in enumerate(values):
            angles = [(time + 1) / 10_000 ** (i / (dim // 2 - 1)) for i in range(dim // 2)]
            position = [*np.sin(angles), *np.cos(angles)]
            rows.append(dim**0.5 * value + torch.tensor(position, dtype=torch.float))
        return torch.stack(rows)

    x, other = embed(target), None if source is None else embed(source)
    ahead = 0 if source is None else abs(len(source) - len(target))
    for layer in encoder.layers:
        read = layer.attention_norm(x if other is None else other)
        new = []
        for time, token in enumerate(x):
            seen = read[: time + ahead + 1] if encoder.causal else read
            y = token + naive_attention(layer.attention, layer.attention_norm(token)[None], seen)[0]
            hidden = (layer.ffn[0].weight @ layer.ffn_norm(y) + layer.ffn[0].bias).clamp(min=0)
            new.append(y + layer.ffn[-1].weight @ hidden + layer.ffn[-1].bias)
        x = torch.stack(new)
    return encoder.norm(x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_transformer_encoder_is_the_naive_loop_over_tokens(causal: bool, across: bool) -> None:
    encoder = disturbed(TransformerEncoder(8, heads=2, layers=2, causal=causal))
    assert [layer.ffn[0].out_features for layer in encoder.layers] == [32, 32]
    target, source = sequence([5, 3, 2], 8), sequence([2, 3, 6], 8) if across else None
    found = encoder(target, source)
    for row in range(3):
        other = None if source is None else tokens_of(source, row)
        assert_close(tokens_of(found, row), naive_encoder(encoder, tokens_of(target, row), other))


def test_self_selection_is_the_last_token_of_a_causal_encoder() -> None:
    select = disturbed(SelfSelection(8, heads=2, layers=2, dropout=0.1, embedding_dropout=0.3))
    guide = sequence([5, 1, 0], 8)
    found = select(guide)
    for row in (0, 1):
        assert_close(found[row], naive_encoder(select.encoder, tokens_of(guide, row))[-1])
    assert not found[2].any()


# CFN-SR and TACFN


def build(name: str, subset: Sequence[str], **options: Any) -> FusionModule:
    return disturbed(METHODS[name]({m: DIMS[m] for m in subset}, 4, **options))


def tokens(model: FusionModule, batch: Batch) -> dict[str, PaddedSequence]:
    return {name: encoder.tokens(batch) for name, encoder in model.encoders.items()}


def reinforce(block: GuidedAttention, target: PaddedSequence, guides: Tensor) -> PaddedSequence:
    """Each utterance by the naive formula; absent ones stay zero."""
    values = torch.zeros_like(target.values)
    for row, mask in enumerate(target.mask):
        if mask.any():
            found = reinforced(block, array(tokens_of(target, row)), array(guides[row]))
            values[row, mask] = torch.from_numpy(found).float()
    return PaddedSequence(values, target.mask)


@pytest.mark.parametrize(
    ("subset", "guide", "options"),
    [
        (("audio", "vision"), "audio", {}),
        (("text", "vision"), "text", {}),
        (MODALITIES, "audio", {}),
        (MODALITIES, "vision", {"guide": "vision"}),
    ],
)
def test_cfn_sr_guides_every_other_modality_and_concatenates(
    subset: Sequence[str], guide: str, options: Mapping[str, Any]
) -> None:
    model = build("cfn_sr", subset, hidden=8, layers=1, heads=2, **options)
    batch = random_batch({m: DIMS[m] for m in subset}, context="utterance", missing=GAPS)
    encoded = tokens(model, batch)
    assert set(model.blocks) == set(subset) - {guide}
    vectors = []
    for name in subset:
        own = encoded[name]
        if name != guide:
            block = model.blocks[name]
            own = reinforce(block.attend, own, block.select(encoded[guide]))
        vectors.append(model.encoders[name].pool(batch, own))
    assert_close(model(batch), model.head(torch.cat(vectors, -1)))


def test_each_slice_of_a_cross_modal_block_has_its_own_softmax() -> None:
    block = disturbed(CrossModalBlock(3, 8, hidden=4, heads=2, layers=1, slices=2))
    target, guide = sequence([6, 6], 3), sequence([4, 2], 8)
    found, vectors = block(target, guide).values, block.select(guide)
    for row in range(2):
        halves = [reinforced(block.attend, array(part), array(vectors[row])) for part in target.values[row].chunk(2)]
        np.testing.assert_allclose(array(found[row]), np.concatenate(halves), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("subset", "guides"),
    [
        (("audio", "vision"), {"vision": ["audio"]}),
        (("text", "vision"), {"vision": ["text"]}),
        (MODALITIES, {"text": ["audio", "vision"], "audio": ["text", "vision"], "vision": ["text", "audio"]}),
    ],
)
def test_tacfn_splices_the_selected_vectors_of_the_guides_as_they_were_before(
    subset: Sequence[str], guides: Mapping[str, Sequence[str]]
) -> None:
    model = build("tacfn", subset, hidden=8, layers=1, heads=2)
    batch = random_batch({m: DIMS[m] for m in subset}, context="utterance", missing=GAPS)
    projected = {}
    for name in subset:
        weight, frames = model.encoders[name].project.convolution.weight[..., 0], batch.frames[name]
        projected[name] = PaddedSequence(frames.values @ weight.T, frames.mask)
    vectors = []
    for name in subset:
        own = projected[name]
        if name in guides:
            selected = [model.select[guide](projected[guide]) for guide in guides[name]]
            own = reinforce(model.blocks[name], own, torch.cat(selected, -1))
        vectors.append(own.values.sum(1) / own.mask.sum(1, keepdim=True).clamp(min=1))
    assert set(model.blocks) == set(guides)
    joined = torch.cat(vectors, -1)
    hidden = (joined @ model.head[0].weight.T + model.head[0].bias).clamp(min=0)
    assert_close(model(batch), hidden @ model.head[-1].weight.T + model.head[-1].bias)


# Sync-TVA


def test_enhancement_is_its_formula() -> None:
    layer = disturbed(Enhancement(6))
    h = torch.randn(2, 4, 6)
    present = torch.tensor([[True, False, True, True], [False, False, False, False]])
    found = layer(h, present)
    for d in range(2):
        real = h[d, present[d]]
        mean = real.mean(0) if len(real) else torch.zeros(6)
        for t in range(4):
            update = layer.update[2](nn.functional.gelu(layer.update[0](h[d, t])))
            gate = layer.gate[2](layer.gate[0](torch.cat([h[d, t], mean])).clamp(min=0)).sigmoid()
            assert_close(found[d, t], layer.norm(h[d, t] + gate * update))


def fusion_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Modalities [3, 2, 4, 8], which are present, and a window of two turns back and one ahead."""
    present = torch.rand(3, 2, 4) < 0.7
    present[:, 0, 0] = False
    near = torch.tensor([[i - 2 <= j <= i + 1 for j in range(4)] for i in range(4)])
    return torch.randn(3, 2, 4, 8), present, near


def test_cross_attention_of_sync_tva_is_the_naive_loop() -> None:
    fusion = disturbed(CrossAttention(3, 8, 0.1, heads=2))
    z, present, near = fusion_inputs()
    found = fusion(z, present, near)
    assert found.shape == (2, 4, 24)
    for m, (attention, ffn) in enumerate(zip(fusion.attention, fusion.ffn, strict=True)):
        for d in range(2):
            for i in range(4):
                read = [z[o, d, j] for o in range(3) if o != m for j in range(4) if near[i, j] and present[o, d, j]]
                x = z[m, d, i]
                if read:
                    x = x + naive_attention(attention, x[None], torch.stack(read))[0]
                x = fusion.norms[2 * m](x)
                x = fusion.norms[2 * m + 1](x + ffn[-1](ffn[0](x).clamp(min=0)))
                assert_close(found[d, i, 8 * m : 8 * m + 8], x)


def test_the_other_fusions_of_sync_tva_concatenate_add_or_add_what_gates_leave() -> None:
    z, present, near = fusion_inputs()
    assert_close(Concatenation(3, 8, 0.1)(z, present, near), torch.cat([z[0], z[1], z[2]], -1))
    assert_close(Addition(3, 8, 0.1)(z, present, near), z[0] + z[1] + z[2])
    gated = disturbed(GatedSum(3, 8, 0.1))
    joined = torch.cat([z[0], z[1], z[2]], -1)
    gates = (joined @ gated.gate.weight.T + gated.gate.bias).sigmoid()
    assert_close(gated(z, present, near), sum(gates[..., 8 * m : 8 * m + 8] * z[m] for m in range(3)))


@pytest.mark.parametrize("graph", ["pairwise", "joint", "within", "none"])
def test_sync_tva_is_its_parts_in_the_order_of_the_paper(graph: str) -> None:
    model = build("sync_tva", MODALITIES, hidden=16, layers=2, heads=2, window_past=2, window_future=1, graph=graph)
    batch = random_batch(missing=GAPS)
    speaker = batch.by_dialogue(batch.speaker)
    h, present = [], []
    for name in MODALITIES:
        vectors = batch.by_dialogue(model.encoders[name](batch))
        present.append(batch.by_dialogue(batch.present[name]))
        if name == "text":
            vectors = model.text_context(vectors, batch.turns)
        h.append(vectors + model.speakers.weight[speaker])
    z = [enhance(own, real) for enhance, own, real in zip(model.enhancements, h, present, strict=True)]
    graphs = {"pairwise": [(0, 1), (0, 2), (1, 2)], "joint": [(0, 1, 2)], "within": [(0,), (1,), (2,)], "none": []}
    if graphs[graph]:
        messages: list[list[Tensor]] = [[], [], []]
        nodes = torch.stack([torch.stack([z[m] for m in members]) for members in graphs[graph]])
        real = torch.stack([torch.stack([present[m] for m in members]) for members in graphs[graph]])
        for layer in model.graph_layers:
            nodes = layer(nodes, real)
        for members, of_graph in zip(graphs[graph], nodes, strict=True):
            for m, side in zip(members, of_graph, strict=True):
                messages[m].append(side)
        z = [norm(torch.stack(each).sum(0)) for norm, each in zip(model.graph_norms, messages, strict=True)]
    turns = range(batch.grid.shape[1])
    near = torch.tensor([[i - 2 <= j <= i + 1 for j in turns] for i in turns])
    fused = model.fusion(torch.stack(z), torch.stack(present), near)
    hidden = model.head[0](batch.flatten(fused)).clamp(min=0)
    assert_close(model(batch), model.head[-1](hidden))


# MulT


def test_mult_drops_features_of_text_and_of_no_other_modality() -> None:
    model = METHODS["mult"](DIMS, 4, dim=10, heads=2, layers=1)
    batch = random_batch(context="utterance", times=(30, 40))
    read: dict[str, Tensor] = {}
    for name, projection in model.projections.items():
        projection.register_forward_hook(lambda _, given, __, name=name: read.update({name: given[0].values}))
    model.eval()(batch)
    for name in DIMS:
        assert torch.equal(read[name], batch.frames[name].values)
    model.train()(batch)
    for name in ("audio", "vision"):
        assert torch.equal(read[name], batch.frames[name].values)
    values, kept = batch.frames["text"].values, read["text"] != 0
    assert_close(read["text"][kept], values[kept] / 0.75)
    real = batch.frames["text"].mask
    assert 0.2 < float((~kept[real]).float().mean()) < 0.3  # the embedding dropout of the paper, 0.25


def test_mult_drops_attention_weights_of_the_memories_and_where_text_is_the_source() -> None:
    options = {"attention_dropout": 0.2, "relu_dropout": 0.3, "residual_dropout": 0.4, "embedding_dropout": 0.5}
    model = METHODS["mult"](DIMS, 4, dim=10, heads=2, layers=2, output_dropout=0.6, **options)
    expected = {f"{source}_to_{target}": 0.2 if source == "text" else 0.0 for source in DIMS for target in DIMS}
    encoders = {**model.crossmodal, **{name: model.memory[name] for name in DIMS}}
    expected = {name: expected.get(name, 0.2) for name in encoders}
    assert len(encoders) == 6 + 3
    for name, encoder in encoders.items():
        assert encoder.embedding_dropout.p == 0.5
        assert {layer.attention.dropout for layer in encoder.layers} == {expected[name]}, name
        assert {layer.ffn[2].p for layer in encoder.layers} == {0.3}
        assert {layer.dropout.p for layer in encoder.layers} == {0.4}
    assert model.head.residual[2].p == 0.6
    assert {len(model.memory[name].layers) for name in DIMS} == {3}  # three at least
    assert {len(encoder.layers) for encoder in model.crossmodal.values()} == {2}


@pytest.mark.parametrize("subset", [("text", "vision"), MODALITIES])
def test_mult_reads_the_last_step_of_each_memory_of_what_the_others_say(subset: Sequence[str]) -> None:
    model = build("mult", subset, dim=8, heads=2, layers=1)
    batch = random_batch({m: DIMS[m] for m in subset}, context="utterance")
    projected = {name: projection(batch.frames[name]) for name, projection in model.projections.items()}
    rows = []
    for row in range(len(batch)):
        vectors = []
        for target in subset:
            own = tokens_of(projected[target], row)
            views = [
                naive_encoder(model.crossmodal[f"{source}_to_{target}"], own, tokens_of(projected[source], row))
                for source in subset
                if source != target
            ]
            vectors.append(naive_encoder(model.memory[target], torch.cat(views, -1))[-1])
        z = torch.cat(vectors)
        hidden = model.head.residual[0](z).clamp(min=0)
        rows.append(model.head.output(z + model.head.residual[-1](hidden)))
    assert_close(model(batch), torch.stack(rows))
