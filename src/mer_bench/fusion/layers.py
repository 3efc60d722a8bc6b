"""Layers that several methods share: masked reductions, positions, dropout, convolution and recurrence over time.

Masks are True where a frame is real. Every function is finite for an empty sequence, so that the value of a missing
modality is decided in one place.
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
    """Mean over time, and the values minus that mean: [..., time, dim], [..., time] -> [..., dim], [..., time, dim]."""
    mean = masked_mean(values, mask)
    return mean, values - mean[..., None, :]


def masked_deviation(centred: Tensor, mask: Tensor) -> Tensor:
    """Log standard deviation over time of centred values: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread((masked_mean(centred.square(), mask) + 1e-6).sqrt(), 0.5, mask)


def masked_change(values: Tensor, mask: Tensor) -> Tensor:
    """Log mean absolute change from frame to frame: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread(masked_mean(values.diff(dim=-2).abs(), mask[..., 1:]), 0.1, mask)


def masked_course(centred: Tensor, mask: Tensor, terms: int = 4) -> Tensor:
    """First cosine coefficients of centred values over time: [..., time, dim], [..., time] -> [..., terms * dim].

    They describe the course of a feature (onset, apex, offset) for sequences of any length; zero for a single frame.
    """
    length = mask.sum(-1, keepdim=True).clamp(min=1)
    position = (torch.arange(mask.shape[-1], device=mask.device) + 0.5) / length
    order = torch.arange(1, terms + 1, device=mask.device)[:, None]
    basis = math.sqrt(2) * (math.pi * order * position[..., None, :]).cos() * (mask / length)[..., None, :]
    return (basis.to(centred.dtype) @ centred).flatten(-2)


def _log_spread(spread: Tensor, typical: float, mask: Tensor) -> Tensor:
    """Logarithm of a spread relative to a typical one, since spreads are positive and skewed.

    A sequence of one frame has no spread; it gets zero, the value of a typical spread.
    """
    return ((spread + 0.05) / (typical + 0.05)).log() * (mask.sum(-1, keepdim=True) > 1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax of ``scores`` over the real entries of ``dim``; zero where no entry is real."""
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim)
    return weights.masked_fill(~mask, 0)


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


class CheapDropout(nn.Dropout):
    """Dropout whose masks take a fifth of the time on a CPU, where torch draws 64 random bits per element.

    Here four elements share one random number, so that 16 bits approximate ``p`` to 1/131,072. The masks differ from
    those of :class:`nn.Dropout`: a method that replaces one class by the other needs a new version.

    Shapes:
        any -> the same.
    """

    def draws(self, values: Tensor) -> bool:
        """Whether this class draws the masks itself: in training, on a CPU and in code that is not compiled."""
        cheap = values.device.type == "cpu" and not torch.compiler.is_compiling()
        return cheap and self.training and 0 < self._dropped < 2**16

    def forward(self, values: Tensor) -> Tensor:
        """Set dropped elements to zero and scale the others."""
        if not self.draws(values):
            return super().forward(values)
        numbers = torch.empty(-(-values.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        bits = numbers.view(torch.short)[: values.numel()].view(values.shape)
        # An in-place comparison of floats is several times as fast as one whose result is boolean.
        scale = bits.float().ge_(self._dropped - 2**15).mul_(2**16 / (2**16 - self._dropped))
        return values * scale.to(values.dtype)

    @property
    def _dropped(self) -> int:
        """How many of the 2^16 possible random numbers drop an element."""
        return round(self.p * 2**16)


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
        self.dropout = CheapDropout(dropout)

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
