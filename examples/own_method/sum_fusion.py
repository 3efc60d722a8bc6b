"""Sum Fusion: add up the modalities' utterance vectors, each weighted by a learnt number."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion import FusionModule
from mer_bench.fusion.utterance import Encoders


class SumFusion(FusionModule):
    """logits = W sum_m w_m h_m + b.

    Args:
        hidden: Width of the utterance vectors.
    """

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden)
        self.weights = nn.Parameter(torch.ones(len(dims), 1, 1))
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        return self.head((self.weights * self.encoders(batch)).sum(0))
