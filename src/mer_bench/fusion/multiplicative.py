"""Multiplicative combination: a modality need not learn what the others already know (Liu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.fusion.late_product import LateProduct


class Multiplicative(LateProduct):
    r"""Weigh each modality's cross-entropy down where the other modalities are right already.

    Liu et al. 2018, https://arxiv.org/abs/1805.11730

    With :math:`p_i` the probability that modality i gives to the true emotion and M modalities

    .. math:: loss = -\sum_i \Big[\prod_{j \neq i} (1 - p_j)\Big]^{\beta / (M - 1)} \log p_i, \qquad
        logits_c = \sum_i \log p_{i, c}

    so that a modality which is noise in one sample is not forced to explain it. An utterance's absent modalities count
    neither in the product nor in M; a single modality has weight one. The weights are differentiated as the formula
    reads (inferred: the paper does not stop their gradient), from logits, so that a p of one in single precision is no
    division by zero. Differs from the paper: predictions sum the log-scores without the weights, modalities are not
    mixed nor is the loss boosted by a margin, and the encoder is the one that all methods share. The default of beta
    is that of the row "Multiplicative" in the tables of MSAF and CFN-SR.

    Args:
        dims: Width of each modality.
        num_classes: Number of emotions.
        hidden: Width of the utterance vectors.
        dropout: Of the encoders.
        beta: Strength of the weights; 0 trains every classifier on its own.
    """

    title = "Multiplicative"
    provenance = "reimplemented"  # type: ignore[assignment]  # mypy narrows the base class to its own value
    paper = "https://arxiv.org/abs/1805.11730"

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, hidden: int = 64, dropout: float = 0.15, beta: float = 0.3
    ) -> None:
        super().__init__(dims, num_classes, hidden=hidden, dropout=dropout)
        if beta < 0:
            raise ValueError(f"beta {beta} is negative")
        self.beta = beta

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum of the modalities' cross-entropies, averaged over utterances."""
        logits, present = self.unimodal_logits(batch), self.counted(batch)
        true = F.one_hot(batch.label, self.num_classes).bool()
        doubt = logits.masked_fill(true, -float("inf")).logsumexp(-1) - logits.logsumexp(-1)  # log(1 - p)
        doubt = doubt * present
        exponent = self.beta / (present.sum(0) - 1).clamp(min=1)
        weight = (exponent * (doubt.sum(0) - doubt)).exp() * present
        each = F.cross_entropy(
            logits.flatten(0, 1),
            batch.label.repeat(len(logits)),
            reduction="none",
            label_smoothing=self.training_options.label_smoothing,
        )
        return {"cross_entropy": (weight * each.view_as(weight)).sum(0).mean()}
