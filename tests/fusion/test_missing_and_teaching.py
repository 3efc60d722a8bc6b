"""MMIN, GCNet, MultiEMO and TelME: naive loops, closed forms of parameters, and what losses may read."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, assert_close, naive_attention, on_meta, random_batch
from torch import Tensor, nn

from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.gcnet import GraphContext, keep_some, order_relations
from mer_bench.fusion.graphs import window
from mer_bench.fusion.mmin import ResidualAutoencoders, pattern
from mer_bench.fusion.multiemo import AttentionLayer, SpeakerContext, focal_contrast, soft_correlation
from mer_bench.fusion.telme import ShiftingFusion, response_distance, similarity_divergence

SMALL: dict[str, dict[str, Any]] = {
    "mmin": {"hidden": 8, "latent": 4, "blocks": 2, "head": 8},
    "gcnet": {"hidden": 8, "graph": 4},
    "multiemo": {"hidden": 8, "layers": 1, "heads": 2, "ffn": 8},
    "telme": {"hidden": 8},
}


def build(name: str, **options: Any) -> FusionModule:
    torch.manual_seed(1)
    return METHODS[name](DIMS, 4, **{**SMALL[name], **options}).eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def linear(*widths: int) -> int:
    """Parameters of linear layers in a row."""
    return sum((a + 1) * b for a, b in pairwise(widths))


def lstm(dim: int, hidden: int) -> int:
    """Parameters of two bidirectional layers."""
    return 8 * hidden * (dim + hidden + 2) + 8 * hidden * (3 * hidden + 2)


# MMIN


def test_the_cascade_of_the_authors_has_their_parameters() -> None:
    width = 384
    block = linear(width, 256, 128, 64) + linear(64, 128, 256, width)
    cascade = on_meta(lambda: ResidualAutoencoders(width, 64, 5))
    assert count(cascade) == 5 * block + linear(width, width, width)
    module = on_meta(lambda: METHODS["mmin"](DIMS, 4))
    classifiers = linear(320, 128, 128, 4) + linear(width, 128, 128, 4)
    assert module.num_parameters - module.encoder_parameters == 2 * count(cascade) + classifiers


def test_each_autoencoder_reads_the_sum_of_the_input_and_all_outputs_before_it() -> None:
    cascade = ResidualAutoencoders(6, 2, 3)
    x = torch.randn(5, 6)
    outputs: list[Tensor] = []
    latents = []
    for encode, decode in zip(cascade.encoders, cascade.decoders, strict=True):
        latents.append(encode(x + sum(outputs)))
        outputs.append(decode(latents[-1]))
    output, latent = cascade(x)
    assert_close(output, cascade.transition(x + sum(outputs)))
    assert_close(latent, torch.cat(latents, -1))


def test_an_utterance_keeps_all_or_any_other_set_of_its_modalities() -> None:
    torch.manual_seed(0)
    present = torch.ones(3, 7000, dtype=torch.bool)
    sets = (pattern(present, 0.3) * torch.tensor([1, 2, 4])[:, None]).sum(0)
    share = torch.bincount(sets, minlength=8) / 7000
    assert share[0] == 0
    assert_close(share[1:7], torch.full((6,), 0.7 / 6), rtol=0, atol=0.02)
    assert math.isclose(float(share[7]), 0.3, abs_tol=0.02)
    present[1:] = False
    assert torch.equal(pattern(present, 0.0), present)


# GCNet


def test_the_dropped_share_is_what_is_asked_for_and_one_modality_stays() -> None:
    torch.manual_seed(0)
    present = torch.ones(3, 9000, dtype=torch.bool)
    for missing in (0.2, 2 / 3):
        kept = keep_some(present, missing)
        assert kept.any(0).all()
        assert math.isclose(float((~kept).float().mean()), missing, abs_tol=0.015)
    present[0] = False
    kept = keep_some(present, 2 / 3)
    assert not kept[0].any()
    assert (kept.sum(0) == 1).all()
    with pytest.raises(Misuse, match=r"missing = 0\.7"):
        build("gcnet", missing=0.7)


def test_graph_context_is_the_naive_loop() -> None:
    torch.manual_seed(0)
    context = GraphContext(6, 3, 3, layers=1, attention=False, dropout=0.0).eval()
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    x = torch.randn(2, 5, 6) * real[..., None]
    near = window(5, 2, 1, x.device) & real[:, None] & real[..., None]
    nodes = torch.zeros(2, 5, 3)
    for d, turns in enumerate((5, 3)):
        y = []
        neighbours = [[j for j in range(turns) if i - 2 <= j <= i + 1] for i in range(turns)]
        for i in range(turns):
            total = context.relational.root(x[d, i])
            for relation, chosen in enumerate((lambda j: j < i, lambda j: j == i, lambda j: j > i)):  # noqa: B023
                of_it = [x[d, j] @ context.relational.relations[relation] for j in neighbours[i] if chosen(j)]
                total = total + (sum(of_it) / len(of_it) if of_it else 0)
            y.append(total)
        for i in range(turns):
            nodes[d, i] = context.own(y[i]) + sum(context.neighbours(y[j]) for j in neighbours[i])
    states = context.rnn(torch.cat([x, nodes], -1), real)
    actual = context(x, order_relations(near), real)
    assert_close(actual[real], F.relu(context.linear(states))[real])


def test_gcnet_has_the_parameters_of_its_layers() -> None:
    module = on_meta(lambda: METHODS["gcnet"](DIMS, 6))
    dim, graph = 400, 100
    width = dim + graph

    def context(relations: int) -> int:
        convolutions = (relations + 1) * dim * graph + graph + 2 * graph**2 + graph
        return convolutions + lstm(width, width) + linear(2 * width, width)

    features = sum(each.functionals for each in DIMS.values())
    fusion = lstm(600, 200) + context(3) + context(4) + linear(width, 6) + linear(width, features)
    assert module.num_parameters - module.encoder_parameters == fusion


def test_only_what_was_dropped_is_reconstructed() -> None:
    module, batch = build("gcnet", dropout=0.0), random_batch(missing={"audio": [0, 4]})
    torch.manual_seed(5)
    loss = module.losses(batch)["reconstruction"]
    torch.manual_seed(5)
    kept = keep_some(module.present(batch), 0.2)
    decoded = module.decoder(module.states(batch, kept)).split(module.widths, -1)
    total = 0.0
    for m, name in enumerate(module.dims):
        for i in range(len(batch)):
            if batch.present[name][i] and not kept[m, i]:
                total += float((decoded[m][i] - batch.functionals[name][i]).square().mean().detach())
    assert math.isclose(float(loss.detach()), total / len(batch), rel_tol=1e-4)


# MultiEMO


def test_multiemo_has_the_authors_parameters_after_the_encoders() -> None:
    d, ffn = 256, 1024
    module = on_meta(lambda: METHODS["multiemo"](DIMS, 6))
    cell = 3 * (3 * d * (2 * d) + 3 * d * d) - 3 * d * d + 3 * 6 * d + d  # two GRU cells read 2d, the last one d
    context = 2 * cell + linear(2 * d, d)
    layer = 2 * 4 * linear(d, d) + linear(d, ffn, d) + 3 * 2 * d
    assert count(on_meta(lambda: SpeakerContext(d, parties=2, dropout=0.0))) == context
    fusion = 3 * 6 * layer + linear(3 * d, d) + linear(d, d, 6)
    assert module.num_parameters - module.encoder_parameters == fusion


def test_attention_layer_is_the_naive_loop() -> None:
    torch.manual_seed(0)
    layer = AttentionLayer(2, 8, 2, 16, dropout=0.5).eval()
    x, sources = torch.randn(3, 5, 8), torch.randn(2, 3, 5, 8)
    allowed = torch.tensor([[[1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]] * 2).bool()
    for d in range(3):
        y = x[d]
        for k in range(2):
            seen = allowed[k, d]
            y = layer.norms[k](y + (naive_attention(layer.attentions[k], y, sources[k, d][seen]) if seen.any() else 0))
        assert_close(layer(x, sources, allowed)[d], layer.norms[2](y + layer.ffn(y)))


def test_soft_correlation_is_its_formula_and_at_most_a_half() -> None:
    torch.manual_seed(0)
    x, y, real = torch.randn(30, 4), torch.randn(30, 4), torch.arange(30) < 20
    a, b = x[:20] - x[:20].mean(0), y[:20] - y[:20].mean(0)
    covariance = [torch.cov(each.T, correction=0) for each in (a, b)]
    expected = ((a * b).sum(1).mean() - torch.trace(covariance[0] @ covariance[1]) / 2) / 4
    assert_close(soft_correlation(x, y, real), expected)
    white = torch.linalg.qr(a)[0] * math.sqrt(20)
    assert_close(soft_correlation(white, white, torch.ones(20).bool()), torch.tensor(0.5))
    assert soft_correlation(x, y, ~torch.ones(30).bool()) == 0


def test_focal_contrast_is_the_naive_loop() -> None:
    torch.manual_seed(0)
    x, label, weight = torch.randn(7, 5), torch.tensor([0, 1, 0, 2, 1, 0, 1]), torch.tensor([0.2, 0.5, 0.3])
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i]
        p = torch.stack([F.cosine_similarity(x[i], x[j], dim=0) / 0.8 for j in others]).softmax(0)
        terms = [(1 - q) ** 2.4 * q.log() for q, j in zip(p, others, strict=True) if label[j] == label[i]]
        total += float(weight[label[i]] * sum(terms) / max(1, len(terms)))
    assert math.isclose(float(focal_contrast(x, label, weight, 0.8, 2.4)), -total / 7, rel_tol=1e-4)


@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1, 2]])
def test_focal_contrast_has_finite_gradients_without_partners_or_others(labels: list[int]) -> None:
    x = torch.randn(len(labels), 5, requires_grad=True)
    focal_contrast(x, torch.tensor(labels), torch.ones(3), 0.8, 0.0).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


# TelME


def test_a_dialogue_is_shifted_as_the_authors_shift_a_batch() -> None:
    """Their attention takes the utterances of a batch as one sequence."""
    torch.manual_seed(0)
    fusion = ShiftingFusion(8, 2, 4, shift=0.2, dropout=0.2).eval()
    theirs = nn.MultiheadAttention(16, 4).eval()
    ours = fusion.attention
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([each.weight for each in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([each.bias for each in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    t, s = torch.randn(5, 8), torch.randn(5, 16)
    a = fusion.norm(s + theirs(s, s, s)[0])
    d = F.relu(fusion.gate(torch.cat([a, t], 1))) * fusion.displacement(a)
    scale = (0.2 * t.norm(dim=1) / d.norm(dim=1)).clamp(max=1)
    assert (scale < 1).any()
    everywhere = torch.ones(1, 5, dtype=torch.bool)
    expected = fusion.output_norm(t + scale[:, None] * d)
    assert_close(fusion(t[None], s[None], everywhere, everywhere)[0], expected)


def test_response_distance_is_one_minus_two_correlations() -> None:
    torch.manual_seed(0)
    student, teacher, both = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    p, q = (x[both].div(2).softmax(1) for x in (student, teacher))
    within = sum(1 - torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(p, q, strict=True)) / 5
    across = sum(1 - torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(p.T, q.T, strict=True)) / 4
    assert_close(response_distance(student, teacher, both, 2.0), 4 * (within + across))
    assert response_distance(student, teacher, ~both & both, 2.0) == 0


def test_similarity_divergence_is_torchs() -> None:
    torch.manual_seed(0)
    student, teacher, both = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    s, t = F.normalize(student[both]), F.normalize(teacher[both])
    expected = F.kl_div((t @ s.T).log_softmax(1), (t @ t.T).softmax(1), reduction="batchmean")
    assert_close(similarity_divergence(student, teacher, both), expected)
    assert similarity_divergence(student, teacher, ~both & both) == 0


def test_the_fusion_of_the_authors_has_their_parameters() -> None:
    d = 768
    fusion = on_meta(lambda: ShiftingFusion(d, 2, 4, shift=0.2, dropout=0.2))
    assert count(fusion) == 4 * linear(2 * d, 2 * d) + linear(3 * d, d) + linear(2 * d, d) + 6 * d


def test_the_fusion_trains_the_encoders_only_if_it_is_asked_to() -> None:
    for joint in (False, True):
        module = build("telme", joint=joint)
        module.losses(random_batch())["cross_entropy"].backward()
        assert all((p.grad is not None) == joint for p in module.encoders.parameters())


def test_the_students_learn_from_the_teacher_and_not_the_other_way_round() -> None:
    module = build("telme", teacher="vision", response=1.0)
    losses = module.losses(random_batch())
    (losses["text_response"] + losses["text_similarity"]).backward()
    learnt = {name for name, encoder in module.encoders.items() if any(p.grad.any() for p in encoder.parameters())}
    assert learnt == {"text"}
    assert module.students == ["text", "audio"]


# All


@pytest.mark.parametrize("name", SMALL)
def test_losses_encode_the_batch_once_and_begin_with_the_cross_entropy(name: str) -> None:
    module, calls = build(name), []
    for encoder in module.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    losses = module.losses(random_batch())
    assert len(calls) == 3
    assert next(iter(losses)) == "cross_entropy"
    assert all(loss.ndim == 0 for loss in losses.values())
