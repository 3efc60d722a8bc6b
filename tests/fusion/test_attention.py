"""Methods that fuse by attention, and those with losses of their own, against torch, numpy and naive loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import DIMS, assert_close, naive_attention, random_batch, sequence, widths
from torch import Tensor, nn

from mer_bench.batch import PaddedSequence
from mer_bench.fusion.bottleneck import Bottleneck, BottleneckTransformer
from mer_bench.fusion.cross_attention import AttentionFusion, CrossAttention, CrossBlock
from mer_bench.fusion.lmf_mult import LMFMulT, interpolate
from mer_bench.fusion.lmr_cbt import LMRCBT, FeatureGuidance, TimeGuidance
from mer_bench.fusion.misa import MISA, central_moment_discrepancy, overlap
from mer_bench.fusion.mmim import FLOOR, MMIM, InformationBound, class_entropy, contrastive_loss
from mer_bench.fusion.perceiver import Perceiver
from mer_bench.fusion.pmr import PMR, ReinforcementUnit
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.fusion.utterance import tokens_with_summary

PAIR = widths(audio=5, vision=4)


# Cross-attention


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scale", [False, True])
def test_attention_fusion_scales_by_the_map_of_torch(heads: int, scale: bool) -> None:
    target, source = sequence([5, 3, 4], 6), sequence([2, 7, 1], 6)
    fusion = AttentionFusion(1, 6, heads, scale=scale)
    identity, nothing = torch.eye(6), torch.zeros(6)
    _, attention = nn.functional.multi_head_attention_forward(
        source.values.transpose(0, 1), target.values.transpose(0, 1), target.values.transpose(0, 1), 6, heads,
        None, torch.zeros(18), None, None, False, 0.0, identity, nothing, key_padding_mask=~target.mask,
        use_separate_proj_weight=True, q_proj_weight=fusion.queries[0].weight, k_proj_weight=fusion.keys[0].weight,
        v_proj_weight=identity,
    )  # fmt: skip
    weight = (attention * source.mask[..., None]).sum(1)
    if scale:
        weight = weight * target.mask.sum(1, keepdim=True) / source.mask.sum(1, keepdim=True)
        assert_close((weight * target.mask).sum(1) / target.mask.sum(1), torch.ones(3))
    assert_close(fusion(target, [source]).values, target.values * weight[..., None])


def test_attention_fusion_averages_over_the_sources_that_are_present() -> None:
    target, one, other = sequence([4, 4, 4], 6), sequence([3, 2, 0], 6), sequence([5, 0, 0], 6)
    fusion = AttentionFusion(2, 6, 1, scale=False)
    alone = []
    for index, source in enumerate((one, other)):
        single = AttentionFusion(1, 6, 1, scale=False)
        single.queries[0], single.keys[0] = fusion.queries[index], fusion.keys[index]
        alone.append(single(target, [source]).values)
    found = fusion(target, [one, other]).values
    assert_close(found[0], (alone[0][0] + alone[1][0]) / 2)
    assert_close(found[1], alone[0][1])
    assert_close(found[2], target.values[2])


def test_cross_block_is_torch_attention_and_a_feed_forward_block() -> None:
    target, source = sequence([5, 3], 6), sequence([2, 7], 6)
    block, reference = CrossBlock(6, 2), nn.MultiheadAttention(6, 2, batch_first=True)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        projections = (block.attention.query, block.attention.key, block.attention.value)
        reference.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        reference.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        reference.out_proj.weight.copy_(block.attention.output.weight)
        reference.out_proj.bias.copy_(block.attention.output.bias)
    keys = block.source_norm(source.values)
    read, _ = reference(block.target_norm(target.values), keys, keys, key_padding_mask=~source.mask)
    hidden = nn.functional.gelu(block.ffn[0](block.ffn_norm(read)))
    assert_close(block(target.values, source), read + block.ffn[2](hidden))


def test_the_attention_form_passes_weights_only_and_the_transformer_form_values() -> None:
    batch = random_batch(PAIR, context="utterance", times=(8, 12))
    for form in ("attention", "transformer"):
        model = CrossAttention(PAIR, 4, form=form, hidden=8).eval()
        tokens = model.encoders["audio"].tokens(batch)
        constant = PaddedSequence(torch.ones_like(tokens.values) * tokens.mask[..., None], tokens.mask)
        guides = [sequence([9] * 9, 8), PaddedSequence(torch.zeros(9, 9, 8), torch.ones(9, 9, dtype=torch.bool))]
        one, two = (model.fusion["audio"](constant, [guide]).values for guide in guides)
        assert torch.allclose(one, two, atol=1e-5) == (form == "attention")  # equal tokens matter equally


# Bottlenecks


def transformer(fusion_layer: int) -> BottleneckTransformer:
    return BottleneckTransformer(2, 8, heads=2, layers=4, fusion_layer=fusion_layer, bottlenecks=2, dropout=0).eval()


@pytest.mark.parametrize(("fusion_layer", "receives"), [(0, True), (2, True), (3, False), (4, False)])
def test_modalities_exchange_information_one_layer_after_the_fusion_layer(fusion_layer: int, receives: bool) -> None:
    model = transformer(fusion_layer)
    own, other, changed = sequence([4, 2], 8), sequence([3, 5], 8), sequence([3, 5], 8)
    before, after = model([own, other]), model([own, changed])
    assert torch.equal(before[0], after[0]) != receives
    assert not torch.allclose(before[1], after[1])


def test_modalities_exchange_information_through_the_bottlenecks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformer(1)
    own, other, changed = sequence([4, 2], 8), sequence([3, 5], 8), sequence([3, 5], 8)
    assert not torch.allclose(model([own, other])[0], model([own, changed])[0])
    monkeypatch.setattr(model, "exchange", lambda copies, present: torch.zeros_like(copies[0]))
    assert torch.equal(model([own, other])[0], model([own, changed])[0])
    monkeypatch.setattr(model, "exchange", lambda copies, present: copies[0])  # from the first to the second
    assert torch.equal(model([own, other])[0], model([own, changed])[0])
    assert not torch.allclose(model([own, other])[1], model([changed, other])[1])


def test_bottlenecks_are_averaged_over_the_modalities_that_are_present() -> None:
    copies = torch.randn(3, 3, 2, 8)
    present = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    found = transformer(0).exchange(copies, present)
    assert_close(found[0], copies[:, 0].mean(0))
    assert_close(found[1], (copies[0, 1] + copies[2, 1]) / 2)
    assert not found[2].any()


def test_the_last_layer_s_first_tokens_alone_are_those_of_the_whole_layer() -> None:
    layer = transformer(0).layers[-1]
    inputs = [sequence([4, 2], 8), sequence([3, 5], 8)]
    states, masks = [one.values for one in inputs], [one.mask for one in inputs]
    for first, whole in zip(layer.first(states, masks), layer(states, masks), strict=True):
        assert_close(first, whole[:, 0])


def test_one_layer_without_bottlenecks_is_one_transformer_layer_per_modality() -> None:
    model = BottleneckTransformer(2, 8, heads=2, layers=1, fusion_layer=1, bottlenecks=2, dropout=0.0).eval()
    inputs = [sequence([4, 2], 8), sequence([3, 5], 8)]
    for index, one in enumerate(inputs):
        expected = model.layers[0].layers[index](one.values, None, one.mask[:, None])
        assert_close(model(inputs)[index], model.norms[index](expected[:, 0]))


def test_bottleneck_logits_are_the_mean_over_the_modalities_that_are_present() -> None:
    batch = random_batch(context="utterance", missing={"text": [0, 3], "audio": [3], "vision": [3]})
    model = Bottleneck(DIMS, 4, hidden=8, layers=2, fusion_layer=2).eval()
    sequences = [tokens_with_summary(encoder, batch) for encoder in model.encoders.values()]
    each = model.head(model.transformer(sequences))
    found = model(batch)
    assert_close(found[0], each[1:, 0].mean(0))
    assert_close(found[1], each[:, 1].mean(0))


# Perceiver


def naive_layer(layer: TransformerLayer, x: Tensor, source: Tensor) -> Tensor:
    """One utterance; every token of the source is real."""
    x = x + naive_attention(layer.attention, layer.attention_norm(x), layer.attention_norm(source))
    return x + layer.ffn(layer.ffn_norm(x))


def test_perceiver_is_the_naive_loop_over_latents_and_tokens() -> None:
    model = Perceiver(DIMS, 4, hidden=8, latents=3, blocks=3, layers=2, heads=2).eval()
    inputs = sequence([6, 2], 8)
    found = model.perceive(inputs)
    for row, mask in enumerate(inputs.mask):
        z = model.latents
        for block in range(3):
            z = naive_layer(model.read[0 if block == 0 else 1], z, inputs.values[row, mask])
            for layer in model.think:
                z = naive_layer(layer, z, z)
        assert_close(found[row], model.norm(z))


def test_perceiver_tells_modalities_apart_by_their_embeddings_alone() -> None:
    dims = widths(audio=5, vision=5)
    batch = random_batch(dims, context="utterance")
    swapped = replace(
        batch,
        present={"audio": batch.present["vision"], "vision": batch.present["audio"]},
        functionals={"audio": batch.functionals["vision"], "vision": batch.functionals["audio"]},
        frames={"audio": batch.frames["vision"], "vision": batch.frames["audio"]},
    )
    model = Perceiver(dims, 4, hidden=8, latents=3).eval()
    model.encoders["vision"].load_state_dict(model.encoders["audio"].state_dict())
    assert not torch.allclose(model(batch), model(swapped), atol=1e-5)
    model.embeddings.data[1] = model.embeddings.data[0]
    assert_close(model(batch), model(swapped))


# MISA

ALL = torch.ones(8, dtype=torch.bool)


def test_central_moment_discrepancy_of_equal_samples_is_zero_and_of_others_that_of_numpy() -> None:
    x, y = torch.rand(7, 3), torch.rand(5, 3)
    in_x, in_y = torch.arange(7) < 6, torch.arange(5) < 4
    order = torch.randperm(6)
    assert float(central_moment_discrepancy(x[:6], x[:6][order], in_x[:6], in_x[:6])) < 1e-6
    a, b = x[:6].double().numpy(), y[:4].double().numpy()
    expected = np.linalg.norm(a.mean(0) - b.mean(0))
    for k in (2, 3, 4, 5):
        expected += np.linalg.norm(((a - a.mean(0)) ** k).mean(0) - ((b - b.mean(0)) ** k).mean(0))
    found = central_moment_discrepancy(x, y, in_x, in_y)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(central_moment_discrepancy(x, y, in_x, torch.zeros(5, dtype=torch.bool))) == 0


def test_overlap_of_orthogonal_vectors_is_zero() -> None:
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    hadamard = torch.kron(torch.kron(two, two), two)  # columns orthogonal, all but the first with mean zero
    assert float(overlap(hadamard[:, 1:4], hadamard[:, 4:7], ALL, ALL)) < 1e-12
    assert float(overlap(hadamard[:, 1:4], hadamard[:, 3:6], ALL, ALL)) > 0.1
    assert float(overlap(hadamard[:, 1:4], hadamard[:, 4:7] + 3, ALL, ALL)) < 1e-12  # the mean does not count


def test_overlap_is_that_of_numpy_over_the_real_rows() -> None:
    x, y = torch.randn(8, 3), torch.randn(8, 4)
    in_x, in_y = torch.arange(8) != 2, torch.arange(8) < 6
    a, b = x.numpy() - x[in_x].mean(0).numpy(), y.numpy() - y[in_y].mean(0).numpy()
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    both = (in_x & in_y).numpy()
    expected = np.mean((a[both].T @ b[both]) ** 2)
    assert float(overlap(x, y, in_x, in_y)) == pytest.approx(float(expected), rel=1e-4)


def test_misa_losses_are_those_of_its_formula() -> None:
    batch = random_batch(context="utterance")
    options = {"similarity": 2.0, "difference": 3.0, "reconstruction": 5.0}
    model = MISA(DIMS, 4, hidden=8, ffn=16, **options).eval()
    u = {name: encode(batch) for name, encode in model.encoders.items()}
    private = {name: model.private[name](u[name]).sigmoid() for name in u}
    shared = {name: model.shared(u[name]).sigmoid() for name in u}
    everyone = torch.ones(9, dtype=torch.bool)
    pairs = [("text", "audio"), ("text", "vision"), ("audio", "vision")]
    masks = (everyone, everyone)
    similarity = sum(central_moment_discrepancy(shared[a], shared[b], *masks) for a, b in pairs) / 3
    difference = sum(overlap(shared[m], private[m], *masks) for m in u)
    difference = difference + sum(overlap(private[a], private[b], *masks) for a, b in pairs)
    error = sum((u[m] - model.decoders[m](shared[m] + private[m])).square().mean() for m in u) / 3
    found = model.losses(batch)
    assert_close(found["similarity"], 2 * similarity)
    assert_close(found["difference"], 3 * difference)
    assert_close(found["reconstruction"], 5 * error)
    assert_close(found["cross_entropy"], nn.functional.cross_entropy(model(batch), batch.label))


def test_a_missing_modality_takes_no_part_in_misa() -> None:
    batch = random_batch(PAIR, context="utterance", missing={"audio": [0, 3]})
    model = MISA(PAIR, 4, hidden=8, ffn=16).eval()
    before = {name: loss.detach() for name, loss in model.losses(batch).items()}
    with torch.no_grad():
        vectors, present = model.encoders(batch), model.present(batch)
        vectors[0, [0, 3]] += 7.0
        private, shared = model._subspaces(vectors)
        assert_close(model._classify(private, shared, present), model(batch))
        model.encoders.forward = lambda batch: vectors
    for name, loss in model.losses(batch).items():
        assert_close(loss, before[name])


# MMIM


def test_contrastive_loss_is_the_info_nce_of_numpy() -> None:
    predicted, actual = torch.randn(6, 4), torch.randn(6, 4)
    mask = torch.tensor([True, True, False, True, True, False])
    g, h = (v[mask].double().numpy() for v in (predicted, actual))
    cosine = (h / np.linalg.norm(h, axis=1, keepdims=True)) @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T
    expected = -np.mean(np.log(np.diag(np.exp(cosine)) / np.exp(cosine).sum(1)))
    assert float(contrastive_loss(predicted, actual, mask)) == pytest.approx(float(expected), rel=1e-5)
    assert float(contrastive_loss(predicted, actual, torch.zeros(6, dtype=torch.bool))) == 0
    assert float(contrastive_loss(predicted[:1], actual[:1], mask[:1])) == pytest.approx(0, abs=1e-6)


def test_log_likelihood_is_that_of_torch() -> None:
    bound = InformationBound(4)
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    scale = (nn.functional.softplus(bound.variance(x)) + FLOOR).sqrt()
    expected = torch.distributions.Normal(bound.mean(x), scale).log_prob(y).sum(-1) + 2 * math.log(2 * math.pi)
    assert_close(bound.log_likelihood(x, y), expected)


def test_class_entropy_is_that_of_one_gaussian_per_class() -> None:
    y, label = torch.randn(9, 3), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3])
    members = nn.functional.one_hot(label, 5).T.bool()
    members[3, 8] = False  # absent; class 2 has only one sample
    expected = 0.0
    for rows, share in ((slice(0, 3), 3 / 8), (slice(3, 7), 4 / 8)):
        deviation = (y[rows].var(0, correction=0) + FLOOR).sqrt()
        entropy = torch.distributions.Normal(0.0, deviation).entropy().sum() - 1.5 * math.log(2 * math.pi)
        expected = expected + share * entropy
    assert_close(class_entropy(y, members), expected)


def test_the_bound_with_the_true_q_is_the_mutual_information_of_gaussians() -> None:
    x, noise = torch.randn(2, 4000, 2)
    y = x + 0.5 * noise
    bound = InformationBound(2)
    with torch.no_grad():
        for layer, shift in ((bound.mean[0], 10.0), (bound.mean[2], -10.0)):  # the ReLU does not change x + 10
            nn.init.eye_(layer.weight)
            layer.bias.fill_(shift)
        nn.init.zeros_(bound.variance[2].weight)
        bound.variance[2].bias.fill_(math.log(math.expm1(0.25 - FLOOR)))
        known = 2 * 0.5 * math.log(1 + 1 / 0.25)
        everyone = torch.ones(1, 4000, dtype=torch.bool)
        assert float(bound(x, y, everyone)) == pytest.approx(known, abs=0.05)
        assert float(bound(x, y[torch.randperm(4000)], everyone)) < -1


@pytest.mark.parametrize(
    ("method", "options", "losses"),
    [
        (MISA, {"similarity": 0.0}, {"cross_entropy", "difference", "reconstruction"}),
        (MISA, {"difference": 0.0}, {"cross_entropy", "similarity", "reconstruction"}),
        (MISA, {"reconstruction": 0.0}, {"cross_entropy", "similarity", "difference"}),
        (MMIM, {"alpha": 0.0}, {"cross_entropy", "information"}),
        (MMIM, {"beta": 0.0}, {"cross_entropy", "contrast"}),
        (MMIM, {"all_pairs": True}, {"cross_entropy", "contrast", "information"}),
    ],
)
def test_a_loss_of_weight_zero_is_gone_with_its_parameters(
    method: type[MISA | MMIM], options: dict[str, float], losses: set[str]
) -> None:
    model = method(DIMS, 4, hidden=8, **options)
    found = model.losses(random_batch(context="utterance", times=(6, 12)))
    assert set(found) == losses
    torch.stack(list(found.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_mmim_bounds_the_first_modality_against_the_others_or_every_pair() -> None:
    assert MMIM(DIMS, 4).pairs == [(0, 1), (0, 2)]
    assert MMIM(DIMS, 4, all_pairs=True).pairs == [(0, 1), (0, 2), (1, 2)]


# LMF-MulT


def test_interpolation_is_the_identity_at_its_own_length_and_linear_between() -> None:
    whole = sequence([5, 3, 1, 0], 2)
    assert_close(interpolate(whole, 5)[0], whole.values[0])
    assert_close(interpolate(whole, 3)[1], whole.values[1, :3])
    assert_close(interpolate(whole, 4)[2], whole.values[2, :1].expand(4, -1))
    assert not interpolate(whole, 4)[3].any()
    for row, length in ((0, 5), (1, 3)):
        for steps in (2, 7, 20):
            found = interpolate(whole, steps)[row].numpy()
            position = (np.arange(steps) + 0.5) * length / steps - 0.5
            for column in range(2):
                values = whole.values[row, :length, column].numpy()
                expected = np.interp(position, np.arange(length), values)
                np.testing.assert_allclose(found[:, column], expected, rtol=1e-4, atol=1e-5)


def test_the_fused_sequence_is_the_naive_low_rank_formula_at_every_step() -> None:
    model = LMFMulT(DIMS, 4, dim=10, heads=2, layers=1, rank=3, steps=4)
    nn.init.normal_(model.fusion.bias)
    sequences = {name: sequence([4, 4, 0], 10) for name in DIMS}
    sequences["audio"] = sequence([4, 0, 0], 10)
    fused = model.fuse(sequences)
    factors = model.fusion.factors
    for row in range(2):
        for step in range(4):
            expected = model.fusion.bias
            for rank in range(3):
                product = model.fusion.rank_weights[rank] * torch.ones(10)
                for index, one in enumerate(sequences.values()):
                    token = one.values[row, step] if one.values.shape[1] > step else torch.zeros(10)
                    weight = factors[index, rank]
                    product = product * (weight[0] + token @ weight[1:])
                expected = expected + product
            assert_close(fused.values[row, step], expected)
    assert not fused.values[2].any()
    assert fused.mask.any(1).tolist() == [True, True, False]


def test_directions_of_lmf_mult_make_three_or_six_transformers() -> None:
    for direction, count in (("both", 6), ("to_modality", 3), ("to_fused", 3)):
        assert len(LMFMulT(DIMS, 4, direction=direction).crossmodal) == count


# PMR


@pytest.mark.parametrize("gate", [True, False])
def test_reinforcement_unit_is_its_formula_over_real_tokens(gate: bool) -> None:
    unit = ReinforcementUnit(8, 2, dropout=0.0, gate=gate)
    target, source = sequence([4, 2], 8), sequence([3, 5], 8)
    found = unit(target, source)
    for row in range(2):
        own, other = target.values[row, target.mask[row]][None], source.values[row, source.mask[row]][None]
        query, everyone = unit.target_norm(own), torch.ones(1, 1, 1, dtype=torch.bool)
        cross = unit.cross(query, unit.source_norm(other), everyone.expand(1, 1, other.shape[1]))
        kept = unit.own(query, query, everyone.expand(1, 1, own.shape[1]))
        if gate:
            share = torch.sigmoid(unit.gate(torch.cat([cross, kept], -1)))
            y = own + share * cross + (1 - share) * kept
        else:
            y = own + cross + kept
        assert_close(found.values[row, target.mask[row]], (y + unit.ffn(unit.ffn_norm(y)))[0])
        assert not found.values[row, ~target.mask[row]].any()


def test_modalities_exchange_information_through_the_hub_of_pmr() -> None:
    model = PMR(PAIR, 4, dim=10, heads=2, layers=2).eval()
    own, other, changed = sequence([4, 2], 10), sequence([3, 5], 10), sequence([3, 5], 10)
    layer = model.layers[0]
    nothing = PaddedSequence(torch.zeros(2, 4, 10), torch.zeros(2, 4, dtype=torch.bool))
    hub = sequence([6, 6], 10)
    assert torch.equal(layer([own, other], nothing)[0][0].values, layer([own, changed], nothing)[0][0].values)
    assert not torch.allclose(layer([own, other], hub)[1].values, layer([own, changed], hub)[1].values)


# LMR-CBT


def test_feature_guidance_is_the_loop_of_the_authors_block() -> None:
    target, guides = sequence([3, 2], 6), [torch.randn(2, 6), torch.randn(2, 6)]
    guidance = FeatureGuidance(2, 6)
    found = guidance(target, guides)
    for row in range(2):
        for step in range(int(target.mask[row].sum())):
            x = target.values[row, step]
            for read, listen, guide in zip(guidance.targets, guidance.guides, guides, strict=True):
                x = torch.softmax(torch.tanh(read(x) + listen.weight @ guide[row]), 0)
            assert_close(found.values[row, step], target.values[row, step] + x)
    assert not found.values[1, 2].any()


def test_time_guidance_is_two_blocks_of_cfn_sr() -> None:
    target, guides = sequence([3, 2], 6), [torch.randn(2, 6), torch.randn(2, 6)]
    guidance = TimeGuidance(2, 6)
    first = guidance.blocks[0](target, guides[0])
    assert_close(guidance(target, guides).values, guidance.blocks[1](first, guides[1]).values)
    assert sum(p.numel() for p in TimeGuidance(2, 40).parameters()) == 2 * 3_281


@pytest.mark.parametrize(
    ("modalities", "target", "guides"),
    [
        (("text", "audio", "vision"), "text", ["vision", "audio"]),
        (("text", "audio"), "text", ["audio"]),
        (("audio", "vision"), "vision", ["audio"]),
    ],
)
def test_vision_then_audio_guide_text(modalities: tuple[str, ...], target: str, guides: list[str]) -> None:
    model = LMRCBT({name: DIMS[name] for name in modalities}, 4)
    assert (model.target, model.guides) == (target, guides)
    assert LMRCBT({name: DIMS[name] for name in modalities}, 4, target="audio").target == "audio"
