"""Layers that several methods share: masked reductions, positions, dropout, convolution and recurrence over time.

Masks are True where a frame is real. Every function is finite for an empty sequence, so that the value of a missing
modality is decided in one place.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import PaddedSequence


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over time: [..., time, dim], [..., time] -> [..., dim]; zero where nothing is real."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum(-2) / weight.sum(-2).clamp(min=1)


def masked_deviation(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over time: [..., time, dim], [..., time] -> [..., dim]; differentiable where it is zero."""
    centred = values - masked_mean(values, mask)[..., None, :]
    return (masked_mean(centred.square(), mask) + 1e-6).sqrt()


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax of ``scores`` over the real entries of ``dim``; zero where no entry is real."""
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim)
    return weights.masked_fill(~mask, 0)


def drop_modalities(present: Tensor, rate: float) -> Tensor:
    """Drop each modality with probability ``rate``; an utterance that would lose its last one keeps all that it has.

    Shapes:
        present [modality, utterance] -> the same shape.
    """
    kept = present & (torch.rand(present.shape, device=present.device) >= rate)
    return torch.where(kept.any(0), kept, present)


def last_token(values: Tensor, mask: Tensor) -> Tensor:
    """The last real token: [batch, time, dim], [batch, time] -> [batch, dim]; zero for an empty sequence."""
    last = (mask.sum(1) - 1).clamp(min=0)
    token = values.gather(1, last[:, None, None].expand(-1, 1, values.shape[-1]))[:, 0]
    return token * mask.any(1, keepdim=True)


def sinusoidal_positions(time: int, dim: int, device: torch.device) -> Tensor:
    """Sine-cosine positions [time, dim] (Vaswani et al. 2017, section 3.5) for any width, also an odd one."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angle = torch.arange(time, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


def fairseq_positions(time: int, dim: int, device: torch.device) -> Tensor:
    """Positions [time, dim] as fairseq has them, and after it the authors' code of MulT, CFN-SR and LMR-CBT.

    They count from 1, all sines stand before all cosines, and rates fall to exactly 1 / 10,000; the last column of an
    odd width is zero.
    """
    half = dim // 2
    rate = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / max(half - 1, 1)))
    angle = torch.arange(1, time + 1, device=device)[:, None] * rate
    return F.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, dim % 2))


class TemporalConvolution(nn.Module):
    """Conv1d over time that ignores padding; a stride above 1 shortens the sequence.

    Shapes:
        [utterance, time, dim] -> [utterance, ceil(time / stride), width].
    """

    def __init__(self, dim: int, width: int, *, kernel: int = 1, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(dim, width, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Convolve, then set the padding to zero again."""
        mask = sequence.mask[:, :: self.stride]
        values = self.convolution(sequence.values.transpose(1, 2)).transpose(1, 2)[:, : mask.shape[1]]
        return PaddedSequence(values * mask[..., None], mask)


def reversed_steps(mask: Tensor) -> Tensor:
    """Indices [batch, time] that reverse the real steps of each sequence and leave its padding where it is."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - steps, steps)


class BidirectionalRNN(nn.Module):
    """LSTM or GRU over both directions of padded sequences; without dropout it equals torch's on packed sequences.

    A plain bidirectional RNN would begin its backward direction in the padding, and packing needs the lengths on the
    CPU. Here the backward direction is a second RNN that reads each sequence reversed.

    Shapes:
        values [batch, time, dim], mask [batch, time] (real steps first) -> [batch, time, 2 hidden]; padding stays zero.
    """

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [dim] + [2 * hidden] * (layers - 1)
        self.ahead = nn.ModuleList(kind(width, hidden, batch_first=True) for width in widths)
        self.back = nn.ModuleList(kind(width, hidden, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Read the sequences in both directions; dropout applies between layers only."""
        reversal = reversed_steps(mask)[..., None]
        for depth, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(values) if depth else values
            reversed_back, _ = back(x.take_along_dim(reversal, 1))
            values = torch.cat([ahead(x)[0], reversed_back.take_along_dim(reversal, 1)], -1) * mask[..., None]
        return values


def resample(sequence: PaddedSequence, steps: int) -> Tensor:
    """Average the frames of each utterance over ``steps`` equal spans, which gives all modalities a common time axis.

    A frame counts in a span in proportion to their overlap: a sequence with fewer frames than steps repeats its frames,
    and a single frame fills all steps. The duration of the utterance is lost.

    Shapes:
        sequence [utterance, time, dim] (real frames first) -> [utterance, steps, dim]; zero for a missing modality.
    """
    values, mask = sequence.values, sequence.mask
    span = mask.sum(1)[:, None, None].to(values.dtype) / steps  # frames per span; below, spans and frames are axes
    step = torch.arange(steps, device=values.device)[:, None]
    frame = torch.arange(values.shape[1], device=values.device)
    overlap = (torch.minimum((step + 1) * span, frame + 1) - torch.maximum(step * span, frame)).clamp(min=0)
    return (overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-6)) @ values


def perceptron(dim: int, hidden: int, out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """One hidden layer: W_2 dropout(relu(W_1 x + b_1)) + b_2."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))
