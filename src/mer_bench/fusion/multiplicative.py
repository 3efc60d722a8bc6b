"""Multiplicative: a modality learns less from samples that the others already classify well (Liu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from mer_bench.batch import Batch, Width
from mer_bench.fusion.late_product import LateProduct


class Multiplicative(LateProduct):
    r"""Reduce each modality's cross-entropy for samples that the other modalities already classify correctly.

    Liu et al. 2018, https://arxiv.org/abs/1805.11730

    With :math:`p_i` the probability that modality i gives to the true emotion and M modalities

    .. math:: loss = -\sum_i \Big[\prod_{j \neq i} (1 - p_j)\Big]^{\beta / (M - 1)} \log p_i, \qquad
        logits_c = \sum_i \log p_{i, c}

    so that a modality without information about a sample need not fit it. An utterance's absent modalities count
    neither in the product nor in M; a single modality has weight one. As in the authors' code, the weights have no
    gradient: a modality cannot lower the loss of another one by being less sure. They are computed from logits.

    Differs from the paper: predictions sum the log-scores without the weights, there are no mixtures of modalities and
    no boosted loss with a margin, and the encoder is the one that all methods share. The default of beta is that of
    "Multiplicative" in the tables of MSAF and CFN-SR.

    Args:
        hidden: Width of the utterance vectors.
        dropout: Dropout probability of the encoders.
        beta: Strength of the weights; with 0 every classifier is trained independently.
    """

    title = "Multiplicative"
    provenance = "reimplemented"  # type: ignore[assignment]  # mypy narrows the base class to its own value
    paper = "https://arxiv.org/abs/1805.11730"

    def __init__(
        self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 64, dropout: float = 0.15, beta: float = 0.3
    ) -> None:
        super().__init__(dims, num_classes, hidden=hidden, dropout=dropout)
        if beta < 0:
            raise ValueError(f"beta {beta} must not be negative")
        self.beta = beta

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum of the modalities' cross-entropies, averaged over utterances (by class, if so trained)."""
        logits, present = self.unimodal_logits(batch), self.counted(batch)
        true = F.one_hot(batch.label, self.num_classes).bool()
        doubt = logits.masked_fill(true, -float("inf")).logsumexp(-1) - logits.logsumexp(-1)  # log(1 - p)
        doubt = doubt * present
        exponent = self.beta / (present.sum(0) - 1).clamp(min=1)
        weight = ((exponent * (doubt.sum(0) - doubt)).exp() * present).detach()
        of_class = self.class_weights()
        each = F.cross_entropy(
            logits.flatten(0, 1),
            batch.label.repeat(len(logits)),
            of_class,
            reduction="none",
            label_smoothing=self.training_options.label_smoothing,
        )
        utterances = len(batch) if of_class is None else of_class[batch.label].sum()
        return {"cross_entropy": (weight * each.view_as(weight)).sum() / utterances}
