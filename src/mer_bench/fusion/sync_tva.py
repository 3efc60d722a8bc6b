"""Sync-TVA: one graph per pair of modalities over a dialogue, then cross-attention (Deng et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import SpeakerEmbedding, window
from mer_bench.fusion.layers import BidirectionalRNN, masked_mean, masked_softmax, perceptron
from mer_bench.fusion.transformer import Attention
from mer_bench.fusion.utterance import Encoders


class Enhancement(nn.Module):
    """MSDE, modality-specific dynamic enhancement: a feed-forward update with an input-dependent gate.

    u = FFN(h), g = sigmoid(W_2 relu(W_1 [h; mean over turns of h])), h' = LayerNorm(h + g * u).

    Shapes:
        h [dialogue, turn, dim], present [dialogue, turn] -> [dialogue, turn, dim].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.update = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gate = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.Sigmoid())
        self.norm = nn.LayerNorm(dim)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Enhance one modality."""
        mean = masked_mean(h, present)[:, None].expand_as(h)
        return self.norm(h + self.gate(torch.cat([h, mean], -1)) * self.update(h))


class GraphAttention(nn.Module):
    r"""One GATv2 layer on several graphs at once, each with its own weights, without edge lists.

    A node is (side s, turn i), where a side is a modality. Node (s, i) receives messages from (s', j) for j within the
    window of i, with

    .. math:: e_{ij} = a^\top LeakyReLU(W_q x_i + W_k x_j + t_{s, s', i = j}), \quad
        x_i' = LayerNorm(x_i + \sum_j softmax_j(e_{ij}) W_k x_j)

    Two sides have six edge types t: two within the sides, and in both directions across them one for the same utterance
    and one for others. Scores are computed within the window only; the attention weights, which have no feature axis,
    are then stored densely, so that the sum over neighbours is one matrix product.

    Shapes:
        x [graph, side, dialogue, turn, dim], present [graph, side, dialogue, turn] -> as x.
    """

    types: Tensor

    def __init__(
        self, graphs: int, sides: int, dim: int, *, heads: int, past: int | None, future: int | None, dropout: float
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads, self.past, self.future = heads, past, future
        self.query, self.key = (nn.Parameter(torch.randn(graphs, dim, dim) * dim**-0.5) for _ in range(2))
        self.score = nn.Parameter(torch.randn(graphs, heads, dim // heads) * (dim // heads) ** -0.5)
        other = torch.arange(sides * sides).view(sides, sides)  # [side, other side]
        same = other.clone()  # a self-loop has the type of other edges within its side
        across = ~torch.eye(sides, dtype=torch.bool)
        same[across] = torch.arange(sides * sides, sides * (2 * sides - 1))
        self.register_buffer("types", torch.stack([same, other]), persistent=False)
        self.edge = nn.Parameter(torch.randn(graphs, sides * (2 * sides - 1), dim) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Attend, add and normalise; an absent node receives messages but sends none."""
        query = torch.einsum("gsdnc,gce->gdsne", x, self.query)
        key = torch.einsum("gsdnc,gce->gdsne", x, self.key)
        same, other = self.edge[:, self.types].unbind(1)  # [graph, side, side, dim] each
        query = query[:, :, :, None]  # [graph, dialogue, side, 1, turn, dim]
        turns = x.shape[3]
        past, future = (turns - 1 if side is None else min(side, turns - 1) for side in (self.past, self.future))
        if self.past is None:  # recompute the features of all pairs of nodes in the backward pass, to save memory
            scores = checkpoint(
                self.all_scores, query + other[:, None, :, :, None], key, use_reentrant=False, preserve_rng_state=False
            )
        else:
            scores = self.window_scores(query + other[:, None, :, :, None], key, past, future)
        aligned = self.contract(query + same[:, None, :, :, None] + key[:, :, None])
        scores = scores.diagonal_scatter(aligned.movedim(-1, 2), dim1=4, dim2=6)
        near = window(turns, past, future, x.device)[:, None]  # [turn, 1, turn]
        allowed = near & present.transpose(1, 2)[:, :, None, None, None]  # [graph, dialogue, 1, 1, turn, side, turn]
        weights = self.dropout(masked_softmax(scores.flatten(-2), allowed.expand(scores.shape).flatten(-2)))
        values = key.view(*key.shape[:4], self.heads, -1).permute(0, 1, 4, 2, 3, 5)
        messages = weights.flatten(3, 4) @ values.flatten(3, 4)
        messages = messages.view(values.shape)  # [graph, dialogue, head, side, turn, dim of a head]
        return self.norm(x + self.dropout(messages.permute(0, 3, 1, 4, 2, 5).flatten(-2)))

    def window_scores(self, query: Tensor, key: Tensor, past: int, future: int) -> Tensor:
        """Scores [graph, dialogue, head, side, turn, other side, other turn], computed within the window only.

        Shapes:
            query, with edge types, [graph, dialogue, side, other side, turn, dim];
            key [graph, dialogue, other side, turn, dim].
        """
        size, turns = past + 1 + future, key.shape[3]
        windows = F.pad(key, (0, 0, past, future)).unfold(3, size, 1).movedim(-1, -2)  # a view, [..., turn, size, dim]
        banded = self.contract(query[..., None, :] + windows[:, :, None]).movedim(-1, 2)
        # Row i of the band must move i positions to the right: padded rows, read again with one element less, do so.
        shifted = F.pad(banded, (0, turns)).flatten(-2)[..., :-turns]
        dense = shifted.reshape(*banded.shape[:-1], size + turns - 1)[..., past : past + turns]
        return dense.transpose(-3, -2)

    def all_scores(self, query: Tensor, key: Tensor) -> Tensor:
        """The same scores without a window."""
        return self.contract(query[..., None, :] + key[:, :, None, :, None]).movedim(-1, 2).transpose(-3, -2)

    def contract(self, pairs: Tensor) -> Tensor:
        """Score each pair of nodes: [graph, ..., dim] -> [graph, ..., head].

        It works in place and by one matrix product, since the pairs are by far the largest tensor of the method.
        """
        eye = torch.eye(self.heads, dtype=self.score.dtype, device=self.score.device)
        columns = (self.score[..., None] * eye[:, None]).flatten(1, 2)  # [graph, dim, head], zero off the head's block
        return (F.leaky_relu(pairs, 0.2, inplace=True).flatten(1, -2) @ columns).view(*pairs.shape[:-1], self.heads)


class Concatenation(nn.Module):
    """The ablation without CAF: [z_m]_m, z [modality, dialogue, turn, dim] -> [dialogue, turn, width]."""

    def __init__(self, modalities: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.width = modalities * dim

    def forward(self, z: Tensor, present: Tensor, near: Tensor) -> Tensor:
        """Concatenate the modalities."""
        return z.movedim(0, 2).flatten(2)


class Addition(nn.Module):
    """The ablation without CAF: sum over m of z_m, z [modality, dialogue, turn, dim] -> [dialogue, turn, width]."""

    def __init__(self, modalities: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.width = dim

    def forward(self, z: Tensor, present: Tensor, near: Tensor) -> Tensor:
        """Add the modalities."""
        return z.sum(0)


class GatedSum(Addition):
    """The ablation without CAF: sum over m of sigmoid(W_m [z_j]_j) * z_m."""

    def __init__(self, modalities: int, dim: int, dropout: float) -> None:
        super().__init__(modalities, dim, dropout)
        self.gate = nn.Linear(modalities * dim, modalities * dim)

    def forward(self, z: Tensor, present: Tensor, near: Tensor) -> Tensor:
        """Multiply by the gates and add the modalities."""
        modalities = z.movedim(0, 2)
        gate = self.gate(modalities.flatten(2)).sigmoid().view(modalities.shape)
        return (gate * modalities).sum(2)


class CrossAttention(Concatenation):
    """CAF: each modality attends to the others' utterances within the window; residual, LayerNorm, feed-forward block.

    Shapes:
        z [modality, dialogue, turn, dim], present [modality, dialogue, turn], near [turn, turn]
        -> [dialogue, turn, width].
    """

    def __init__(self, modalities: int, dim: int, dropout: float, heads: int = 8) -> None:
        super().__init__(modalities, dim, dropout)
        self.attention = nn.ModuleList(Attention(dim, heads, dropout=dropout) for _ in range(modalities))
        self.ffn = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim))
            for _ in range(modalities)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * modalities))
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, present: Tensor, near: Tensor) -> Tensor:
        """Attend from each modality to the others and concatenate the results."""
        fused = []
        for m, (attention, ffn) in enumerate(zip(self.attention, self.ffn, strict=True)):
            others = [j for j in range(len(z)) if j != m]
            source = torch.cat([z[j] for j in others], 1)
            allowed = torch.cat([near & present[j][:, None] for j in others], 2)
            x = self.norms[2 * m](z[m] + self.dropout(attention(z[m], source, allowed)))
            fused.append(self.norms[2 * m + 1](x + self.dropout(ffn(x))))
        return torch.cat(fused, -1)


