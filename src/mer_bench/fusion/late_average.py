"""Late average: average the class probabilities of one classifier per modality ("Averaging" in Su et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


class LateAverage(FusionModule):
    """p(c) = mean over the present modalities m of softmax(W_m h_m + b_m)_c.

    Each modality's classifier is trained by its own cross-entropy, so that a strong one does not hide a weak one.

    Args:
        hidden: Width of the utterance vectors.
        dropout: Dropout probability of the encoders.
    """

    title = "Late average"
    revision = 1
    provenance = "baseline"

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, dropout: float = 0.15) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, num_classes) for name in self.dims})

    def forward(self, batch: Batch) -> Tensor:
        """Log-probabilities [utterance, num_classes]."""
        present = self.counted(batch)
        probabilities = self.unimodal_logits(batch).softmax(-1) * (present / present.sum(0))[..., None]
        return probabilities.sum(0).clamp(min=1e-12).log()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean of the modalities' cross-entropies."""
        each = torch.stack([self.cross_entropy(logits, batch) for logits in self.unimodal_logits(batch)])
        return {"cross_entropy": each.mean()}

    def counted(self, batch: Batch) -> Tensor:
        """Ones for present modalities [modality, utterance]; all ones for an utterance without any modality."""
        present = self.present(batch)
        return (present | ~present.any(0)).to(self.class_counts.dtype)

    def unimodal_logits(self, batch: Batch) -> Tensor:
        """Logits [modality, utterance, num_classes]."""
        return torch.stack(
            [head(vector) for head, vector in zip(self.heads.values(), self.encoders(batch), strict=True)]
        )
