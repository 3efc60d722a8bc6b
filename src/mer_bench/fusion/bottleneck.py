"""MBT: one transformer per modality; they exchange information in a few shared tokens (Nagrani et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.fusion.utterance import token_encoders, tokens_with_summary


class SideBySide(nn.Module):
    """One transformer layer per modality: M sequences [utterance, time, dim] with their masks -> the same shapes."""

    def __init__(self, modalities: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, 4 * dim, dropout=dropout, attention_dropout=0.0) for _ in range(modalities)
        )

    def forward(self, states: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """Self-attention within each sequence."""
        return [layer(x, None, mask[:, None]) for layer, x, mask in zip(self.layers, states, masks, strict=True)]

    def first(self, states: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """The output at the first token of each sequence: M x [utterance, dim]."""
        return [
            layer(x[:, :1], x, mask[:, None])[:, 0] for layer, x, mask in zip(self.layers, states, masks, strict=True)
        ]


class BottleneckTransformer(nn.Module):
    """One transformer per modality; from ``fusion_layer`` on all of them read and write the same bottleneck tokens.

    Arguments are those of :class:`Bottleneck`; if ``fusion_layer`` is ``layers``, there are no bottleneck tokens.

    Shapes:
        sequences x [utterance, time, dim] -> [modality, utterance, dim], the output at each sequence's first token.
    """

    def __init__(
        self, modalities: int, dim: int, heads: int, layers: int, *, fusion_layer: int, bottlenecks: int, dropout: float
    ) -> None:
        super().__init__()
        self.fusion_layer = fusion_layer
        self.layers = nn.ModuleList(SideBySide(modalities, dim, heads, dropout) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(modalities))
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(bottlenecks, dim)) if fusion_layer < layers else None

    def forward(self, sequences: Sequence[PaddedSequence]) -> Tensor:
        """Encode each sequence alone, then together with the bottlenecks."""
        states = [sequence.values for sequence in sequences]
        masks = [sequence.mask for sequence in sequences]
        present = torch.stack([mask.any(1) for mask in masks])
        *before, final = self.layers
        for layer in before[: self.fusion_layer]:
            states = layer(states, masks)
        if self.bottlenecks is not None:
            count = len(self.bottlenecks)
            shared = self.bottlenecks.expand(len(states[0]), -1, -1)
            masks = [F.pad(mask, (0, count), value=True) for mask in masks]
            for layer in before[self.fusion_layer :]:
                joined = layer([torch.cat([x, shared], 1) for x in states], masks)
                states = [x[:, :-count] for x in joined]
                shared = self.exchange(torch.stack([x[:, -count:] for x in joined]), present)
            states = [torch.cat([x, shared], 1) for x in states]
        tokens = final.first(states, masks)  # the other tokens are not needed
        return torch.stack([norm(x) for norm, x in zip(self.norms, tokens, strict=True)])

    def exchange(self, copies: Tensor, present: Tensor) -> Tensor:
        """Mean over the modalities that are present: [modality, utterance, token, dim] -> [utterance, token, dim]."""
        weight = present[:, :, None, None].to(copies.dtype)
        return (copies * weight).sum(0) / weight.sum(0).clamp(min=1)


class Bottleneck(FusionModule):
    r"""Transformers side by side that exchange only as much information as a few tokens hold.

    Nagrani et al. 2021, https://arxiv.org/abs/2107.00135

    With modality m's tokens :math:`z_m`, the first of which is its classification token, and the bottlenecks :math:`b`,
    each layer from the fusion layer on is

    .. math:: [z_m ; b_m] \leftarrow Transformer_m([z_m ; b]), \quad b \leftarrow \operatorname{mean}_m b_m

    and the logits are the mean over modalities of one linear layer on the classification tokens. Since every layer
    reads the b of the layer before, modalities first receive information from each other one layer after the fusion
    layer.

    Differs from the paper, whose transformers are ViT-Base on patches (12 layers, width 768, fusion from layer 8): the
    tokens come from the shared encoder, a quarter as many as frames, and the classification token is initially its
    utterance vector instead of a constant; positions are sines and cosines; feed-forward blocks have a ReLU. In the
    authors' code the loss is the mean of one cross-entropy per modality, of whose logits only prediction takes the
    mean, and one token more than the option says is shared (5 for 4). A missing modality enters neither the mean of the
    bottlenecks nor that of the logits.

    Args:
        hidden: Width throughout.
        heads: Number of heads of each attention.
        layers: Number of layers of each transformer.
        fusion_layer: Number of layers before fusion: 0 is early, ``layers`` is late fusion without bottlenecks.
        bottlenecks: Number of bottleneck tokens (the paper's best is 4).
        dropout: Dropout probability of the encoders and the transformers.
    """

    title = "MBT"
    reads = frozenset({"functionals", "frames"})
    may_be_zero = frozenset({"fusion_layer"})
    revision = 1
    paper = "https://arxiv.org/abs/2107.00135"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        heads: int = 4,
        layers: int = 3,
        fusion_layer: int = 1,
        bottlenecks: int = 4,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        if layers < 1:
            raise ValueError(f"layers {layers} is too small: a transformer needs at least 1 layer")
        if not 0 <= fusion_layer <= layers:
            raise ValueError(f"fusion_layer {fusion_layer} is not between 0 and the {layers} layers")
        if bottlenecks < 1:
            raise ValueError(f"bottlenecks {bottlenecks} is not positive; for late fusion set fusion_layer to layers")
        self.encoders = token_encoders(self.dims, hidden, dropout=dropout)
        self.transformer = BottleneckTransformer(
            len(self.dims), hidden, heads, layers, fusion_layer=fusion_layer, bottlenecks=bottlenecks, dropout=dropout
        )
        self.head = nn.Linear(hidden, num_classes)
        self.unimodal_encoders = ("encoders", *(f"transformer.layers.{index}" for index in range(fusion_layer)))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = [tokens_with_summary(encoder, batch) for encoder in self.encoders.values()]
        present = torch.stack([sequence.mask.any(1) for sequence in sequences])
        # all modalities if none is present
        weight = (present | ~present.any(0))[..., None].to(sequences[0].values.dtype)
        return (self.head(self.transformer(sequences)) * weight).sum(0) / weight.sum(0)
