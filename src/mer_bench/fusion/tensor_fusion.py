"""TFN: the outer product of the modalities' vectors contains every product of their features (Zadeh et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """Outer product of [1; h] over modalities: M tensors [utterance, dim] -> [utterance, product of (dim + 1)].

    The index of the first modality varies slowest. Due to the leading ones the product contains all orders: a constant,
    each modality alone, each pair, and so on.
    """
    product = vectors[0].new_ones(len(vectors[0]), 1)
    for vector in vectors:
        product = (product[:, :, None] * F.pad(vector, (1, 0), value=1.0)[:, None, :]).flatten(1)
    return product


class TensorFusion(FusionModule):
    r"""Classify the outer product of the modalities' utterance vectors.

    Zadeh et al. 2017, https://arxiv.org/abs/1707.07250

    .. math:: z = [1; h_{text}] \otimes [1; h_{audio}] \otimes [1; h_{vision}], \quad logits = MLP(z)

    Differs from the paper: the utterance vectors come from the encoder that all methods share instead of an LSTM for
    text and pooled deep networks for the others, and all have the same width (the paper: 128 for text, 32 for audio and
    vision), so that the input of the MLP has 33^3 = 35,937 numbers instead of 140,481. The MLP is the paper's.
    A missing modality has h = 0, so only the products that leave it out remain.

    Args:
        hidden: Width of the utterance vectors; the first layer of the MLP grows with its M-th power.
        post_fusion: Widths of the MLP's hidden layers.
        dropout: Dropout probability of the encoders.
        post_fusion_dropout: Dropout probability of the outer product.
    """

    title = "TFN"
    most = 3  # the product of more would take billions of parameters
    revision = 2
    paper = "https://arxiv.org/abs/1707.07250"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 32,
        post_fusion: Sequence[int] = (128, 128),
        dropout: float = 0.15,
        post_fusion_dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        widths = [(hidden + 1) ** len(self.dims), *post_fusion]
        hidden_layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(nn.Dropout(post_fusion_dropout), *hidden_layers, nn.Linear(widths[-1], num_classes))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(outer_product(self.encoders(batch).unbind()))
