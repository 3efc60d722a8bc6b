"""Graphs and recurrences over a dialogue against plain loops; what renaming speakers or reading ahead may change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, alone, assert_close, changed, random_batch, widths
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.corect import RelationalTemporalGraph
from mer_bench.fusion.dialogue_rnn import DialogueCell
from mer_bench.fusion.graphs import (
    AngularGraph,
    DeepGraphConvolution,
    GraphTransformer,
    MatchingAttention,
    RelationalConvolution,
    SpeakerEmbedding,
    SpeakerRelations,
    mean_weights,
    window,
)
from mer_bench.fusion.mm_dfn import MMDFN, PartyGRU

SMALL: dict[str, dict[str, Any]] = {
    "mmgcn": {"hidden": 12, "graph": 8, "layers": 3},
    "dialogue_gcn": {"hidden": 8, "window_past": 2, "window_future": 1},
    "dialogue_rnn": {"hidden": 8, "global_dim": 6, "party_dim": 7, "emotion_dim": 5, "head_dim": 5},
    "mm_dfn": {"hidden": 12, "graph": 8, "layers": 3},
    "cogmen": {"hidden": 10, "window_past": 2, "window_future": 1},
    "corect": {"hidden": 8, "graph_heads": 2, "window_past": 2, "window_future": 1},
}
each_method = pytest.mark.parametrize("name", SMALL)


def build(name: str, dims: dict[str, Width] = DIMS, **options: Any) -> FusionModule:
    torch.manual_seed(1)
    return METHODS[name](dims, 4, **{**SMALL[name], **options}).eval()


def conversation(speakers: int = 3, **settings: Any) -> Batch:
    """Dialogues of 7, 4 and 1 turns with the given number of speakers."""
    batch = random_batch(dialogues=(7, 4, 1), **settings)
    return replace(batch, speaker=torch.tensor([0, 1, 0, 2, 2, 1, 0, 0, 1, 2, 0, 0]) % speakers)


# Relations and relational convolutions


def naive_relation(kind: str, speakers: int, first: int, second: int, later: bool) -> int:
    if kind == "same_other":
        return (0 if first == second else 2) + later
    return 2 * (min(first, speakers - 1) * speakers + min(second, speakers - 1)) + later


@pytest.mark.parametrize(("kind", "speakers", "count"), [("pairs", 2, 8), ("pairs", 3, 18), ("same_other", 2, 4)])
def test_each_allowed_pair_of_turns_has_the_one_relation_of_its_speakers_and_order(
    kind: str, speakers: int, count: int
) -> None:
    relations = SpeakerRelations(kind, speakers)
    speaker = torch.randint(0, 4, (2, 6))
    allowed = window(6, 2, 1, speaker.device) & (torch.arange(6) < torch.tensor([6, 4])[:, None])[:, None]
    masks = relations(speaker, allowed)
    assert masks.shape == (2, relations.count, 6, 6)
    assert relations.count == count
    for d in range(2):
        for i in range(6):
            for j in range(6):
                found = masks[d, :, i, j].nonzero().flatten().tolist()
                near = i - 2 <= j <= i + 1 and j < (6, 4)[d]
                speakers_of = int(speaker[d, i]), int(speaker[d, j])
                assert found == ([naive_relation(kind, speakers, *speakers_of, j > i)] if near else [])


def test_speakers_beyond_the_embedding_share_its_last_row() -> None:
    embedding = SpeakerEmbedding(3, 4)
    assert torch.equal(embedding(torch.tensor([[0, 2, 7, 40]])), embedding.weight[[0, 2, 2, 2]][None])


def test_relational_convolution_is_the_naive_loop() -> None:
    layer = RelationalConvolution(5, 4, 3)
    x = torch.randn(2, 6, 5)
    edges = torch.rand(2, 3, 6, 6) < 0.4
    actual = layer(x, mean_weights(edges))
    for d in range(2):
        for i in range(6):
            expected = layer.root.weight @ x[d, i] + layer.root.bias
            for r in range(3):
                messages = [x[d, j] @ layer.relations[r] for j in range(6) if edges[d, r, i, j]]
                if messages:
                    expected = expected + torch.stack(messages).mean(0)
            assert_close(actual[d, i], expected)


def test_graph_transformer_is_the_naive_loop_and_keeps_a_node_without_neighbours() -> None:
    layer = GraphTransformer(5, 4, heads=3)
    x = torch.randn(2, 6, 5)
    edges = torch.rand(2, 6, 6) < 0.5
    edges[1, 2] = False
    actual = layer(x, edges)
    assert_close(actual[1, 2], layer.root(x[1, 2]))
    for d in range(2):
        query, key, value = (part(x[d]).view(6, 3, 4) for part in (layer.query, layer.key, layer.value))
        for i in range(6):
            neighbours = edges[d, i].nonzero().flatten().tolist()
            for head in range(3):
                messages = torch.zeros(4)
                if neighbours:
                    scores = torch.stack([query[i, head] @ key[j, head] / 2 for j in neighbours])
                    messages = scores.softmax(0) @ value[neighbours, head]
                assert_close(actual[d, i].view(3, 4)[head], layer.root(x[d, i]).view(3, 4)[head] + messages)


def test_matching_attention_begins_as_a_scaled_inner_product() -> None:
    x = torch.randn(2, 5, 9)
    allowed = (torch.arange(5) < torch.tensor([5, 3])[:, None])[:, None]
    weights = MatchingAttention(9, 9)(x, x, allowed)
    assert_close(weights[0], (x[0] @ x[0].T / 3).softmax(-1))
    assert_close(weights[1, :, :3], (x[1] @ x[1, :3].T / 3).softmax(-1))
    assert not weights[1, :, 3:].any()


def neighbourhoods(batch: Batch, relations: str) -> tuple[list[list[int]], list[dict[int, list[int]]]]:
    """The windows (2 back, 1 ahead) of the first dialogue's turns, whole and by relation."""
    speaker = batch.speaker[batch.grid[0]].tolist()
    turns = range(len(speaker))
    near = [[j for j in turns if i - 2 <= j <= i + 1] for i in turns]
    parts: list[dict[int, list[int]]] = [{} for _ in turns]
    for i in turns:
        for j in near[i]:
            relation = naive_relation(relations, 2, speaker[i], speaker[j], j > i)
            parts[i].setdefault(relation, []).append(j)
    return near, parts


