"""The encoders and streams that methods share, by their formulas: one utterance at a time in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, alone, assert_close, pad, random_batch, sequence, widths
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.functionals import functionals
from mer_bench.fusion.graphs import DialogueEncoder, RelationalConvolution, deep_graph_convolutions, text_context
from mer_bench.fusion.layers import BidirectionalRNN, perceptron
from mer_bench.fusion.streams import Streams
from mer_bench.fusion.utterance import Encoders, TokenEncoder, UtteranceEncoder, tokens_with_summary

WIDTHS = widths(audio=3)
WIDTH = WIDTHS["audio"]
LENGTHS = (6, 1, 9, 4)


def utterances(lengths: Sequence[int], dim: int = 3) -> Batch:
    """Random utterances of the given lengths with their functionals."""
    frames = sequence(lengths, dim)
    described = {"audio": functionals(frames, widths(audio=dim)["audio"].functionals).float()}
    rows = torch.arange(len(lengths))
    present, index = {"audio": frames.mask.any(1)}, (rows, rows, rows, torch.zeros_like(rows), rows, rows[:, None])
    return Batch(present, described, {"audio": frames}, *index)


def disturbed(encoder: nn.Module) -> Any:
    """The encoder in evaluation with other biases than 0."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def activated(encoder: UtteranceEncoder, vector: Tensor) -> Tensor:
    normal = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt()
    x = encoder.norm.weight * normal + encoder.norm.bias
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def test_the_utterance_encoder_is_its_formula() -> None:
    batch = utterances(LENGTHS)
    encoder = disturbed(UtteranceEncoder("audio", WIDTH, 8))
    for row, numbers in enumerate(batch.functionals["audio"]):
        vector = encoder.linear.weight @ numbers + encoder.linear.bias
        assert_close(encoder(batch)[row], activated(encoder, vector))


def test_the_utterance_encoder_reads_no_frames() -> None:
    batch, encoder = utterances(LENGTHS), UtteranceEncoder("audio", WIDTH, 8).eval()
    assert torch.equal(encoder(replace(batch, frames={})), encoder(batch))


def naive_tokens(encoder: TokenEncoder, frames: Tensor) -> Tensor:
    """Two convolutions of stride two with ReLUs, one output frame at a time."""
    x = frames
    for layer in encoder.convolutions:
        weight, bias = layer.convolution.weight, layer.convolution.bias
        padded = F.pad(x, (0, 0, 1, 1))
        steps = [(weight * padded[t : t + 3].T).sum((1, 2)) + bias for t in range(0, len(x), 2)]
        x = torch.stack(steps).clamp(min=0)
    return x


def test_the_token_encoder_adds_the_mean_and_deviation_of_its_tokens() -> None:
    batch = utterances(LENGTHS)
    encoder = disturbed(TokenEncoder("audio", WIDTH, 8))
    tokens, found, frames = encoder.tokens(batch), encoder(batch), batch.frames["audio"]
    for row, numbers in enumerate(batch.functionals["audio"]):
        own = naive_tokens(encoder, frames.values[row, frames.mask[row]])
        assert len(own) == math.ceil(LENGTHS[row] / 4)
        assert_close(tokens.values[row, tokens.mask[row]], own)
        movement = torch.cat([own.mean(0), (own.var(0, correction=0) + 1e-6).sqrt()])
        vector = encoder.linear.weight @ numbers + encoder.linear.bias
        vector = vector + encoder.movement.weight @ movement + encoder.movement.bias
        assert_close(found[row], activated(encoder, vector))


each_encoder = pytest.mark.parametrize("kind", [UtteranceEncoder, TokenEncoder])


@each_encoder
def test_an_encoder_depends_neither_on_padding_nor_on_neighbours(kind: type[UtteranceEncoder]) -> None:
    encode, batch = kind("audio", WIDTH, 8).eval(), utterances([*LENGTHS, 0])
    found = encode(batch)
    for frames in (1, 2, 3, 4):
        assert_close(encode(pad(batch, frames=frames)), found)
    for row in range(5):
        assert_close(encode(alone(batch, row)[0])[0], found[row])


@each_encoder
def test_an_encoder_makes_a_missing_modality_zero_and_no_other(kind: type[UtteranceEncoder]) -> None:
    found = kind("audio", WIDTH, 8).eval()(utterances([6, 0, 1]))
    assert found.any(1).tolist() == [True, False, True]


def test_a_token_encoder_depends_on_order_in_time() -> None:
    encode, batch = TokenEncoder("audio", WIDTH, 8).eval(), utterances([8])
    frames = batch.frames["audio"]
    backwards = replace(batch, frames={"audio": PaddedSequence(frames.values.flip(1), frames.mask)})
    assert ((encode(batch) - encode(backwards)).abs() > 1e-3).any()


