"""The unimodal encoders that methods share: one vector per utterance from its features, and tokens beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.fusion.layers import (
    CheapDropout,
    TemporalConvolution,
    centre,
    masked_change,
    masked_course,
    masked_deviation,
    masked_mean,
    sinusoidal_positions,
)

BLOCK = 512  #: columns that are summed at once; thousands of them in double precision would not fit into a cache


class Standardization(nn.Module):
    """Subtract the mean and divide by the deviation of all training rows seen so far; clip at six deviations.

    Unlike batch normalisation, a row does not depend on the other rows of its batch, and a batch may hold one row.

    Shapes:
        values [row, dim], or its first columns only if all others are zero; real [row], the rows that count
        -> [row, dim].
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.looks = True  #: whether :meth:`known` leaves out columns of zeros
        self.register_buffer("count", torch.zeros((), dtype=torch.double))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.double))
        self.register_buffer("squares", torch.zeros(dim, dtype=torch.double))

    def forward(self, values: Tensor, real: Tensor) -> Tensor:
        """Update the statistics (in training only), then standardise the rows."""
        dim, width = len(self.total), self._edge(values.shape[1])
        values = _widen(values, width)
        if self.training:
            edges = range(BLOCK, min(width, dim - BLOCK + 1), BLOCK)
            blocks = (part.double() * real[:, None] for part in values.detach().tensor_split(list(edges), 1))
            total, squares = zip(*((rows.sum(0), rows.square().sum(0)) for rows in blocks), strict=True)
            sums = (real.sum(), _widen(torch.cat(total), dim), _widen(torch.cat(squares), dim))
            for seen, more in zip((self.count, self.total, self.squares), sums, strict=True):
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.all_reduce(more)  # sums over the rows of all devices
                seen.add_(more)
        count = self.count.clamp(min=1)
        mean = self.total / count
        deviation = (self.squares / count - mean.square()).clamp(min=0).sqrt()
        scale = torch.where(deviation > 1e-4, deviation, 1)  # 1 for constant columns, and before the first training row
        mean, scale = mean.to(values.dtype), scale.to(values.dtype)
        given = (values - mean[:width]).div_(scale[:width]).clamp_(-6, 6)
        if width == dim:
            return given
        others = (0 - mean[width:]).div_(scale[width:]).clamp_(-6, 6)
        return torch.cat([given, others.expand(len(values), -1)], 1)

    def known(self, width: int) -> int:
        """Number of leading columns that may differ from zero after standardising inputs of ``width`` columns.

        On devices other than a CPU it is all columns, since checking them would cost more than it saves.
        """
        edge = self._edge(width)
        looks = self.looks and self.total.device.type == "cpu" and not torch.compiler.is_compiling()
        return edge if looks and not self.total[edge:].any() else len(self.total)

    def _edge(self, width: int) -> int:
        """Round ``width`` up to whole blocks, because the rounding of a sum depends on the number of columns."""
        dim = len(self.total)
        edge = -(-width // BLOCK) * BLOCK
        return edge if edge <= dim - BLOCK else dim


@contextmanager
def every_column(method: nn.Module) -> Iterator[None]:
    """Context in which ``method`` also multiplies columns of zeros, as it does on a GPU."""
    standardizations = [module for module in method.modules() if isinstance(module, Standardization)]
    for module in standardizations:
        module.looks = False
    try:
        yield
    finally:
        for module in standardizations:
            module.looks = True


def _widen(values: Tensor, width: int) -> Tensor:
    """Pad with columns of zeros: [..., dim] -> [..., width]."""
    return values if values.shape[-1] == width else F.pad(values, (0, width - values.shape[-1]))


class UtteranceEncoder(nn.Module):
    """One vector per utterance from its sequence of features: the encoder of all methods that do not need another one.

    A linear layer reads standardised statistics of the sequence: the mean of each feature, its deviation, its change
    from frame to frame and its course over time. This suits small corpora: on the validation folds of RAVDESS, adding
    two convolutions over the frames and statistics of their outputs lowered the score by two points. Methods that read
    tokens use :class:`TokenEncoder`.

    Shapes:
        sequence [utterance, time, dim] -> vector [utterance, hidden]; zero for a missing modality.
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__()
        self.standardize = Standardization(7 * dim)
        self.statistics = nn.Linear(7 * dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = CheapDropout(dropout)

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, hidden]."""
        return self.activate(self.describe(sequence), sequence.mask)

    def describe(self, sequence: PaddedSequence) -> Tensor:
        """Linear layer on the standardised statistics of the sequence: [utterance, hidden]."""
        values, mask = sequence.values, sequence.mask
        statistics, centred = centre(values, mask)
        if values.shape[1] > 1:  # for a single frame, all further statistics are zero
            spread, course = masked_deviation(centred, mask), masked_course(centred, mask)
            statistics = torch.cat([statistics, spread, masked_change(values, mask), course], -1)
        standard = self.standardize(statistics, mask.any(1))
        known = self.standardize.known(statistics.shape[1])
        standard = self.dropout(standard[:, :known])
        return F.linear(standard, self.statistics.weight[:, :known], self.statistics.bias)

    def activate(self, vector: Tensor, mask: Tensor) -> Tensor:
        """Normalise, apply the activation and dropout; zero where the sequence is empty."""
        return self.dropout(F.gelu(self.norm(vector))) * mask.any(1, keepdim=True)


class TokenEncoder(UtteranceEncoder):
    """Utterance encoder with tokens: two strided temporal convolutions give a quarter as many tokens as frames.

    A method may change the tokens before ``pool`` adds their mean and deviation to the statistics of the sequence.
    Since all methods have those statistics, a table compares the methods' fusion and not their encoders.

    Shapes:
        sequence [utterance, time, dim] -> tokens [utterance, ceil(time / 4), hidden] -> vector [utterance, hidden].
    """

    def __init__(self, dim: int, hidden: int, *, kernel: int = 3, stride: int = 2, dropout: float = 0.15) -> None:
        super().__init__(dim, hidden, dropout=dropout)
        # drops a feature from all frames, since neighbouring frames are alike
        self.input_dropout = nn.Dropout1d(dropout)
        self.convolutions = nn.ModuleList(
            TemporalConvolution(width, hidden, kernel=kernel, stride=stride, bias=True) for width in (dim, hidden)
        )
        self.movement = nn.Linear(2 * hidden, hidden)

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, hidden]."""
        return self.pool(sequence, self.tokens(sequence))

    def tokens(self, sequence: PaddedSequence) -> PaddedSequence:
        """[utterance, time, dim] -> [utterance, ceil(time / stride^2), hidden]."""
        x = PaddedSequence(self.input_dropout(sequence.values.transpose(1, 2)).transpose(1, 2), sequence.mask)
        for convolution in self.convolutions:
            x = convolution(x)
            x = PaddedSequence(F.relu(x.values), x.mask)
        return x

    def pool(self, sequence: PaddedSequence, tokens: PaddedSequence) -> Tensor:
        """The utterance vector [utterance, hidden] from the input and its tokens."""
        values, mask = tokens.values, tokens.mask
        # The mean is computed twice; with a single one, gradients would be summed and rounded in another order.
        movement = [masked_mean(values, mask), masked_deviation(centre(values, mask)[1], mask)]
        return self.activate(self.describe(sequence) + self.movement(torch.cat(movement, -1)), sequence.mask)


class Encoders(nn.ModuleDict):
    """One :class:`UtteranceEncoder` per modality.

    Shapes:
        batch -> [modality, utterance, hidden], in the order of ``dims``; zero for a missing modality.
    """

    def __init__(self, dims: Mapping[str, int], hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__({name: UtteranceEncoder(dim, hidden, dropout=dropout) for name, dim in dims.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Encode all modalities."""
        return torch.stack([encode(batch.features[name]) for name, encode in self.items()])

    def joined(self, batch: Batch) -> Tensor:
        """Concatenated vectors: [utterance, modalities * hidden]."""
        return torch.cat(list(self(batch)), -1)


def token_encoders(dims: Mapping[str, int], hidden: int, *, dropout: float) -> nn.ModuleDict:
    """One :class:`TokenEncoder` per modality."""
    return nn.ModuleDict({name: TokenEncoder(dim, hidden, dropout=dropout) for name, dim in dims.items()})


def tokens_with_summary(encoder: nn.Module, sequence: PaddedSequence) -> PaddedSequence:
    """Input of a transformer: a modality's utterance vector, followed by its tokens with their positions.

    With a :class:`TokenEncoder`, [utterance, time, dim] -> [utterance, 1 + ceil(time / 4), hidden]; the mask is False
    everywhere for a missing modality.
    """
    tokens = encoder.tokens(sequence)
    _, time, dim = tokens.values.shape
    positioned = tokens.values + sinusoidal_positions(time, dim, tokens.values.device)
    values = torch.cat([encoder.pool(sequence, tokens)[:, None], positioned], 1)
    return PaddedSequence(values, torch.cat([tokens.mask.any(1, keepdim=True), tokens.mask], 1))
