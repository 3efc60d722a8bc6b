"""Pieces that several methods share: masked reductions, sequence encoders, attention. Plain modules on tensors.

Every function takes a mask (True = real) and is finite where a sequence is empty: what a missing modality becomes is
decided here, once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mer_bench.batch import PaddedSequence


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over time: [..., time, dim], [..., time] -> [..., dim]; zero where nothing is real."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum(-2) / weight.sum(-2).clamp(min=1)


def centre(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over time, and values less it: [..., time, dim], [..., time] -> [..., dim], [..., time, dim]."""
    mean = masked_mean(values, mask)
    return mean, values - mean[..., None, :]


def masked_deviation(centred: Tensor, mask: Tensor) -> Tensor:
    """Log standard deviation over time of centred values: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread((masked_mean(centred.square(), mask) + 1e-6).sqrt(), 0.5, mask)


def masked_change(values: Tensor, mask: Tensor) -> Tensor:
    """Log mean absolute change from frame to frame: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread(masked_mean(values.diff(dim=-2).abs(), mask[..., 1:]), 0.1, mask)


def masked_course(centred: Tensor, mask: Tensor, terms: int = 4) -> Tensor:
    """How features run over a sequence of any length: [..., time, dim], [..., time] -> [..., terms dim].

    The first cosine coefficients of centred values: onset, apex and offset. Zero for one frame.
    """
    length = mask.sum(-1, keepdim=True).clamp(min=1)
    place = (torch.arange(mask.shape[-1], device=mask.device) + 0.5) / length
    order = torch.arange(1, terms + 1, device=mask.device)[:, None]
    basis = math.sqrt(2) * (math.pi * order * place[..., None, :]).cos() * (mask / length)[..., None, :]
    return (basis.to(centred.dtype) @ centred).flatten(-2)


def _log_spread(spread: Tensor, typical: float, mask: Tensor) -> Tensor:
    """Spreads are positive and skewed: their logarithm, centred on a typical one, is what a linear layer can weigh.

    A sequence of one frame has no spread; it gets zero, the typical value, and not minus infinity.
    """
    return ((spread + 0.05) / (typical + 0.05)).log() * (mask.sum(-1, keepdim=True) > 1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax of ``scores`` over the real entries of ``dim``; all zeros where there is none."""
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim)
    return weights.masked_fill(~mask, 0)


def last_token(values: Tensor, mask: Tensor) -> Tensor:
    """The last real token: [batch, time, dim], [batch, time] -> [batch, dim]; zero where there is none."""
    last = (mask.sum(1) - 1).clamp(min=0)
    token = values.gather(1, last[:, None, None].expand(-1, 1, values.shape[-1]))[:, 0]
    return token * mask.any(1, keepdim=True)


def sinusoidal_positions(time: int, dim: int, device: torch.device) -> Tensor:
    """Sine-cosine positions [time, dim] (Vaswani et al. 2017, section 3.5); any width, odd ones included."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angle = torch.arange(time, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


class CheapDropout(nn.Dropout):
    """Dropout whose masks cost a fifth on a CPU, where torch draws a number of 64 bits for each element.

    Here four elements share one; sixteen bits meet ``p`` to 1/131,072. They are other masks than :class:`nn.Dropout`
    draws: a method that comes to take this class changes its numbers, and its version.

    Shapes:
        any -> the same.
    """

    def draws(self, values: Tensor) -> bool:
        """Whether masks are drawn here: in training, on a CPU, in code that is not compiled."""
        cheap = values.device.type == "cpu" and not torch.compiler.is_compiling()
        return cheap and self.training and 0 < self._dropped < 2**16

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements and scale the others."""
        if not self.draws(values):
            return super().forward(values)
        numbers = torch.empty(-(-values.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        bits = numbers.view(torch.short)[: values.numel()].view(values.shape)
        # as floats: comparing in place is several times as fast as a comparison that gives bools
        kept = bits.float().ge_(self._dropped - 2**15).mul_(2**16 / (2**16 - self._dropped))
        return values * kept.to(values.dtype)

    @property
    def _dropped(self) -> int:
        """How many of the numbers that sixteen bits can be stand for an element that is dropped."""
        return round(self.p * 2**16)


class TemporalConvolution(nn.Module):
    """Conv1d over time that never lets the padding in; stride > 1 also shortens the sequence.

    Shapes:
        [utterance, time, dim] -> [utterance, ceil(time / stride), width].
    """

    def __init__(self, dim: int, width: int, *, kernel: int = 1, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(dim, width, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Convolve, then mask again."""
        mask = sequence.mask[:, :: self.stride]
        values = self.convolution(sequence.values.transpose(1, 2)).transpose(1, 2)[:, : mask.shape[1]]
        return PaddedSequence(values * mask[..., None], mask)


def reversed_steps(mask: Tensor) -> Tensor:
    """Indices [batch, time] that reverse the real steps of each sequence and leave its padding where it is."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - steps, steps)


class BidirectionalRNN(nn.Module):
    """LSTM or GRU over both directions of padded sequences; equals one on packed sequences, dropout aside.

    A plain bidirectional RNN would start its backward pass in the padding, and packing waits for lengths on the CPU.
    Here the backward direction is a second RNN over each sequence's own reversal.

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
        self.dropout = CheapDropout(dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Read the sequences in both directions; dropout only between layers."""
        reversal = reversed_steps(mask)[..., None]
        for depth, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(values) if depth else values
            reversed_back, _ = back(x.take_along_dim(reversal, 1))
            values = torch.cat([ahead(x)[0], reversed_back.take_along_dim(reversal, 1)], -1) * mask[..., None]
        return values


def resample(sequence: PaddedSequence, steps: int) -> Tensor:
    """Cut each utterance into ``steps`` equal spans and average its frames over each: a time axis for all modalities.

    A frame counts in a span by the part of it that lies there, so that a sequence with fewer frames than steps repeats
    them, and one frame fills all steps. What is lost is how long the utterance took.

    Shapes:
        sequence [utterance, time, dim] (real frames first) -> [utterance, steps, dim]; zero for a missing modality.
    """
    values, mask = sequence.values, sequence.mask
    span = mask.sum(1)[:, None, None].to(values.dtype) / steps  # frames in a span; spans and frames as axes below
    step = torch.arange(steps, device=values.device)[:, None]
    frame = torch.arange(values.shape[1], device=values.device)
    overlap = (torch.minimum((step + 1) * span, frame + 1) - torch.maximum(step * span, frame)).clamp(min=0)
    return (overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-6)) @ values


def perceptron(dim: int, hidden: int, out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """One hidden layer: W_2 dropout(relu(W_1 x + b_1)) + b_2."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))