@pytest.mark.parametrize("relations", ["pairs", "same_other"])
def test_dialogue_gcn_is_its_formula(relations: str) -> None:
    batch, module = conversation(), build("dialogue_gcn", relations=relations)
    nn.init.normal_(module.edges.match.weight)
    near, parts = neighbourhoods(batch, relations)
    vectors = torch.cat([encode(batch) for encode in module.encoders.values()], -1)
    g = module.rnn(batch.by_dialogue(vectors), batch.turns)[0]
    scores = g @ module.edges.match.weight.T @ g.T / g.shape[1] ** 0.5
    first = []
    for i, window_of in enumerate(near):
        weight = dict(zip(window_of, scores[i, window_of].softmax(0), strict=True))
        messages = [weight[j] * (g[j] @ module.relational.relations[r]) for r, part in parts[i].items() for j in part]
        first.append(F.relu(module.relational.root(g[i]) + torch.stack(messages).sum(0)))
    h = torch.stack(first)
    second = [F.relu(module.own(h[i]) + module.neighbours(h[near[i]]).sum(0)) for i in range(7)]
    f = module.norm(torch.cat([g, torch.stack(second)], -1))
    attended = (f @ module.similarity.match.weight.T @ f.T / f.shape[1] ** 0.5).softmax(1) @ f
    assert_close(module(batch)[batch.grid[0]], module.head(attended))


@pytest.mark.parametrize("relations", ["pairs", "same_other"])
def test_cogmen_is_its_formula(relations: str) -> None:
    batch, module = conversation(), build("cogmen", relations=relations)
    near, parts = neighbourhoods(batch, relations)
    single, _ = alone(batch, 0)
    vectors = torch.cat([encode(single) for encode in module.encoders.values()], -1)
    x = module.project(module.transformer(PaddedSequence(vectors[None], single.turns)).values)[0]
    local = torch.stack(
        [
            module.relational.root(x[i])
            + sum((x[part].mean(0) @ module.relational.relations[r] for r, part in parts[i].items()), torch.zeros(10))
            for i in range(7)
        ]
    )
    layer = module.attentive
    query, key, value, root = (part(local) for part in (layer.query, layer.key, layer.value, layer.root))
    messages = [(query[i] @ key[near[i]].T / 10**0.5).softmax(0) @ value[near[i]] for i in range(7)]
    expected = module.head(F.leaky_relu(module.norm(root + torch.stack(messages))))
    assert_close(module(batch)[batch.grid[0]], expected)


