"""CCF-AGCN: co-attention between modalities, then a graph of turns with learnt edges (Feng and Fan 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import DialogueEncoder, MatchingAttention, RelationalConvolution, SpeakerRelations, window
from mer_bench.fusion.layers import BidirectionalRNN
from mer_bench.fusion.transformer import TransformerEncoder


class CCFAGCN(FusionModule):
    r"""Align each modality with every other one over the dialogue, then pass messages between nearby turns.

    Feng and Fan 2025, "Cross-modal Context Fusion and Adaptive Graph Convolutional Network for Multimodal
    Conversational Emotion Recognition" (named MERC-GCN in its text), https://arxiv.org/abs/2501.15063

    With the utterance vectors :math:`h_m` of all turns, a co-attention transformer CT for each ordered pair of
    modalities (queries of m, keys and values of n), :math:`N_i` the window of turn i (itself included), divided by
    speakers and order into :math:`N_i^r` (:class:`SpeakerRelations`), and edge weights that are learnt
    (:class:`MatchingAttention`),

    .. math::
        a_m &= W_m [CT_{n \to m}(h_m, h_n)]_{n \neq m} + h_m, \quad g = GRU([a_m]_m) \\
        w_{ij} &= softmax_{j \in N_i}(g_i^\top W_e g_j), \quad
        x_i = relu\Big(W_0 g_i + b + \sum_r \sum_{j \in N_i^r} w_{ij} W_r g_j\Big) \\
        logits_i &= W [g_i ; x_i], \quad loss = CE(logits) + \lambda \operatorname{mean}_m CE(V_m a_m)

    No code was found, and only the abstract and descriptions of the paper could be read. Stated there: co-attention
    transformers between pairs of modalities align them and reduce the noise of their interference; a context fusion
    module follows; a directed graph of the dialogue with learnable edges captures dependencies between speakers and of
    a speaker on himself; the training has several tasks; text vectors have 200 numbers, the others 100. Inferred, from
    related methods: a bidirectional GRU as context fusion, one relational graph convolution with attention as edge
    weights (as in DialogueGCN), all sizes and windows, both residuals, and classifiers of the single aligned modalities
    as the additional tasks. Attention, GRU and windows read future turns, so that the method works offline only.

    Args:
        hidden: Width of the utterance vectors, of the recurrent network in each direction and of the graph.
        layers: Number of layers of each co-attention transformer.
        heads: Number of its heads; it must divide ``hidden``.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        relations: "same_other", or "pairs" of speakers.
        speakers: Number of speakers that "pairs" distinguishes; later speakers of a dialogue count as the last one.
        auxiliary: Weight lambda of the losses of the single modalities.
        dropout: Dropout probability of the encoders, the transformers and before the classifiers.
    """

    title = "CCF-AGCN"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2501.15063"
    least = 2
    unimodal_encoders = ("encoder",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 100,
        layers: int = 1,
        heads: int = 4,
        window_past: int = 10,
        window_future: int = 10,
        relations: str = "same_other",
        speakers: int = 2,
        auxiliary: float = 0.5,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        names, others = tuple(self.dims), len(self.dims) - 1
        self.window, self.auxiliary = (window_past, window_future), auxiliary
        self.relations = SpeakerRelations(relations, speakers)
        self.encoder = DialogueEncoder(self.dims, hidden, dropout=dropout)
        self.coattention = nn.ModuleDict(
            {
                f"{source}_to_{target}": TransformerEncoder(hidden, heads=heads, layers=layers, dropout=dropout)
                for target, source in permutations(names, 2)
            }
        )
        self.align = nn.ModuleDict({name: nn.Linear(others * hidden, hidden) for name in names})
        self.rnn = BidirectionalRNN(nn.GRU, len(names) * hidden, hidden)
        self.edges = MatchingAttention(2 * hidden, 2 * hidden)
        self.relational = RelationalConvolution(2 * hidden, hidden, self.relations.count)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, num_classes) for name in names} if auxiliary else {})
        self.head = nn.Linear(3 * hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.classify(self.aligned(batch), batch)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and those of the single modalities where they are present."""
        aligned = self.aligned(batch)
        losses = {"cross_entropy": self.cross_entropy(self.classify(aligned, batch), batch)}
        if self.auxiliary:
            flat = self.dropout(torch.stack([batch.flatten(a) for a in aligned]))
            logits = torch.stack([head(a) for head, a in zip(self.heads.values(), flat, strict=True)])
            losses["modalities"] = self.auxiliary * self.modality_cross_entropies(logits, batch).mean()
        return losses

    def aligned(self, batch: Batch) -> list[Tensor]:
        """Each modality's turns with what they read of the others: [dialogue, turn, hidden] each."""
        vectors, present = self.encoder(batch)
        h = dict(zip(self.dims, vectors.unbind(1), strict=True))
        sources = {name: PaddedSequence(h[name], mask) for name, mask in zip(h, present.unbind(1), strict=True)}
        return [own + self.align[name](self._read(name, own, sources, batch.turns)) for name, own in h.items()]

    def classify(self, aligned: list[Tensor], batch: Batch) -> Tensor:
        """Context fusion, graph and classifier: logits [utterance, num_classes]."""
        g = self.rnn(torch.cat(aligned, -1), batch.turns)
        near = window(g.shape[1], *self.window, g.device) & batch.turns[:, None]
        relations = self.relations(batch.by_dialogue(batch.speaker), near)
        x = F.relu(self.relational(g, relations * self.edges(g, g, near)[:, None]))
        return self.head(self.dropout(batch.flatten(torch.cat([g, x], -1))))

    def _read(self, target: str, own: Tensor, sources: Mapping[str, PaddedSequence], turns: Tensor) -> Tensor:
        """What all turns, also those without the target, read of the others: [dialogue, turn, others * hidden]."""
        query = PaddedSequence(own, turns)
        pairs = [
            (self.coattention[f"{name}_to_{target}"], source) for name, source in sources.items() if name != target
        ]
        return torch.cat([transformer(query, source).values for transformer, source in pairs], -1)
