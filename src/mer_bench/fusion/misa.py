"""MISA: split each modality into a part that all share and a private part, then fuse them (Hazarika et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.fusion.utterance import Encoders


def central_moment_discrepancy(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor, moments: int = 5) -> Tensor:
    r"""Distance of two samples in [0, 1] in their mean and central moments: CMD (Zellinger et al. 2017).

    .. math:: \lVert E x - E y \rVert + \sum_{k=2}^{K} \lVert E (x - E x)^k - E (y - E y)^k \rVert

    Shapes:
        x, y [..., sample, dim], masks in_x, in_y [..., sample] -> [...]; zero where either sample is empty.
    """
    mean_x, mean_y = masked_mean(x, in_x), masked_mean(y, in_y)
    gaps = [mean_x - mean_y]
    x, y = x - mean_x[..., None, :], y - mean_y[..., None, :]
    gaps += [masked_mean(x**order, in_x) - masked_mean(y**order, in_y) for order in range(2, moments + 1)]
    both = in_x.any(-1) & in_y.any(-1)
    return torch.linalg.vector_norm(torch.stack(gaps), dim=-1).sum(0) * both


def overlap(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    r"""Mean square of :math:`X^\top Y`, with rows that are centred over the sample and scaled to length one.

    Zero if every feature of x is orthogonal to every feature of y.

    Shapes:
        x, y [..., sample, dim], masks in_x, in_y [..., sample] -> [...].
    """
    x, y = _unit_rows(x, in_x), _unit_rows(y, in_y)
    return (x.transpose(-1, -2) @ y).square().mean((-1, -2))


def _unit_rows(x: Tensor, mask: Tensor) -> Tensor:
    centred = (x - masked_mean(x, mask)[..., None, :]) * mask[..., None]
    return centred / (torch.linalg.vector_norm(centred.detach(), dim=-1, keepdim=True) + 1e-6)


def _pairs(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of modalities: [modality, ...] -> first and second members [pair, ...]."""
    first, second = zip(*combinations(tensor.unbind(), 2), strict=True)
    return torch.stack(first), torch.stack(second)


class MISA(FusionModule):
    r"""Each modality is split into a shared and a private vector; a transformer fuses them all.

    Hazarika et al. 2020, https://arxiv.org/abs/2005.03545

    With the utterance vectors :math:`u_m`, one encoder :math:`c_m = \sigma(W_c u_m)` that all modalities share and one
    private encoder :math:`p_m = \sigma(W_{p,m} u_m)` per modality,

    .. math::
        logits &= MLP\big([Transformer(p_1, ..., p_M, c_1, ..., c_M)]\big) \\
        loss &= cross\ entropy + \alpha \operatorname{mean}_{m<n} CMD_5(c_m, c_n)
        + \beta \Big(\sum_m D(c_m, p_m) + \sum_{m<n} D(p_m, p_n)\Big)
        + \gamma \operatorname{mean}_m \lVert u_m - W_{r,m}(c_m + p_m) \rVert^2

    where :math:`D` is :func:`overlap`, centred and scaled as in the authors' code, and the squared error is a mean over
    features. The losses compare the utterances of a batch; the logits of an utterance do not depend on the others.
    Default weights are the paper's for MOSI (for MOSEI they are 0.7, 0.3, 0.7), sizes those of the code: width 128, one
    layer of two heads and 2,048 hidden units.

    Differs from the code: the encoder that all methods share replaces BERT or the LSTMs and the projection to one
    width; the layer is pre-LayerNorm; missing modalities are masked in the transformer, in the MLP and in all losses.

    Args:
        hidden: Width of all vectors.
        heads: Number of heads of the transformer layer.
        ffn: Hidden width of the transformer layer.
        similarity: Weight alpha of the similarity loss.
        difference: Weight beta of the difference loss.
        reconstruction: Weight gamma of the reconstruction loss.
        dropout: Dropout probability of the encoders.
        head_dropout: Dropout probability in the MLP.
    """

    title = "MISA"
    revision = 1
    paper = "https://arxiv.org/abs/2005.03545"
    least = 2
    unimodal_encoders = ("encoders", "private")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 128,
        heads: int = 2,
        ffn: int = 2048,
        similarity: float = 1.0,
        difference: float = 0.3,
        reconstruction: float = 1.0,
        dropout: float = 0.15,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(dims, num_classes)
        self.similarity, self.difference, self.reconstruction = similarity, difference, reconstruction
        modalities = len(self.dims)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.shared = nn.Linear(hidden, hidden)
        self.private = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in self.dims})
        self.decoders = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in self.dims} if reconstruction else {})
        self.fusion = TransformerLayer(hidden, heads, ffn, dropout=0.1)
        self.head = nn.Sequential(
            nn.Linear(2 * modalities * hidden, modalities * hidden),
            nn.Dropout(head_dropout),
            nn.ReLU(),
            nn.Linear(modalities * hidden, num_classes),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self._classify(*self._subspaces(self.encoders(batch)), self.present(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, similarity of shared vectors, difference of private ones, and reconstruction from both."""
        vectors, present = self.encoders(batch), self.present(batch)
        private, shared = self._subspaces(vectors)
        losses = {"cross_entropy": self.cross_entropy(self._classify(private, shared, present), batch)}
        if self.similarity:
            gaps = central_moment_discrepancy(*_pairs(shared), *_pairs(present))
            losses["similarity"] = self.similarity * gaps.mean()
        if self.difference:
            overlaps = torch.cat(
                [overlap(shared, private, present, present), overlap(*_pairs(private), *_pairs(present))]
            )
            losses["difference"] = self.difference * overlaps.sum()
        if self.reconstruction:
            decoded = zip(self.decoders.values(), private + shared, strict=True)
            errors = torch.stack([decode(sum_) for decode, sum_ in decoded]) - vectors
            losses["reconstruction"] = self.reconstruction * masked_mean(errors.square(), present).mean()
        return losses

    def _subspaces(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Private and shared vectors [modality, utterance, hidden]."""
        private = torch.stack([encode(u) for encode, u in zip(self.private.values(), vectors, strict=True)])
        return private.sigmoid(), self.shared(vectors).sigmoid()

    def _classify(self, private: Tensor, shared: Tensor, present: Tensor) -> Tensor:
        tokens = torch.cat([private, shared]).transpose(0, 1)
        mask = torch.cat([present, present]).T
        return self.head((self.fusion(tokens, None, mask[:, None]) * mask[..., None]).flatten(1))
