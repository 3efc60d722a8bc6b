"""MulT: each modality attends to every other one by cross-modal transformers (Tsai et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import TemporalConvolution
from mer_bench.fusion.transformer import ResidualHead, TransformerEncoder


class MulT(FusionModule):
    r"""Directional cross-modal transformers between unaligned sequences.

    Tsai et al. 2019, https://arxiv.org/abs/1906.00295

    With :math:`x_m` the projected sequence of modality m and "last" its last real step,

    .. math::
        z_m = last(Memory_m([CM_{j \to m}(x_m, x_j)]_{j \neq m})), \quad z = [z_m]_m, \quad
        logits = W(z + W_2 relu(W_1 z))

    Sizes, dropouts and mask are those of the authors' code: width 30, 5 heads, 5 cross-modal layers, and a memory of
    max(layers, 3) layers, hence also 5. At the MOSEI widths (text 300, audio 74, vision 35) with one output that is
    1,073,731 parameters. As there, ``causal`` masks the future in all encoders; in a cross-modal encoder a step may
    also attend ahead by the difference of the two lengths, so that the last target step reads the whole source.

    Differs from the authors' code: padding is masked everywhere, and "last" is the last real step of each utterance,
    where their code does not mask padding. With two modalities there is one cross-modal encoder per target; with one
    modality there is only its memory, plain self-attention.

    Args:
        dim: Width of the transformers; ``heads`` must divide it.
        heads: Number of heads of each attention.
        layers: Number of layers of each cross-modal encoder.
        kernel: Kernel size of the temporal convolution (the paper searches 1, 3 and 5).
        stride: Stride of the temporal convolution. Not in the paper: attention is quadratic in the length, so that
            hundreds of frames need for example ``stride=4, kernel=5``.
        causal: Whether the future is masked in all encoders.
        attention_dropout: Dropout probability of the attention weights in the memories, and where text is the source
            (as in the authors' code).
        relu_dropout: Dropout probability within the feed-forward blocks.
        residual_dropout: Dropout probability of each residual branch.
        embedding_dropout: Dropout probability of the encoders' inputs, and of the text features before the convolution.
        output_dropout: Dropout probability within the residual block before the classifier.
    """

    title = "MulT"
    reads = frozenset({"frames"})
    revision = 1
    paper = "https://arxiv.org/abs/1906.00295"
    unimodal_encoders = ("projections",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        dim: int = 30,
        heads: int = 5,
        layers: int = 5,
        kernel: int = 1,
        stride: int = 1,
        causal: bool = True,
        attention_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        residual_dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, num_classes)

        def encoder(width: int, attention_dropout: float, depth: int) -> TransformerEncoder:
            return TransformerEncoder(
                width,
                heads=heads,
                layers=depth,
                causal=causal,
                dropout=residual_dropout,
                attention_dropout=attention_dropout,
                relu_dropout=relu_dropout,
                embedding_dropout=embedding_dropout,
            )

        self.text_dropout = nn.Dropout(embedding_dropout)
        self.projections = nn.ModuleDict(
            {
                name: TemporalConvolution(width.frames, dim, kernel=kernel, stride=stride)
                for name, width in self.dims.items()
            }
        )
        self.crossmodal = nn.ModuleDict(
            {
                f"{source}_to_{target}": encoder(dim, attention_dropout if source == "text" else 0.0, layers)
                for target, source in permutations(self.dims, 2)
            }
        )
        memory_width = dim * max(len(self.dims) - 1, 1)
        self.memory = nn.ModuleDict(
            {name: encoder(memory_width, attention_dropout, max(layers, 3)) for name in self.dims}
        )
        width = memory_width * len(self.dims)
        self.head = ResidualHead(width, num_classes, dropout=output_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = {name: project(self._input(batch, name)) for name, project in self.projections.items()}
        return self.head(torch.cat([self._read(target, sequences) for target in self.dims], -1))

    def _input(self, batch: Batch, name: str) -> PaddedSequence:
        sequence = batch.frames[name]
        if name != "text":
            return sequence
        return PaddedSequence(self.text_dropout(sequence.values), sequence.mask)

    def _read(self, target: str, sequences: Mapping[str, PaddedSequence]) -> Tensor:
        """Last step of the target's memory of all other modalities: [utterance, memory width]."""
        own = sequences[target]
        views = [
            self.crossmodal[f"{source}_to_{target}"](own, sequences[source]).values
            for source in sequences
            if source != target
        ]
        return self.memory[target].last(PaddedSequence(torch.cat(views or [own.values], -1), own.mask))
