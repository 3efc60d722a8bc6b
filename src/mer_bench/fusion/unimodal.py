"""Single modality: the shared utterance encoder and a linear classifier, the score that fusion must exceed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import UtteranceEncoder


class Unimodal(FusionModule):
    """A linear classifier on the utterance vector of a single modality.

    Args:
        hidden: Width of the utterance vector.
        dropout: Dropout probability of the encoder.
    """

    title = "Single modality"
    revision = 1
    provenance = "baseline"
    most = 1
    unimodal_encoders = ("encoder",)

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, dropout: float = 0.15) -> None:
        super().__init__(dims, num_classes)
        ((name, width),) = self.dims.items()
        self.encoder = UtteranceEncoder(name, width, hidden, dropout=dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(self.encoder(batch))
