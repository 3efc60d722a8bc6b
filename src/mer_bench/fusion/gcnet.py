"""GCNet: complete missing modalities by graphs of time and of speakers over a dialogue (Lian et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import MatchingAttention, RelationalConvolution, SpeakerRelations, mean_weights, window
from mer_bench.fusion.layers import BidirectionalRNN
from mer_bench.fusion.utterance import Encoders

ORDERS = 3  #: earlier turns, the turn itself, later turns


def order_relations(allowed: Tensor) -> Tensor:
    """One mask each for earlier turns, the turn itself and later turns.

    Shapes:
        allowed [dialogue, turn, other turn] -> [dialogue, 3, turn, other turn].
    """
    step = torch.arange(allowed.shape[-1], device=allowed.device)
    ahead = (step - step[:, None]).sign()
    index = torch.arange(-1, 2, device=allowed.device)[:, None, None]
    return (ahead == index) & allowed[:, None]


def keep_some(present: Tensor, missing: float) -> Tensor:
    """Drop modalities at random, but never the last one of an utterance.

    One modality of each utterance stays. Each other one is dropped with a probability such that the share of dropped
    modalities is ``missing`` where all are present.

    Shapes:
        present [modality, utterance] -> the same shape; False also where a modality is absent already.
    """
    modalities = len(present)
    stays = torch.rand(present.shape, device=present.device).masked_fill(~present, -1).argmax(0)
    stays = torch.arange(modalities, device=present.device)[:, None] == stays
    rate = missing * modalities / max(1, modalities - 1)
    return present & (stays | (torch.rand(present.shape, device=present.device) >= rate))


class GraphContext(nn.Module):
    r"""Two graph convolutions and a recurrent network over the turns of a dialogue.

    With :math:`N_i` the window of turn i (itself included), divided by relation into :math:`N_i^r`,

    .. math::
        y_i &= W_0 x_i + b + \sum_r \frac{1}{|N_i^r|} \sum_{j \in N_i^r} W_r x_j \\
        z_i &= U_0 y_i + b' + \sum_{j \in N_i} U y_j, \quad h = relu(W\, BiLSTM([x ; z]))

    and optionally attention of each turn to all turns of the LSTM's output before the last layer.

    Shapes:
        x [dialogue, turn, dim], relations [dialogue, relation, turn, other turn], real [dialogue, turn]
        -> [dialogue, turn, dim + graph].
    """

    def __init__(self, dim: int, graph: int, relations: int, *, layers: int, attention: bool, dropout: float) -> None:
        super().__init__()
        width = dim + graph
        self.relational = RelationalConvolution(dim, graph, relations)
        self.own, self.neighbours = nn.Linear(graph, graph), nn.Linear(graph, graph, bias=False)
        self.rnn = BidirectionalRNN(nn.LSTM, width, width, layers=layers, dropout=dropout)
        self.attention = MatchingAttention(2 * width, 2 * width) if attention else None
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, relations: Tensor, real: Tensor) -> Tensor:
        """Pass messages along the relations, then read the dialogues in both directions."""
        y = self.relational(x, mean_weights(relations))
        z = self.own(y) + relations.any(1).to(y.dtype) @ self.neighbours(y)
        states = self.rnn(torch.cat([x, z], -1) * real[..., None], real)
        if self.attention is not None:
            states = self.attention(states, states, real[:, None]) @ states
        return F.relu(self.linear(states))


class GCNet(FusionModule):
    r"""Classify a dialogue whose modalities are missing at random, and reconstruct what is missing.

    Lian et al. 2023, https://arxiv.org/abs/2203.02177

    In training modalities are dropped at random (:func:`keep_some`). With :math:`x` the turns' states of a
    bidirectional LSTM over the utterance vectors that are left, :math:`G_t` a :class:`GraphContext` with relations by
    order (earlier, itself, later) and :math:`G_s` one with relations by the pair of speakers,

    .. math::
        h = G_t(x) + G_s(x), \quad logits = W h + b, \quad \hat u_m = V_m h + c_m, \quad
        loss = CE + \lambda \frac 1 N \sum_i \sum_{m\ dropped\ in\ i} \operatorname{mean} (\hat u_{i,m} - u_{i,m})^2

    where :math:`u_m` is what the encoders read: the standardised functionals of modality m. In evaluation nothing is
    dropped, and nothing is put in the place of what is missing: the hidden state is what completes it. Widths, windows,
    share of missing modalities and the plain relu after the LSTMs are those of the authors' command for IEMOCAP.

    Differs from that code: each modality is read by the encoder that all methods share, where the LSTM reads the
    features; modalities are dropped in training only, where theirs are missing at the same rate in all parts of the
    corpus (the robustness table disturbs test utterances of all methods alike); the attention
    (:class:`MatchingAttention`) is scaled and has no tanh; messages flow from the window to the turn, where theirs flow
    from a turn to its window, which is the same for equal windows. LSTM and windows read future turns, so that the
    method works offline only.

    Args:
        hidden: Width of the utterance vectors, and of the LSTM over them in each direction.
        graph: Width of the graph convolutions (half of ``hidden`` in the authors' code).
        layers: Number of layers of each LSTM.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        relations: "pairs" of speakers, or "same_other", which suits dialogues of many speakers.
        speakers: Number of speakers that "pairs" distinguishes; later speakers of a dialogue count as the last one.
        missing: Share of modalities that are dropped in training: from 0 to 1 - 1 / modalities.
        reconstruction: Weight of the reconstruction (lambda); 0 leaves it out.
        attention: Whether turns attend to all turns after the recurrent networks (the paper's equations 4 to 6).
        dropout: Dropout probability of the encoders and between recurrent layers.
    """

    title = "GCNet"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    paper = "https://arxiv.org/abs/2203.02177"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 200,
        graph: int = 100,
        layers: int = 2,
        window_past: int = 2,
        window_future: int = 2,
        relations: str = "pairs",
        speakers: int = 2,
        missing: float = 0.2,
        reconstruction: float = 1.0,
        attention: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(dims, num_classes)
        modalities = len(self.dims)
        if not 0 <= missing <= 1 - 1 / modalities + 1e-9:
            raise Misuse(
                f"option missing = {missing} of gcnet is not between 0 and {1 - 1 / modalities:.2f}: one of "
                f"{modalities} modalities always stays"
            )
        self.missing, self.reconstruction = missing, reconstruction if missing else 0.0
        self.window = (window_past, window_future)
        self.relations = SpeakerRelations(relations, speakers)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.rnn = BidirectionalRNN(nn.LSTM, modalities * hidden, hidden, layers=layers, dropout=dropout)
        self.temporal, self.speakers = (
            GraphContext(2 * hidden, graph, count, layers=layers, attention=attention, dropout=dropout)
            for count in (ORDERS, self.relations.count // 2)
        )
        width = 2 * hidden + graph
        self.head = nn.Linear(width, num_classes)
        self.widths = [each.functionals for each in self.dims.values()]
        self.decoder = nn.Linear(width, sum(self.widths)) if self.reconstruction else None

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes], from all modalities that are present."""
        return self.head(self.states(batch, self.present(batch)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy without the modalities that are dropped, and the error of their reconstruction."""
        present = self.present(batch)
        kept = keep_some(present, self.missing)
        states = self.states(batch, kept)
        losses = {"cross_entropy": self.cross_entropy(self.head(states), batch)}
        if self.decoder is not None:
            decoded = self.decoder(states).split(self.widths, -1)
            errors = [
                (ours - batch.functionals[name]).square().mean(-1)
                for ours, name in zip(decoded, self.dims, strict=True)
            ]
            losses["reconstruction"] = self.reconstruction * (torch.stack(errors) * (present & ~kept)).sum(0).mean()
        return losses

    def states(self, batch: Batch, kept: Tensor) -> Tensor:
        """Hidden states [utterance, 2 hidden + graph] from the modalities ``kept`` [modality, utterance]."""
        vectors = self.encoders(batch) * kept[..., None]
        real = batch.turns
        x = self.rnn(batch.by_dialogue(torch.cat(list(vectors), -1)), real)
        near = window(real.shape[1], *self.window, x.device) & real[:, None] & real[..., None]
        relations = self.relations(batch.by_dialogue(batch.speaker), near)
        speakers = relations[:, ::2] | relations[:, 1::2]  # whether the other turn is earlier or later
        return batch.flatten(self.temporal(x, order_relations(near), real) + self.speakers(x, speakers, real))
