"""TMC: each modality gives evidence for the classes, combined by Dempster's rule (Han et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


def combine(evidence: Tensor) -> Tensor:
    r"""Dempster's rule for opinions of K classes, in terms of their evidence.

    An opinion has the belief :math:`b_k = e_k / S` and the uncertainty :math:`u = K / S` with :math:`S = K + \sum e_k`.
    The rule divides :math:`b_k b'_k + b_k u' + b'_k u` and :math:`u u'` by one minus the conflict
    :math:`\sum_{i \neq j} b_i b'_j`. In the evidence of the result, K times the quotient of the two, the conflict
    cancels, and what remains is a product for any number of opinions:

    .. math:: 1 + e_k / K = \prod_m (1 + e_{m,k} / K)

    Shapes:
        [view, utterance, class] -> [utterance, class]. A view without evidence changes nothing.
    """
    classes = evidence.shape[-1]
    return classes * ((1 + evidence / classes).prod(0) - 1)


def divergence(alpha: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of Dirichlet distributions from the uniform one: [..., class] -> [...].

    .. math:: \log \frac{\Gamma(S)}{\Gamma(K) \prod_k \Gamma(\alpha_k)}
        + \sum_k (\alpha_k - 1) \big(\psi(\alpha_k) - \psi(S)\big), \quad S = \sum_k \alpha_k
    """
    total = alpha.sum(-1, keepdim=True)
    uniform = alpha.new_full((), alpha.shape[-1]).lgamma()
    volume = total[..., 0].lgamma() - alpha.lgamma().sum(-1) - uniform
    return volume + ((alpha - 1) * (alpha.digamma() - total.digamma())).sum(-1)


class TMC(FusionModule):
    r"""Trusted multi-view classification: modalities that are unsure of themselves count less.

    Han et al. 2021, "Trusted Multi-View Classification", https://arxiv.org/abs/2102.02051

    Each modality's evidence and their combination :math:`e = combine(e_1, ..., e_M)` (:func:`combine`) are parameters
    of Dirichlet distributions of the class probabilities,

    .. math::
        e_m &= softplus(W_m h_m + b_m), \quad \alpha = e + 1, \quad S = \sum_k \alpha_k, \quad p_k = \alpha_k / S \\
        loss &= \sum_{\alpha \in \{\alpha_1, ..., \alpha_M, \alpha\}}
            \sum_k y_k \big(\psi(S) - \psi(\alpha_k)\big) + \lambda_t KL(\tilde\alpha \Vert 1), \quad
        \lambda_t = \min(1, t / T)

    with the digamma function :math:`\psi`, the epoch t = 1, 2, ..., and :math:`\tilde\alpha`, which is :math:`\alpha`
    with 1 for the true class, so that the divergence removes evidence of all other classes (:func:`divergence`). The
    logits are :math:`\log p`. :meth:`uncertainty` is :math:`u = K / S`: one without evidence, near zero with much.

    The authors' code anneals over 50 of 500 epochs; with fewer epochs take as large a share of them. Differs from it:
    the encoder that all methods share replaces a linear layer on each view's features; the suite's label smoothing
    applies to y, and its class weights to utterances; a missing modality has no evidence and no loss.

    With ``pseudo_view`` the concatenated vectors give evidence as one more view, as in the authors' extension ETMC
    (Han et al. 2022, https://arxiv.org/abs/2204.11423).

    Args:
        hidden: Width of the utterance vectors.
        annealing: Number T of epochs in which the weight of the divergence rises to one.
        pseudo_view: Whether all modalities together are one more view.
        dropout: Dropout probability of the encoders.
    """

    title = "TMC"
    paper = "https://arxiv.org/abs/2102.02051"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        annealing: int = 50,
        pseudo_view: bool = False,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        self.annealing = annealing
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.heads = nn.ModuleList(nn.Linear(hidden, num_classes) for _ in self.dims)
        self.pseudo_head = nn.Linear(hidden * len(self.dims), num_classes) if pseudo_view else None

    def forward(self, batch: Batch) -> Tensor:
        """Logarithm of the expected probabilities [utterance, num_classes]."""
        alpha = combine(self.evidence(batch)) + 1
        return (alpha / alpha.sum(-1, keepdim=True)).log()

    def uncertainty(self, batch: Batch) -> Tensor:
        """Uncertainty of the combined opinion, above 0 and at most 1: [utterance]."""
        return self.num_classes / (combine(self.evidence(batch)) + 1).sum(-1)

    def evidence(self, batch: Batch) -> Tensor:
        """Evidence of each view [view, utterance, num_classes]; zero where it is missing."""
        vectors = self.encoders(batch)
        scores = [head(vector) for head, vector in zip(self.heads, vectors, strict=True)]
        if self.pseudo_head is not None:
            scores.append(self.pseudo_head(torch.cat(list(vectors), -1)))
        return F.softplus(torch.stack(scores)) * self.views(batch)[..., None]

    def views(self, batch: Batch) -> Tensor:
        """Mask [view, utterance]: the modalities, and where it exists the view of all that are present."""
        present = self.present(batch)
        return present if self.pseudo_head is None else torch.cat([present, present.any(0, keepdim=True)])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Expected cross-entropy and weighted divergence, each summed over the views and their combination."""
        evidence = self.evidence(batch)
        alpha = torch.cat([evidence, combine(evidence)[None]]) + 1
        counted = F.pad(self.views(batch), (0, 0, 0, 1), value=True)  # the combination is always there
        true = F.one_hot(batch.label, self.num_classes)
        smoothing = self.training_options.label_smoothing
        target = (1 - smoothing) * true + smoothing / self.num_classes
        surprise = (target * (alpha.sum(-1, keepdim=True).digamma() - alpha.digamma())).sum(-1)
        annealed = min(1.0, (self.current_epoch + 1) / self.annealing)
        others = annealed * divergence(alpha.masked_fill(true.bool(), 1))
        of_class = self.class_weights()
        weight = torch.ones_like(surprise[0]) if of_class is None else of_class[batch.label]
        share = counted * (weight / weight.sum())
        return {"cross_entropy": (surprise * share).sum(), "divergence": (others * share).sum()}
