"""Attention and the pre-LayerNorm transformer of MulT, CFN-SR and related methods."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import PaddedSequence
from mer_bench.fusion.layers import fairseq_positions, last_token, perceptron


def with_source(allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Let a query without an allowed source attend to all, since a softmax over none is not finite.

    Shapes:
        allowed [batch, target, source] -> mask to attend with, as ``allowed``, and whether a query had a source
        [batch, target, 1].
    """
    some = allowed.any(-1, keepdim=True)
    return allowed | ~some, some


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017); a query may have no source to attend to.

    Shapes:
        query [batch, target, dim], source [batch, source, dim], allowed [batch or 1, target or 1, source]
        -> [batch, target, dim]; zero for a query without an allowed source.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, source: Tensor, allowed: Tensor, some: Tensor | None = None) -> Tensor:
        """Attend from ``query`` to the ``allowed`` positions of ``source``.

        ``allowed`` and ``some`` may come from :func:`with_source`, so that several layers share them.
        """
        if some is None:
            allowed, some = with_source(allowed)
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, query), (self.key, source), (self.value, source))
        )
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None], dropout_p=dropout)
        return self.output(heads.transpose(1, 2).flatten(2)) * some


class TransformerLayer(nn.Module):
    """Pre-LayerNorm transformer layer; with a source it is MulT's cross-modal layer (Tsai et al. 2019, section 3.2).

    ``dropout`` applies to the residual branches and, unless they are given, to attention weights and after the ReLU.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn: int,
        *,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        relu_dropout: float | None = None,
    ) -> None:
        super().__init__()
        relu_dropout = dropout if relu_dropout is None else relu_dropout
        self.attention = Attention(dim, heads, dropout=dropout if attention_dropout is None else attention_dropout)
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Dropout(relu_dropout), nn.Linear(ffn, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor | None, allowed: Tensor, some: Tensor | None = None) -> Tensor:
        """[batch, target, dim] -> the same shape; the source's LayerNorm is the target's, as in MulT.

        ``allowed`` and ``some`` are those of :meth:`Attention.forward`.
        """
        query = self.attention_norm(x)
        source = query if source is None else self.attention_norm(source)
        x = x + self.dropout(self.attention(query, source, allowed, some))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


def scaled_with_positions(values: Tensor) -> Tensor:
    """Input of MulT's transformers: sqrt(dim) * values + fairseq's positions, [batch, time, dim] -> the same shape."""
    _, time, dim = values.shape
    return math.sqrt(dim) * values + fairseq_positions(time, dim, values.device)


class TransformerEncoder(nn.Module):
    """Pre-LayerNorm transformer encoder of MulT and CFN-SR: scaled input, sinusoidal positions, optional causal mask.

    With ``source`` every layer attends from the target sequence to the source's (positions added to both). The
    ``dropouts`` are those of :class:`TransformerLayer`.

    Shapes:
        target [batch, target, dim] (and source [batch, source, dim]) -> [batch, target, dim]; padding stays zero.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        layers: int,
        causal: bool = False,
        embedding_dropout: float = 0.0,
        **dropouts: float,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, 4 * dim, **dropouts) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, target: PaddedSequence, source: PaddedSequence | None = None) -> PaddedSequence:
        """Encode the target, from itself or from the source."""
        x = self._embed(target)
        other = None if source is None else self._embed(source)
        masks = with_source(self._allowed(target.mask, (source or target).mask))
        for layer in self.layers:
            x = layer(x, other, *masks)
        return PaddedSequence(self.norm(x) * target.mask[..., None], target.mask)

    def last(self, sequence: PaddedSequence) -> Tensor:
        """The last token of a sequence that is encoded from itself; the last layer computes no other token.

        [batch, time, dim] -> [batch, dim]; zero for an empty sequence.
        """
        x = self._embed(sequence)
        masks = with_source(self._allowed(sequence.mask, sequence.mask))
        *before, final = self.layers
        for layer in before:
            x = layer(x, None, *masks)
        # the last token may attend to all of them
        token = final(last_token(x, sequence.mask)[:, None], x, sequence.mask[:, None])
        return self.norm(token[:, 0]) * sequence.mask.any(1, keepdim=True)

    def _allowed(self, target: Tensor, source: Tensor) -> Tensor:
        """Source steps that each target step may attend to, from both masks: [batch, target or 1, source]."""
        allowed = source[:, None]
        if not self.causal:
            return allowed
        # Step t of the target may attend up to step t of the source, plus the difference of the two lengths.
        ahead = (source.sum(1) - target.sum(1)).abs()
        step = torch.arange(max(target.shape[1], source.shape[1]), device=target.device)
        return allowed & (step[: source.shape[1]] <= step[: target.shape[1], None] + ahead[:, None, None])

    def _embed(self, sequence: PaddedSequence) -> Tensor:
        return self.embedding_dropout(scaled_with_positions(sequence.values))


class ResidualHead(nn.Module):
    """MulT's classifier, W (z + W_2 relu(W_1 z)): [..., width] -> [..., num_classes]."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.residual = perceptron(width, width, width, dropout=dropout)
        self.output = nn.Linear(width, num_classes)

    def forward(self, vector: Tensor) -> Tensor:
        """Classify."""
        return self.output(vector + self.residual(vector))
