"""SimBaMM, TMC, DMD and CCF-AGCN against their formulas, in loops over single utterances, and counts of parameters."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, alone, assert_close, assert_same_gradients, naive_attention, random_batch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from mer_bench.batch import PaddedSequence
from mer_bench.fusion import METHODS
from mer_bench.fusion.dmd import FAVOURED, GraphDistillation, margin_loss
from mer_bench.fusion.tmc import combine, divergence
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.modalities import MODALITIES
from mer_bench.records import Training

CLASSES = 4
#: Utterance 3 lacks everything, 1 has vision alone, 0 lacks text.
MISSING = {"text": [0, 1, 3], "audio": [1, 3], "vision": [3]}
FUNCTIONALS = sum(width.functionals for width in DIMS.values())
FRAMES = sum(width.frames for width in DIMS.values())


def build(name: str, **options: Any) -> Any:
    return METHODS[name](DIMS, CLASSES, **options).eval()


def layer_parameters(dim: int) -> int:
    """Four projections, a feed-forward block of four times the width and two LayerNorms."""
    return 4 * (dim**2 + dim) + 2 * 4 * dim**2 + 5 * dim + 4 * dim


def head_parameters(width: int) -> int:
    """The residual head of MulT."""
    return 2 * (width**2 + width) + width * CLASSES + CLASSES


# SimBaMM


def naive_layer(layer: TransformerLayer, x: Tensor) -> Tensor:
    normed = layer.attention_norm(x)
    x = x + naive_attention(layer.attention, normed, normed)
    return x + layer.ffn(layer.ffn_norm(x))


@pytest.mark.parametrize("tokens", [1, 3])
def test_simbamm_attends_over_the_tokens_of_present_modalities_alone(tokens: int) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("simbamm", hidden=8, heads=2, tokens=tokens)
    found, vectors, present = module(batch), module.encoders(batch), module.present(batch)
    for row in range(len(batch)):
        x = [module.projections[m](vectors[m, row]).reshape(tokens, 8) for m in range(3) if present[m, row]]
        if x:
            sequence = torch.cat(x)
            for layer in module.layers:
                sequence = naive_layer(layer, sequence)
            assert_close(found[row], module.head(module.norm(sequence.mean(0))))
        else:
            assert_close(found[row], module.head(module.norm.bias))


def test_simbamm_masks_some_modalities_in_training_and_never_all() -> None:
    present = torch.tensor([True, True, False])[:, None].expand(3, 4000)
    module = build("simbamm", modality_dropout=0.3)
    assert torch.equal(module.kept(present), present)
    module.train()
    torch.manual_seed(0)
    kept = module.kept(present)
    assert kept.any(0).all()
    assert not kept[2].any()
    # both are masked in 0.09 of all cases, and then both are kept
    assert (kept[:2].float().mean(1) - 0.79).abs().max() < 0.03
    assert torch.equal(build("simbamm", modality_dropout=0.0).train().kept(present), present)


@pytest.mark.parametrize("tokens", [1, 2])
def test_parameters_of_simbamm(tokens: int) -> None:
    projections = 3 * (64 + 1) * 64 * tokens
    expected = (FUNCTIONALS + 9) * 64 + projections + 2 * layer_parameters(64) + 2 * 64 + 65 * CLASSES
    assert build("simbamm", tokens=tokens).num_parameters == expected


# TMC


def dempster(first: list[float], second: list[float]) -> list[float]:
    """The reduced rule of the paper for two opinions, in their evidence."""
    classes = len(first)
    strengths = [classes + sum(evidence) for evidence in (first, second)]
    b, c = ([e / strength for e in evidence] for evidence, strength in zip((first, second), strengths, strict=True))
    u, v = (classes / strength for strength in strengths)
    conflict = sum(b[i] * c[j] for i, j in permutations(range(classes), 2))
    belief = [(b[k] * c[k] + b[k] * v + c[k] * u) / (1 - conflict) for k in range(classes)]
    uncertainty = u * v / (1 - conflict)
    assert math.isclose(sum(belief) + uncertainty, 1, rel_tol=1e-9)
    return [each * classes / uncertainty for each in belief]


def test_combined_evidence_is_that_of_dempsters_rule_view_by_view() -> None:
    evidence = torch.rand(3, 5, CLASSES, dtype=torch.float64) * 20
    evidence[1, 2] = 0  # a view without evidence
    found = combine(evidence)
    for row in range(5):
        views = evidence[:, row].tolist()
        expected = dempster(dempster(views[0], views[1]), views[2])
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(combine(evidence[[0, 2]])[2], found[2])


def test_divergence_is_that_of_a_dirichlet_distribution_from_the_uniform_one() -> None:
    alpha = 1 + torch.rand(6, CLASSES, dtype=torch.float64) * 9
    expected = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    torch.testing.assert_close(divergence(alpha), expected)
    assert float(divergence(torch.ones(CLASSES)).abs()) < 1e-6


@pytest.mark.parametrize(("smoothing", "pseudo_view"), [(0.0, False), (0.2, False), (0.0, True)])
def test_losses_of_tmc_are_those_of_the_paper(smoothing: float, pseudo_view: bool) -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("tmc", annealing=4, pseudo_view=pseudo_view)
    module.training_options = Training(label_smoothing=smoothing)
    evidence, vectors, present = module.evidence(batch), module.encoders(batch), module.present(batch)
    surprise, others = [], []
    for row in range(len(batch)):
        views = [F.softplus(module.heads[m](vectors[m, row])) for m in range(3) if present[m, row]]
        if pseudo_view and views:
            views.append(F.softplus(module.pseudo_head(vectors[:, row].flatten())))
        for opinion in (*views, combine(evidence[:, row : row + 1])[0]):
            alpha, label = opinion + 1, int(batch.label[row])
            expected = alpha.sum().digamma() - alpha.digamma()  # of -log p under the distribution
            surprise.append((1 - smoothing) * expected[label] + smoothing * expected.mean())
            others.append(divergence(torch.where(torch.arange(CLASSES) == label, 1, alpha)))
    found = module.losses(batch)  # in epoch 1 of 4
    assert_close(found["cross_entropy"], torch.stack(surprise).sum() / len(batch))
    assert_close(found["divergence"], 0.25 * torch.stack(others).sum() / len(batch))
    module.annealing = 1
    assert_close(module.losses(batch)["divergence"], 4 * found["divergence"])


def test_tmc_obeys_class_weights() -> None:
    batch = random_batch(context="utterance")
    module = build("tmc")
    module.class_counts.copy_(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    plain = [module.losses(alone(batch, row)[0]) for row in range(len(batch))]
    module.training_options = Training(class_weights="balanced")
    weight = module.class_weights()[batch.label]
    found = module.losses(batch)
    for name in ("cross_entropy", "divergence"):
        each = torch.stack([losses[name] for losses in plain])
        assert_close(found[name], (each * weight).sum() / weight.sum())


def test_tmc_is_uncertain_of_what_it_does_not_see() -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("tmc")
    uncertainty, evidence = module.uncertainty(batch).tolist(), module.evidence(batch).sum(-1)
    assert uncertainty[3] == 1
    assert_close(module(batch)[3].exp(), torch.full((CLASSES,), 1 / CLASSES))
    assert_close(module(batch).exp().sum(1), torch.ones(len(batch)))
    for row in (0, 1, 2):
        alone = (CLASSES / (CLASSES + evidence[:, row])).tolist()
        assert 0 < uncertainty[row] <= min(alone) + 1e-6  # each view only adds evidence


def test_parameters_of_tmc() -> None:
    encoders = (FUNCTIONALS + 9) * 64
    assert build("tmc").num_parameters == encoders + 3 * 65 * CLASSES
    assert build("tmc", pseudo_view=True).num_parameters == encoders + (3 * 65 + 3 * 64 + 1) * CLASSES


# DMD


@pytest.mark.parametrize(("part", "order"), [("shared", [0, 0, 1, 0, 1, 0]), ("specific", [0, 0, 1, 0, 1, 1])])
def test_priors_of_dmd_are_those_of_its_authors(part: str, order: list[int]) -> None:
    graph = GraphDistillation(MODALITIES, CLASSES, 5, 3, FAVOURED[part])
    theirs = dict(
        zip(permutations(("text", "vision", "audio"), 2), (torch.tensor(order) / 0.25).softmax(0), strict=True)
    )
    pairs = list(permutations(MODALITIES, 2))
    assert_close(graph.prior, torch.stack([theirs[pair] for pair in pairs]))


def test_distillation_of_dmd_weighs_each_edge_and_stops_the_gradient_of_the_teacher() -> None:
    graph = GraphDistillation(MODALITIES, CLASSES, 5, 3, FAVOURED["specific"])
    logits, vectors = torch.randn(3, 6, CLASSES, requires_grad=True), torch.randn(3, 6, 5, requires_grad=True)
    present = torch.ones(3, 6, dtype=torch.bool)
    present[0, 2] = present[2, 2] = present[1, 4] = False
    pairs = list(permutations(range(3), 2))
    z = torch.cat([graph.logits(logits), graph.vectors(vectors)], -1)
    scores = torch.stack([graph.edge(torch.cat([z[j], z[i]], -1))[:, 0] / 8 for j, i in pairs])
    imitation, drift = torch.zeros(()), torch.zeros(())
    for edge, (j, i) in enumerate(pairs):
        rows = [row for row in range(6) if present[j, row] and present[i, row]]
        weights = [scores[:, row].exp()[edge] / scores[:, row].exp().sum() for row in rows]
        gaps = [(logits[j, row].softmax(0) - logits[i, row].detach().softmax(0)).abs().sum() for row in rows]
        weighed = [(w + graph.prior[edge]) * gap for w, gap in zip(weights, gaps, strict=True)]
        imitation = imitation + torch.stack(weighed).mean()
        drift = drift + (torch.stack(weights).mean() - graph.prior[edge]) ** 2
    found = graph(logits, vectors, present)
    assert_close(found, imitation + 10 * drift)
    assert_same_gradients(found, imitation + 10 * drift, [logits, vectors])


def test_margin_loss_of_dmd_compares_triplets_of_two_modalities() -> None:
    vectors, labels = torch.randn(3, 7, 5), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    present = torch.rand(3, 7) > 0.3
    total, count = torch.zeros(()), 0
    for m, n in permutations(range(3), 2):
        for i, j, k in product(range(7), repeat=3):
            if present[m, i] and present[n, j] and present[m, k] and labels[i] == labels[j] and labels[i] != labels[k]:
                near, far = (F.cosine_similarity(vectors[m, i], x, dim=0) for x in (vectors[n, j], vectors[m, k]))
                total, count = total + max(0, 0.15 - float(near) + float(far)), count + 1
    assert_close(margin_loss(vectors, labels, present, 0.15), total / count)
    assert float(margin_loss(vectors, torch.zeros(7), present, 0.15)) == 0


def test_dmd_decodes_both_parts_and_separates_them_over_real_tokens() -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("dmd", hidden=8, heads=2, layers=1)
    parts = module.split(batch)
    reconstruction, overlap = torch.zeros(()), torch.zeros(())
    for name, x in parts.inputs.items():
        errors, cosines = [], []
        for row, step in product(range(len(batch)), range(x.mask.shape[1])):
            if x.mask[row, step]:
                token = x.values[row, step]
                c, s = module.shared(token), module.specific[name](token)
                decoded = module.decoders[name](torch.cat([s, c]))
                again = module.specific[name](decoded)
                errors.append((token - decoded).square().mean() + (s - again).square().mean())
                cosines.append(F.cosine_similarity(s, c, dim=0).clamp(min=0))
        reconstruction, overlap = reconstruction + torch.stack(errors).mean(), overlap + torch.stack(cosines).mean()
    losses, labels = module.losses(batch), batch.label
    aligned = torch.stack([align(c) for align, c in zip(module.aligned.values(), parts.pooled, strict=True)])
    apart = margin_loss(aligned, labels, module.present(batch), 0.15) + overlap
    assert_close(losses["reconstruction"], 0.1 * reconstruction)
    assert_close(losses["separation"], 0.1 * 0.1 * apart)


def test_parts_of_dmd_have_classifiers_of_their_own() -> None:
    batch = random_batch(context="utterance", missing=MISSING)
    module = build("dmd", hidden=8, heads=2, layers=1)
    parts, present = module.split(batch), module.present(batch)
    expected = F.cross_entropy(module.joint_head(parts.joint), batch.label)
    for heads, vectors in ((module.shared_heads, parts.pooled), (module.specific_heads, parts.views)):
        for name, own, has in zip(DIMS, vectors, present, strict=True):
            expected = expected + F.cross_entropy(heads[name](own[has]), batch.label[has])
    losses = module.losses(batch)
    assert_close(losses["parts"], expected)
    gated = [gate(v).sigmoid() for gate, v in zip(module.gates, [*parts.views, parts.joint], strict=True)]
    assert_close(losses["cross_entropy"], F.cross_entropy(module.head(torch.cat(gated, -1)), batch.label))


def test_parts_of_dmd_can_be_taken_away() -> None:
    batch = random_batch(context="utterance")
    small = {"hidden": 8, "heads": 2, "layers": 1}
    assert set(build("dmd", **small, distillation=0.0).losses(batch)) == {
        "cross_entropy",
        "parts",
        "reconstruction",
        "separation",
    }
    assert set(build("dmd", **small, distillation=0.0, decoupling=0.0).losses(batch)) == {"cross_entropy", "parts"}


def test_parameters_of_dmd() -> None:
    d, wide, joint = 30, 60, 90
    # functionals, norm, two convolutions of three frames, mean and deviation of the tokens
    encoders = (FUNCTIONALS + 9) * d + 3 * FRAMES * d + 3 * (3 * d * d + 2 * d) + 3 * (2 * d * d + d)
    parts = (1 + 3 + 3 * 2 + 3) * d * d
    transformers = (3 + 6) * (4 * layer_parameters(d) + 2 * d) + 3 * (4 * layer_parameters(wide) + 2 * wide)
    heads = 3 * head_parameters(d) + 3 * head_parameters(wide) + head_parameters(joint) + head_parameters(270)
    gates = 3 * (wide**2 + wide) + joint**2 + joint
    graphs = 64 * (CLASSES + d + 4) + 32 * (CLASSES + wide + 4)
    assert build("dmd").num_parameters == encoders + parts + transformers + heads + gates + graphs


# CCF-AGCN


def test_graph_of_ccf_agcn_sends_messages_within_the_window_by_relation() -> None:
    batch = random_batch(dialogues=(5, 3))
    module = build("ccf_agcn", hidden=8, window_past=2, window_future=1)
    aligned = module.aligned(batch)
    g = module.rnn(torch.cat(aligned, -1), batch.turns)
    found = module(batch)
    for row in range(len(batch)):
        dialogue, i = int(batch.dialogue[row]), int(batch.turn[row])
        own = g[dialogue, i]
        near = [j for j in range(max(0, i - 2), i + 2) if j < int(batch.turns[dialogue].sum())]
        scores = torch.stack([module.edges.match(own) @ g[dialogue, j] / math.sqrt(16) for j in near]).softmax(0)
        x = module.relational.root(own)
        for weight, j in zip(scores, near, strict=True):
            speaker = batch.speaker[batch.grid[dialogue]]
            relation = 2 * int(speaker[i] != speaker[j]) + int(j > i)
            x = x + weight * (g[dialogue, j] @ module.relational.relations[relation])
        assert_close(found[row], module.head(torch.cat([own, F.relu(x)])))


def test_modalities_of_ccf_agcn_read_the_turns_that_have_the_other_one() -> None:
    batch = random_batch(dialogues=(5, 3), missing={"text": [1, 2], "audio": [5, 6, 7]})
    module = build("ccf_agcn", hidden=8)
    vectors, present = module.encoder(batch)
    aligned = dict(zip(DIMS, module.aligned(batch), strict=True))
    position = {name: index for index, name in enumerate(DIMS)}
    for target, dialogue in product(DIMS, range(2)):
        turns = int(batch.turns[dialogue].sum())
        own, read = vectors[dialogue, position[target], :turns][None], []
        for name in DIMS:
            if name != target:
                has = present[dialogue, position[name]]
                # positions are those of the dialogue, so that the turns without the modality stay and are masked
                source = PaddedSequence(vectors[dialogue, position[name]][None], has[None])
                query = PaddedSequence(own, torch.ones(1, turns, dtype=torch.bool))
                read.append(module.coattention[f"{name}_to_{target}"](query, source).values)
        expected = own + module.align[target](torch.cat(read, -1))
        assert_close(aligned[target][dialogue, :turns], expected[0])


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_tasks_of_ccf_agcn_are_the_fusion_and_each_modality_that_is_present(
    class_weights: Literal["none", "balanced"],
) -> None:
    batch = random_batch(missing=MISSING)
    module = build("ccf_agcn", hidden=8, auxiliary=0.3)
    module.class_counts.copy_(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    module.training_options = Training(class_weights=class_weights, label_smoothing=0.1)
    weight, smoothing = module.class_weights(), 0.1
    flat = [batch.flatten(a) for a in module.aligned(batch)]
    each = [
        F.cross_entropy(module.heads[name](a[has]), batch.label[has], weight, label_smoothing=smoothing)
        for name, a, has in zip(DIMS, flat, module.present(batch), strict=True)
    ]
    losses = module.losses(batch)
    assert_close(losses["modalities"], 0.3 * torch.stack(each).mean())
    fused = F.cross_entropy(module(batch), batch.label, weight, label_smoothing=smoothing)
    assert_close(losses["cross_entropy"], fused)


def test_parameters_of_ccf_agcn() -> None:
    d = 100
    encoders = (FUNCTIONALS + 9) * d
    attention = 6 * (layer_parameters(d) + 2 * d) + 3 * (2 * d + 1) * d
    gru = 2 * 3 * d * (3 * d + d + 2)
    graph = (2 * d) ** 2 + (2 * d + 1) * d + 4 * 2 * d * d
    heads = 3 * (d + 1) * CLASSES + (3 * d + 1) * CLASSES
    assert build("ccf_agcn").num_parameters == encoders + attention + gru + graph + heads
