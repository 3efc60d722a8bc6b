"""Intermediate attention: cross-attention between the modalities' feature maps (Chumachenko et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import TemporalConvolution, masked_softmax
from mer_bench.fusion.transformer import Attention
from mer_bench.fusion.utterance import token_encoders


class AttentionFusion(nn.Module):
    """Scale each token of the target by the attention that it receives from the other modalities.

    See :class:`CrossAttention`.

    Shapes:
        target [utterance, time, dim], sources x [utterance, other time, dim] -> [utterance, time, dim].
    """

    def __init__(self, sources: int, dim: int, heads: int, *, scale: bool) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.queries = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(sources))
        self.keys = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(sources))

    def forward(self, target: PaddedSequence, sources: Sequence[PaddedSequence]) -> PaddedSequence:
        """Mean over the sources that are present; without any, the target stays as it is."""
        paid = torch.stack(
            [
                self._attention_paid(query(source.values), key(target.values), source.mask, target.mask)
                for query, key, source in zip(self.queries, self.keys, sources, strict=True)
            ]
        )
        present = torch.stack([source.mask.any(1) for source in sources]).sum(0)[:, None]
        weight = paid.sum(0) / present.clamp(min=1) + (present == 0)
        return PaddedSequence(target.values * weight[..., None], target.mask)

    def _attention_paid(self, query: Tensor, key: Tensor, asking: Tensor, asked: Tensor) -> Tensor:
        """Softmax over the target's tokens, summed over the source's: [utterance, target time]."""
        q, k = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (query, key))
        scores = q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
        weights = masked_softmax(scores, asked[:, None, None]).mean(1)
        paid = (weights * asking[..., None]).sum(1)
        if self.scale:
            paid = paid * asked.sum(1, keepdim=True) / asking.sum(1, keepdim=True).clamp(min=1)
        return paid


class TransformerFusion(nn.Module):
    """Add to the target's tokens the result of attention to the other modalities; see :class:`CrossAttention`.

    Shapes:
        target [utterance, time, dim], sources x [utterance, other time, dim] -> [utterance, time, dim].
    """

    def __init__(self, sources: int, dim: int, heads: int, *, scale: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(dim, heads) for _ in range(sources))

    def forward(self, target: PaddedSequence, sources: Sequence[PaddedSequence]) -> PaddedSequence:
        """Sum of the target and the results for all sources that are present."""
        read = [block(target.values, source) for block, source in zip(self.blocks, sources, strict=True)]
        values = torch.stack([target.values, *read]).sum(0)
        return PaddedSequence(values * target.mask[..., None], target.mask)


class CrossBlock(nn.Module):
    """Pre-LayerNorm attention from target to source without a residual, then a feed-forward block with one.

    Shapes:
        target [utterance, time, dim], source [utterance, other time, dim] -> [utterance, time, dim]; zero without a
        source.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.target_norm, self.source_norm, self.ffn_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, target: Tensor, source: PaddedSequence) -> Tensor:
        """Attend to the source."""
        read = self.attention(self.target_norm(target), self.source_norm(source.values), source.mask[:, None])
        return (read + self.ffn(self.ffn_norm(read))) * source.mask.any(1)[:, None, None]


class LateConvolution(nn.Module):
    """A temporal convolution and a ReLU: [utterance, time, dim] -> the same shape."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = TemporalConvolution(dim, dim, kernel=3, bias=True)

    def forward(self, tokens: PaddedSequence) -> PaddedSequence:
        """Convolve; padding stays zero."""
        tokens = self.convolution(tokens)
        return PaddedSequence(F.relu(tokens.values), tokens.mask)


FORMS: dict[str, type[AttentionFusion] | type[TransformerFusion]] = {
    "attention": AttentionFusion,
    "transformer": TransformerFusion,
}


class CrossAttention(FusionModule):
    r"""Fuse two modalities' feature maps between the early and the late convolutions of their encoders.

    Chumachenko et al. 2022, https://arxiv.org/abs/2201.11095

    With the early tokens :math:`x_m`, projections :math:`W` for each ordered pair and :math:`d` the width of a head,

    .. math:: A_{j \to m} = \operatorname{softmax}\big(x_j W_q (x_m W_k)^\top / \sqrt{d}\big)

    "attention" sums over the queries, which gives the attention that every token of m receives from j, and scales the
    tokens by it, :math:`x'_{m,t} = x_{m,t} \sum_s A_{j \to m}[s, t]`; no values of j enter m. "transformer" adds a
    transformer block in which m's tokens query j's: :math:`x'_m = x_m + r + FFN(LN(r))` with :math:`r` = attention from
    LN(x_m) to LN(x_j). Two further convolutions follow, then pooling, concatenation and one linear layer.

    Differs from the authors' code: the shared encoder replaces EfficientFace and the MFCC CNN (so that the 1,854,766
    and 1,938,414 parameters of that code are not reproduced), all widths are equal (there 128 for audio, 64 for the
    early video tokens), there is no BatchNorm, and the projections of the transformer block have biases. With three
    modalities a token is scaled by the mean over the other modalities that are present ("attention") or attends to each
    of them ("transformer"). The paper's modality dropout concerns training and is not part of this method.

    Args:
        form: "attention" (the paper's best) or "transformer".
        hidden: Width of tokens and vectors.
        heads: Number of attention heads (the paper: 1 or 4).
        dropout: Dropout probability of the encoders.
        scale: Whether the weights of the form "attention" average to one (not in the paper). Otherwise they average to
            the quotient of the two lengths: a single token of text scales hundreds of frames to nearly zero.
    """

    title = "Intermediate attention"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    paper = "https://arxiv.org/abs/2201.11095"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        form: str = "attention",
        hidden: int = 128,
        heads: int = 1,
        dropout: float = 0.15,
        scale: bool = False,
    ) -> None:
        super().__init__(dims, num_classes)
        if form not in FORMS:
            raise unknown("form", form, FORMS)
        if hidden % heads:
            raise ValueError(f"width {hidden} is not divisible by {heads} heads")
        self.encoders = token_encoders(self.dims, hidden, dropout=dropout)
        self.fusion = nn.ModuleDict(
            {name: FORMS[form](len(self.dims) - 1, hidden, heads, scale=scale) for name in self.dims}
        )
        self.late = nn.ModuleDict(
            {name: nn.Sequential(LateConvolution(hidden), LateConvolution(hidden)) for name in self.dims}
        )
        self.head = nn.Linear(hidden * len(self.dims), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        early = {name: encoder.tokens(batch) for name, encoder in self.encoders.items()}
        vectors = []
        for name, encoder in self.encoders.items():
            tokens = self.fusion[name](early[name], [early[other] for other in early if other != name])
            vectors.append(encoder.pool(batch, self.late[name](tokens)))
        return self.head(torch.cat(vectors, -1))
