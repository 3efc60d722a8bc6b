"""LMR-CBT: one modality is guided by the others within a transformer (Fu et al. 2021, arXiv 2112.01697)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.guided import GuidedAttention, SelfSelection
from mer_bench.fusion.layers import BidirectionalRNN, CheapDropout, TemporalConvolution


class Frames(nn.Module):
    """Local structure of a signal: a temporal convolution of three frames, normalised.

    Shapes:
        [utterance, time, dim] -> [utterance, ceil(time / stride), hidden].
    """

    def __init__(self, dim: int, hidden: int, *, stride: int) -> None:
        super().__init__()
        self.convolution = TemporalConvolution(dim, hidden, kernel=3, stride=stride)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Convolve."""
        tokens = self.convolution(sequence)
        return PaddedSequence(self.norm(tokens.values) * tokens.mask[..., None], tokens.mask)


class Words(nn.Module):
    """Local structure of a text: two layers of a bidirectional LSTM, normalised.

    Shapes:
        [utterance, time, dim] -> [utterance, time, hidden].
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = CheapDropout(dropout)
        self.rnn = BidirectionalRNN(nn.LSTM, dim, hidden // 2, layers=2, dropout=0.5)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Read in both directions."""
        values = self.norm(self.rnn(self.dropout(sequence.values), sequence.mask))
        return PaddedSequence(values * sequence.mask[..., None], sequence.mask)


class FeatureGuidance(nn.Module):
    """Guide by guide, a token becomes the softmax over its features of tanh(W [token ; guide] + b); added to the first.

    Shapes:
        target [utterance, time, dim], guides x [utterance, dim] -> [utterance, time, dim].
    """

    def __init__(self, guides: int, dim: int) -> None:
        super().__init__()
        self.targets = nn.ModuleList(nn.Linear(dim, dim) for _ in range(guides))
        self.guides = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(guides))

    def forward(self, target: PaddedSequence, guides: Sequence[Tensor]) -> PaddedSequence:
        """Guide the target's tokens."""
        x = target.values
        for read, listen, guide in zip(self.targets, self.guides, guides, strict=True):
            x = (read(x) + listen(guide)[:, None]).tanh().softmax(-1)
        return PaddedSequence((target.values + x) * target.mask[..., None], target.mask)


class TimeGuidance(nn.Module):
    """Guide by guide, CFN-SR's block: tokens are reweighted by a softmax over time and added to themselves.

    Shapes:
        target [utterance, time, dim], guides x [utterance, dim] -> [utterance, time, dim].
    """

    def __init__(self, guides: int, dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GuidedAttention(dim, dim, dim) for _ in range(guides))

    def forward(self, target: PaddedSequence, guides: Sequence[Tensor]) -> PaddedSequence:
        """Guide the target's tokens."""
        for block, guide in zip(self.blocks, guides, strict=True):
            target = block(target, guide)
        return target


ATTENTIONS: dict[str, type[FeatureGuidance] | type[TimeGuidance]] = {"features": FeatureGuidance, "time": TimeGuidance}


class LMRCBT(FusionModule):
    r"""A transformer whose input has been guided by the last tokens of the other modalities' transformers.

    Fu et al. 2021, https://arxiv.org/abs/2112.01697

    With local tokens :math:`x_m` (an LSTM for text, convolutions for the others) and :math:`T_m` the last token of a
    causal transformer, text l is guided first by vision v, then by audio a:

    .. math::
        h_v = T_v(x_v), \quad h_a = T_a(x_a), \quad h_l = T_l\big(G(x_l; h_v, h_a)\big), \quad
        logits = W W_2 relu(W_1 [h_l ; h_a ; h_v])

    In the authors' code the block is a softmax over the *features* of tanh(W [x_t ; h] + b), which takes the token's
    place; :math:`G` adds the outcome of both blocks to the tokens, and the layers that would score tokens are never
    called. That is "features". "time" is what those layers are for in the same authors' CFN-SR: in each block a softmax
    over the tokens reweights them, and they are added back. At the paper's widths (300, 74 and 35) "time" has the
    406,523 parameters of the code with one output and its 407,370 with eight; "features" has 82 less, the idle layers.

    Differs from the code: there the LSTM runs along the batch (its input is [time, batch, dim] and it is told that the
    batch comes first), so that an utterance depends on its batch-mates; here it runs along time. LayerNorm with as
    many parameters stands for BatchNorm, padding is masked, convolutions keep the length, and one dropout of 0.1 in the
    transformers stands for three of 0.1 to 0.2. Other modalities than text may be the target; what guides it keeps the
    order vision, audio, text.

    Args:
        dims: Width of each modality, at least two.
        num_classes: Number of emotions.
        target: The guided modality; by default text or else vision, which audio guides in CFN-SR.
        attention: "features" or "time", see above.
        hidden: Width of the tokens, even; ``heads`` must divide it.
        heads: Of the transformers.
        layers: Of the transformers.
        stride: Of the convolutions. Not in the paper: attention is quadratic in the length, so for hundreds of frames
            take e.g. ``stride=3``.
        transformer_dropout: Of the transformers' attention, feed-forward blocks and residual branches.
        embedding_dropout: Of the transformers' inputs and of the text features.
        output_dropout: In the head.
    """

    title = "LMR-CBT"
    revision = 1
    paper = "https://arxiv.org/abs/2112.01697"
    least = 2
    unimodal_encoders = ("local",)

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        target: str | None = None,
        attention: str = "features",
        hidden: int = 40,
        heads: int = 8,
        layers: int = 5,
        stride: int = 1,
        transformer_dropout: float = 0.1,
        embedding_dropout: float = 0.3,
        output_dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, num_classes)
        if target is not None and target not in self.dims:
            raise unknown("target", target, self.dims)
        if attention not in ATTENTIONS:
            raise unknown("attention", attention, ATTENTIONS)
        self.target = target or ("text" if "text" in self.dims else "vision")
        order = ("vision", "audio", "text")
        self.guides: list[str] = [name for name in order if name in self.dims and name != self.target]
        self.local = nn.ModuleDict(
            {
                name: Words(dim, hidden, dropout=embedding_dropout)
                if name == "text"
                else Frames(dim, hidden, stride=stride)
                for name, dim in self.dims.items()
            }
        )
        self.transformers = nn.ModuleDict(
            {
                name: SelfSelection(
                    hidden, heads=heads, layers=layers, dropout=transformer_dropout, embedding_dropout=embedding_dropout
                )
                for name in self.dims
            }
        )
        self.guidance = ATTENTIONS[attention](len(self.guides), hidden)
        width = hidden * len(self.dims)
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            CheapDropout(output_dropout),
            nn.Linear(width, width),
            nn.Linear(width, num_classes),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        tokens = {name: encode(batch.features[name]) for name, encode in self.local.items()}
        last = {name: self.transformers[name](tokens[name]) for name in self.guides}
        guided = self.guidance(tokens[self.target], [last[name] for name in self.guides])
        last[self.target] = self.transformers[self.target](guided)
        return self.head(torch.cat([last[name] for name in self.dims], -1))
