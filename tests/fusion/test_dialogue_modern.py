"""SDT, M3Net, GraphSmile and Sync-TVA: naive loops over nodes, edges and pairs of turns, closed forms, equivariance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from factories import DIMS, assert_close, assert_same_gradients, changed, naive_attention, pad, random_batch
from torch import Tensor, nn

from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.datasets.meld import MELD
from mer_bench.datasets.ravdess import RAVDESS
from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graph_smile import IGNORED, PairwisePropagation, StackedLinear, known_cross_entropy, shift_targets
from mer_bench.fusion.m3net import FrequencyFilter, Hypergraph, graph
from mer_bench.fusion.sdt import Interaction
from mer_bench.fusion.sync_tva import FUSIONS, GraphAttention
from mer_bench.modalities import MODALITIES

SMALL: dict[str, dict[str, Any]] = {
    "sdt": {"hidden": 16, "heads": 2},
    "m3net": {"hidden": 16, "turns": 3},
    "sync_tva": {"hidden": 16, "window_past": 2, "window_future": 1},
    "graph_smile": {"hidden": 16, "layers": 2, "window_past": 2, "window_future": 1, "shift_window": 2},
}
GAPS = {"text": [3, 6], "audio": [0, 3], "vision": [1, 2, 3]}


def build(name: str, subset: Sequence[str] = MODALITIES, num_classes: int = 4, **options: Any) -> FusionModule:
    """A method whose biases and logarithmic weights are not zero, as if it had been trained."""
    module = METHODS[name]({m: DIMS[m] for m in subset}, num_classes, **{**SMALL[name], **options}).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def disturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)


# Several methods


@pytest.mark.parametrize(("name", "table"), [("sdt", "network.speakers"), ("m3net", "speakers")])
def test_speakers_are_names_for_rows_of_an_embedding(name: str, table: str) -> None:
    batch = random_batch(dialogues=(5, 4))
    batch = replace(batch, speaker=torch.tensor([0, 1, 2, 1, 0, 0, 1, 1, 2]))
    module = build(name, speakers=4)
    expected = module(batch)
    name_of = torch.tensor([2, 3, 0])  # speaker 0 is now called 2, ...
    renamed = replace(batch, speaker=name_of[batch.speaker])
    assert not torch.allclose(module(renamed), expected, atol=1e-4)
    weight = module.get_submodule(table).weight
    with torch.no_grad():
        weight[name_of] = weight[:3].clone()
    assert_close(module(renamed), expected)


@pytest.mark.parametrize(("name", "subset"), [("graph_smile", MODALITIES), ("m3net", ("audio", "vision"))])
def test_methods_without_speakers_do_not_read_them(name: str, subset: tuple[str, ...]) -> None:
    batch = random_batch({m: DIMS[m] for m in subset})
    module = build(name, subset)
    assert torch.equal(module(replace(batch, speaker=torch.full_like(batch.speaker, 10_000))), module(batch))


@pytest.mark.parametrize("name", SMALL)
def test_losses_encode_the_batch_once(name: str) -> None:
    module, calls = build(name), []
    for encoder in module.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    losses = module.losses(random_batch())
    assert len(calls) == 3
    assert next(iter(losses)) == "cross_entropy"
    assert all(loss.ndim == 0 for loss in losses.values())


# SDT


def naive_interaction(layer: Interaction, target: Tensor, source: Tensor, present: Tensor) -> Tensor:
    """One dialogue; present [turn] of the source."""
    y = target + (naive_attention(layer.attention, target, source[present]) if present.any() else 0)
    norm, up, gelu, _, down, _ = layer.ffn
    z = y + down(gelu(up(norm(y))))
    return z * torch.sigmoid(layer.gate(z))


def test_interaction_is_the_naive_loop() -> None:
    layer = Interaction(8, 2, 0.5, learned_gates=True).eval()
    disturb(layer)
    target, source = torch.randn(2, 3, 5, 8, requires_grad=True)
    present = torch.tensor([[1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    actual = layer(target, source, present[:, None])
    expected = torch.stack([naive_interaction(layer, *one) for one in zip(target, source, present, strict=True)])
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [target, source])


def test_each_sdt_interaction_reads_the_turns_that_have_its_source() -> None:
    batch = random_batch(missing=GAPS)
    module = build("sdt")
    calls: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for key, interaction in module.network.interactions.items():
        interaction.register_forward_hook(lambda _, inputs, __, key=key: calls.update({key: inputs}))
    module(batch)
    assert len(calls) == 9
    for key, (target, source, allowed) in calls.items():
        source_name, target_name = key.split("_to_")
        assert torch.equal(target, calls[f"{target_name}_to_{target_name}"][1])
        assert torch.equal(source, calls[f"{source_name}_to_{source_name}"][0])
        assert torch.equal(allowed[:, 0], batch.by_dialogue(batch.present[source_name]))


@pytest.mark.parametrize("temperature", [1.0, 8.0])
@pytest.mark.parametrize("subset", [MODALITIES, ("audio",)])
def test_distillation_is_the_divergence_from_the_teacher(subset: tuple[str, ...], temperature: float) -> None:
    batch = random_batch({m: DIMS[m] for m in subset})
    module = build("sdt", subset, temperature=temperature, distillation_weight=0.3, student_weight=0.6)
    losses = {key: float(loss.detach()) for key, loss in module.losses(batch).items()}
    teacher, students = (logits.detach().double().numpy() for logits in module.teacher_and_students(batch))
    np.testing.assert_allclose(module(batch).detach().numpy(), teacher, rtol=1e-5)

    def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    rows, label = np.arange(9), batch.label.numpy()
    expected = {"cross_entropy": -np.log(softmax(teacher)[rows, label]).mean()}
    p = softmax(teacher / temperature)
    for m, name in enumerate(subset):
        q = softmax(students[:, m] / temperature)
        expected[f"{name}_cross_entropy"] = -0.6 * np.log(softmax(students[:, m])[rows, label]).mean()
        expected[f"{name}_distillation"] = 0.3 * (p * np.log(p / q)).sum() / 9
        assert expected[f"{name}_distillation"] > 1e-4
    assert losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("detach", [True, False])
def test_distillation_reaches_the_teacher_only_if_it_is_not_detached(detach: bool) -> None:
    module = build("sdt", detach_teacher=detach)
    distillation = sum(v for k, v in module.losses(random_batch()).items() if k.endswith("_distillation"))
    ours = [*module.network.teacher.parameters(), *module.network.gate.parameters()]
    gradients = torch.autograd.grad(distillation, ours, retain_graph=True, allow_unused=True)
    assert all((gradient is None) == detach for gradient in gradients)
    students = torch.autograd.grad(distillation, list(module.network.students.parameters()))
    assert all(bool(gradient.any()) for gradient in students)


def test_sdt_gates_weigh_modalities_feature_by_feature() -> None:
    batch = random_batch(missing=GAPS)
    module = build("sdt")
    network = module.network
    fused: list[Tensor] = []
    for reduce in network.reductions.values():
        reduce.register_forward_hook(lambda *call: fused.append(call[2]))
    teacher = module(batch)
    h = batch.flatten(torch.stack(fused, 2)).detach().numpy()  # [utterance, modality, hidden]
    exponential = np.exp(h @ network.gate.weight.detach().numpy().T)
    mixed = (exponential / exponential.sum(1, keepdims=True) * h).sum(1)
    expected = mixed @ network.teacher.weight.detach().numpy().T + network.teacher.bias.detach().numpy()
    np.testing.assert_allclose(teacher.detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_sdt_gates_without_weights_are_gates_of_the_identity() -> None:
    batch = random_batch(missing=GAPS)
    fixed, learned = build("sdt", learned_gates=False), build("sdt")
    learned.load_state_dict(fixed.state_dict(), strict=False)
    assert not torch.allclose(learned(batch), fixed(batch), atol=1e-3)
    for interaction in learned.network.interactions.values():
        nn.init.eye_(interaction.gate.weight)
    assert_close(learned(batch), fixed(batch))


@pytest.mark.parametrize("name", ["sdt", "graph_smile"])
def test_order_of_the_turns_matters(name: str) -> None:
    batch = random_batch(dialogues=(6,), times=(3, 3))
    module = build(name)
    back = torch.arange(6).flip(0)
    reversed_batch = replace(changed(batch, lambda x: x[back]), speaker=batch.speaker[back])
    assert not torch.allclose(module(reversed_batch)[back], module(batch), atol=1e-3)


# M3Net


def naive_hypergraph(layer: Hypergraph, x: Tensor, present: Tensor) -> Tensor:
    """Loops over layers, dialogues, hyperedges and their members, then over nodes and their two hyperedges."""
    modalities, dialogues, turns, dim = x.shape
    column = [min(t, len(layer.utterance_edge) - 1) for t in range(turns)]
    for bias in layer.bias:
        result = torch.empty_like(x)
        for d in range(dialogues):

            def edge(weights: Tensor, members: list[tuple[int, int]], x: Tensor = x, d: int = d) -> Tensor:
                members = [(m, t) for m, t in members if present[m, d, t]]
                weight = [weights[m, column[t]].exp() for m, t in members]
                total = sum((w * x[m, d, t] for w, (m, t) in zip(weight, members, strict=True)), torch.zeros(dim))
                return total / sum(weight) if members else total

            of_modality = [edge(layer.in_modality, [(m, t) for t in range(turns)]) for m in range(modalities)]
            of_utterance = [edge(layer.in_utterance, [(m, t) for m in range(modalities)]) for t in range(turns)]
            for m in range(modalities):
                for t in range(turns):
                    one, other = layer.modality_edge[m].exp(), layer.utterance_edge[column[t]].exp()
                    mixed = (one * of_modality[m] + other * of_utterance[t]) / (one + other)
                    result[m, d, t] = nn.functional.leaky_relu(mixed + bias)
        x = result
    return x


@pytest.mark.parametrize("modalities", [2, 3])
def test_hypergraph_is_the_naive_loop(modalities: int) -> None:
    layer = Hypergraph(modalities, 4, 3, turns=3)  # turns 3 and 4 share the last weights
    disturb(layer)
    x = torch.randn(modalities, 3, 5, 4, requires_grad=True)
    present = torch.rand(modalities, 3, 5) < 0.7
    present[0, 0], present[:, 1, 2] = False, False  # an empty edge of either kind
    present[0, 2] = True
    actual, expected = layer(x, present), naive_hypergraph(layer, x, present)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, *layer.parameters()])


def naive_filter(layer: FrequencyFilter, x: Tensor, present: Tensor) -> Tensor:
    """Loops over dialogues, nodes and their neighbours."""
    modalities, dialogues, turns, _ = x.shape
    nodes = [(m, t) for m in range(modalities) for t in range(turns)]

    def neighbours(d: int, m: int, t: int) -> list[tuple[int, int]]:
        return [(n, s) for n, s in nodes if ((n == m) != (s == t)) and present[n, d, s]]

    result = x.clone()
    for d in range(dialogues):
        for m, t in nodes:
            for n, s in neighbours(d, m, t):
                gate = torch.tanh(layer.receiver(x[m, d, t]) + layer.sender(x[n, d, s]))
                degrees = (max(len(neighbours(d, *node)), 1) for node in ((m, t), (n, s)))
                result[m, d, t] = result[m, d, t] + gate * x[n, d, s] / math.sqrt(math.prod(degrees))
    return result


@pytest.mark.parametrize("modalities", [2, 3])
def test_frequency_filter_is_the_naive_loop(modalities: int) -> None:
    layer = FrequencyFilter(4)
    disturb(layer)
    x = torch.randn(modalities, 3, 5, 4, requires_grad=True)
    present = torch.rand(modalities, 3, 5) < 0.7
    present[:, 1, 1:] = False  # nodes without neighbours
    actual, expected = layer(x, *graph(present)), naive_filter(layer, x, present)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, *layer.parameters()])


def test_frequency_filter_passes_low_or_high_frequencies() -> None:
    layer = FrequencyFilter(4)
    nn.init.zeros_(layer.receiver.weight)
    nn.init.zeros_(layer.sender.weight)
    present = torch.ones(3, 2, 6, dtype=torch.bool)
    constant = torch.randn(1, 2, 1, 4).expand(3, 2, 6, 4)  # within a dialogue: the lowest frequency of its graph
    with torch.no_grad():
        layer.receiver.bias.fill_(30)
        assert_close(layer(constant, *graph(present)), 2 * constant)
        layer.receiver.bias.fill_(-30)
        assert_close(layer(constant, *graph(present)), torch.zeros_like(constant))
        layer.receiver.bias.fill_(0)
        assert_close(layer(constant, *graph(present)), constant)


def test_graph_joins_utterances_of_a_modality_and_modalities_of_an_utterance() -> None:
    within, across = graph(torch.ones(3, 1, 5, dtype=torch.bool))
    assert_close(within, (1 - torch.eye(5)).expand(3, 1, 5, 5) / 6)  # each node has 4 + 2 neighbours
    assert_close(across, ((1 - torch.eye(3)) / 6)[:, :, None, None].expand(3, 3, 1, 5))


# GraphSmile


def naive_propagation(layer: PairwisePropagation, x: Tensor, present: Tensor, future: int) -> Tensor:
    """Loops over pairs, dialogues, layers, nodes and neighbours."""
    pairs, _, dialogues, turns, _ = x.shape
    total = x.clone()
    for p in range(pairs):
        for d in range(dialogues):
            weight = {
                (s, i, j): layer.edge[p, s, j - i + layer.past].exp()
                for s in range(2)
                for i in range(turns)
                for j in range(turns)
                if i - layer.past <= j <= i + future and present[p, 1 - s, d, j]
            }
            degree: dict[tuple[int, int], Any] = {}
            for (s, i, _), w in weight.items():
                degree[s, i] = degree.get((s, i), 0) + w
            nodes = x[p, :, d]
            for convolution, readout in zip(layer.convolutions, layer.readouts, strict=True):
                messages = torch.zeros_like(nodes)
                for (s, i, j), w in weight.items():
                    scale = torch.as_tensor(degree[s, i] * degree.get((1 - s, j), 1.0)).sqrt()
                    messages[s, i] = messages[s, i] + w / scale * nodes[1 - s, j]
                nodes = messages @ convolution.weight[p] + convolution.bias[p]
                total[p, :, d] = total[p, :, d] + nn.functional.leaky_relu(nodes @ readout.weight[p] + readout.bias[p])
    return total


@pytest.mark.parametrize(("past", "future"), [(2, 1), (0, 0), (9, 9)])
@pytest.mark.parametrize("pairs", [1, 3])
def test_propagation_is_the_naive_loop(past: int, future: int, pairs: int) -> None:
    layer = PairwisePropagation(pairs, 4, 2, past=past, future=future, dropout=0.0)
    disturb(layer)
    x = torch.randn(pairs, 2, 3, 5, 4, requires_grad=True)
    present = torch.rand(pairs, 2, 3, 5) < 0.7
    present[:, 0, 1], present[:, :, 2, 2:] = False, False
    actual, expected = layer(x, present), naive_propagation(layer, x, present, future)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, *layer.parameters()])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_odd_layers_read_the_other_modality_and_even_layers_the_own(depth: int) -> None:
    layer = PairwisePropagation(1, 4, depth, past=9, future=9, dropout=0.0)
    for readout in layer.readouts[:-1]:
        for parameter in readout.parameters():
            nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 1, 5, 4, requires_grad=True)
    read = layer(x, torch.ones(1, 2, 1, 5, dtype=torch.bool))[:, 0] - x[:, 0]
    (gradient,) = torch.autograd.grad(read.square().sum(), x)
    own, other = gradient[0, 0], gradient[0, 1]
    assert bool(other.any()) == (depth % 2 == 1)
    assert bool(own.any()) == (depth % 2 == 0)


def test_stacked_linear_is_a_linear_layer_for_each_pair() -> None:
    layer, x = StackedLinear(3, 4), torch.randn(3, 2, 5, 4)
    expected = [nn.functional.linear(x[p], layer.weight[p].T, layer.bias[p]) for p in range(3)]
    assert_close(layer(x), torch.stack(expected))


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_shift_targets_are_the_naive_loop(window: int) -> None:
    sentiment = torch.randint(-1, 3, (4, 7))
    sentiment[sentiment < 0] = IGNORED
    sentiment[2, 4:] = IGNORED  # a dialogue that has ended
    found = shift_targets(sentiment, window)
    assert found.shape == (4, 7, 7)
    for d in range(4):
        for i in range(7):
            for j in range(7):
                a, b = int(sentiment[d, i]), int(sentiment[d, j])
                apart = i // window != j // window or IGNORED in (a, b)
                assert int(found[d, i, j]) == (IGNORED if apart else int(a != b))


def test_graph_smile_losses_are_the_naive_loop() -> None:
    batch = random_batch(dialogues=(5, 3, 1), missing=GAPS)
    module = build("graph_smile", sentiments="b?ab", sentiment_weight=0.5, shift_weight=0.25)
    sentiment_of = {0: 1, 2: 0, 3: 1}  # classes with a sentiment; groups in alphabetical order
    h = batch.flatten(module.fused(batch)).detach()
    weight, bias = module.shift.weight.detach(), module.shift.bias.detach()
    matrix, offset = torch.cat([weight[:2], weight[2:]], 1), bias[:2] + bias[2:]
    emotion, sentiment, shift = [], [], []
    for i in range(len(batch)):
        label = int(batch.label[i])
        emotion.append(-module.head(h[i]).log_softmax(0)[label])
        if label not in sentiment_of:
            continue
        sentiment.append(-module.sentiment(h[i]).log_softmax(0)[sentiment_of[label]])
        for j in range(len(batch)):
            near = batch.dialogue[i] == batch.dialogue[j] and batch.turn[i] // 2 == batch.turn[j] // 2
            if near and int(batch.label[j]) in sentiment_of:
                differ = int(sentiment_of[label] != sentiment_of[int(batch.label[j])])
                shift.append(-(matrix @ torch.cat([h[i], h[j]]) + offset).log_softmax(0)[differ])
    losses = module.losses(batch)
    assert list(losses) == ["cross_entropy", "sentiment", "shift"]
    assert_close(losses["cross_entropy"], torch.stack(emotion).mean())
    assert_close(losses["sentiment"], 0.5 * torch.stack(sentiment).mean())
    assert_close(losses["shift"], 0.25 * torch.stack(shift).mean())


def test_a_loss_over_no_known_target_is_zero() -> None:
    logits = torch.randn(2, 3, 2, requires_grad=True)
    loss = known_cross_entropy(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("sentiments", "num_classes"), [("", 4), ("???", 3)])
def test_graph_smile_without_sentiments_learns_emotions_alone(sentiments: str, num_classes: int) -> None:
    module = build("graph_smile", num_classes=num_classes, sentiments=sentiments)
    batch = random_batch(num_classes=num_classes)
    losses = module.losses(batch)
    assert list(losses) == ["cross_entropy"]
    losses["cross_entropy"].backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize(
    ("classes", "sentiments"),
    [
        (IEMOCAP.label_sets["six"], "+-0-+-"),
        (IEMOCAP.label_sets["four"], "-+-0"),
        (MELD.label_sets["seven"], "0?--+--"),
        ({name: name for name in ("neutral", "joy", "anger", "sadness")}, "0+--"),  # four, and not those of IEMOCAP
        ({name: name for name in ("neutral", "joy", "anger", "boredom")}, ""),
        (RAVDESS.label_sets["eight"], ""),
    ],
)
def test_sentiments_are_known_by_the_names_of_the_classes(classes: Mapping[str, str], sentiments: str) -> None:
    assert METHODS["graph_smile"].options_for(list(dict.fromkeys(classes.values()))) == {"sentiments": sentiments}


def test_graph_smile_propagates_every_pair_of_modalities() -> None:
    module = build("graph_smile")
    assert module.pairs.tolist() == [list(pair) for pair in combinations(range(3), 2)]
    assert build("graph_smile", ("audio", "vision")).pairs.tolist() == [[0, 1]]


# Sync-TVA

GRAPHS = ("pairwise", "same_utterance", "full", "joint", "within", "none")


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
                    messages = torch.zeros(dim)
                    if values:
                        parts = torch.stack(values).chunk(layer.heads, 1)
                        scored = zip(heads, parts, strict=True)
                        messages = torch.cat([torch.stack(scores).softmax(0) @ part for scores, part in scored])
                    result[g, s, d, i] = layer.norm(x[g, s, d, i] + messages)
    return result


@pytest.mark.parametrize("sides", [1, 2, 3])
@pytest.mark.parametrize("window", [(2, 1), (0, 0), (9, 9), (None, None)])
def test_graph_attention_is_the_naive_loop(window: tuple[int | None, int | None], sides: int) -> None:
    layer = GraphAttention(2, sides, 8, heads=2, past=window[0], future=window[1], dropout=0.0)
    nn.init.normal_(layer.edge)
    x = torch.randn(2, sides, 2, 5, 8, requires_grad=True)
    present = torch.rand(2, sides, 2, 5) < 0.7
    present[:, :, 1, :3] = False  # nodes whose window may be empty
    actual, expected = layer(x, present), naive_graph_attention(layer, x, present)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, *layer.parameters()])


def test_graph_attention_knows_six_edge_types() -> None:
    layer = GraphAttention(1, 2, 8, heads=2, past=1, future=1, dropout=0.0)
    assert len(layer.types.unique()) == layer.edge.shape[1] == 6
    assert torch.equal(layer.types[0].diagonal(), layer.types[1].diagonal())


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_sync_tva_variants_are_independent_of_padding(graph: str, fusion: str) -> None:
    model = build("sync_tva", graph=graph, fusion=fusion, enhancement=graph != "joint")
    batch = random_batch(dialogues=(3, 6), missing={"text": [0, 4], "audio": [0, 7], "vision": [0, 2, 7]})
    assert_close(model(pad(batch, frames=4, turns=4)), model(batch))


@pytest.mark.parametrize(
    ("graph", "receives"), [("pairwise", (True, True)), ("same_utterance", (True, False)), ("within", (False, True))]
)
def test_sync_tva_graphs_carry_what_their_edges_say(graph: str, receives: tuple[bool, bool]) -> None:
    """Whether turn 1 of the first modality receives from turn 1 of the second, and from turn 2 of the first."""
    model = build("sync_tva", graph=graph)
    h, present = torch.randn(3, 1, 4, 16), torch.ones(3, 1, 4, dtype=torch.bool)
    before = model._messages(h, present)
    for index, received in zip(((1, 0, 1), (0, 0, 2)), receives, strict=True):
        other = h.clone()
        other[index] += 1
        assert torch.equal(model._messages(other, present)[0, 0, 1], before[0, 0, 1]) != received


@pytest.mark.parametrize("option", [{"graph": "pairwize"}, {"fusion": "concatenate"}])
def test_sync_tva_names_the_nearest_variant(option: dict[str, str]) -> None:
    with pytest.raises(Misuse, match="did you mean"):
        build("sync_tva", **option)