@pytest.mark.parametrize("edges", ["all", "temporal", "multimodal"])
def test_corect_relations_are_those_of_the_paper(edges: str) -> None:
    graph = RelationalTemporalGraph(3, 4, heads=1, past=2, future=1, edges=edges)
    present = torch.rand(2, 3, 5) < 0.8
    relations = graph.relations(present).view(2, -1, 3, 5, 3, 5)
    assert relations.shape[1] == {"all": 15, "temporal": 9, "multimodal": 9}[edges]
    kinds: dict[int, set[tuple[int, int, int]]] = {}
    for d in range(2):
        for m in range(3):
            for i in range(5):
                for n in range(3):
                    for j in range(5):
                        near = i == j if edges == "multimodal" else i - 2 <= j <= i + 1
                        joined = near if m == n else i == j and edges != "temporal"
                        found = relations[d, :, m, i, n, j].nonzero().flatten().tolist()
                        assert len(found) == (1 if joined and present[d, n, j] else 0)
                        for relation in found:
                            kinds.setdefault(relation, set()).add((m, n, (j > i) - (j < i)))
    assert all(len(meanings) == 1 for meanings in kinds.values())
    assert len({next(iter(meanings)) for meanings in kinds.values()}) == len(kinds)


# MMGCN's graph, GCNII and MM-DFN's gates


def naive_graph(x: Tensor, present: Tensor, across_weight: float) -> Tensor:
    """P of one dialogue, [modality * turn, modality * turn], from x [modality, turn, dim]."""
    modalities, turns = present.shape
    adjacency = torch.zeros(modalities, turns, modalities, turns)
    for m in range(modalities):
        for i in range(turns):
            for n in range(modalities):
                for j in range(turns):
                    if (m == n or i == j) and present[m, i] and present[n, j]:
                        cosine = float(F.cosine_similarity(x[m, i], x[n, j], 0))
                        angle = math.acos(0.99999 * cosine)
                        adjacency[m, i, n, j] = (1 - angle / math.pi) * (1 if m == n else across_weight)
    flat = adjacency.flatten(2).flatten(0, 1)
    degree = flat.sum(1)
    scale = torch.where(degree > 0, degree, 1).rsqrt()
    return scale[:, None] * flat * scale


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("across_weight", [1.0, 0.7])
def test_angular_graph_is_the_naive_adjacency(modalities: int, across_weight: float) -> None:
    x, h = torch.randn(2, modalities, 5, 6), torch.randn(2, modalities, 5, 4)
    present = torch.rand(2, modalities, 5) < 0.7
    present[1, :, 3:] = False  # padding
    actual = AngularGraph.of(x, present, across_weight=across_weight).spread(h)
    for d in range(2):
        expected = naive_graph(x[d], present[d], across_weight) @ h[d].flatten(0, 1)
        assert_close(actual[d].flatten(0, 1), expected)
    assert not actual[~present].any()


def test_angular_graph_of_equal_and_zero_vectors_has_finite_gradients() -> None:
    x = torch.zeros(1, 2, 4, 3)
    x[:, 0] = 1.0  # cosine one everywhere, where the arc cosine is steep
    x.requires_grad_(True)
    AngularGraph.of(x, torch.ones(1, 2, 4, dtype=torch.bool)).spread(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angular_graph_in_mixed_precision_is_finite_and_near_that_of_single_precision(dtype: torch.dtype) -> None:
    x = torch.randn(1, 1, 8, 4).to(dtype)
    x[:, :, 4:] = x[:, :, :4]  # in half precision the cosine of equal vectors is rounded to 1 and more
    x.requires_grad_()
    present = torch.ones(1, 1, 8, dtype=torch.bool)
    expected = AngularGraph.of(x.detach().float(), present).within
    with torch.autocast("cpu", torch.bfloat16):
        found = AngularGraph.of(x, present).within
    assert_close(found, expected, atol=0.05)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def naive_gcnii(layer: DeepGraphConvolution, h: Tensor, start: Tensor, p: Tensor, depth: int) -> Tensor:
    """GCNII on flat nodes, alpha 0.2 and eta 0.5."""
    theta = math.log(0.5 / depth + 1)
    own, first = layer.weight.weight.T.chunk(2)
    messages = p @ h
    return F.relu((1 - theta) * (0.8 * messages + 0.2 * start) + theta * (messages @ own + start @ first))


def test_gcnii_keeps_the_start_and_fades_its_map_with_depth() -> None:
    x, h, start = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 4, 5), torch.randn(1, 2, 4, 5)
    present = torch.ones(1, 2, 4, dtype=torch.bool)
    graph, p = AngularGraph.of(x, present), naive_graph(x[0], present[0], 1.0)
    for depth in (1, 2, 9):
        layer = DeepGraphConvolution(5, depth, alpha=0.2, eta=0.5)
        expected = naive_gcnii(layer, h.view(8, 5), start.view(8, 5), p, depth)
        assert_close(layer(h, start, graph).view(8, 5), expected)


