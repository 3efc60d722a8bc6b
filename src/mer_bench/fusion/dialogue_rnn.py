"""DialogueRNN: recurrent states of the dialogue, of each speaker and of the emotion (Majumder et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import MatchingAttention, window
from mer_bench.fusion.layers import perceptron, reversed_steps
from mer_bench.fusion.utterance import Encoders

ATTENTIONS = ("simple", "general", "dot")


class DialogueCell(nn.Module):
    """One direction of DialogueRNN: three GRU cells (four with listeners) and attention over the global states.

    ``widths`` are those of the global state, the parties' states and the emotion state.

    Shapes:
        utterances [dialogue, turn, dim], speaker [dialogue, turn] -> emotion states [dialogue, turn, emotion].
    """

    def __init__(
        self, dim: int, widths: tuple[int, int, int], *, attention: str, listener: bool, parties: int, dropout: float
    ) -> None:
        super().__init__()
        self.parties = parties
        global_dim, party_dim, emotion_dim = widths
        self.global_cell = nn.GRUCell(dim + party_dim, global_dim)
        self.party_cell = nn.GRUCell(dim + global_dim, party_dim)
        self.emotion_cell = nn.GRUCell(party_dim, emotion_dim)
        self.listener_cell = nn.GRUCell(dim + party_dim, party_dim) if listener else None
        self.match = nn.Linear(dim, global_dim, bias=False) if attention == "general" else None
        self.score = nn.Parameter(torch.randn(global_dim) * global_dim**-0.5) if attention == "simple" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, utterances: Tensor, speaker: Tensor) -> Tensor:
        """Read the dialogues turn by turn."""
        speaks = speaker[..., None] == torch.arange(self.parties, device=speaker.device)  # [dialogue, turn, party]
        query = self.queries(utterances)
        state = utterances.new_zeros(len(utterances), self.global_cell.hidden_size)
        party = utterances.new_zeros(len(utterances), self.parties, self.party_cell.hidden_size)
        emotion = utterances.new_zeros(len(utterances), self.emotion_cell.hidden_size)
        history: list[Tensor] = []
        emotions: list[Tensor] = []
        for u, q, who in zip(utterances.unbind(1), query.unbind(1), speaks[..., None].unbind(1), strict=True):
            context = self.attend(q, history) if history else torch.zeros_like(state)
            own = (party * who).sum(1)
            state = self.dropout(self.global_cell(torch.cat([u, own], -1), state))
            own = self.dropout(self.party_cell(torch.cat([u, context], -1), own))
            party = torch.where(who, own[:, None], self.listen(u, own, party))
            emotion = self.dropout(self.emotion_cell(own, emotion))
            history.append(state)
            emotions.append(emotion)
        return torch.stack(emotions, 1)

    def queries(self, utterances: Tensor) -> Tensor:
        """Queries of the attention over the global states: [dialogue, turn, global]."""
        if self.match is not None:
            return self.match(utterances)
        return utterances if self.score is None else self.score.expand(*utterances.shape[:2], -1)

    def attend(self, query: Tensor, history: list[Tensor]) -> Tensor:
        """Mean of the previous global states, weighted by their match with the query: [dialogue, global]."""
        states = torch.stack(history, 1)
        weights = (states @ query[..., None]).softmax(1)
        return (weights * states).sum(1)

    def listen(self, utterance: Tensor, speaker: Tensor, party: Tensor) -> Tensor:
        """States of the parties as listeners, after the utterance and its speaker: [dialogue, party, dim]."""
        if self.listener_cell is None:
            return party
        spoken = torch.cat([utterance, speaker], -1)[:, None].expand(-1, self.parties, -1)
        return self.dropout(self.listener_cell(spoken.flatten(0, 1), party.flatten(0, 1))).view_as(party)


class DialogueCells(nn.ModuleList):
    """One :class:`DialogueCell`, or two of which the second reads the dialogue backwards.

    Shapes:
        utterances [dialogue, turn, dim], speaker and real [dialogue, turn] (True = there is an utterance)
        -> emotion states of each direction, side by side [dialogue, turn, directions * emotion].
    """

    def forward(self, utterances: Tensor, speaker: Tensor, real: Tensor) -> Tensor:
        """Read the dialogues."""
        states = self[0](utterances, speaker)
        if len(self) == 1:
            return states
        reversal = reversed_steps(real)
        back = self[1](utterances.take_along_dim(reversal[..., None], 1), speaker.take_along_dim(reversal, 1))
        return torch.cat([states, back.take_along_dim(reversal[..., None], 1)], -1)


class DialogueRNN(FusionModule):
    r"""Recurrent states of the dialogue, of each party and of the emotion, each an input of the others.

    Majumder et al. 2019, https://arxiv.org/abs/1811.00405

    When party s utters :math:`u_t` (the modalities' vectors, concatenated),

    .. math::
        g_t &= GRU_G([u_t ; q_{s,t-1}], g_{t-1}) \\
        c_t &= \sum_{k < t} softmax_k(score(u_t, g_k)) g_k \\
        q_{s,t} &= GRU_P([u_t ; c_t], q_{s,t-1}) \\
        e_t &= GRU_E(q_{s,t}, e_{t-1})

    The other parties keep their states or, as listeners, are updated to :math:`GRU_L([u_t ; q_{s,t}], q_{i,t-1})`. A
    second network reads the dialogue backwards (BiDialogueRNN); each turn then attends to all emotion states (the
    "+Att" variant, by :class:`MatchingAttention`, hence scaled) and is classified with one hidden layer. Parties differ
    in their states only, so that renaming them changes nothing.

    Widths are the paper's, and so is the attention "general", :math:`u_t^\top W g_k`; "simple" is :math:`w^\top g_k`
    and "dot" is :math:`u_t^\top g_k`. Dropouts are those of the authors' code: on the recurrent states, on the emotion
    states (0.15 more) and in the classifier.

    Differs from that code: the utterance vectors come from the encoder that all methods share; the loss is the plain
    cross-entropy, there weighted by class. The listeners' update is the code's, where the paper uses their visual
    features. With one direction the method never reads the future: the attention to emotion states, in the paper over
    the whole dialogue, is then causal.

    Args:
        hidden: Width of each modality's utterance vectors.
        global_dim: Width of the global state.
        party_dim: Width of the parties' states.
        emotion_dim: Width of the emotion state.
        head_dim: Width of the classifier's hidden layer, for each direction.
        attention: Attention over the global states: "general", "simple" or "dot" (which needs utterances as wide as
            global states).
        bidirectional: Whether there is a backward network.
        listener: Whether parties that do not speak are updated as well.
        emotion_attention: Whether a turn attends to the other turns' emotion states.
        parties: Number of parties with their own state; later parties of a dialogue share the last one.
        dropout: Dropout probability of the encoders and in the classifier.
        rec_dropout: Dropout probability of the recurrent states.
    """

    title = "DialogueRNN"
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/1811.00405"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 100,
        global_dim: int = 150,
        party_dim: int = 150,
        emotion_dim: int = 100,
        head_dim: int = 100,
        attention: str = "general",
        bidirectional: bool = True,
        listener: bool = False,
        emotion_attention: bool = True,
        parties: int = 9,
        dropout: float = 0.1,
        rec_dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, num_classes)
        width = hidden * len(self.dims)
        if attention not in ATTENTIONS:
            raise unknown("attention", attention, ATTENTIONS)
        if attention == "dot" and width != global_dim:
            raise ValueError(
                f"dot attention needs utterances and global states of equal width; given {width} and {global_dim}"
            )
        self.parties = parties
        directions = 2 if bidirectional else 1
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        widths = (global_dim, party_dim, emotion_dim)
        self.cells = DialogueCells(
            DialogueCell(width, widths, attention=attention, listener=listener, parties=parties, dropout=rec_dropout)
            for _ in range(directions)
        )
        emotions = directions * emotion_dim
        self.emotion_dropout = nn.Dropout(min(dropout + 0.15, 1.0))
        self.attention = MatchingAttention(emotions, emotions) if emotion_attention else None
        self.head = perceptron(emotions, directions * head_dim, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        utterances, speaker = batch.by_dialogue(self.encoders.joined(batch)), batch.by_dialogue(batch.speaker)
        emotions = self.emotion_dropout(self.cells(utterances, speaker.clamp(max=self.parties - 1), batch.turns))
        if self.attention is not None:
            turns = speaker.shape[1]
            near = window(turns, turns, turns if len(self.cells) == 2 else 0, speaker.device)
            allowed = near & batch.turns[:, None]
            emotions = self.attention(emotions, emotions, allowed) @ emotions
        return self.head(batch.flatten(emotions))
