"""DialogueGCN: a graph of nearby turns, with relations by speakers and order (Ghosal et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import MatchingAttention, RelationalConvolution, SpeakerRelations, window
from mer_bench.fusion.layers import BidirectionalRNN, perceptron
from mer_bench.fusion.utterance import Encoders

CONTEXTS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class DialogueGCN(FusionModule):
    r"""Each turn receives messages from its window, weighted by attention and mapped by the relation of the two turns.

    Ghosal et al. 2019, https://arxiv.org/abs/1908.11540

    With :math:`g` the turns' states of a bidirectional GRU over the dialogue, :math:`N_i` the window of turn i (itself
    included), divided by relation into :math:`N_i^r` (:class:`SpeakerRelations`), and attention within the window as
    edge weights

    .. math::
        a_{ij} &= softmax_{j \in N_i}(g_i^\top W_e g_j) \\
        h_i &= relu(W_0 g_i + b + \sum_r \sum_{j \in N_i^r} a_{ij} W_r g_j) \\
        h'_i &= relu(U_0 h_i + \sum_{j \in N_i} U h_j), \quad f_i = norm([g_i ; h'_i]) \\
        logits_i &= W_2 relu(W_1 \sum_j softmax_j(f_i^\top W_f f_j) f_j)

    Windows, widths and dropout are those of the authors' code and command. Where code and paper differ, this follows
    the paper: a GRU by default (in the code an LSTM), edge weights that match two turns (in the code one score per pair
    of positions), a ReLU after both convolutions (in the code none). Messages are not divided by their number again
    (the paper leaves that constant open) and, as in the code, a turn's own state is not weighted by :math:`a_{ii}`.

    Differs from both: the input is all modalities, each read by the encoder that all methods share; each relation has
    its own matrix, without shared bases (the code has 30 bases, more than the 8 relations of a dyad); both attentions
    are scaled (:class:`MatchingAttention`), and the classifier's attention reads normalised inputs, since otherwise the
    turns with the most neighbours receive all of it, where the code applies a tanh to the scores instead; a turn
    receives messages from its window, where the code's edges lead from the turn to its window; speakers are numbered by
    first appearance, there by gender; the loss is the plain cross-entropy, where theirs is weighted by class. Windows
    and GRU read future turns, so that the method works offline only.

    Args:
        hidden: Width of the utterance vectors, of the recurrent network in each direction and of the graph.
        rnn: "gru" or "lstm".
        layers: Number of layers of the recurrent network.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        relations: "pairs" of speakers, or "same_other", which suits dialogues of many speakers.
        speakers: Number of speakers that "pairs" distinguishes; later speakers of a dialogue count as the last one.
        dropout: Dropout probability of the encoders, between recurrent layers and in the classifier.
    """

    title = "DialogueGCN"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/1908.11540"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 100,
        rnn: str = "gru",
        layers: int = 2,
        window_past: int = 10,
        window_future: int = 10,
        relations: str = "pairs",
        speakers: int = 2,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(dims, num_classes)
        if rnn not in CONTEXTS:
            raise unknown("rnn", rnn, CONTEXTS)
        self.window = (window_past, window_future)
        self.relations = SpeakerRelations(relations, speakers)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.rnn = BidirectionalRNN(CONTEXTS[rnn], hidden * len(self.dims), hidden, layers=layers, dropout=dropout)
        self.edges = MatchingAttention(2 * hidden, 2 * hidden)
        self.relational = RelationalConvolution(2 * hidden, hidden, self.relations.count)
        self.own, self.neighbours = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.norm = nn.LayerNorm(3 * hidden)
        self.similarity = MatchingAttention(3 * hidden, 3 * hidden)
        self.head = perceptron(3 * hidden, hidden, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        context = self.rnn(batch.by_dialogue(self.encoders.joined(batch)), batch.turns)
        real = batch.turns[:, None]
        near = window(real.shape[2], *self.window, context.device) & real
        masks = self.relations(batch.by_dialogue(batch.speaker), near)
        h = F.relu(self.relational(context, masks * self.edges(context, context, near)[:, None]))
        h = F.relu(self.own(h) + near.to(h.dtype) @ self.neighbours(h))
        h = self.norm(torch.cat([context, h], -1))
        return self.head(batch.flatten(self.similarity(h, h, real) @ h))
