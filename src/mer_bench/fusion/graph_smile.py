"""GraphSmile: graphs between pairs of modalities, trained to detect shifts of sentiment as well (Li et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders

UNKNOWN = "?"
#: Sentiments of the emotions of IEMOCAP and MELD. MELD's surprise is positive as often as negative.
SENTIMENTS = {
    **dict.fromkeys(("happy", "excited", "joy"), "+"),
    **dict.fromkeys(("sad", "angry", "frustrated", "fear", "sadness", "disgust", "anger"), "-"),
    "neutral": "0",
    "surprise": UNKNOWN,
}
IGNORED = -100


class StackedLinear(nn.Module):
    """One linear layer per pair of modalities: [pair, ..., dim] -> the same shape."""

    def __init__(self, pairs: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(pairs, dim, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.bias = nn.Parameter(torch.empty(pairs, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers by one batched product."""
        return torch.baddbmm(self.bias[:, None], x.flatten(1, -2), self.weight).view(x.shape)


class PairwisePropagation(nn.Module):
    r"""GSF: linear graph convolutions per pair of modalities, along edges that lead to the other modality only.

    .. math:: X^{(l)} = D^{-1/2} A D^{-1/2} X^{(l-1)} W_l + b_l, \quad
        Z = X^{(0)} + \sum_l LeakyReLU(X^{(l)} V_l + c_l)

    A node receives messages from the other modality's utterances within its window. Odd layers therefore carry
    information of the other modality, even layers that of its own, never both at once. The weight of an edge depends on
    its direction and its distance in turns: it is the exponential of a learnt parameter, initially zero. An absent node
    receives messages but sends none.

    Shapes:
        x [pair, side, dialogue, turn, dim], present [pair, side, dialogue, turn] -> as x.
    """

    def __init__(self, pairs: int, dim: int, layers: int, *, past: int, future: int, dropout: float) -> None:
        super().__init__()
        self.past = past
        self.edge = nn.Parameter(torch.zeros(pairs, 2, past + 1 + future))
        self.convolutions = nn.ModuleList(StackedLinear(pairs, dim) for _ in range(layers))
        self.readouts = nn.ModuleList(StackedLinear(pairs, dim) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Sum of the input and the readouts of all layers."""
        adjacency, total = self.adjacency(present), x
        for convolution, readout in zip(self.convolutions, self.readouts, strict=True):
            x = convolution(adjacency @ x.flip(1))
            total = total + self.dropout(F.leaky_relu(readout(x)))
        return total

    def adjacency(self, present: Tensor) -> Tensor:
        """Normalised weights [pair, side, dialogue, turn, turn of the other side]."""
        step = torch.arange(present.shape[-1], device=present.device)
        distance, last = step - step[:, None] + self.past, self.edge.shape[-1] - 1
        near = (distance >= 0) & (distance <= last)
        weight = self.edge.exp()[:, :, distance.clamp(0, last)] * near
        weight = weight[:, :, None] * present.flip(1)[..., None, :]
        degree = weight.sum(-1)
        rate = (degree + (degree == 0)).rsqrt()
        return rate[..., None] * weight * rate.flip(1)[..., None, :]


class GraphSmile(FusionModule):
    r"""Graph propagation between two modalities at a time; sentiment and its shifts are further training targets.

    Li et al. 2024, https://arxiv.org/abs/2407.21536

    1. GSF (:class:`PairwisePropagation`) computes two representations of each utterance per pair of modalities.
    2. They are averaged after one shared layer, :math:`h_i = mean_z\, LeakyReLU(W z_i + b)`; a linear layer classifies.
    3. SDP: linear layers predict the sentiment from :math:`h_i`, and from :math:`[h_i; h_j]` whether the sentiments of
       the two utterances differ, for all i and j in the same stretch of ``shift_window`` turns.

    Sizes, windows, dropout and weights are those of the authors' IEMOCAP-6 run (on MELD: hidden 384, 5 layers, windows
    3 and 3, shift window 3, weights 0.5 and 0.2).

    Differs from their code: the utterance vectors come from the encoder that all methods share, instead of a BatchNorm
    on the text and a linear layer with LeakyReLU; an edge's weight belongs to its direction and distance, where theirs
    belongs to a position in the batch, so that a dialogue's logits depend on the others of its batch; weights are
    positive. Batches contain no sentiments, so that they are derived from the emotions, as theirs are on IEMOCAP;
    MELD's own sentiments are not a function of the emotion, and its surprise is excluded from both losses. With classes
    of other names there are no sentiments and the cross-entropy is the only loss, as the record's options and curve
    say. Windows include future turns, so that the method works offline only. Speakers are not used, as in the code.

    Args:
        hidden: Width throughout.
        layers: Number of propagation layers per pair of modalities.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        dropout: Dropout probability of the encoders and of the readouts of all layers.
        sentiments: One character per class; classes with the same character share a sentiment, "?" means unknown. A run
            takes them from the classes' names (:data:`SENTIMENTS`); "" is without both losses.
        shift_window: Number of turns in a stretch within which shifts are predicted.
        sentiment_weight: Weight of the sentiment's cross-entropy.
        shift_weight: Weight of the shifts' cross-entropy.
    """

    title = "GraphSmile"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2407.21536"
    least = 2

    pairs: Tensor  # [pair, side]
    sentiment_of_class: Tensor

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 512,
        layers: int = 7,
        window_past: int = 17,
        window_future: int = 17,
        dropout: float = 0.2,
        sentiments: str = "",
        shift_window: int = 19,
        sentiment_weight: float = 1.0,
        shift_weight: float = 0.7,
    ) -> None:
        super().__init__(dims, num_classes)
        if sentiments and len(sentiments) != num_classes:
            raise ValueError(f"sentiments {sentiments!r} must have one character for each of the {num_classes} classes")
        if min(window_past, window_future) < 0 or shift_window < 1:
            raise ValueError(
                f"window_past {window_past} and window_future {window_future} must be at least 0, "
                f"shift_window {shift_window} at least 1"
            )
        groups = sorted(set(sentiments) - {UNKNOWN})
        self.shift_window, self.sentiment_weight, self.shift_weight = shift_window, sentiment_weight, shift_weight
        pairs = list(combinations(range(len(self.dims)), 2))
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.register_buffer(
            "sentiment_of_class",
            torch.tensor([IGNORED if one == UNKNOWN else groups.index(one) for one in sentiments], dtype=torch.long),
            persistent=False,
        )
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.propagation = PairwisePropagation(
            len(pairs), hidden, layers, past=window_past, future=window_future, dropout=dropout
        )
        self.fusion = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU())
        self.head = nn.Linear(hidden, num_classes)
        self.sentiment = nn.Linear(hidden, len(groups)) if groups else None
        self.shift = nn.Linear(hidden, 4) if groups else None  # reads [h_i; h_j]: two outputs for i, two for j

    @classmethod
    def options_for(cls, classes: Sequence[str]) -> dict[str, Any]:
        """The classes' sentiments, if all their names are known."""
        known = all(name in SENTIMENTS for name in classes)
        return {"sentiments": "".join(SENTIMENTS[name] for name in classes) if known else ""}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(batch.flatten(self.fused(batch)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of the emotion, its sentiment and the shifts of sentiment."""
        h = self.fused(batch)
        losses = {"cross_entropy": self.cross_entropy(self.head(batch.flatten(h)), batch)}
        if self.sentiment is not None and self.shift is not None:
            sentiment = batch.by_dialogue(self.sentiment_of_class[batch.label]).masked_fill(~batch.turns, IGNORED)
            first, second = self.shift(h).chunk(2, -1)
            shifts = first[:, :, None] + second[:, None]
            losses["sentiment"] = self.sentiment_weight * known_cross_entropy(self.sentiment(h), sentiment)
            losses["shift"] = self.shift_weight * known_cross_entropy(
                shifts, shift_targets(sentiment, self.shift_window)
            )
        return losses

    def fused(self, batch: Batch) -> Tensor:
        """Utterances after GSF: [dialogue, turn, hidden]."""
        nodes = torch.stack([batch.by_dialogue(vector) for vector in self.encoders(batch)])
        present = batch.by_dialogue(self.present(batch).T).movedim(-1, 0)
        propagated = self.propagation(nodes[self.pairs], present[self.pairs])
        return self.fusion(propagated).mean((0, 1))


def shift_targets(sentiment: Tensor, window: int) -> Tensor:
    """Whether the sentiment of two utterances differs: [dialogue, turn] -> [dialogue, turn, turn], 1, 0 or IGNORED.

    Dialogues are cut into stretches of ``window`` turns; pairs across a cut and unknown sentiments are IGNORED.
    """
    stretch = torch.arange(sentiment.shape[1], device=sentiment.device) // window
    known = sentiment != IGNORED
    pairs = known[:, :, None] & known[:, None] & (stretch[:, None] == stretch)
    return (sentiment[:, :, None] != sentiment[:, None]).long().masked_fill(~pairs, IGNORED)


def known_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over targets that are not IGNORED, 0 if there is none: [..., class], [...] -> scalar."""
    total = F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp(min=1)
