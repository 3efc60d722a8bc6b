"""The unimodal encoders that methods share: one vector per utterance from its functionals, and tokens beside it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.layers import TemporalConvolution, masked_deviation, masked_mean, sinusoidal_positions


class UtteranceEncoder(nn.Module):
    """One vector per utterance from its functionals: the encoder of all methods that do not need another one.

    Functionals suit small corpora: on the validation folds of RAVDESS, adding two convolutions over the frames and
    statistics of their outputs lowered the score by two points. Methods that read tokens use :class:`TokenEncoder`.

    Args:
        modality: Name of the modality.
        width: Widths of its features.
        hidden: Width of the vector.
        dropout: Dropout probability of the functionals and of the vector.

    Shapes:
        functionals [utterance, width] -> vector [utterance, hidden]; zero for a missing modality.
    """

    def __init__(self, modality: str, width: Width, hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__()
        self.modality = modality
        self.linear = nn.Linear(width.functionals, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Batch -> [utterance, hidden]."""
        return self.activate(self.describe(batch), batch)

    def describe(self, batch: Batch) -> Tensor:
        """Linear layer on the functionals: [utterance, hidden]."""
        return self.linear(self.dropout(batch.functionals[self.modality]))

    def activate(self, vector: Tensor, batch: Batch) -> Tensor:
        """Normalise, apply the activation and dropout; zero where the modality is missing."""
        return self.dropout(F.gelu(self.norm(vector))) * batch.present[self.modality][:, None]


class TokenEncoder(UtteranceEncoder):
    """Utterance encoder with tokens: two strided temporal convolutions give a quarter as many tokens as frames.

    A method may change the tokens before ``pool`` adds their mean and deviation to the functionals. Since all methods
    have the functionals, a table compares the methods' fusion and not their encoders.

    Shapes:
        frames [utterance, time, dim] -> tokens [utterance, ceil(time / 4), hidden] -> vector [utterance, hidden].
    """

    def __init__(
        self, modality: str, width: Width, hidden: int, *, kernel: int = 3, stride: int = 2, dropout: float = 0.15
    ) -> None:
        super().__init__(modality, width, hidden, dropout=dropout)
        # drops a feature from all frames, since neighbouring frames are alike
        self.input_dropout = nn.Dropout1d(dropout)
        self.convolutions = nn.ModuleList(
            TemporalConvolution(dim, hidden, kernel=kernel, stride=stride, bias=True) for dim in (width.frames, hidden)
        )
        self.movement = nn.Linear(2 * hidden, hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Batch -> [utterance, hidden]."""
        return self.pool(batch, self.tokens(batch))

    def tokens(self, batch: Batch) -> PaddedSequence:
        """Tokens [utterance, ceil(time / stride^2), hidden]."""
        frames = batch.frames[self.modality]
        x = PaddedSequence(self.input_dropout(frames.values.transpose(1, 2)).transpose(1, 2), frames.mask)
        for convolution in self.convolutions:
            x = convolution(x)
            x = PaddedSequence(F.relu(x.values), x.mask)
        return x

    def pool(self, batch: Batch, tokens: PaddedSequence) -> Tensor:
        """The utterance vector [utterance, hidden] from the functionals and the tokens."""
        movement = [masked_mean(tokens.values, tokens.mask), masked_deviation(tokens.values, tokens.mask)]
        return self.activate(self.describe(batch) + self.movement(torch.cat(movement, -1)), batch)


class Encoders(nn.ModuleDict):
    """One :class:`UtteranceEncoder` per modality.

    Shapes:
        batch -> [modality, utterance, hidden], in the order of ``dims``; zero for a missing modality.
    """

    def __init__(self, dims: Mapping[str, Width], hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__({name: UtteranceEncoder(name, width, hidden, dropout=dropout) for name, width in dims.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Encode all modalities."""
        return torch.stack([encode(batch) for encode in self.values()])

    def joined(self, batch: Batch) -> Tensor:
        """Concatenated vectors: [utterance, modalities * hidden]."""
        return torch.cat(list(self(batch)), -1)


def token_encoders(dims: Mapping[str, Width], hidden: int, *, dropout: float) -> nn.ModuleDict:
    """One :class:`TokenEncoder` per modality."""
    return nn.ModuleDict({name: TokenEncoder(name, width, hidden, dropout=dropout) for name, width in dims.items()})


def tokens_with_summary(encoder: nn.Module, batch: Batch, *, positions: bool = True) -> PaddedSequence:
    """Input of a transformer: a modality's utterance vector, followed by its tokens (with their positions).

    With a :class:`TokenEncoder`, [utterance, time, dim] -> [utterance, 1 + ceil(time / 4), hidden]; the mask is False
    everywhere for a missing modality.
    """
    tokens = encoder.tokens(batch)
    _, time, dim = tokens.values.shape
    after = tokens.values + sinusoidal_positions(time, dim, tokens.values.device) if positions else tokens.values
    values = torch.cat([encoder.pool(batch, tokens)[:, None], after], 1)
    return PaddedSequence(values, torch.cat([tokens.mask.any(1, keepdim=True), tokens.mask], 1))
