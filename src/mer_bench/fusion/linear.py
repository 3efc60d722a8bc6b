"""Linear: regression on the mean and the deviation of each feature, the score that a neural method must exceed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import centre, masked_deviation
from mer_bench.fusion.utterance import Standardization


class Linear(FusionModule):
    """Multinomial logistic regression on the concatenated standardised statistics of all modalities."""

    title = "Linear"
    provenance = "baseline"
    unimodal_encoders = ()

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.standardize = nn.ModuleDict({name: Standardization(2 * dim) for name, dim in self.dims.items()})
        self.head = nn.Linear(2 * sum(self.dims.values()), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]; a missing modality adds nothing."""
        return self.head(torch.cat([self._describe(name, batch) for name in self.dims], -1))

    def _describe(self, name: str, batch: Batch) -> Tensor:
        values, mask = batch.features[name].values, batch.features[name].mask
        real = mask.any(1)
        mean, centred = centre(values, mask)
        statistics = torch.cat([mean, masked_deviation(centred, mask)], -1)
        return self.standardize[name](statistics, real) * real[:, None]
