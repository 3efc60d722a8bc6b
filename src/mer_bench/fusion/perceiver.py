"""Perceiver: a small array of latent vectors attends to the tokens of all modalities (Jaegle et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.fusion.utterance import token_encoders, tokens_with_summary


class Perceiver(FusionModule):
    r"""A few learnt latent vectors attend to the tokens of all modalities at once, and then to each other.

    Jaegle et al. 2021, https://arxiv.org/abs/2103.03206

    With all tokens of all modalities in one array :math:`x`, each with its position and its modality's embedding
    :math:`e_m`, and the latents :math:`z`, every block is

    .. math:: z \leftarrow CrossAttention(z, x), \quad z \leftarrow SelfAttention^{layers}(z)

    and the logits are a linear layer of the mean latent. As in the paper, the blocks share their weights except for the
    first cross-attention, and cross-attention has one head. The cost is linear in the number of tokens.

    Differs from the paper, which reads raw pixels and samples (512 latents of width 1024, eight blocks of six layers on
    ImageNet): the tokens come from the shared encoder, a quarter as many as frames, and its utterance vector is one
    more token; since all have the same width, embeddings and sine-cosine positions are added, where the paper
    concatenates Fourier features; both inputs of a cross-attention share a LayerNorm; the activation is a ReLU.

    Args:
        hidden: Width of tokens, latents and feed-forward blocks.
        latents: Number of latents.
        blocks: Number of blocks; in each of them the latents read the tokens once.
        layers: Number of self-attention layers per block.
        heads: Number of heads of the self-attention.
        dropout: Dropout probability of the encoders and the layers.
    """

    title = "Perceiver"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    paper = "https://arxiv.org/abs/2103.03206"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        latents: int = 16,
        blocks: int = 2,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)

        def layer(heads: int) -> TransformerLayer:
            return TransformerLayer(hidden, heads, hidden, dropout=dropout, attention_dropout=0.0)

        self.blocks = blocks
        self.encoders = token_encoders(self.dims, hidden, dropout=dropout)
        self.embeddings = nn.Parameter(0.02 * torch.randn(len(self.dims), hidden))
        self.latents = nn.Parameter(0.02 * torch.randn(latents, hidden))
        self.read = nn.ModuleList(layer(1) for _ in range(min(blocks, 2)))
        self.think = nn.ModuleList(layer(heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = [tokens_with_summary(encoder, batch) for encoder in self.encoders.values()]
        values = torch.cat(
            [sequence.values + embedding for sequence, embedding in zip(sequences, self.embeddings, strict=True)], 1
        )
        inputs = PaddedSequence(values, torch.cat([sequence.mask for sequence in sequences], 1))
        return self.head(self.perceive(inputs).mean(1))

    def perceive(self, inputs: PaddedSequence) -> Tensor:
        """[utterance, token, hidden] -> [utterance, latent, hidden]."""
        z = self.latents.expand(len(inputs.values), -1, -1)
        allowed = inputs.mask.new_ones(1, 1, len(self.latents))
        for block in range(self.blocks):
            z = self.read[min(block, 1)](z, inputs.values, inputs.mask[:, None])
            for layer in self.think:
                z = layer(z, None, allowed)
        return self.norm(z)
