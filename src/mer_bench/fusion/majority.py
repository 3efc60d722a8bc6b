"""Majority class: predict the emotion that is most frequent in training, without reading any feature."""

from __future__ import annotations

from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.fusion.base import FusionModule


class Majority(FusionModule):
    """Logits are the log frequencies of the training labels, the same for every utterance."""

    title = "Majority class"
    reads = frozenset()
    provenance = "baseline"
    unimodal_encoders = ()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return (self.class_counts + 1).log().expand(len(batch), -1)
