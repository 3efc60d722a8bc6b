"""M3Net: a hypergraph of utterances and modalities beside graph filters of several frequencies (Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import SpeakerEmbedding, text_context
from mer_bench.fusion.layers import masked_softmax
from mer_bench.fusion.utterance import Encoders


class Hypergraph(nn.Module):
    r"""Hypergraph convolutions in which an edge is a modality of the dialogue or an utterance in all its modalities.

    .. math:: X' = LeakyReLU(D^{-1} H W_e B^{-1} \hat{H}^\top X + b)

    :math:`\hat{H}` contains the weight :math:`\gamma_e(v)` of node v in edge e, H ones, :math:`W_e` the weights of the
    edges; D and B are the degrees of nodes and edges. Each node belongs to two edges, its modality's and its
    utterance's. The product is therefore a mixture of a weighted mean over turns and one over modalities, in proportion
    to the weights of the two edges; all weights are exponentials of parameters that are initially zero, so that the
    weights of the means are softmaxes. An absent node reads its edges but contributes nothing to them.

    The layers share the weights of edges and nodes, but not the bias. Turns after the first ``turns`` share the last
    weights.

    Shapes:
        x [modality, dialogue, turn, dim], present [modality, dialogue, turn] -> as x.
    """

    def __init__(self, modalities: int, dim: int, layers: int, turns: int) -> None:
        super().__init__()
        self.modality_edge, self.utterance_edge = (nn.Parameter(torch.zeros(size)) for size in (modalities, turns))
        self.in_modality, self.in_utterance = (nn.Parameter(torch.zeros(modalities, turns)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(layers, dim))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Average nodes into hyperedges and hyperedges into nodes, layer by layer."""
        turn = torch.arange(x.shape[2], device=x.device).clamp(max=len(self.utterance_edge) - 1)
        over_turns = masked_softmax(self.in_modality[:, None, turn].expand(present.shape), present, 2)
        over_modalities = masked_softmax(self.in_utterance[:, None, turn].expand(present.shape), present, 0)
        share = (self.modality_edge[:, None, None] - self.utterance_edge[turn]).sigmoid()[..., None]
        for bias in self.bias:
            of_modality = torch.einsum("mdt,mdtc->mdc", over_turns, x)[:, :, None]
            of_utterance = torch.einsum("mdt,mdtc->dtc", over_modalities, x)
            x = F.leaky_relu(share * of_modality + (1 - share) * of_utterance + bias)
        return x


class FrequencyFilter(nn.Module):
    r"""A layer that passes low frequencies of the graph along some edges and high frequencies along others.

    With the low-pass filter :math:`I + D^{-1/2} A D^{-1/2}` and the high-pass filter :math:`I - D^{-1/2} A D^{-1/2}`,
    weighted on each edge by shares that add up to one and whose difference is a tanh,

    .. math:: x_i' = x_i + \sum_j \frac{\tanh(a^\top x_i + c^\top x_j + b)}{\sqrt{d_i d_j}} x_j

    Shapes:
        x [modality, dialogue, turn, dim], edges as returned by :func:`graph` -> as x.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.receiver, self.sender = nn.Linear(dim, 1), nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, within: Tensor, across: Tensor) -> Tensor:
        """Add the neighbours with their signed weights."""
        receiver, sender = self.receiver(x)[..., 0], self.sender(x)[..., 0]
        turns = within * (receiver[..., None] + sender[..., None, :]).tanh()
        modalities = across * (receiver[:, None] + sender).tanh()
        return x + turns @ x + torch.einsum("mndt,ndtc->mdtc", modalities, x)


def graph(present: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised edges between all utterances of a modality and between all modalities of an utterance.

    An edge is divided by the roots of both degrees. There are no self-loops and no edges from absent nodes.

    Shapes:
        present [modality, dialogue, turn] -> within a modality [modality, dialogue, turn, other turn],
        across modalities [modality, other modality, dialogue, turn].
    """
    node = present.float()
    rate = (node.sum(2, keepdim=True) + node.sum(0) - 2 * node).clamp(min=1).rsqrt()
    other_turn = ~torch.eye(present.shape[2], dtype=torch.bool, device=present.device)
    other_modality = ~torch.eye(len(present), dtype=torch.bool, device=present.device)
    within = rate[..., None] * (rate * node)[..., None, :] * other_turn
    return within, rate[:, None] * (rate * node) * other_modality[..., None, None]


