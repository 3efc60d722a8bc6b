"""Late product: multiply the class probabilities of one classifier per modality (Su et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.fusion.late_average import LateAverage


class LateProduct(LateAverage):
    r"""p(c) proportional to the product over the present modalities m of softmax(W_m h_m + b_m)_c.

    "Multiplication" in the table of Su et al. 2020 (MSAF), https://arxiv.org/abs/2012.07175

    .. math:: \log p(c) = \sum_m \log \operatorname{softmax}(W_m h_m + b_m)_c + constant

    The product assumes that the modalities' errors are independent, so that a confident modality outweighs uncertain
    ones. Training is the same as for the average, each classifier by its own cross-entropy (inferred: the paper does
    not say how it was trained), so that the two methods differ in the rule only. Options are those of late_average.
    """

    title = "Late product"
    provenance = "baseline"
    paper = "https://arxiv.org/abs/2012.07175"

    def forward(self, batch: Batch) -> Tensor:
        """Log-probabilities [utterance, num_classes]."""
        scores = self.unimodal_logits(batch).log_softmax(-1) * self.counted(batch)[..., None]
        return scores.sum(0).log_softmax(-1)
