"""Layers that dialogue methods share: windows, relations between speakers, and graphs as dense masked tensors.

The graph of a dialogue has at most a few hundred nodes, so that a mask [node, other node] and a matrix product are
faster than a list of edges, and need no loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.layers import BidirectionalRNN, masked_softmax
from mer_bench.fusion.utterance import Encoders


def window(turns: int, past: int, future: int, device: torch.device) -> Tensor:
    """Mask [turn, other turn], True for other turns at most ``past`` turns earlier or ``future`` turns later."""
    step = torch.arange(turns, device=device)
    ahead = step - step[:, None]
    return (ahead >= -past) & (ahead <= future)


class DialogueEncoder(nn.Module):
    """Nodes of a dialogue's multimodal graph: each modality's utterance vectors, in dialogue order.

    Shapes:
        batch -> vectors [dialogue, modality, turn, hidden], present [dialogue, modality, turn].
    """

    def __init__(self, dims: Mapping[str, Width], hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.encoders = Encoders(dims, hidden, dropout=dropout)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encode all modalities."""
        vectors = [batch.by_dialogue(vector) for vector in self.encoders(batch)]
        present = [batch.by_dialogue(batch.present[name]) for name in self.encoders]
        return torch.stack(vectors, 1), torch.stack(present, 1)


class SpeakerEmbedding(nn.Embedding):
    """One vector per speaker of a dialogue, in order of appearance; speakers beyond the table share the last one.

    The authors' loaders number IEMOCAP's speakers by gender, so that a vector there means the same in all dialogues.

    Shapes:
        speaker [dialogue, turn] -> [dialogue, turn, dim].
    """

    def forward(self, speaker: Tensor) -> Tensor:
        """Return the speakers' vectors."""
        return super().forward(speaker.clamp(max=self.num_embeddings - 1))


def text_context(
    kind: type[nn.LSTM] | type[nn.GRU], dims: Mapping[str, Width], hidden: int, *, dropout: float
) -> BidirectionalRNN | None:
    """Two bidirectional layers over a dialogue's text vectors, which preserve the width; None without text.

    Raises:
        ValueError: ``hidden`` is odd.
    """
    if hidden % 2:
        raise ValueError(f"width {hidden} is not divisible by 2 directions")
    return BidirectionalRNN(kind, hidden, hidden // 2, layers=2, dropout=dropout) if "text" in dims else None


@dataclass(frozen=True)
class AngularGraph:
    r"""MMGCN's graph, symmetrically normalised; a node is (modality, turn).

    Edges join all turns within a modality, and the modalities of the same utterance, with weights

    .. math:: A_{ij} = 1 - \arccos(0.99999 \cos(x_i, x_j)) / \pi, \quad P = D^{-1/2} A D^{-1/2}

    Only these entries of P are computed. An absent node has no edges.
    """

    within: Tensor  #: [dialogue, modality, turn, other turn]
    across: Tensor  #: [dialogue, turn, modality, other modality]

    @classmethod
    def of(cls, x: Tensor, present: Tensor, *, across_weight: float = 1.0) -> AngularGraph:
        """The graph of nodes ``x`` [dialogue, modality, turn, dim]; edges across modalities get ``across_weight``."""
        unit = F.normalize(x, dim=-1)
        within = cls._similarity(unit, present)
        across = across_weight * cls._similarity(unit.transpose(1, 2), present.transpose(1, 2))
        across = across * ~torch.eye(across.shape[-1], dtype=torch.bool, device=x.device)
        degree = within.sum(-1) + across.sum(-1).transpose(1, 2)
        scale = degree.clamp(min=1e-6).rsqrt()
        return cls(cls._scaled(within, scale), cls._scaled(across, scale.transpose(1, 2)))

    def spread(self, h: Tensor) -> Tensor:
        """P h, [dialogue, modality, turn, dim] -> the same shape."""
        return self.within @ h + (self.across @ h.transpose(1, 2)).transpose(1, 2)

    @staticmethod
    def _similarity(unit: Tensor, present: Tensor) -> Tensor:
        cosine = 0.99999 * unit @ unit.mT
        # half precision rounds it to 1 and more; single precision stays within these bounds
        angle = cosine.to(torch.promote_types(cosine.dtype, torch.float32)).clamp(-0.999999, 0.999999).acos()
        return (1 - angle / math.pi) * (present[..., None] & present[..., None, :])

    @staticmethod
    def _scaled(weights: Tensor, scale: Tensor) -> Tensor:
        return scale[..., None] * weights * scale[..., None, :]


class DeepGraphConvolution(nn.Module):
    r"""One GCNII layer: initial residual and identity mapping (Chen et al. 2020, https://arxiv.org/abs/2007.02133).

    .. math::
        h' = relu\big((1 - \theta) ((1 - \alpha) P h + \alpha h_0) + \theta [P h ; h_0] W\big), \quad
        \theta = \log(\eta / depth + 1)

    Shapes:
        h and start [dialogue, modality, turn, dim] -> the same shape.
    """

    def __init__(self, dim: int, depth: int, *, alpha: float, eta: float) -> None:
        super().__init__()
        self.alpha, self.theta = alpha, math.log(eta / depth + 1)
        self.weight = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, h: Tensor, start: Tensor, graph: AngularGraph) -> Tensor:
        """Propagate ``h`` over the graph and mix it with the first layer's input."""
        propagated = graph.spread(h)
        residual = (1 - self.alpha) * propagated + self.alpha * start
        return F.relu((1 - self.theta) * residual + self.theta * self.weight(torch.cat([propagated, start], -1)))