class M3Net(FusionModule):
    """Relate all utterances and modalities by a hypergraph, and by filters of low and high frequencies on a graph.

    Chen et al. 2023, CVPR, pages 10761 to 10770 (:attr:`paper`)

    A node is one modality of an utterance. A two-layer BiGRU reads the text in dialogue order, a speaker embedding is
    added to it, and one linear layer maps every node to x. Two branches start from x: ``hypergraph_layers`` hyperedge
    convolutions (:class:`Hypergraph`, with weights and biases only, as in the authors' code) and
    ``frequency_layers`` filters (:class:`FrequencyFilter`). logits = W relu([both branches of all modalities]).

    Sizes and dropout are those of the authors' IEMOCAP run (MELD: dropout 0.4, 3 filters).

    Differs from their code: the utterance vectors come from the encoder that all methods share, which has LayerNorms,
    instead of BatchNorms on the text and one linear layer per modality; the weights of hyperedges and nodes belong to
    turns of a dialogue, where theirs belong to positions in a batch, so that a dialogue's logits depend on the others
    of its batch; the weight of a node or edge multiplies its vector and not only the degree; weights are positive;
    speakers are numbered by first appearance, on IEMOCAP there by gender; the loss is the plain cross-entropy (theirs
    is weighted by class on IEMOCAP and focal on MELD). Both branches read future utterances, so that the method works
    offline only.

    Args:
        hidden: Width of the utterance vectors and of both branches, an even number.
        hypergraph_layers: Number of hyperedge convolutions; 0 removes their branch.
        frequency_layers: Number of filters; 0 removes their branch.
        dropout: Dropout probability of the encoders, between the layers of the GRU and before the classifier.
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
        turns: Number of turns with their own hyperedge and node weights; later turns share the last ones.
    """

    title = "M3Net"
    may_be_zero = frozenset({"hypergraph_layers", "frequency_layers"})
    context = "dialogue"
    revision = 1
    paper = (
        "https://openaccess.thecvf.com/content/CVPR2023/html/Chen_Multivariate_Multi-Frequency_and_Multimodal_"
        "Rethinking_Graph_Neural_Networks_for_Emotion_CVPR_2023_paper.html"
    )
    least = 2
    unimodal_encoders = ("encoders", "text_context")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 512,
        hypergraph_layers: int = 3,
        frequency_layers: int = 4,
        dropout: float = 0.5,
        speakers: int = 9,
        turns: int = 128,
    ) -> None:
        super().__init__(dims, num_classes)
        if hypergraph_layers == frequency_layers == 0:
            raise ValueError("hypergraph_layers and frequency_layers are both 0, but at least one branch is needed")
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.text_context = text_context(nn.GRU, self.dims, hidden, dropout=dropout)
        self.speakers = SpeakerEmbedding(speakers, hidden) if "text" in self.dims else None
        self.node = nn.Linear(hidden, hidden)
        self.hypergraph = Hypergraph(len(self.dims), hidden, hypergraph_layers, turns) if hypergraph_layers else None
        self.filters = nn.ModuleList(FrequencyFilter(hidden) for _ in range(frequency_layers))
        branches = (hypergraph_layers > 0) + (frequency_layers > 0)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.ReLU(), nn.Linear(branches * len(self.dims) * hidden, num_classes)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        present = batch.by_dialogue(self.present(batch).T).movedim(-1, 0)
        x = self.node(torch.stack([self._utterances(batch, name) for name in self.dims]))
        branches = [] if self.hypergraph is None else [self.hypergraph(x, present)]
        if self.filters:
            within, across = graph(present)
            for layer in self.filters:
                x = layer(x, within, across)
            branches.append(x)
        nodes = torch.cat(branches, -1).movedim(0, 2)  # [dialogue, turn, modality, branches * hidden]
        return self.head(batch.flatten(nodes.flatten(2)))

    def _utterances(self, batch: Batch, name: str) -> Tensor:
        """One modality's utterances, for text with context and speakers: [dialogue, turn, hidden]."""
        h = batch.by_dialogue(self.encoders[name](batch))
        if name == "text" and self.text_context is not None and self.speakers is not None:
            h = self.text_context(h, batch.turns) + self.speakers(batch.by_dialogue(batch.speaker))
        return h