FUSIONS: dict[str, type[Concatenation] | type[Addition]] = {
    "cross_attention": CrossAttention,
    "concat": Concatenation,
    "add": Addition,
    "gated": GatedSum,
}


class SyncTVA(FusionModule):
    """Enhance each modality, pass messages on one graph per pair of modalities and fuse by cross-attention.

    Deng et al. 2025, https://arxiv.org/abs/2507.21395

    1. The encoder that all methods share computes one vector per utterance and modality. Ours, and not the paper's as
       far as it is known: a BiGRU reads the text in dialogue order, and a speaker embedding is added.
    2. MSDE (:class:`Enhancement`) gates an update of each modality.
    3. Each pair of modalities forms a graph: visual-audio, text-visual and audio-text. The abstract speaks of graphs
       across the three modalities; that these are the pairs is known from second-hand transcriptions of the paper only.
       A graph has 2N nodes and six edge types (:class:`GraphAttention`); the outputs of a modality's graphs are added
       and normalised.
    4. CAF (:class:`CrossAttention`): each modality attends to the others; a classifier with one hidden layer follows.

    A reconstruction: no code is public, and only the names of the paper's parts and their order are certain. All sizes,
    the rule for edges, the windows and the plain cross-entropy are inferred from related methods; the abstract speaks
    of imbalanced classes, but names no term of the loss (``class_weights`` of the training is an answer). Differs from
    what is known: features are frozen, where the paper describes end-to-end training. The interpretation in which nodes
    are the frames of a single utterance is not implemented. Windows and BiGRU read future utterances, so that the
    method works offline only.

    Args:
        enhancement: Whether MSDE is used.
        graph: ``pairwise``; ``same_utterance`` (only edges within an utterance, and self-loops); ``full`` (no window,
            so that memory grows with the square of the dialogue's length); ``joint`` (one graph of all modalities);
            ``within`` (one graph per modality, without edges between modalities); ``none``.
        fusion: ``cross_attention`` (CAF), ``concat``, ``add`` or ``gated`` (a gated sum).
        window_past: Number of earlier turns in the window of a turn (5 suits MELD).
        window_future: Number of later turns in it.
        hidden: Width throughout.
        layers: Number of graph attention layers.
        heads: Number of heads of graph attention.
        dropout: Dropout probability everywhere except in the classifier.
        head_dropout: Dropout probability in the classifier.
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
    """

    title = "Sync-TVA"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    revision = 1
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2507.21395"
    least = 2
    unimodal_encoders = ("encoders", "text_context", "enhancements")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        enhancement: bool = True,
        graph: str = "pairwise",
        fusion: str = "cross_attention",
        window_past: int = 10,
        window_future: int = 10,
        hidden: int = 256,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.3,
        head_dropout: float = 0.4,
        speakers: int = 9,
    ) -> None:
        super().__init__(dims, num_classes)
        modalities = len(self.dims)
        self.window = (window_past, window_future)
        pairs = list(combinations(range(modalities), 2))
        variants: dict[str, tuple[Sequence[tuple[int, ...]], tuple[int, int] | tuple[None, None]]] = {
            "pairwise": (pairs, self.window),
            "same_utterance": (pairs, (0, 0)),
            "full": (pairs, (None, None)),
            "joint": ([tuple(range(modalities))], self.window),
            "within": ([(m,) for m in range(modalities)], self.window),
            "none": ([], self.window),
        }
        if graph not in variants:
            raise unknown("graph", graph, variants)
        if fusion not in FUSIONS:
            raise unknown("fusion", fusion, FUSIONS)
        self.graphs, (past, future) = variants[graph]

        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.text_context = BidirectionalRNN(nn.GRU, hidden, hidden // 2) if "text" in self.dims else None
        self.speakers = SpeakerEmbedding(speakers, hidden)
        self.enhancements = nn.ModuleList(Enhancement(hidden) for _ in range(modalities if enhancement else 0))
        self.graph_layers = nn.ModuleList(
            GraphAttention(
                len(self.graphs), len(self.graphs[0]), hidden, heads=heads, past=past, future=future, dropout=dropout
            )
            for _ in range(layers if self.graphs else 0)
        )
        self.graph_norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(modalities if self.graphs else 0))
        self.fusion = FUSIONS[fusion](modalities, hidden, dropout)
        self.head = perceptron(self.fusion.width, hidden, num_classes, dropout=head_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        present = batch.by_dialogue(self.present(batch).T).movedim(-1, 0)
        h = torch.stack([self._utterances(batch, name) for name in self.dims])  # [modality, dialogue, turn, hidden]
        if self.enhancements:
            h = torch.stack([enhance(h[m], present[m]) for m, enhance in enumerate(self.enhancements)])
        if self.graphs:
            h = self._messages(h, present)
        near = window(h.shape[2], *self.window, h.device)
        return self.head(batch.flatten(self.fusion(h, present, near)))

    def _utterances(self, batch: Batch, name: str) -> Tensor:
        """One modality's utterances plus speaker embeddings: [dialogue, turn, hidden]."""
        h = batch.by_dialogue(self.encoders[name](batch))
        if name == "text" and self.text_context is not None:
            h = self.text_context(h, batch.turns)
        return h + self.speakers(batch.by_dialogue(batch.speaker))

    def _messages(self, h: Tensor, present: Tensor) -> Tensor:
        """Graph attention: [modality, dialogue, turn, hidden] -> the same shape."""
        nodes, real = (
            torch.stack([torch.stack([tensor[m] for m in graph]) for graph in self.graphs]) for tensor in (h, present)
        )
        for layer in self.graph_layers:
            nodes = layer(nodes, real)
        messages = [
            sum(nodes[g, graph.index(m)] for g, graph in enumerate(self.graphs) if m in graph) for m in range(len(h))
        ]
        return torch.stack([norm(x) for norm, x in zip(self.graph_norms, messages, strict=True)])