def test_mm_dfn_is_an_lstm_over_the_layers() -> None:
    module = build("mm_dfn", widths(audio=5, vision=4))
    assert isinstance(module, MMDFN)
    x, start = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 4, 8)
    present = torch.ones(1, 2, 4, dtype=torch.bool)
    p = naive_graph(x[0], present[0], 1.0)
    assert module.gates is not None
    weights = {name.replace("_ih", "_ih_l0").replace("_hh", "_hh_l0"): w for name, w in module.gates.named_parameters()}
    lstm = nn.LSTM(8, 8)
    lstm.load_state_dict(weights)
    h, states = start.view(8, 8), None
    for depth, layer in enumerate(module.convolutions, 1):
        gated, states = lstm(h[None], states)
        h = h + naive_gcnii(layer, gated[0], start.view(8, 8), p, depth)
    assert_close(module.fuse(start, AngularGraph.of(x, present)).view(8, 8), h)


@pytest.mark.parametrize("layers", [1, 2])
def test_party_gru_is_a_gru_over_each_partys_own_utterances(layers: int) -> None:
    ours = PartyGRU(5, 4, layers=layers, parties=4, dropout=0.0)
    reference = nn.GRU(5, 4, layers, batch_first=True, bidirectional=True)
    state = {}
    for layer, (ahead, back) in enumerate(zip(ours.ahead, ours.back, strict=True)):
        state |= {f"{name}_l{layer}": value for name, value in ahead.named_parameters()}
        state |= {f"{name}_l{layer}_reverse": value for name, value in back.named_parameters()}
    reference.load_state_dict(state)
    values, speaker = torch.randn(2, 7, 5), torch.tensor([[0, 1, 0, 2, 1, 0, 3], [1, 0, 1, 1, 0, 0, 0]])
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
    actual = ours(values, speaker, mask)
    assert not actual[~mask].any()
    for d in range(2):
        for party in range(4):
            turns = ((speaker[d] == party) & mask[d]).nonzero().flatten()
            if len(turns):
                assert_close(actual[d, turns], reference(values[d, turns][None])[0][0])


# DialogueRNN


def naive_dialogue(cell: DialogueCell, utterances: Tensor, speakers: list[int], attention: str) -> Tensor:
    """One dialogue, [turn, dim] -> emotion states [turn, emotion]: GRU cells called as the paper's equations read."""
    history: list[Tensor] = []
    emotions: list[Tensor] = []
    party = {person: torch.zeros(cell.party_cell.hidden_size) for person in range(max(speakers) + 1)}
    state, emotion = torch.zeros(cell.global_cell.hidden_size), torch.zeros(cell.emotion_cell.hidden_size)
    for u, person in zip(utterances, speakers, strict=True):
        context = torch.zeros_like(state)
        if history:
            scores = {
                "general": lambda g, u=u: u @ cell.match.weight.T @ g,
                "simple": lambda g: cell.score @ g,
                "dot": lambda g, u=u: u @ g,
            }[attention]
            weights = torch.stack([scores(g) for g in history]).softmax(0)
            context = sum((w * g for w, g in zip(weights, history, strict=True)), context)
        state = cell.global_cell(torch.cat([u, party[person]]), state)
        spoken = cell.party_cell(torch.cat([u, context]), party[person])
        if cell.listener_cell is not None:
            party = {other: cell.listener_cell(torch.cat([u, spoken]), party[other]) for other in party}
        party[person] = spoken
        emotion = cell.emotion_cell(spoken, emotion)
        history.append(state)
        emotions.append(emotion)
    return torch.stack(emotions)


@pytest.mark.parametrize("attention", ["general", "simple", "dot"])
@pytest.mark.parametrize("listener", [False, True])
def test_dialogue_rnn_is_the_naive_loop_over_each_dialogue(attention: str, listener: bool) -> None:
    width = 6 if attention == "dot" else 5
    cell = DialogueCell(width, (6, 4, 3), attention=attention, listener=listener, parties=4, dropout=0.5).eval()
    utterances, speaker = torch.randn(3, 6, width), torch.randint(0, 3, (3, 6))
    actual = cell(utterances, speaker)
    for d, turns in enumerate((6, 4, 1)):  # padding after a dialogue does not change it
        assert_close(
            actual[d, :turns], naive_dialogue(cell, utterances[d, :turns], speaker[d, :turns].tolist(), attention)
        )


