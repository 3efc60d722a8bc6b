"""TACFN: modalities select by self-attention and reinforce one another (arXiv 2505.06536)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.guided import GuidedAttention, SelfSelection
from mer_bench.fusion.layers import TemporalConvolution, last_token, masked_mean
from mer_bench.fusion.utterance import TokenEncoder


class Projection(nn.Module):
    """One linear map of all frames; the vector of an utterance is the mean of its tokens."""

    def __init__(self, modality: str, width: Width, hidden: int) -> None:
        super().__init__()
        self.modality = modality
        self.project = TemporalConvolution(width.frames, hidden)

    def tokens(self, batch: Batch) -> PaddedSequence:
        """Tokens [utterance, time, hidden]."""
        return self.project(batch.frames[self.modality])

    def pool(self, batch: Batch, tokens: PaddedSequence) -> Tensor:
        """[utterance, time, hidden] -> [utterance, hidden]."""
        return masked_mean(tokens.values, tokens.mask)


ENCODERS: dict[str, Callable[[str, Width, int, float], nn.Module]] = {
    "projection": lambda modality, width, hidden, dropout: Projection(modality, width, hidden),
    "convolution": lambda modality, width, hidden, dropout: TokenEncoder(modality, width, hidden, dropout=dropout),
}


class TACFN(FusionModule):
    """Transformer-based adaptive cross-modal fusion network.

    Each guiding modality selects by self-attention (the last token of a causal transformer). A target's tokens are
    concatenated ("spliced") with the selected vectors; from the result a linear layer, tanh and a softmax over time
    compute the weights that reinforce the tokens, which are added to themselves. The pooled modalities are concatenated
    and classified.

    With two modalities the public material shows one direction, audio to vision, equal to CFN-SR except for notation.
    The form for three modalities is not public: in this reconstruction all others guide every modality, and with
    one-by-one convolutions as projections it has 342,531 parameters at the widths of the paper's IEMOCAP task (300, 74
    and 35, 8 outputs; the paper prints 0.34M).

    Args:
        hidden: Width of tokens, vectors and additive attention.
        heads: Number of heads of the self-attention.
        layers: Number of layers of the self-attention.
        dropout: Dropout probability before the output layer and, with convolutions, in the encoders.
        encoder: "projection" (one linear map of all frames, then their mean) or "convolution" (the shared encoder,
            which replaces the 3D ResNeXt-50 and the MFCC CNN that the paper uses on RAVDESS).
        directions: "paper" (with two modalities, audio or otherwise the first guides the other; with three, "all"),
            "all" (every modality is guided), or the ablations "reverse" (only audio, or otherwise the first, is guided)
            and "none".
        self_attention: Ablation switch: without it the last token is the guide.
        splice: Ablation switch: without it the weights depend on the target only.
        residual: Ablation switch: without it the reweighted tokens replace the target's.
        scale: Not in the paper: attention weights that average to one instead of summing to one.
    """

    title = "TACFN"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    provenance = "reconstruction"
    paper = "arXiv 2505.06536"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 40,
        heads: int = 8,
        layers: int = 5,
        dropout: float = 0.1,
        encoder: str = "projection",
        directions: str = "paper",
        self_attention: bool = True,
        splice: bool = True,
        residual: bool = True,
        scale: bool = False,
    ) -> None:
        super().__init__(dims, num_classes)
        if encoder not in ENCODERS:
            raise unknown("encoder", encoder, ENCODERS)
        if encoder == "projection":
            self.reads = frozenset({"frames"})
        names = tuple(self.dims)
        guide = "audio" if "audio" in names else names[0]
        others = tuple(name for name in names if name != guide)
        targets = {"paper": others if len(names) == 2 else names, "all": names, "reverse": (guide,), "none": ()}
        if directions not in targets:
            raise unknown("directions", directions, targets)
        self.guides = {target: tuple(name for name in names if name != target) for target in targets[directions]}
        self.encoders = nn.ModuleDict(
            {name: ENCODERS[encoder](name, width, hidden, dropout) for name, width in self.dims.items()}
        )
        needed = {name for sources in self.guides.values() for name in sources} if splice else set()
        self.select = nn.ModuleDict(
            {
                name: SelfSelection(hidden, heads=heads, layers=layers, dropout=0.1, embedding_dropout=0.3)
                for name in names
                if self_attention and name in needed
            }
        )
        self.blocks = nn.ModuleDict(
            {
                name: GuidedAttention(
                    hidden, hidden * len(sources) if splice else 0, hidden, residual=residual, scale=scale
                )
                for name, sources in self.guides.items()
            }
        )
        width = hidden * len(names)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, num_classes)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        tokens = {name: encoder.tokens(batch) for name, encoder in self.encoders.items()}
        selected = {
            name: self.select[name](sequence) if name in self.select else last_token(sequence.values, sequence.mask)
            for name, sequence in tokens.items()
        }
        for name, block in self.blocks.items():
            tokens[name] = block(tokens[name], torch.cat([selected[source] for source in self.guides[name]], -1))
        vectors = [encoder.pool(batch, tokens[name]) for name, encoder in self.encoders.items()]
        return self.head(torch.cat(vectors, -1))