def deep_graph_convolutions(dim: int, layers: int, *, alpha: float, eta: float) -> nn.ModuleList:
    """One :class:`DeepGraphConvolution` for each depth from 1 to ``layers``."""
    return nn.ModuleList(DeepGraphConvolution(dim, depth, alpha=alpha, eta=eta) for depth in range(1, layers + 1))


class SpeakerRelations:
    """Relation of each pair of turns, by the two speakers and by whether the other turn is later.

    "pairs" distinguishes ordered pairs of speakers, as DialogueGCN and COGMEN do (2 speakers^2 relations; later
    speakers of a dialogue share the last index). "same_other" distinguishes only whether the speaker is the same (4
    relations for any number of speakers) and is therefore invariant to the order of the speakers. A turn itself counts
    as not later. Speakers are numbered by first appearance; the authors' loaders number IEMOCAP's by gender.

    Shapes:
        speaker [dialogue, turn], allowed [dialogue, turn, other turn] -> [dialogue, relation, turn, other turn].
    """

    def __init__(self, kind: str, speakers: int) -> None:
        if kind not in ("pairs", "same_other"):
            raise unknown("relations", kind, ("pairs", "same_other"))
        self.kind, self.speakers = kind, speakers
        self.count = 2 * (speakers**2 if kind == "pairs" else 2)

    def __call__(self, speaker: Tensor, allowed: Tensor) -> Tensor:
        """One mask per relation; for each allowed pair exactly one of them is True."""
        step = torch.arange(speaker.shape[1], device=speaker.device)
        if self.kind == "pairs":
            speaker = speaker.clamp(max=self.speakers - 1)
            who = speaker[:, :, None] * self.speakers + speaker[:, None]
        else:
            who = (speaker[:, :, None] != speaker[:, None]).long()
        relation = 2 * who + (step > step[:, None])
        index = torch.arange(self.count, device=speaker.device)[:, None, None]
        return (relation[:, None] == index) & allowed[:, None]


class RelationalConvolution(nn.Module):
    r"""Relational graph convolution on dense graphs (Schlichtkrull et al. 2018, https://arxiv.org/abs/1703.06103).

    .. math:: x_i' = W_0 x_i + b + \sum_r \sum_j a_{r,i,j} W_r x_j

    The sums over relations and neighbours are one matrix product.

    Shapes:
        x [dialogue, node, dim], weights [dialogue, relation, node, other node] -> [dialogue, node, out].
    """

    def __init__(self, dim: int, out: int, relations: int) -> None:
        super().__init__()
        self.root = nn.Linear(dim, out)
        self.relations = nn.Parameter((torch.rand(relations, dim, out) * 2 - 1) * (6 / (dim + out)) ** 0.5)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Pass messages along each relation."""
        messages = x[:, None] @ self.relations  # [dialogue, relation, node, out]
        return self.root(x) + weights.to(x.dtype).transpose(1, 2).flatten(2) @ messages.flatten(1, 2)


def mean_weights(edges: Tensor) -> Tensor:
    """Weights of a mean over each node's neighbours: mask [..., node, other node] -> the same shape; zero for none."""
    return edges / edges.sum(-1, keepdim=True).clamp(min=1)


class GraphTransformer(nn.Module):
    r"""Graph transformer convolution (Shi et al. 2021, https://arxiv.org/abs/2009.03509), heads concatenated.

    .. math:: x_i' = W_1 x_i + b_1 + \big\Vert_{head} \sum_j softmax_j(q_i^\top k_j / \sqrt{out}) v_j

    Shapes:
        x [dialogue, node, dim], edges [dialogue, node, other node] -> [dialogue, node, heads * out].
    """

    def __init__(self, dim: int, out: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.root = (nn.Linear(dim, heads * out) for _ in range(4))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Attend to the neighbours; a node without neighbours gets the first term only."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        some = edges.any(-1, keepdim=True)
        messages = F.scaled_dot_product_attention(q, k, v, attn_mask=(edges | ~some)[:, None])
        return self.root(x) + messages.transpose(1, 2).flatten(2) * some


class MatchingAttention(nn.Module):
    """Bilinear attention weights softmax_j(q_i W x_j / sqrt(dim)), as DialogueRNN and DialogueGCN match utterances.

    Not in the papers: the scale, and the identity as initial W, so that turns first attend to similar turns. Without
    both, the weights are initially uniform over a dialogue and soon one-hot, since Adam changes all of W at once.

    Shapes:
        query [batch, target, query], source [batch, source, dim], allowed [batch or 1, target, source]
        -> weights [batch, target, source]; zero for a query without an allowed source.
    """

    def __init__(self, query: int, dim: int) -> None:
        super().__init__()
        self.match = nn.Linear(query, dim, bias=False)
        nn.init.eye_(self.match.weight)

    def forward(self, query: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        """Weights over the ``allowed`` positions of ``source``."""
        return masked_softmax(self.match(query) @ source.mT * source.shape[-1] ** -0.5, allowed)
