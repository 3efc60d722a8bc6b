"""Operators against references: numpy, a naive loop, packed sequences, published parameter counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.bc_lstm import BCLSTM
from mer_bench.fusion.layers import BidirectionalRNN
from mer_bench.fusion.low_rank import LowRank, LowRankFusion
from mer_bench.fusion.mult import MulT
from mer_bench.fusion.sync_tva import FUSIONS, GraphAttention, SyncTVA
from mer_bench.fusion.tensor_fusion import TensorFusion, outer_product

DIMS = {"text": 6, "audio": 5, "vision": 4}
FRAMES = {"text": 3, "audio": 5, "vision": 4}
GRAPHS = ("pairwise", "same_utterance", "full", "joint", "within", "none")
SMALL = {
    TensorFusion: {"hidden": 4},
    LowRank: {"hidden": 4},
    MulT: {"dim": 10, "layers": 2},
    BCLSTM: {"hidden": 6},
    SyncTVA: {"hidden": 16, "window_past": 2, "window_future": 1},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def dialogues(
    lengths: Sequence[int], dims: Mapping[str, int] = DIMS, *, absent: float = 0.0, seed: int = 0
) -> list[dict[str, list[Tensor]]]:
    """For each dialogue and modality one [time, dim] for each turn; ``absent`` of them empty."""
    draw = torch.Generator().manual_seed(seed)

    def sequence(name: str) -> Tensor:
        missing = bool(torch.rand((), generator=draw) < absent)
        time = 0 if missing else int(torch.randint(2, FRAMES[name] + 1, (), generator=draw))
        return torch.randn(time, dims[name], generator=draw)

    return [{name: [sequence(name) for _ in range(turns)] for name in dims} for turns in lengths]


def batch(content: Sequence[Mapping[str, Sequence[Tensor]]], *, extra: int = 0) -> Batch:
    """Pad dialogues to a batch, with ``extra`` more frames and turns of padding than needed."""
    lengths = [len(next(iter(one.values()))) for one in content]
    dialogue = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    turn = torch.cat([torch.arange(turns) for turns in lengths])
    grid = torch.full((len(lengths), max(lengths) + extra), -1)
    grid[dialogue, turn] = torch.arange(len(turn))
    features = {}
    for name in content[0]:
        flat = [sequence for one in content for sequence in one[name]]
        time = torch.tensor([len(sequence) for sequence in flat])
        values = torch.zeros(len(flat), max(int(time.max()), 1) + extra, flat[0].shape[1])
        for row, sequence in enumerate(flat):
            values[row, : len(sequence)] = sequence
        features[name] = PaddedSequence(values, torch.arange(values.shape[1]) < time[:, None])
    return Batch(features, turn % 4, turn % 2, dialogue, turn, torch.arange(len(turn)), grid)


def build(method: type[FusionModule], dims: Mapping[str, int] = DIMS, **options: object) -> FusionModule:
    return method(dims, 4, **{**SMALL[method], **options}).eval()


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
    torch.testing.assert_close(fusion(vectors), outer_product(vectors) @ weight.T + fusion.bias, rtol=1e-4, atol=1e-4)


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
    torch.testing.assert_close(fusion(vectors), outer_product(vectors) @ weight.flatten(1).T, rtol=1e-4, atol=1e-5)


def test_mult_has_the_published_number_of_parameters() -> None:
    assert MulT({"text": 300, "audio": 74, "vision": 35}, 1).num_parameters == 1_073_731


@pytest.mark.parametrize(("method", "dims", "count"), [
    (TensorFusion, {"audio": 40, "vision": 136}, 196_680),
    (LowRank, {"audio": 40, "vision": 136}, 83_404),
    (BCLSTM, {"text": 384, "audio": 47}, 806_206),
])  # fmt: skip
def test_parameter_counts(method: type[FusionModule], dims: dict[str, int], count: int) -> None:
    assert method(dims, 6 if "text" in dims else 8).num_parameters == count


def test_mult_sees_no_future_but_the_whole_source() -> None:
    model = build(MulT, {"audio": 5, "vision": 4})
    own, source = (PaddedSequence(torch.randn(1, time, 10), torch.ones(1, time, dtype=torch.bool)) for time in (4, 6))
    later = PaddedSequence(source.values.clone(), source.mask)
    later.values[:, -1] += torch.randn(10)  # visible from step 3 on, since the source is 2 longer
    encoder = model.crossmodal["vision_to_audio"]
    before, after = encoder(own, source).values, encoder(own, later).values
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_bidirectional_rnn_is_that_on_packed_sequences(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    ours, reference = BidirectionalRNN(kind, 5, 4, layers=2), kind(5, 4, 2, batch_first=True, bidirectional=True)
    state = {}
    for layer, (ahead, back) in enumerate(zip(ours.ahead, ours.back, strict=True)):
        state |= {f"{name[:-1]}{layer}": value for name, value in ahead.state_dict().items()}
        state |= {f"{name[:-1]}{layer}_reverse": value for name, value in back.state_dict().items()}
    reference.load_state_dict(state)
    values, length = torch.randn(3, 6, 5), torch.tensor([4, 6, 1])
    packed = pack_padded_sequence(values, length, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    torch.testing.assert_close(ours(values, torch.arange(6) < length[:, None]), expected)


def naive_graph_attention(layer: GraphAttention, x: Tensor, present: Tensor) -> Tensor:
    """GATv2 as its formula reads: loops over graphs, dialogues, nodes, neighbours and heads."""
    graphs, sides, count, turns, dim = x.shape
    result = torch.empty_like(x)
    for g in range(graphs):
        for d in range(count):
            for s in range(sides):
                for i in range(turns):
                    heads: list[list[Tensor]] = [[] for _ in range(layer.heads)]
                    values: list[Tensor] = []
                    for t in range(sides):
                        for j in range(turns):
                            far = (layer.past is not None and j < i - layer.past) or (
                                layer.future is not None and j > i + layer.future
                            )
                            if far or not present[g, t, d, j]:
                                continue
                            key = x[g, t, d, j] @ layer.key[g]
                            edge = layer.edge[g, layer.types[0 if i == j else 1, s, t]]
                            z = nn.functional.leaky_relu(x[g, s, d, i] @ layer.query[g] + key + edge, 0.2)
                            for head, part in enumerate(z.chunk(layer.heads)):
                                heads[head].append(part @ layer.score[g, head])
                            values.append(key)
                    heard = torch.zeros(dim)
                    if values:
                        parts = torch.stack(values).chunk(layer.heads, 1)
                        heard = torch.cat([
                            torch.stack(score).softmax(0) @ part for score, part in zip(heads, parts, strict=True)
                        ])  # fmt: skip
                    result[g, s, d, i] = layer.norm(x[g, s, d, i] + heard)
    return result


@pytest.mark.parametrize("sides", [1, 2, 3])
@pytest.mark.parametrize("window", [(2, 1), (0, 0), (9, 9), (None, None)])
def test_graph_attention_is_the_naive_loop(window: tuple[int | None, int | None], sides: int) -> None:
    layer = GraphAttention(2, sides, 8, heads=2, past=window[0], future=window[1], dropout=0.0)
    nn.init.normal_(layer.edge)
    x = torch.randn(2, sides, 2, 5, 8, requires_grad=True)
    present = torch.rand(2, sides, 2, 5) < 0.7
    present[:, :, 1, :3] = False  # nodes whose window may hold no one
    actual, expected = layer(x, present), naive_graph_attention(layer, x, present)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    inputs = [x, *layer.parameters()]
    direction = torch.randn_like(x)
    for ours, theirs in zip(
        torch.autograd.grad((actual * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_graph_attention_knows_six_edge_types() -> None:
    layer = GraphAttention(1, 2, 8, heads=2, past=1, future=1, dropout=0.0)
    assert len(layer.types.unique()) == layer.edge.shape[1] == 6
    assert torch.equal(layer.types[0].diagonal(), layer.types[1].diagonal())


@pytest.mark.parametrize("method", [BCLSTM, SyncTVA])
@pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("audio", "vision")])
def test_dialogues_are_independent(method: type[FusionModule], modalities: tuple[str, ...]) -> None:
    content = dialogues([4, 7, 1], {name: DIMS[name] for name in modalities}, absent=0.2)
    model = build(method, {name: DIMS[name] for name in modalities})
    together = model(batch(content)).split([4, 7, 1])
    reordered = model(batch([content[2], content[0], content[1]])).split([1, 4, 7])
    for logits, again in zip(together, (reordered[1], reordered[2], reordered[0]), strict=True):
        torch.testing.assert_close(logits, again, rtol=1e-4, atol=1e-5)
    for one, logits in zip(content, together, strict=True):
        if all(any(len(sequence) for sequence in sequences) for sequences in one.values()):
            torch.testing.assert_close(model(batch([one], extra=3)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_sync_tva_variants_are_independent_of_padding(graph: str, fusion: str) -> None:
    model = build(SyncTVA, graph=graph, fusion=fusion, enhancement=graph != "joint")
    content = dialogues([3, 6], absent=0.2)
    torch.testing.assert_close(model(batch(content)), model(batch(content, extra=4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("graph", "hears"), [("pairwise", (True, True)), ("same_utterance", (True, False)), ("within", (False, True))]
)
def test_sync_tva_graphs_carry_what_their_edges_say(graph: str, hears: tuple[bool, bool]) -> None:
    """Whether turn 1 of the first modality hears turn 1 of the second, and turn 2 of the first."""
    model = build(SyncTVA, graph=graph)
    h, present = torch.randn(3, 1, 4, 16), torch.ones(3, 1, 4, dtype=torch.bool)
    before = model._messages(h, present)
    for place, heard in zip(((1, 0, 1), (0, 0, 2)), hears, strict=True):
        other = h.clone()
        other[place] += 1
        assert torch.equal(model._messages(other, present)[0, 0, 1], before[0, 0, 1]) != heard


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("audio", "vision"), ("text",)])
def test_missing_modalities_and_padding(method: type[FusionModule], modalities: tuple[str, ...]) -> None:
    dims = {name: DIMS[name] for name in modalities}
    if len(dims) < method.least:
        with pytest.raises(Misuse, match="2 to 3 modalities"):
            build(method, dims)
        return
    model = build(method, dims)
    content = dialogues([1, 5], dims, absent=0.5, seed=1)
    content[0] = {name: [sequence[:0] for sequence in sequences] for name, sequences in content[0].items()}
    logits = model(batch(content))
    torch.testing.assert_close(logits, model(batch(content, extra=3)), rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("method", SMALL)
def test_a_gradient_reaches_every_parameter(method: type[FusionModule]) -> None:
    model = build(method)
    torch.stack(list(model.losses(batch(dialogues([5, 6]))).values())).sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_sync_tva_weighs_rare_emotions_up() -> None:
    model = build(SyncTVA)
    model.class_counts.copy_(torch.tensor([100.0, 25.0, 4.0, 0.0]))
    data = batch(dialogues([5, 6]))
    weight = torch.tensor([0.1, 0.2, 0.5, 1.0]) / 0.45
    expected = nn.functional.cross_entropy(model(data), data.label, weight)
    assert math.isclose(float(model.losses(data)["cross_entropy"].detach()), float(expected.detach()), rel_tol=1e-5)


@pytest.mark.parametrize("option", [{"graph": "pairwize"}, {"fusion": "concatenate"}])
def test_sync_tva_names_the_nearest_variant(option: dict[str, str]) -> None:
    with pytest.raises(Misuse, match="did you mean"):
        build(SyncTVA, **option)