def test_a_summary_precedes_the_tokens_which_have_positions() -> None:
    batch = utterances([9, 0, 4])
    encoder = disturbed(TokenEncoder("audio", WIDTH, 8))
    tokens, found = encoder.tokens(batch), tokens_with_summary(encoder, batch)
    assert found.mask.sum(1).tolist() == [1 + 3, 0, 1 + 1]
    assert_close(found.values[:, 0], encoder(batch))
    for time in range(3):
        angles = torch.tensor([time / 10_000 ** (2 * (i // 2) / 8) for i in range(8)])
        positions = torch.where(torch.arange(8) % 2 == 0, angles.sin(), angles.cos())
        assert_close(found.values[0, 1 + time], tokens.values[0, time] + positions)


def test_encoders_drop_functionals_outputs_and_whole_features_of_the_frames() -> None:
    batch = utterances([40] * 20, 5)
    encoder = TokenEncoder("audio", widths(audio=5)["audio"], 64, dropout=0.5)
    read: dict[str, Tensor] = {}
    first, linear = encoder.convolutions[0], encoder.linear
    first.register_forward_pre_hook(lambda _, given: read.update(frames=given[0].values))
    linear.register_forward_pre_hook(lambda _, given: read.update(functionals=given[0]))
    found = encoder(batch)
    dropped = (read["frames"] == 0).float()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))  # a feature is dropped from all frames or from none
    for values in (dropped, (read["functionals"] == 0).float(), (found == 0).float()):
        assert 0.4 - 0.1 * (values is dropped) < float(values.mean()) < 0.6 + 0.1 * (values is dropped)
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))
    assert torch.equal(read["functionals"], batch.functionals["audio"])
    usual = UtteranceEncoder("audio", WIDTH, 8)
    assert {module.p for module in usual.modules() if isinstance(module, nn.Dropout)} == {0.15}


def test_encoders_are_stacked_and_joined_in_the_order_of_the_modalities() -> None:
    batch = random_batch(context="utterance", missing={"audio": [2]})
    encoders = Encoders(DIMS, 8).eval()
    each = [encoders[name](batch) for name in DIMS]
    assert torch.equal(encoders(batch), torch.stack(each))
    assert torch.equal(encoders.joined(batch), torch.cat(each, -1))
    dialogues = random_batch(missing={"audio": [2]})
    encoder = DialogueEncoder(DIMS, 8, dropout=0.1).eval()
    vectors, present = encoder(dialogues)
    for index, name in enumerate(DIMS):
        own = encoder.encoders[name](dialogues)
        assert torch.equal(vectors[:, index], dialogues.by_dialogue(own))
        assert torch.equal(present[:, index], dialogues.turns & ((dialogues.grid != 2) | (name != "audio")))


# Streams


class Twice(nn.Module):
    """A site that doubles the tokens of the first modality and sets those of the second to one."""

    def forward(self, tokens: list[PaddedSequence]) -> list[PaddedSequence]:
        first, second, *others = tokens
        ones = second.mask[..., None].expand_as(second.values).float()
        return [PaddedSequence(2 * first.values, first.mask), PaddedSequence(ones, second.mask), *others]


def test_streams_convolve_between_sites_and_pool_after_the_last() -> None:
    batch = random_batch(context="utterance", missing={"audio": [2]})
    streams = Streams(DIMS, 8, 4, [Twice(), Twice()], dropout=0.1).eval()
    site = Twice()
    tokens = [streams.encoders[name].tokens(batch) for name in DIMS]
    first = site(tokens)
    between = [
        PaddedSequence(convolve(x).values.clamp(min=0), x.mask)
        for convolve, x in zip(streams.sites[1].convolutions, first, strict=True)
    ]
    last = site(between)
    for index, (name, own) in enumerate(zip(DIMS, last, strict=True)):
        vector = streams.encoders[name].pool(batch, own)
        expected = streams.heads[name](vector) * batch.present[name][:, None]
        assert_close(streams(batch)[index], expected)


# Recurrence, graphs and heads


def test_dropout_of_a_recurrent_network_is_between_its_layers_alone() -> None:
    values, mask = torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    shallow = BidirectionalRNN(nn.GRU, 3, 5, dropout=1.0)
    assert torch.equal(shallow.train()(values, mask), shallow.eval()(values, mask))
    deep = BidirectionalRNN(nn.GRU, 3, 5, layers=2, dropout=1.0)
    nothing = BidirectionalRNN(nn.GRU, 10, 5)
    nothing.ahead[0], nothing.back[0] = deep.ahead[1], deep.back[1]
    assert torch.equal(deep.train()(values, mask), nothing(torch.zeros(2, 4, 10), mask))


def test_text_has_two_layers_of_context() -> None:
    context = text_context(nn.LSTM, DIMS, 6, dropout=0.3)
    assert context is not None
    assert len(context.ahead) == len(context.back) == 2
    assert {type(layer) for layer in (*context.ahead, *context.back)} == {nn.LSTM}
    assert context.dropout.p == 0.3
    assert context(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool)).shape == (2, 4, 6)
    assert text_context(nn.GRU, WIDTHS, 6, dropout=0.3) is None


def test_graph_convolutions_begin_at_depth_one() -> None:
    layers: Any = deep_graph_convolutions(4, 3, alpha=0.1, eta=0.5)
    assert [layer.theta for layer in layers] == pytest.approx([math.log(0.5 / depth + 1) for depth in (1, 2, 3)])


def test_relations_begin_with_weights_of_glorot() -> None:
    weights = RelationalConvolution(30, 20, 8).relations.detach()
    bound = math.sqrt(6 / (30 + 20))
    assert 0.98 * bound < float(weights.abs().max()) <= bound
    assert float(weights.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_perceptron_is_two_linear_maps_around_relu_and_dropout() -> None:
    network: Any = perceptron(3, 5, 2, dropout=0.4).eval()
    x = torch.randn(6, 3)
    hidden = (x @ network[0].weight.T + network[0].bias).clamp(min=0)
    assert_close(network(x), hidden @ network[3].weight.T + network[3].bias)
    assert network[2].p == 0.4
    wide: Any = perceptron(3, 1000, 2, dropout=0.4)
    read = wide[:3](torch.ones(1, 3))
    assert float(((read == 0) & (wide[:2](torch.ones(1, 3)) > 0)).float().sum() / (read != 0).sum()) == pytest.approx(
        0.4 / 0.6, abs=0.2
    )
