"""Streams of tokens, one per modality, that exchange information at fusion sites (MMTM, MSAF)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.layers import TemporalConvolution
from mer_bench.fusion.utterance import token_encoders


class ParallelConvolutions(nn.Module):
    """One temporal convolution and ReLU per modality: M x [utterance, time, width] -> the same."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            TemporalConvolution(width, width, kernel=3, bias=True) for _ in range(modalities)
        )

    def forward(self, tokens: Sequence[PaddedSequence]) -> list[PaddedSequence]:
        """Convolve each modality separately."""
        convolved = [convolve(x) for convolve, x in zip(self.convolutions, tokens, strict=True)]
        return [PaddedSequence(F.relu(x.values), x.mask) for x in convolved]


class Streams(nn.Module):
    """One stream of tokens and one classifier per modality; streams exchange information at fusion sites only.

    The first site reads the tokens of the shared encoders. Before every further site each modality has one more
    temporal convolution, and after the last site its encoder pools the tokens. A site is a module that maps the list of
    all modalities' tokens to a list of the same shapes.

    Shapes:
        batch -> logits [modality, utterance, classes]; zero for a missing modality.
    """

    def __init__(
        self, dims: Mapping[str, Width], hidden: int, classes: int, sites: Sequence[nn.Module], *, dropout: float
    ) -> None:
        super().__init__()
        self.encoders = token_encoders(dims, hidden, dropout=dropout)
        between = [module for site in sites[1:] for module in (ParallelConvolutions(len(dims), hidden), site)]
        self.sites = nn.Sequential(*sites[:1], *between)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, classes) for name in dims})

    def forward(self, batch: Batch) -> Tensor:
        """Logits of each stream."""
        tokens = self.sites([encoder.tokens(batch) for encoder in self.encoders.values()])
        logits = [
            self.heads[name](encoder.pool(batch, own)) * batch.present[name][:, None]
            for (name, encoder), own in zip(self.encoders.items(), tokens, strict=True)
        ]
        return torch.stack(logits)
