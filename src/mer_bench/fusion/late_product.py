"""Late fusion: multiply the class probabilities of one classifier a modality (the "Multiplication" row of MSAF)."""

from __future__ import annotations

from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.fusion.late_average import LateAverage


class LateProduct(LateAverage):
    r"""p(c) proportional to the product over the present modalities m of softmax(W_m h_m + b_m)_c.

    The row "Multiplication" of the MSAF table, https://arxiv.org/abs/2012.07175

    .. math:: \log p(c) = \sum_m \log \operatorname{softmax}(W_m h_m + b_m)_c + constant

    It assumes that modalities err independently: one that is sure of itself overrules those that are not. Training is
    that of the average, each classifier on its own cross-entropy (inferred: MSAF does not say how this row was
    trained), so that the two rows differ in the rule alone.

    Args:
        dims: Width of each modality.
        num_classes: Number of emotions.
        hidden: Width of the utterance vectors.
        dropout: Of the encoders.
    """

    title = "Late product"
    provenance = "baseline"
    paper = "https://arxiv.org/abs/2012.07175"

    def forward(self, batch: Batch) -> Tensor:
        """Log-probabilities [utterance, num_classes]."""
        scores = self.unimodal_logits(batch).log_softmax(-1) * self.counted(batch)[..., None]
        return scores.sum(0).log_softmax(-1)
