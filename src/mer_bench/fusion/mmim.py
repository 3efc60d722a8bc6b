"""MMIM: fusion that preserves the mutual information between modalities (Han et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.utterance import Encoders

FLOOR = 1e-3  #: Least variance: without it the bound is unbounded where x determines y.
WIDTH = 16  #: Width of the authors' audio and vision vectors, to which beta refers: the bound is a sum over features.


class InformationBound(nn.Module):
    r"""A lower bound in nats on the mutual information of x and y (Barber and Agakov 2003).

    .. math:: I(x; y) \ge H(y) + E \log q(y | x), \quad q(y | x) = N(\mu(x), \operatorname{diag} \sigma^2(x))

    The entropy of y is estimated as that of a mixture of one diagonal Gaussian per class, bounded below by the mean of
    its components' entropies; classes with fewer than two samples count as zero.

    Shapes:
        x, y [sample, dim], members [class, sample] (True = real and of that class) -> scalar.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean, self.variance = (
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor, members: Tensor) -> Tensor:
        """Entropy and log-likelihood; the log 2 pi of both cancel."""
        return class_entropy(y, members) + masked_mean(self.log_likelihood(x, y)[:, None], members.any(0))[0]

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of q(y | x) without its constant: [sample]."""
        variance = F.softplus(self.variance(x)) + FLOOR
        return -0.5 * ((y - self.mean(x)).square() / variance + variance.log()).sum(-1)


def class_entropy(y: Tensor, members: Tensor) -> Tensor:
    """Mean over classes, weighted by size, of the entropy of a diagonal Gaussian without its log 2 pi.

    Shapes:
        y [sample, dim], members [class, sample] -> scalar; zero without samples.
    """
    count = members.sum(1)
    centred = y - masked_mean(y, members)[:, None]
    entropy = 0.5 * (1 + (masked_mean(centred.square(), members) + FLOOR).log()).sum(-1)
    return (entropy * count * (count > 1)).sum() / count.sum().clamp(min=1)


def contrastive_loss(predicted: Tensor, actual: Tensor, mask: Tensor) -> Tensor:
    r"""InfoNCE of cosines: the loss of finding the prediction that belongs to a vector among those of the batch.

    .. math:: - \operatorname{mean}_i \log \frac{e^{\cos(h_i, g_i)}}{\sum_j e^{\cos(h_i, g_j)}}

    Shapes:
        predicted g, actual h [sample, dim], mask [sample] -> scalar.
    """
    cosine = F.normalize(actual, dim=-1) @ F.normalize(predicted, dim=-1).T
    others = cosine.masked_fill(~mask, torch.finfo(cosine.dtype).min).logsumexp(-1)
    return masked_mean((others - cosine.diagonal())[:, None], mask)[0]


class MMIM(FusionModule):
    r"""Train the fusion of utterance vectors so that it preserves mutual information.

    Han et al. 2021, https://arxiv.org/abs/2109.00412

    With the utterance vectors :math:`h_m` and their fusion :math:`z = MLP([h_m]_m)`,

    .. math::
        logits = W z, \quad
        loss = cross\ entropy + \alpha \sum_m NCE(g_m(z), h_m) - \beta \sum_{m > 1} I(h_1; h_m)

    where :math:`g_m` is linear, :math:`NCE` is :func:`contrastive_loss`, and :math:`I` is :class:`InformationBound`
    between the first modality (text, if there is text) and each other one. The losses compare the utterances of a
    batch; the logits of an utterance do not depend on the others. Weights and sizes are the defaults of the authors'
    code, except for the utterance vectors.

    Differs from that code: the encoder that all methods share replaces BERT and LSTMs (768 numbers for text, 16 for the
    others); the Gaussian's log-likelihood includes its log variance, without which it is largest for an infinite
    variance; the bound, a sum over features, is scaled to their 16, since over 64 it exceeds the cross-entropy by far;
    the entropy is estimated from the batch with one diagonal Gaussian per class, instead of from two batches with a
    full Gaussian each for positive and negative sentiment, which 32 utterances of several classes do not determine, and
    of the vectors themselves, which the code first projects to a quarter of their width (`entropy_prj`, learnt); the
    bound is trained together with all other losses instead of in a separate epoch before every epoch; and there is one
    weight decay.

    Args:
        hidden: Width of the utterance vectors.
        fusion: Width of the fused vector.
        alpha: Weight of the contrastive loss.
        beta: Weight of the bound between modalities.
        all_pairs: Whether to bound every pair, also audio and vision if there is text (an ablation of the authors).
        dropout: Dropout probability of the encoders.
        fusion_dropout: Dropout probability of the MLP's input.
    """

    title = "MMIM"
    revision = 2
    paper = "https://arxiv.org/abs/2109.00412"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        fusion: int = 128,
        alpha: float = 0.1,
        beta: float = 0.1,
        all_pairs: bool = False,
        dropout: float = 0.15,
        fusion_dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, num_classes)
        self.alpha, self.beta = alpha, beta
        modalities = len(self.dims)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.fusion = nn.Sequential(
            nn.Dropout(fusion_dropout),
            nn.Linear(modalities * hidden, fusion),
            nn.Tanh(),
            nn.Linear(fusion, fusion),
            nn.Tanh(),
        )
        self.predictors = nn.ModuleList(nn.Linear(fusion, hidden) for _ in range(modalities if alpha else 0))
        self.pairs = [pair for pair in combinations(range(modalities), 2) if beta and (all_pairs or pair[0] == 0)]
        self.bounds = nn.ModuleList(InformationBound(hidden) for _ in self.pairs)
        self.head = nn.Linear(fusion, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(self.fusion(self.encoders.joined(batch)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, the contrastive loss of the fused vector and the bound between modalities."""
        vectors, present = self.encoders(batch), self.present(batch)
        fused = self.fusion(torch.cat(list(vectors), -1))
        losses = {"cross_entropy": self.cross_entropy(self.head(fused), batch)}
        if self.alpha:
            each = zip(self.predictors, vectors, present, strict=True)
            contrast = torch.stack([contrastive_loss(predict(fused), actual, mask) for predict, actual, mask in each])
            losses["contrast"] = self.alpha * contrast.sum()
        if self.beta:
            classes = F.one_hot(batch.label, self.num_classes).T.bool()
            bounds = [
                bound(vectors[first], vectors[second], classes & present[first] & present[second])
                for bound, (first, second) in zip(self.bounds, self.pairs, strict=True)
            ]
            losses["information"] = -self.beta * WIDTH / vectors.shape[-1] * torch.stack(bounds).sum()
        return losses
