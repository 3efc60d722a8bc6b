"""The encoders and streams that methods share, by their formulas: one utterance at a time in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, assert_close, random_batch, sequence
from torch import Tensor, nn

from mer_bench.batch import PaddedSequence
from mer_bench.fusion.graphs import DialogueEncoder, RelationalConvolution, deep_graph_convolutions, text_context
from mer_bench.fusion.layers import BidirectionalRNN, perceptron
from mer_bench.fusion.streams import Streams
from mer_bench.fusion.utterance import Encoders, TokenEncoder, UtteranceEncoder, tokens_with_summary

Array = npt.NDArray[np.float64]
LENGTHS = [6, 1, 9, 4]


def statistics(frames: Array) -> Array:
    """Mean, log deviation, log change from frame to frame and four cosine coefficients of each feature."""
    time, dim = frames.shape
    mean = frames.mean(0)
    if time == 1:
        return np.concatenate([mean, np.zeros(6 * dim)])
    deviation = np.log((np.sqrt(frames.var(0) + 1e-6) + 0.05) / 0.55)
    change = np.log((np.abs(np.diff(frames, axis=0)).mean(0) + 0.05) / 0.15)
    course = []
    for order in range(1, 5):
        wave = [math.sqrt(2) * math.cos(math.pi * order * (t + 0.5) / time) for t in range(time)]
        course.append(sum(w * (frame - mean) for w, frame in zip(wave, frames, strict=True)) / time)
    return np.concatenate([mean, deviation, change, *course])


def frames_of(batch: PaddedSequence) -> list[Array]:
    return [values[mask].double().numpy() for values, mask in zip(batch.values, batch.mask, strict=True)]


def standardised(batch: PaddedSequence) -> Array:
    """Statistics of all utterances, standardised over them."""
    rows = np.stack([statistics(frames) for frames in frames_of(batch)])
    return np.clip((rows - rows.mean(0)) / rows.std(0), -6, 6)


def activated(encoder: UtteranceEncoder, vector: Tensor) -> Tensor:
    normal = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt()
    x = encoder.norm.weight * normal + encoder.norm.bias
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def trained(encoder: nn.Module, batch: PaddedSequence) -> Any:
    """The encoder after one pass in training, so that it has the statistics of the batch, with other biases than 0."""
    encoder.train()(batch)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def test_the_utterance_encoder_is_its_formula() -> None:
    batch = sequence(LENGTHS, 3)
    encoder = trained(UtteranceEncoder(3, 8), batch)
    for row, numbers in enumerate(standardised(batch)):
        vector = encoder.statistics.weight @ torch.from_numpy(numbers).float() + encoder.statistics.bias
        assert_close(encoder(batch)[row], activated(encoder, vector), rtol=1e-3, atol=1e-3)


def naive_tokens(encoder: TokenEncoder, frames: Array) -> Tensor:
    """Two convolutions of stride two with ReLUs, one output frame at a time."""
    x = torch.from_numpy(frames).float()
    for layer in encoder.convolutions:
        weight, bias = layer.convolution.weight, layer.convolution.bias
        padded = F.pad(x, (0, 0, 1, 1))
        steps = [(weight * padded[t : t + 3].T).sum((1, 2)) + bias for t in range(0, len(x), 2)]
        x = torch.stack(steps).clamp(min=0)
    return x


def test_the_token_encoder_adds_the_mean_and_deviation_of_its_tokens() -> None:
    batch = sequence(LENGTHS, 3)
    encoder = trained(TokenEncoder(3, 8), batch)
    tokens, found = encoder.tokens(batch), encoder(batch)
    for row, (frames, numbers) in enumerate(zip(frames_of(batch), standardised(batch), strict=True)):
        own = naive_tokens(encoder, frames)
        assert len(own) == math.ceil(len(frames) / 4)
        assert_close(tokens.values[row, tokens.mask[row]], own)
        deviation = ((own.var(0, correction=0) + 1e-6).sqrt() + 0.05).div(0.55).log() * (len(own) > 1)
        movement = torch.cat([own.mean(0), deviation])
        vector = encoder.statistics.weight @ torch.from_numpy(numbers).float() + encoder.statistics.bias
        vector = vector + encoder.movement.weight @ movement + encoder.movement.bias
        assert_close(found[row], activated(encoder, vector), rtol=1e-3, atol=1e-3)


def test_a_summary_precedes_the_tokens_which_have_positions() -> None:
    batch = sequence([9, 0, 4], 3)
    encoder = trained(TokenEncoder(3, 8), batch)
    tokens, found = encoder.tokens(batch), tokens_with_summary(encoder, batch)
    assert found.mask.sum(1).tolist() == [1 + 3, 0, 1 + 1]
    assert_close(found.values[:, 0], encoder(batch))
    for time in range(3):
        angles = torch.tensor([time / 10_000 ** (2 * (i // 2) / 8) for i in range(8)])
        positions = torch.where(torch.arange(8) % 2 == 0, angles.sin(), angles.cos())
        assert_close(found.values[0, 1 + time], tokens.values[0, time] + positions)


def test_encoders_drop_statistics_outputs_and_whole_features_of_the_frames() -> None:
    batch = sequence([40] * 20, 5)
    encoder = TokenEncoder(5, 64, dropout=0.5)
    read: dict[str, Tensor] = {}
    convolution: Any = encoder.convolutions[0]
    convolution.register_forward_pre_hook(lambda _, given: read.update(frames=given[0].values))
    found = encoder(batch)
    dropped = (read["frames"] == 0).float()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))  # a feature is dropped from all frames or from none
    assert 0.3 < float(dropped.mean()) < 0.7
    assert 0.4 < float((found == 0).float().mean()) < 0.6
    torch.manual_seed(1)
    one, two = encoder.describe(batch).detach(), encoder.describe(batch).detach()
    assert float((one - two).abs().mean()) > 0.1  # other statistics are dropped
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))
    assert {module.p for module in UtteranceEncoder(3, 8).modules() if isinstance(module, nn.Dropout)} == {0.15}


def test_encoders_are_stacked_and_joined_in_the_order_of_the_modalities() -> None:
    batch = random_batch(context="utterance", missing={"audio": [2]})
    encoders = Encoders(DIMS, 8).eval()
    each = [encoders[name](batch.features[name]) for name in DIMS]
    assert torch.equal(encoders(batch), torch.stack(each))
    assert torch.equal(encoders.joined(batch), torch.cat(each, -1))
    dialogues = random_batch(missing={"audio": [2]})
    encoder = DialogueEncoder(DIMS, 8, dropout=0.1).eval()
    vectors, present = encoder(dialogues)
    for index, name in enumerate(DIMS):
        own = encoder.encoders[name](dialogues.features[name])
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
    tokens = [streams.encoders[name].tokens(batch.features[name]) for name in DIMS]
    first = site(tokens)
    between = [
        PaddedSequence(convolve(x).values.clamp(min=0), x.mask)
        for convolve, x in zip(streams.sites[1].convolutions, first, strict=True)
    ]
    last = site(between)
    for index, (name, own) in enumerate(zip(DIMS, last, strict=True)):
        vector = streams.encoders[name].pool(batch.features[name], own)
        expected = streams.heads[name](vector) * batch.features[name].mask.any(1, keepdim=True)
        assert_close(streams(batch.features)[index], expected)


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
    assert text_context(nn.GRU, {"audio": 5}, 6, dropout=0.3) is None


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
