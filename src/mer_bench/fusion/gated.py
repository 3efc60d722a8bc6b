"""GMU: gates decide how much of each modality enters the fused vector (Arevalo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


class GatedUnit(nn.Module):
    """The unit: a sum of the modalities' tanh features, each multiplied by a gate that depends on all modalities.

    Two modalities share one gate, z and 1 - z; otherwise each modality has its own. There are no biases, as in the
    paper's equations, so that an absent modality (a zero vector) adds nothing.

    Shapes:
        modalities x [utterance, dim] -> [utterance, out].
    """

    def __init__(self, modalities: int, dim: int, out: int) -> None:
        super().__init__()
        self.features = nn.ModuleList(nn.Linear(dim, out, bias=False) for _ in range(modalities))
        self.gates = nn.Linear(modalities * dim, out * (1 if modalities == 2 else modalities), bias=False)

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Gate and add."""
        features = torch.stack([feature(x).tanh() for feature, x in zip(self.features, vectors, strict=True)], 1)
        gates = self.gates(torch.cat(list(vectors), -1)).sigmoid().unflatten(-1, (-1, features.shape[-1]))
        if len(vectors) == 2:
            gates = torch.cat([gates, 1 - gates], 1)
        return (gates * features).sum(1)


class Gated(FusionModule):
    r"""Fuse by input-dependent gates, one per modality and feature.

    Arevalo et al. 2017, https://arxiv.org/abs/1702.01992

    .. math:: h_m = \tanh(W_m x_m), \quad z_m = \sigma(V_m [x_1; ...; x_M]), \quad h = \sum_m z_m \odot h_m, \quad
        logits = W h + b

    where two modalities share one gate, :math:`z_2 = 1 - z_1`, as in the paper's bimodal unit. Differs from the paper:
    the utterance vectors come from the encoder that all methods share (there: word vectors and a VGG network), and one
    linear layer classifies, where the paper has a maxout network with batch normalisation.

    Args:
        hidden: Width of the utterance vectors and of the unit.
        dropout: Dropout probability of the encoders and before the classifier.
    """

    title = "GMU"
    revision = 1
    paper = "https://arxiv.org/abs/1702.01992"

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, dropout: float = 0.15) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.unit = GatedUnit(len(self.dims), hidden, hidden)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(self.unit(self.encoders(batch).unbind()))
