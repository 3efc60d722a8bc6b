"""LMR-CBT: one modality is guided by all others before its transformer reads it (Fu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.guided import GuidedAttention, SelfSelection
from mer_bench.fusion.layers import BidirectionalRNN, TemporalConvolution


class Frames(nn.Module):
    """Local encoder of audio or vision: a temporal convolution over three frames and a LayerNorm.

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
    """Local encoder of text: two layers of a bidirectional LSTM and a LayerNorm.

    Shapes:
        [utterance, time, dim] -> [utterance, time, hidden].
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.rnn = BidirectionalRNN(nn.LSTM, dim, hidden // 2, layers=2, dropout=0.5)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Read in both directions."""
        values = self.norm(self.rnn(self.dropout(sequence.values), sequence.mask))
        return PaddedSequence(values * sequence.mask[..., None], sequence.mask)


class FeatureGuidance(nn.Module):
    """For one guide after the other, a token becomes softmax(tanh(W [token ; guide] + b)); the result is added to it.

    The softmax runs over the token's features.

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
    """For one guide after the other, tokens are reweighted by a softmax over time and added to themselves (CFN-SR).

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
    r"""A transformer whose input is first guided by the last tokens of the other modalities' transformers.

    Fu et al. 2021, https://arxiv.org/abs/2112.01697

    With local tokens :math:`x_m` (an LSTM for text, convolutions for the others) and :math:`T_m` the last token of a
    causal transformer, text l is guided first by vision v, then by audio a:

    .. math::
        h_v = T_v(x_v), \quad h_a = T_a(x_a), \quad h_l = T_l\big(G(x_l; h_v, h_a)\big), \quad
        logits = W W_2 relu(W_1 [h_l ; h_a ; h_v])

    ``attention="features"`` follows the authors' code: each block replaces a token by the softmax over the *features*
    of tanh(W [x_t ; h] + b), and :math:`G` adds the result of both blocks to the tokens; the code has further layers,
    which would score tokens, but never calls them. ``attention="time"`` uses such layers as the same authors' CFN-SR
    does: in each block a softmax over the tokens reweights them, and the tokens are added back. At the paper's widths
    (300, 74 and 35) "time" has as many parameters as the code, 406,523 with one output and 407,370 with eight;
    "features" has 82 less, those of the layers that are never called.

    Differs from the code: there the LSTM runs along the batch (its input is [time, batch, dim], but ``batch_first`` is
    set), so that an utterance depends on the others of its batch; here it runs along time. LayerNorm with as many
    parameters replaces BatchNorm, padding is masked, convolutions preserve the length, and one dropout of 0.1 in the
    transformers replaces three of 0.1 to 0.2. The target may be another modality than text; its guides follow in the
    order vision, audio, text.

    Args:
        target: The guided modality; by default text, or vision if there is no text (as in CFN-SR).
        attention: "features" or "time", as described above.
        hidden: Width of the tokens, even; ``heads`` must divide it.
        heads: Number of heads of the transformers.
        layers: Number of layers of the transformers.
        stride: Stride of the convolutions. Not in the paper: attention is quadratic in the length, so that hundreds of
            frames need for example ``stride=3``.
        transformer_dropout: Dropout probability of the transformers' attention, feed-forward blocks and residual
            branches.
        embedding_dropout: Dropout probability of the transformers' inputs and of the text features.
        output_dropout: Dropout probability in the head.
    """

    title = "LMR-CBT"
    reads = frozenset({"frames"})
    revision = 1
    paper = "https://arxiv.org/abs/2112.01697"
    least = 2
    unimodal_encoders = ("local",)

    def __init__(
        self,
        dims: Mapping[str, Width],
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
        self.target = target or next((name for name in ("text", "vision") if name in self.dims), next(iter(self.dims)))
        self.guides: list[str] = [name for name in reversed(self.dims) if name != self.target]
        self.local = nn.ModuleDict(
            {
                name: Words(width.frames, hidden, dropout=embedding_dropout)
                if name == "text"
                else Frames(width.frames, hidden, stride=stride)
                for name, width in self.dims.items()
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
            nn.Dropout(output_dropout),
            nn.Linear(width, width),
            nn.Linear(width, num_classes),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        tokens = {name: encode(batch.frames[name]) for name, encode in self.local.items()}
        last = {name: self.transformers[name](tokens[name]) for name in self.guides}
        guided = self.guidance(tokens[self.target], [last[name] for name in self.guides])
        last[self.target] = self.transformers[self.target](guided)
        return self.head(torch.cat([last[name] for name in self.dims], -1))