def test_dialogue_rnn_reads_backwards_with_the_speakers_reversed() -> None:
    module = build("dialogue_rnn")
    utterances, speaker = torch.randn(2, 5, 24), torch.tensor([[0, 1, 1, 0, 2], [0, 1, 1, 0, 0]])
    real = torch.arange(5) < torch.tensor([5, 3])[:, None]
    states = module.cells(utterances, speaker, real)
    for d, turns in enumerate((5, 3)):
        own, people = utterances[d, :turns], speaker[d, :turns]
        ahead = naive_dialogue(module.cells[0], own, people.tolist(), "general")
        back = naive_dialogue(module.cells[1], own.flip(0), people.flip(0).tolist(), "general").flip(0)
        assert_close(states[d, :turns], torch.cat([ahead, back], -1))


@pytest.mark.parametrize("options", [{}, {"listener": True}, {"attention": "simple"}, {"emotion_attention": False}])
def test_dialogue_rnn_in_one_direction_never_reads_the_future(options: dict[str, Any]) -> None:
    batch = conversation()
    one_way = build("dialogue_rnn", bidirectional=False, **options)
    both_ways = build("dialogue_rnn", **options)
    for turn in range(1, 7):
        kept = (batch.turn < turn) | (batch.dialogue > 0)
        other = changed(batch, lambda x, kept=kept: x * kept.view(-1, *[1] * (x.ndim - 1)))
        other = replace(other, speaker=torch.where(batch.turn < turn, batch.speaker, 0))
        past = (batch.dialogue == 0) & (batch.turn < turn)
        assert_close(one_way(other)[past], one_way(batch)[past])
        assert not torch.allclose(both_ways(other)[past], both_ways(batch)[past], atol=1e-4)


# Speakers and dialogues


def renamed(batch: Batch) -> Batch:
    return replace(batch, speaker=torch.tensor([2, 0, 1])[batch.speaker])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dialogue_rnn", {}),
        ("dialogue_rnn", {"listener": True}),
        ("dialogue_gcn", {"relations": "same_other"}),
        ("cogmen", {"relations": "same_other"}),
        ("mm_dfn", {}),
        ("mmgcn", {"speaker_embedding": False}),
    ],
)
def test_names_of_the_speakers_do_not_matter_but_who_speaks_again_is(name: str, options: dict[str, Any]) -> None:
    batch, module = conversation(), build(name, **options)
    assert_close(module(renamed(batch)), module(batch))
    if options != {"speaker_embedding": False}:
        monologue = replace(batch, speaker=torch.zeros_like(batch.speaker))
        assert not torch.allclose(module(monologue), module(batch), atol=1e-4)


@pytest.mark.parametrize("name", ["mmgcn", "dialogue_gcn", "cogmen", "corect"])
def test_by_default_these_methods_know_the_speakers_by_their_order(name: str) -> None:
    batch, module = conversation(), build(name)
    assert not torch.allclose(module(renamed(batch)), module(batch), atol=1e-4)


@each_method
@pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("audio", "vision"), ("vision",)])
def test_dialogues_are_independent_and_may_have_many_speakers(name: str, modalities: tuple[str, ...]) -> None:
    dims = {modality: DIMS[modality] for modality in modalities}
    batch = random_batch(dims, dialogues=(13, 4, 1), missing={modalities[0]: [0, 5, 13], modalities[-1]: [5, 6]})
    batch = replace(batch, speaker=torch.where(batch.dialogue == 0, batch.turn, batch.speaker))  # 13 people
    module = build(name, dims)
    together = module(batch)
    for group in range(3):
        single, rows = alone(batch, group)
        assert_close(module(single), together[rows])


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("dialogue_gcn", lambda module: nn.init.zeros_(module.relational.relations)),
        ("cogmen", lambda module: nn.init.zeros_(module.relational.relations)),
        ("corect", lambda module: nn.init.zeros_(module.graph.relational.relations)),
    ],
)
def test_relations_take_part(name: str, without: Callable[[Any], object]) -> None:
    batch, module = conversation(), build(name)
    before = module(batch).detach()
    without(module)
    assert not torch.allclose(module(batch), before, atol=1e-4)
