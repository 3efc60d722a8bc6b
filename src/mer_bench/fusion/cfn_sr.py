"""CFN-SR: a modality reduced by self-attention guides attention over the others (Fu et al. 2021, arXiv 2111.02172)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import GuidedAttention, SelfSelection, TokenEncoder, last_token


class CrossModalBlock(nn.Module):
    """The paper's block: intra-modal selection of the guide, then guided attention over the target with a residual.

    385,345 parameters at the paper's widths (target 2048, guide 64, hidden 64), as the authors' code.

    Args:
        target: Width of the target's tokens.
        guide: Width of the guide's tokens.
        hidden: Width of the additive attention.
        heads: Of the self-attention.
        layers: Of the self-attention.
        self_attention: Ablation switch; without it the guide's last token is taken as it is.
        residual: Ablation switch; see GuidedAttention.
        scale: See GuidedAttention.

    Shapes:
        target [utterance, time, target], guide [utterance, other time, guide] -> [utterance, time, target].
    """

    def __init__(
        self,
        target: int,
        guide: int,
        *,
        hidden: int = 64,
        heads: int = 8,
        layers: int = 5,
        self_attention: bool = True,
        residual: bool = True,
        scale: bool = False,
    ) -> None:
        super().__init__()
        self.select = (
            SelfSelection(guide, heads=heads, layers=layers, dropout=0.1, embedding_dropout=0.3)
            if self_attention
            else None
        )
        self.attend = GuidedAttention(target, guide, hidden, residual=residual, scale=scale)

    def forward(self, target: PaddedSequence, guide: PaddedSequence) -> PaddedSequence:
        """The target's tokens, reinforced."""
        vector = last_token(guide.values, guide.mask) if self.select is None else self.select(guide)
        return self.attend(target, vector)


class CFNSR(FusionModule):
    """Cross-modal fusion network with self-attention and residual structure.

    The guide's tokens pass a causal transformer; its last token steers additive attention over each other modality's
    tokens, which are reweighted and added to themselves; the vectors of all modalities are concatenated and
    classified by one linear layer. The paper has one pair, audio guiding vision, with a 3D ResNeXt-50 and an MFCC CNN
    trained end to end; on frozen features the shared utterance encoder stands for both, and any other modality is
    guided in the same way by a block of its own.

    Args:
        dims: Width of each modality, at least two.
        num_classes: Number of emotions.
        guide: The guiding modality; by default audio where there is audio, else the first.
        hidden: Width of tokens, vectors and additive attention.
        heads: Of the self-attention.
        layers: Of the self-attention.
        dropout: Of the encoders.
        cross_modal: Ablation switch: without it, encoders and concatenation alone (the authors' first ablation).
        self_attention: Ablation switch: without it the guide's last token is used as it is.
        residual: Ablation switch: without it the reweighted tokens replace the target's.
        scale: Not in the paper: attention weights that average to one instead of summing to one.
    """

    paper = "arXiv 2111.02172"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        guide: str | None = None,
        hidden: int = 64,
        heads: int = 8,
        layers: int = 5,
        dropout: float = 0.15,
        cross_modal: bool = True,
        self_attention: bool = True,
        residual: bool = True,
        scale: bool = False,
    ) -> None:
        super().__init__(dims, num_classes)
        if guide is not None and guide not in self.dims:
            raise unknown("guide", guide, self.dims)
        self.guide = guide or ("audio" if "audio" in self.dims else next(iter(self.dims)))
        self.encoders = nn.ModuleDict(
            {name: TokenEncoder(dim, hidden, dropout=dropout) for name, dim in self.dims.items()}
        )
        self.blocks = nn.ModuleDict(
            {
                name: CrossModalBlock(
                    hidden,
                    hidden,
                    hidden=hidden,
                    heads=heads,
                    layers=layers,
                    self_attention=self_attention,
                    residual=residual,
                    scale=scale,
                )
                for name in self.dims
                if cross_modal and name != self.guide
            }
        )
        self.head = nn.Linear(hidden * len(self.dims), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        tokens = {name: encoder.tokens(batch.features[name]) for name, encoder in self.encoders.items()}
        guide = tokens[self.guide]
        for name, block in self.blocks.items():
            tokens[name] = block(tokens[name], guide)
        vectors = [encoder.pool(batch.features[name], tokens[name]) for name, encoder in self.encoders.items()]
        return self.head(torch.cat(vectors, -1))
