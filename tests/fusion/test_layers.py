"""The shared layers against plain loops, and their treatment of padding, the future and empty sequences."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories import assert_close, naive_attention, pad, random_batch, sequence
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mer_bench.batch import PaddedSequence
from mer_bench.fusion import transformer
from mer_bench.fusion.guided import SelfSelection
from mer_bench.fusion.layers import (
    BidirectionalRNN,
    TemporalConvolution,
    last_token,
    masked_deviation,
    masked_mean,
    masked_softmax,
    sinusoidal_positions,
)
from mer_bench.fusion.transformer import Attention, TransformerEncoder, with_source

Array = npt.NDArray[np.float64]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def masked(draw: st.DrawFn) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Values [batch, time, dim] and a mask [batch, time] with holes anywhere; arbitrary values where it is False."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3)))
    values = draw(hnp.arrays(np.float64, shape, elements=st.floats(-100, 100)))
    return values, draw(hnp.arrays(np.bool_, shape[:2]))


def longer(batch: PaddedSequence, frames: int) -> PaddedSequence:
    pads = batch.values.new_zeros(len(batch.values), frames, batch.values.shape[2])
    return PaddedSequence(torch.cat([batch.values, pads], 1), torch.cat([batch.mask, pads[..., 0].bool()], 1))


def one(batch: PaddedSequence, row: int) -> PaddedSequence:
    time = max(int(batch.mask[row].sum()), 1)
    return PaddedSequence(batch.values[row : row + 1, :time], batch.mask[row : row + 1, :time])


@given(masked())
def test_masked_mean_is_the_loop_over_real_frames(case: tuple[Array, npt.NDArray[np.bool_]]) -> None:
    values, mask = case
    found = masked_mean(torch.from_numpy(values), torch.from_numpy(mask)).numpy()
    for row in range(len(values)):
        real = values[row][mask[row]]
        np.testing.assert_allclose(found[row], real.mean(0) if len(real) else 0, **CLOSE)


@given(masked())
def test_masked_deviation_is_the_deviation_of_real_frames(case: tuple[Array, npt.NDArray[np.bool_]]) -> None:
    values, mask = case
    found = masked_deviation(torch.from_numpy(values), torch.from_numpy(mask)).numpy()
    for row in range(len(values)):
        real = values[row][mask[row]]
        np.testing.assert_allclose(found[row], np.sqrt((real.var(0) if len(real) else 0) + 1e-6), **CLOSE)


@given(masked(), st.booleans())
def test_masked_softmax_is_the_softmax_of_the_real_entries(
    case: tuple[Array, npt.NDArray[np.bool_]], first: bool
) -> None:
    scores, mask = case[0][..., 0], case[1]
    dim = 0 if first else 1
    found = masked_softmax(torch.from_numpy(scores), torch.from_numpy(mask), dim).numpy()
    for weights, values, real in zip(*((a.T if first else a) for a in (found, scores, mask)), strict=True):
        assert not weights[~real].any()
        if real.any():
            exponential = np.exp(values[real] - values[real].max())
            np.testing.assert_allclose(weights[real], exponential / exponential.sum(), **CLOSE)


@pytest.mark.parametrize("layer", [masked_mean, masked_deviation])
def test_reductions_have_finite_gradients_where_nothing_is_real_or_nothing_varies(layer: object) -> None:
    values = torch.zeros(2, 3, 2, requires_grad=True)
    mask = torch.tensor([[False] * 3, [True] * 3])
    layer(values, mask).sum().backward()  # type: ignore[operator]
    assert values.grad.isfinite().all()
    assert not values.grad[0].any()


def test_last_token_is_the_last_real_one() -> None:
    values, mask = torch.randn(4, 5, 2), sequence([3, 0, 1, 5], 2).mask  # values other than zero in the padding
    for row, length in enumerate([3, 0, 1, 5]):
        assert torch.equal(last_token(values, mask)[row], values[row, length - 1] if length else torch.zeros(2))


@pytest.mark.parametrize("dim", [1, 2, 7, 8])
def test_positions_are_sines_and_cosines(dim: int) -> None:
    found = sinusoidal_positions(5, dim, torch.device("cpu"))
    assert found.shape == (5, dim)
    for t in range(5):
        for i in range(dim):
            angle = t / 10_000 ** ((i - i % 2) / dim)
            assert float(found[t, i]) == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


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


@pytest.mark.parametrize("time", [1, 2, 3, 4, 7, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_convolution_of_a_padded_sequence_is_that_of_the_sequence(kernel: int, stride: int, time: int) -> None:
    convolve = TemporalConvolution(3, 4, kernel=kernel, stride=stride, bias=True)
    batch = sequence([time, 9, 0, 1], 3)
    found = convolve(batch)
    assert found.values.shape == (4, math.ceil(9 / stride), 4)
    assert found.mask.sum(1).tolist() == [math.ceil(length / stride) for length in (time, 9, 0, 1)]
    assert not found.values[~found.mask].any()
    for row in (0, 1, 3):
        single = convolve(one(batch, row))
        assert single.mask.all()
        assert_close(found.values[row][found.mask[row]], single.values[0])


def test_convolution_of_kernel_one_is_a_linear_map_of_every_stride_th_frame() -> None:
    convolve = TemporalConvolution(3, 4, stride=2)
    batch = sequence([5], 3)
    expected = batch.values[:, ::2] @ convolve.convolution.weight[..., 0].T
    assert_close(convolve(batch).values, expected)


def encoder(*, causal: bool, layers: int = 2) -> TransformerEncoder:
    return TransformerEncoder(8, heads=2, layers=layers, causal=causal).eval()


@pytest.mark.parametrize("token", range(1, 6))
def test_a_causal_encoder_never_reads_the_future(token: int) -> None:
    encode, batch = encoder(causal=True), sequence([6], 8)
    changed = batch.values.clone()
    changed[:, token] += 1 + torch.randn(8)
    before = encode(batch).values
    after = encode(PaddedSequence(changed, batch.mask)).values
    assert torch.equal(before[:, :token], after[:, :token])
    assert ((before[:, token:] - after[:, token:]).abs() > 1e-6).any(-1).all()


def test_an_encoder_that_is_not_causal_reads_the_future() -> None:
    encode, batch = encoder(causal=False), sequence([6], 8)
    changed = batch.values.clone()
    changed[:, 5] += 1 + torch.randn(8)
    difference = encode(batch).values - encode(PaddedSequence(changed, batch.mask)).values
    assert (difference.abs() > 1e-6).any(-1).all()


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_depends_neither_on_padding_nor_on_neighbours(causal: bool) -> None:
    encode, batch = encoder(causal=causal), sequence([4, 7, 1, 0], 8)
    found = encode(batch)
    assert not found.values[~batch.mask].any()
    assert_close(encode(longer(batch, 3)).values[:, :7], found.values)
    for row in range(3):
        assert_close(encode(one(batch, row)).values[0], found.values[row][batch.mask[row]])


@pytest.mark.parametrize("causal", [False, True])
def test_cross_attention_depends_neither_on_padding_nor_on_neighbours(causal: bool) -> None:
    encode, target, source = encoder(causal=causal), sequence([4, 7, 1], 8), sequence([5, 2, 3], 8)
    found = encode(target, source).values
    assert_close(encode(longer(target, 2), longer(source, 3)).values[:, :7], found)
    for row in range(3):
        assert_close(encode(one(target, row), one(source, row)).values[0], found[row][target.mask[row]])


def test_causal_cross_attention_reads_as_far_ahead_as_the_lengths_differ() -> None:
    encode, target, source = encoder(causal=True), sequence([3], 8), sequence([5], 8)
    for token in range(5):
        changed = source.values.clone()
        changed[:, token] += 1 + torch.randn(8)
        difference = encode(target, source).values - encode(target, PaddedSequence(changed, source.mask)).values
        seen = (difference.abs() > 1e-6).any(-1)[0]
        assert seen.tolist() == [token <= step + 2 for step in range(3)]


@pytest.mark.parametrize("causal", [False, True])
def test_cross_attention_to_an_empty_source_is_finite(causal: bool) -> None:
    encode = encoder(causal=causal)
    found = encode(sequence([4, 0, 3], 8), sequence([0, 3, 2], 8)).values
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encode.parameters())


def test_attention_without_an_allowed_source_is_zero() -> None:
    attend = Attention(8, 2)
    torch.nn.init.normal_(attend.output.bias)
    allowed = torch.tensor([[[True, True], [False, False]]])
    found = attend(torch.randn(1, 2, 8), torch.randn(1, 2, 8), allowed)
    assert found.any(-1).tolist() == [[True, False]]


def test_attention_with_masks_that_layers_share_is_that_with_its_own() -> None:
    attend = Attention(8, 2)
    torch.nn.init.normal_(attend.output.bias)
    query, source, allowed = torch.randn(5, 3, 8), torch.randn(5, 4, 8), torch.rand(5, 3, 4) < 0.3
    mask, some = with_source(allowed)
    assert torch.equal(some[..., 0], allowed.any(-1))
    assert torch.equal(mask, torch.where(some, allowed, True))
    assert not some.all()
    found = attend(query, source, mask, some)
    assert torch.equal(found, attend(query, source, allowed))
    for row in range(5):
        for step in range(3):
            real = source[row, allowed[row, step]]
            expected = naive_attention(attend, query[row, step][None], real)[0] if len(real) else torch.zeros(8)
            assert_close(found[row, step], expected)


@pytest.mark.parametrize("causal", [False, True])
def test_the_layers_of_an_encoder_share_one_mask(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    monkeypatch.setattr(transformer, "with_source", lambda allowed: made.append(allowed) or with_source(allowed))
    encode, batch = encoder(causal=causal, layers=3), sequence([4, 7, 1, 0], 8)
    encode(batch)
    assert len(made) == 1
    encode(batch, sequence([2, 0, 3, 3], 8))
    assert len(made) == 2


def test_attention_drops_weights_in_training_alone() -> None:
    attend = Attention(8, 2, dropout=0.3)
    query, source = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    allowed = torch.tensor([[[True, True, True, False], [True, False, False, False], [False] * 4]])
    many = (query.expand(20_000, -1, -1), source.expand(20_000, -1, -1), allowed)
    drawn, expected = attend(*many).detach(), attend.eval()(query, source, allowed).detach()
    assert not drawn[:, 2].any()
    assert float(drawn[:, :2].std(0).min()) > 1e-3
    torch.testing.assert_close(drawn.mean(0), expected[0], rtol=0.05, atol=0.01)
    assert torch.equal(attend(*many), attend(*many))


def test_attention_is_torchs() -> None:
    ours, theirs = Attention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    projections = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        for projection in (*projections, ours.output):
            projection.bias.normal_()
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, source = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    mask = torch.arange(5) < torch.tensor([5, 2, 1])[:, None]
    expected, _ = theirs(query, source, source, key_padding_mask=~mask, need_weights=False)
    assert_close(ours(query, source, mask[:, None]), expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_last_token_alone_is_that_of_the_whole_sequence(causal: bool, layers: int) -> None:
    encode, batch = encoder(causal=causal, layers=layers), sequence([4, 7, 1, 0], 8)
    whole = encode(batch)
    assert_close(encode.last(batch), last_token(whole.values, whole.mask))
    assert not encode.last(batch)[3].any()


def test_attention_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="30 is not divisible by 4"):
        Attention(30, 4)


def test_self_selection_is_zero_for_a_missing_modality_and_ignores_padding() -> None:
    select = SelfSelection(8, heads=2, layers=1, dropout=0.1, embedding_dropout=0.3).eval()
    batch = sequence([4, 0, 2], 8)
    found = select(batch)
    whole = select.encoder(batch)
    assert_close(found, last_token(whole.values, whole.mask))
    assert found.any(1).tolist() == [True, False, True]
    assert_close(select(longer(batch, 3)), found)


def test_regrouping_by_dialogue_is_undone_by_flatten() -> None:
    batch = pad(random_batch(dialogues=(2, 4, 1)), turns=2)
    flat = torch.randn(7, 3)
    grouped = batch.by_dialogue(flat)
    assert grouped.shape == (3, 6, 3)
    assert torch.equal(grouped[1, :4], flat[2:6])
    assert not grouped[~batch.turns].any()
    assert torch.equal(batch.flatten(grouped), flat)
