"""MSAF: attention over blocks of the channels of all modalities (Su et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean, masked_softmax
from mer_bench.fusion.streams import Streams


class SplitAttention(nn.Module):
    """The module: channels are split into blocks, and each block is multiplied by one attention weight per channel.

    The blocks of all modalities are averaged over time, added up and reduced to the joint representation, from which a
    linear layer computes the scores of every block; a softmax over all blocks gives the weights. Blocks of an absent
    modality have weight zero.

    Arguments are those of :class:`MSAF`; the channels of each modality must be a multiple of ``block``.

    Shapes:
        modalities x [utterance, time, width] -> the same; lengths and widths may differ between modalities.
    """

    def __init__(
        self, widths: Sequence[int], block: int, *, reduction: int = 4, dropout: float = 0.2, lowest: float = 0.0
    ) -> None:
        super().__init__()
        for width in widths:
            if width % block:
                raise ValueError(f"width {width} is not divisible into blocks of {block} channels")
        self.block, self.dropout, self.lowest = block, dropout, lowest
        self.counts = [width // block for width in widths]
        self.reduce = nn.Linear(block, block // reduction)
        self.norm = nn.LayerNorm(block // reduction)
        self.expand = nn.Linear(block // reduction, sum(widths))

    def forward(self, tokens: Sequence[PaddedSequence]) -> list[PaddedSequence]:
        """Drop blocks, compute the attention and apply it."""
        scale = F.dropout(tokens[0].values.new_ones(len(tokens[0].mask), sum(self.counts)), self.dropout, self.training)
        blocks = [
            torch.unflatten(x.values, -1, (-1, self.block)) * keep[:, None, :, None]
            for x, keep in zip(tokens, torch.split(scale, self.counts, 1), strict=True)
        ]
        means = [masked_mean(values.sum(2), x.mask) for values, x in zip(blocks, tokens, strict=True)]
        joint = self.norm(self.reduce(torch.stack(means).sum(0))).relu()
        scores = self.expand(joint).unflatten(-1, (-1, self.block))  # [utterance, block, channel]
        present = [x.mask.any(1, keepdim=True).expand(-1, count) for x, count in zip(tokens, self.counts, strict=True)]
        attention = masked_softmax(scores, torch.cat(present, 1)[..., None].expand_as(scores), 1)
        weights = torch.split(self.lowest + (1 - self.lowest) * attention, self.counts, 1)
        return [
            PaddedSequence((values * weight[:, None]).flatten(2), x.mask)
            for values, weight, x in zip(blocks, weights, tokens, strict=True)
        ]


class MSAF(FusionModule):
    r"""Unimodal streams whose blocks of channels compete for attention, and whose logits are added.

    Su et al. 2020, https://arxiv.org/abs/2012.07175

    With :math:`x_{m,k}` the k-th block of modality m's tokens

    .. math:: z = relu\Big(LayerNorm\big(W \sum_{m,k} mean_t\, x_{m,k}\big)\Big), \quad
        x'_{m,k} = \operatorname{softmax}_{m,k}(W_{m,k} z + b_{m,k}) \odot x_{m,k}, \quad
        logits = \sum_m logits_m(x'_m)

    with the softmax over all blocks, for each channel of a block on its own (:class:`SplitAttention`). At the sites of
    the authors' network for RAVDESS, widths (1024, 32) in blocks of 16 and (2048, 64) in blocks of 32, these modules
    have 24,644 parameters, with the streams 25,940,724, as theirs.

    Differs from the authors' code: LayerNorm replaces batch normalisation, so that an utterance does not depend on the
    others of its batch; blocks that are not dropped are scaled up once, where the code does so twice; an absent
    modality's blocks get no attention. Their streams are a 3D ResNeXt-50 and an MFCC CNN; here they are the encoder
    that all methods share, with one more convolution for each site after the first
    (:class:`~mer_bench.fusion.streams.Streams`), and sites read a quarter as many tokens as frames. These streams are
    narrow, so that there are few blocks instead of 66.

    Args:
        hidden: Width of tokens and vectors.
        sites: Number of fusion sites.
        block: Channels of a block at the first site; each further site doubles it, as the authors' two do.
        reduction: Factor by which the joint representation is smaller than a block.
        block_dropout: Probability that a block is dropped in training.
        lowest: Least attention weight; the weights are mapped linearly to the range from it to 1.
        dropout: Dropout probability of the encoders.
    """

    title = "MSAF"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    paper = "https://arxiv.org/abs/2012.07175"
    unimodal_encoders = ("streams.encoders",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        sites: int = 2,
        block: int = 16,
        reduction: int = 4,
        block_dropout: float = 0.2,
        lowest: float = 0.0,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        modules = [
            SplitAttention(
                [hidden] * len(self.dims), block * 2**site, reduction=reduction, dropout=block_dropout, lowest=lowest
            )
            for site in range(sites)
        ]
        self.streams = Streams(self.dims, hidden, num_classes, modules, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.streams(batch).sum(0)
