"""MM-DFN: a deep multimodal graph convolution with gates from layer to layer (Hu et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import AngularGraph, DialogueEncoder, deep_graph_convolutions, text_context


class PartyGRU(nn.Module):
    """Bidirectional GRU in which each turn continues from the last state of its speaker.

    It equals one GRU over each party's own utterances, for any number of parties.

    Shapes:
        values [batch, turn, dim], speaker and mask [batch, turn] -> [batch, turn, 2 hidden]; padding stays zero.
    """

    def __init__(self, dim: int, hidden: int, *, layers: int, parties: int, dropout: float) -> None:
        super().__init__()
        self.parties, self.hidden = parties, hidden
        widths = [dim] + [2 * hidden] * (layers - 1)
        self.ahead = nn.ModuleList(nn.GRUCell(width, hidden) for width in widths)
        self.back = nn.ModuleList(nn.GRUCell(width, hidden) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, speaker: Tensor, mask: Tensor) -> Tensor:
        """Read each party's turns in both directions; dropout applies between layers only."""
        party = torch.arange(self.parties, device=speaker.device)
        speaks = (speaker.clamp(max=self.parties - 1)[..., None] == party) & mask[..., None]
        for depth, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(values) if depth else values
            states = [self.read(ahead, x, speaks), self.read(back, x.flip(1), speaks.flip(1)).flip(1)]
            values = torch.cat(states, -1) * mask[..., None]
        return values

    def read(self, cell: nn.Module, values: Tensor, speaks: Tensor) -> Tensor:
        """One direction: [batch, turn, dim], [batch, turn, party] -> [batch, turn, hidden]."""
        party = values.new_zeros(len(values), self.parties, self.hidden)
        states = []
        for x, who in zip(values.unbind(1), speaks[..., None].unbind(1), strict=True):
            state = cell(x, (party * who).sum(1))
            party = torch.where(who, state[:, None], party)
            states.append(state)
        return torch.stack(states, 1)


class MMDFN(FusionModule):
    r"""Deep convolution of the multimodal graph, with gates that remember the states of previous layers.

    Hu et al. 2022, https://arxiv.org/abs/2203.02385

    On MMGCN's graph P (:class:`AngularGraph`), with one LSTM cell for all layers and nodes, whose steps are the layers,

    .. math::
        (g^l, c^l) &= LSTM(h^{l-1}, (g^{l-1}, c^{l-1})) \\
        h^l &= h^{l-1} + GCNII_l(P, g^l, h^0) \\
        logits_t &= W relu([x_{m,t} ; h^L_{m,t}]_m)

    The nodes' vectors :math:`x` are each modality's utterance vectors (a BiGRU reads the text), plus a multiple of the
    states of a BiGRU over each party's own utterances, which parties and modalities share (:class:`PartyGRU`).

    Sizes, alpha, eta and the multiples (3 for audio, 0 for vision, 1 for text, as on IEMOCAP; 0.5, 0.5 and 1.5 on MELD)
    are those of the authors' code, which has 16 or 32 layers on IEMOCAP. Differs from it: utterance vectors come from
    the encoder that all methods share, where the code has one linear layer per modality; the party GRU stops at a
    party's last utterance, where the code's reads on over zeros, with which its backward direction begins; speakers are
    numbered by first appearance, on IEMOCAP there by gender; the loss is the plain cross-entropy, there a focal loss,
    weighted by class on IEMOCAP. A missing modality has no node. Turns receive messages from later turns, so that the
    method works offline only.

    Args:
        hidden: Width of the nodes' vectors, even.
        graph: Width of the graph convolutions and of the gates.
        layers: Number of graph convolutions.
        alpha: Share of the first layer's input in each layer.
        eta: How slowly the weight of the layers' linear maps decreases with depth.
        across_weight: Weight of the edges across modalities, relative to those within.
        text_speaker: Multiple of the party context of text; 0 removes it.
        audio_speaker: Multiple of the party context of audio.
        vision_speaker: Multiple of the party context of vision.
        dynamic: Ablation switch: without the gates and the sum over layers, plain GCNII.
        parties: Number of parties with their own state; later parties of a dialogue share the last one.
        dropout: Dropout probability everywhere.
    """

    title = "MM-DFN"
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2203.02385"
    unimodal_encoders = ("encoder", "text_context")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 200,
        graph: int = 100,
        layers: int = 16,
        alpha: float = 0.2,
        eta: float = 0.5,
        across_weight: float = 1.0,
        text_speaker: float = 1.0,
        audio_speaker: float = 3.0,
        vision_speaker: float = 0.0,
        dynamic: bool = True,
        parties: int = 9,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(dims, num_classes)
        self.across_weight = across_weight
        multiples = {"text": text_speaker, "audio": audio_speaker, "vision": vision_speaker}
        self.multiples = {side: multiples[name] for side, name in enumerate(self.dims) if multiples.get(name)}
        self.encoder = DialogueEncoder(self.dims, hidden, dropout=dropout)
        self.text_context = text_context(nn.GRU, self.dims, hidden, dropout=dropout)
        self.party = (
            PartyGRU(hidden, hidden // 2, layers=2, parties=parties, dropout=dropout) if self.multiples else None
        )
        self.start = nn.Linear(hidden, graph)
        self.gates = nn.LSTMCell(graph, graph) if dynamic else None
        self.convolutions = deep_graph_convolutions(graph, layers, alpha=alpha, eta=eta)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear((hidden + graph) * len(self.dims), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        x, present = self.encoder(batch)
        x = self.read(x, batch)
        graph = AngularGraph.of(x, present, across_weight=self.across_weight)
        x = self.dropout(x)
        h = self.fuse(F.relu(self.start(x)), graph)
        nodes = torch.cat([x, h], -1).transpose(1, 2).flatten(2)
        return self.head(batch.flatten(self.dropout(F.relu(nodes))))

    def read(self, x: Tensor, batch: Batch) -> Tensor:
        """Add the context of dialogue and parties: [dialogue, modality, turn, hidden] -> the same shape."""
        nodes = list(x.unbind(1))
        if self.text_context is not None:
            nodes[0] = self.text_context(x[:, 0], batch.turns)
        if self.party is not None:
            own = torch.stack([x[:, side] for side in self.multiples], 1)
            speaker, real = (
                grid.repeat_interleave(own.shape[1], 0) for grid in (batch.by_dialogue(batch.speaker), batch.turns)
            )
            said = self.party(own.flatten(0, 1), speaker, real).view_as(own)
            for position, (side, multiple) in enumerate(self.multiples.items()):
                nodes[side] = nodes[side] + multiple * said[:, position]
        return torch.stack(nodes, 1)

    def fuse(self, start: Tensor, graph: AngularGraph) -> Tensor:
        """States of the nodes after all layers."""
        h = self.dropout(start)
        states: tuple[Tensor, Tensor] | None = None
        for convolution in self.convolutions:
            if self.gates is None:
                h = self.dropout(convolution(h, start, graph))
            else:
                states = self.gates(h.flatten(0, 2), states)
                h = h + self.dropout(convolution(states[0].view_as(h), start, graph))
        return h
