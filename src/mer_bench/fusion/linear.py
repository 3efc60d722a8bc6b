"""Linear: regression on the functionals of each modality, the score that a neural method must exceed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule


class Linear(FusionModule):
    """Multinomial logistic regression on the concatenated functionals of all modalities."""

    title = "Linear"
    provenance = "baseline"
    unimodal_encoders = ()

    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.head = nn.Linear(sum(width.functionals for width in self.dims.values()), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]; a missing modality adds nothing."""
        return self.head(torch.cat([batch.functionals[name] for name in self.dims], -1))
