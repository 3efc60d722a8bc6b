"""CORECT: a relational graph of utterances and modalities beside cross-modal attention (Nguyen et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import (
    DialogueEncoder,
    GraphTransformer,
    RelationalConvolution,
    SpeakerEmbedding,
    mean_weights,
    window,
)
from mer_bench.fusion.layers import perceptron
from mer_bench.fusion.transformer import TransformerEncoder

EDGES = ("all", "temporal", "multimodal")


class RelationalTemporalGraph(nn.Module):
    """RT-GCN: each node receives messages from nearby turns of its modality and from its utterance's other modalities.

    Each modality has one relation to earlier turns, one to later turns and one to the node itself; each ordered pair of
    modalities has one relation. A relational convolution, which averages over each relation, is followed by a graph
    transformer on all edges, a LayerNorm and a leaky ReLU.

    The output has width ``dim`` per head. The other arguments are those of :class:`CORECT`.

    Shapes:
        x [dialogue, modality, turn, dim], present [dialogue, modality, turn]
        -> [dialogue, modality, turn, heads * dim].
    """

    sides: Tensor
    order: Tensor

    def __init__(self, modalities: int, dim: int, *, heads: int, past: int, future: int, edges: str) -> None:
        super().__init__()
        if edges not in EDGES:
            raise unknown("edges", edges, EDGES)
        self.past, self.future = past, future
        orders = (0,) if edges == "multimodal" else (0, 1, 2)  # the node itself, earlier, later
        kinds = [(side, side, order) for order in orders for side in range(modalities)]
        if edges != "temporal":
            kinds += [(*pair, 0) for pair in permutations(range(modalities), 2)]
        side, other, order = torch.tensor(kinds).unbind(1)
        every = torch.arange(modalities)
        sides = (every[:, None] == side[:, None, None]) & (every == other[:, None, None])
        self.register_buffer("sides", sides, persistent=False)  # [relation, modality, other modality]
        self.register_buffer("order", order, persistent=False)  # [relation]
        self.relational = RelationalConvolution(dim, dim, len(kinds))
        self.attentive = GraphTransformer(dim, dim, heads=heads)
        self.norm = nn.LayerNorm(heads * dim)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Pass messages; an absent node receives messages but sends none."""
        relations = self.relations(present)
        nodes = self.relational(x.flatten(1, 2), mean_weights(relations))
        nodes = F.leaky_relu(self.norm(self.attentive(nodes, relations.any(1))))
        return nodes.view(*x.shape[:3], -1)

    def relations(self, present: Tensor) -> Tensor:
        """One mask per relation: [dialogue, modality, turn] -> [dialogue, relation, node, other node]."""
        near = window(present.shape[2], self.past, self.future, present.device)
        order = torch.stack([near.tril().triu(), near.tril(-1), near.triu(1)])[self.order]
        edges = self.sides[:, :, None, :, None] & order[:, None, :, None]  # [relation, side, turn, side, turn]
        return (edges & present[:, None, None, None]).flatten(4, 5).flatten(2, 3)


