"""LMF: tensor fusion with low-rank factors, which never computes the tensor itself (Liu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


class LowRankFusion(nn.Module):
    """A linear map of the outer product of [1; h_m], whose weight is a weighted sum of ``rank`` rank-one tensors.

    Shapes:
        modalities x [utterance, dim] -> [utterance, out].
    """

    def __init__(self, modalities: int, dim: int, out: int, rank: int) -> None:
        super().__init__()
        # Row 0 multiplies the constant 1. With 1 as its initial value each factor is 1 + w.h, so that the product is
        # close to the sum of the modalities' linear maps; with Xavier initialisation it and its gradients would be
        # close to zero.
        factors = torch.randn(modalities, rank, dim + 1, out) * dim**-0.5
        factors[:, :, 0] = 1.0
        self.factors = nn.Parameter(factors)
        self.rank_weights = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Project each modality, multiply over modalities, add over the rank."""
        ones = F.pad(torch.stack(list(vectors)), (1, 0), value=1.0)
        projected = torch.einsum("mui,mrio->muro", ones, self.factors)
        product = reduce(mul, projected.unbind())  # the gradient of Tensor.prod divides and must search for zeros
        return torch.einsum("uro,r->uo", product, self.rank_weights) + self.bias


class LowRank(FusionModule):
    r"""Tensor fusion whose weight tensor is given by low-rank factors, one per modality.

    Liu et al. 2018, https://arxiv.org/abs/1806.00064

    .. math:: logits = b + \sum_{r} \lambda_r \prod_{m} [1; h_m]^\top W_m^{(r)}

    The cost grows with the sum of the modalities' widths, where tensor fusion's grows with their product. Differs from
    the paper: the utterance vectors come from the encoder that all methods share, with one width for all (the paper
    searches 64 to 256 for text, 4 to 32 for the others), and the factors are initially close to one instead of zero.

    Args:
        hidden: Width of the utterance vectors.
        rank: Number of rank-one terms (the paper searches 1, 4, 8 and 16).
        dropout: Dropout probability of the encoders.
    """

    title = "LMF"
    revision = 1
    paper = "https://arxiv.org/abs/1806.00064"

    def __init__(
        self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, rank: int = 4, dropout: float = 0.15
    ) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.fusion = LowRankFusion(len(self.dims), hidden, num_classes, rank)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.fusion(self.encoders(batch).unbind())
