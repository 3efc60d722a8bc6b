"""Early concatenation: concatenate the modalities' utterance vectors and classify them with one hidden layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


class EarlyConcat(FusionModule):
    """Concatenation and one hidden layer, "Concat + FC" in the tables of CFN-SR and MSAF.

    Args:
        hidden: Width of the utterance vectors and of the hidden layer.
        dropout: Dropout probability of the encoders and the hidden layer.
    """

    title = "Early concatenation"
    revision = 1
    provenance = "baseline"

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, dropout: float = 0.15) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.head = nn.Sequential(
            nn.Linear(hidden * len(self.dims), hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(self.encoders.joined(batch))