class CORECT(FusionModule):
    r"""A graph of nearby utterances beside cross-modal attention over the whole dialogue.

    Nguyen et al. 2023, https://arxiv.org/abs/2311.04507

    With :math:`x` the nodes' vectors (text read by a transformer, a speaker embedding added),

    .. math::
        z_t = [RTGCN(x)_{m,t}]_m, \quad c_t = [Memory_m([CM_{j \to m}(x_m, x_j)]_{j \neq m})_t]_m, \quad
        logits_t = W_2 relu(W_1 [z_t ; c_t])

    RT-GCN is :class:`RelationalTemporalGraph`; CM and Memory (P-CM) are MulT's transformers with the turns as time.

    Sizes, heads, layers, windows and dropout are those of the authors' IEMOCAP script. Differs from their code:
    utterance vectors come from the encoder that all methods share, where audio and vision have two linear layers and
    text a transformer as wide as its features, of 8 heads; the transformers are pre-LayerNorm throughout, read the
    turns' positions (theirs have none) and mask padding; speakers are numbered by first appearance, there by gender;
    the norm is a LayerNorm, there a BatchNorm. The windows are those of the paper: in the code a turn sends messages to
    its window, so that past and future are exchanged, and the last later turn is left out. Turns receive messages from
    later turns, so that the method works offline only.

    Args:
        hidden: Width of the nodes' vectors, of each graph head and of the classifier.
        graph_heads: Number of heads of the graph transformer.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        edges: Ablation switch: "all" edges, or only "temporal" (within modalities) or "multimodal" ones (within
            utterances).
        heads: Number of heads of all other attention.
        text_layers: Number of layers of the transformer that reads the text.
        cross_layers: Number of layers of each cross-modal transformer.
        memory_layers: Number of layers of each modality's memory.
        dropout: Dropout probability of the encoders, the text transformer and the classifier.
        graph: Ablation switch: without RT-GCN.
        cross_modal: Ablation switch: without P-CM (which needs at least two modalities).
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
    """

    title = "CORECT"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2311.04507"
    unimodal_encoders = ("encoder", "text_context")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 100,
        graph_heads: int = 7,
        window_past: int = 11,
        window_future: int = 5,
        edges: str = "all",
        heads: int = 2,
        text_layers: int = 2,
        cross_layers: int = 2,
        memory_layers: int = 3,
        dropout: float = 0.5,
        graph: bool = True,
        cross_modal: bool = True,
        speakers: int = 9,
    ) -> None:
        super().__init__(dims, num_classes)
        modalities = len(self.dims)

        def encoder(width: int, layers: int, dropout: float) -> TransformerEncoder:
            return TransformerEncoder(width, heads=heads, layers=layers, dropout=dropout)

        self.encoder = DialogueEncoder(self.dims, hidden, dropout=dropout)
        self.text_context = encoder(hidden, text_layers, dropout) if "text" in self.dims else None
        self.speakers = SpeakerEmbedding(speakers, hidden)
        self.graph = (
            RelationalTemporalGraph(
                modalities, hidden, heads=graph_heads, past=window_past, future=window_future, edges=edges
            )
            if graph
            else None
        )
        self.pairs = list(permutations(range(modalities), 2)) if cross_modal else []  # target, source
        self.cross = nn.ModuleList(encoder(hidden, cross_layers, 0.0) for _ in self.pairs)
        memories = modalities if self.pairs else 0
        self.memory = nn.ModuleList(encoder(hidden * (modalities - 1), memory_layers, 0.0) for _ in range(memories))
        width = modalities * graph_heads if graph else 0
        width += modalities * (modalities - 1) if self.pairs else 0
        self.head = perceptron(hidden * (width or modalities), hidden, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        x, present = self.encoder(batch)  # [dialogue, modality, turn, hidden]
        if self.text_context is not None:
            text = self.text_context(PaddedSequence(x[:, 0], present[:, 0])).values
            x = torch.cat([text[:, None], x[:, 1:]], 1)
        x = x + self.speakers(batch.by_dialogue(batch.speaker))[:, None]
        parts = [] if self.graph is None else [self.graph(x, present).transpose(1, 2).flatten(2)]
        parts += self.interactions(x, present)
        return self.head(batch.flatten(torch.cat(parts or list(x.unbind(1)), -1)))

    def interactions(self, x: Tensor, present: Tensor) -> list[Tensor]:
        """P-CM: the output of each modality's memory, [dialogue, turn, hidden * others] each."""
        if not self.pairs:
            return []
        sequences = [PaddedSequence(*one) for one in zip(x.unbind(1), present.unbind(1), strict=True)]
        views: list[list[Tensor]] = [[] for _ in sequences]
        for (target, source), attend in zip(self.pairs, self.cross, strict=True):
            views[target].append(attend(sequences[target], sequences[source]).values)
        return [
            memory(PaddedSequence(torch.cat(own, -1), sequence.mask)).values
            for memory, own, sequence in zip(self.memory, views, sequences, strict=True)
        ]
