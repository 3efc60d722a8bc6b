"""CFN-SR: a modality that is summarised by self-attention guides attention over the others (Fu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.encoders import MFCCCNN, ResNeXt3D
from mer_bench.encoders.weights import load_weights
from mer_bench.errors import Misuse, unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.guided import GuidedAttention, SelfSelection
from mer_bench.fusion.layers import last_token
from mer_bench.fusion.utterance import token_encoders


class CrossModalBlock(nn.Module):
    """The paper's block: selection within the guide, then guided attention over the target with a residual.

    385,345 parameters at the paper's widths (target 2048, guide 64, hidden 64), as in the authors' code.

    Further arguments are those of :class:`CFNSR`.

    Args:
        target: Width of the target's tokens.
        guide: Width of the guide's tokens.
        slices: Number of equal parts of the target's tokens, each with its own softmax: the authors' code normalises
            the 7 x 7 positions of the two time slices separately, where the paper writes one softmax.

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
        slices: int = 1,
    ) -> None:
        super().__init__()
        self.slices = slices
        self.select = (
            SelfSelection(guide, heads=heads, layers=layers, dropout=0.1, embedding_dropout=0.3)
            if self_attention
            else None
        )
        self.attend = GuidedAttention(target, guide, hidden, residual=residual, scale=scale)

    def forward(self, target: PaddedSequence, guide: PaddedSequence) -> PaddedSequence:
        """The target's tokens, reinforced."""
        vector = last_token(guide.values, guide.mask) if self.select is None else self.select(guide)
        if self.slices == 1:
            return self.attend(target, vector)
        slices = len(target.mask) * self.slices
        parts = PaddedSequence(
            target.values.reshape(slices, -1, target.values.shape[-1]), target.mask.reshape(slices, -1)
        )
        attended = self.attend(parts, vector[:, None].expand(-1, self.slices, -1).flatten(0, 1))
        return PaddedSequence(attended.values.view(target.values.shape), target.mask)


class CFNSR(FusionModule):
    """Cross-modal fusion network with self-attention and residual structure.

    A causal transformer reads the guide's tokens, and its last token guides additive attention over the tokens of each
    other modality, which are reweighted and added to themselves; the vectors of all modalities are concatenated and
    classified by one linear layer. The paper has one pair, audio that guides vision, with a 3D ResNeXt-50 and an MFCC
    CNN trained end to end: ``encoders="paper"``, 26,301,417 parameters for images of side 224, 13 MFCCs and 8 classes.
    For frozen features the shared encoder replaces both, and every modality other than the guide has its own block.

    Args:
        encoders: "shared" reads features; "paper" trains the paper's own on pixels (vision) and MFCCs (audio).
        weights: Modality -> checkpoint file with initial weights of the paper's encoder of that modality; the authors
            initialise both from networks trained on one modality. Records contain the name of the file.
        stem_relu: See :class:`~mer_bench.encoders.ResNeXt3D`; the authors' network has ``stem_relu=False``.
        guide: The guiding modality; by default audio, or the first modality if there is no audio.
        hidden: Width of the additive attention, and of the shared encoders' tokens and vectors.
        heads: Number of heads of the self-attention.
        layers: Number of layers of the self-attention.
        dropout: Dropout probability of the shared encoders; the paper's MFCC CNN contains dropout of 0.2 and 0.4.
        cross_modal: Ablation switch: without it, only encoders and concatenation (the authors' first ablation).
        self_attention: Ablation switch: without it the guide's last token is used as it is.
        residual: Ablation switch: without it the reweighted tokens replace the target's.
        scale: Not in the paper: attention weights that average to one instead of summing to one.
    """

    title = "CFN-SR"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    paper = "arXiv 2111.02172"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        encoders: str = "shared",
        weights: Mapping[str, str] | None = None,
        stem_relu: bool = True,
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
        if encoders not in ("shared", "paper"):
            raise unknown("encoders", encoders, ("shared", "paper"))
        if encoders == "paper":
            self.reads = frozenset({"frames"})
            self.encoders = _paper_encoders(self.dims, self.guide, weights or {}, stem_relu)
            widths, vectors, slices = (
                {name: getattr(encoder, size) for name, encoder in self.encoders.items()}
                for size in ("width", "pooled", "slices")
            )
        else:
            if weights:
                raise Misuse('the option weights needs encoders = "paper": the shared encoder loads no weights')
            self.encoders = token_encoders(self.dims, hidden, dropout=dropout)
            widths = vectors = dict.fromkeys(self.dims, hidden)
            slices = dict.fromkeys(self.dims, 1)
        self.blocks = nn.ModuleDict(
            {
                name: CrossModalBlock(
                    widths[name],
                    widths[self.guide],
                    hidden=hidden,
                    heads=heads,
                    layers=layers,
                    self_attention=self_attention,
                    residual=residual,
                    scale=scale,
                    slices=slices[name],
                )
                for name in self.dims
                if cross_modal and name != self.guide
            }
        )
        self.head = nn.Linear(sum(vectors.values()), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        tokens = {name: encoder.tokens(batch) for name, encoder in self.encoders.items()}
        guide = tokens[self.guide]
        for name, block in self.blocks.items():
            tokens[name] = block(tokens[name], guide)
        vectors = [encoder.pool(batch, tokens[name]) for name, encoder in self.encoders.items()]
        return self.head(torch.cat(vectors, -1))


def _paper_encoders(
    dims: Mapping[str, Width], guide: str, weights: Mapping[str, str], stem_relu: bool
) -> nn.ModuleDict:
    """The MFCC CNN and the 3D ResNeXt-50, with weights from the given files."""
    if set(dims) != {"audio", "vision"} or guide != "audio":
        raise Misuse(
            f"the paper's encoders need audio that guides vision; given {' and '.join(dims)} with guide {guide}"
        )
    encoders: dict[str, MFCCCNN | ResNeXt3D] = {
        "audio": MFCCCNN(dims["audio"].frames),
        "vision": ResNeXt3D(dims["vision"].frames, stem_relu=stem_relu),
    }
    for modality, path in weights.items():
        if modality not in encoders:
            raise unknown("modality of weights", modality, encoders)
        load_weights(encoders[modality], Path(path))
    return nn.ModuleDict(encoders)
