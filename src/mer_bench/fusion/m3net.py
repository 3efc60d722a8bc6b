"""M3Net: a hypergraph over utterances and modalities beside filters of several frequencies (Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import SpeakerEmbedding, text_context
from mer_bench.fusion.layers import CheapDropout, masked_softmax
from mer_bench.fusion.utterance import Encoders


class Hypergraph(nn.Module):
    r"""Hypergraph convolutions in which an edge is a modality of the dialogue or an utterance in all its modalities.

    .. math:: X' = LeakyReLU(D^{-1} H W_e B^{-1} \hat{H}^\top X + b)

    :math:`\hat{H}` holds the weight :math:`\gamma_e(v)` of node v in edge e, H ones, :math:`W_e` the weights of the
    edges; D and B are the degrees of nodes and edges. Each node lies in two edges, its modality's and its utterance's.
    So the product is a weighted mean over turns and one over modalities, mixed in the proportion of the two edges'
    weights; all weights are exponentials of parameters that start at zero, and hence the means softmaxes. An absent
    node hears its edges but adds nothing to them.

    Args:
        modalities: Number of modalities.
        dim: Width of the nodes.
        layers: Number of convolutions; the weights of edges and nodes are the same in all, the bias is not.
        turns: Places in a dialogue that have weights; later ones share the last.

    Shapes:
        x [modality, dialogue, turn, dim], present [modality, dialogue, turn] -> as x.
    """

    def __init__(self, modalities: int, dim: int, layers: int, turns: int) -> None:
        super().__init__()
        self.modality_edge, self.utterance_edge = (nn.Parameter(torch.zeros(size)) for size in (modalities, turns))
        self.in_modality, self.in_utterance = (nn.Parameter(torch.zeros(modalities, turns)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(layers, dim))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Gather nodes in hyperedges and hyperedges in nodes, layer by layer."""
        place = torch.arange(x.shape[2], device=x.device).clamp(max=len(self.utterance_edge) - 1)
        over_turns = masked_softmax(self.in_modality[:, None, place].expand(present.shape), present, 2)
        over_modalities = masked_softmax(self.in_utterance[:, None, place].expand(present.shape), present, 0)
        share = (self.modality_edge[:, None, None] - self.utterance_edge[place]).sigmoid()[..., None]
        for bias in self.bias:
            of_modality = torch.einsum("mdt,mdtc->mdc", over_turns, x)[:, :, None]
            of_utterance = torch.einsum("mdt,mdtc->dtc", over_modalities, x)
            x = F.leaky_relu(share * of_modality + (1 - share) * of_utterance + bias)
        return x


class FrequencyFilter(nn.Module):
    r"""A layer that passes low frequencies of the graph along some of its edges and high ones along others.

    With the low-pass filter :math:`I + D^{-1/2} A D^{-1/2}` and the high-pass filter :math:`I - D^{-1/2} A D^{-1/2}`,
    weighed on each edge by shares that add up to one and differ by a tanh,

    .. math:: x_i' = x_i + \sum_j \frac{\tanh(a^\top x_i + c^\top x_j + b)}{\sqrt{d_i d_j}} x_j

    Shapes:
        x [modality, dialogue, turn, dim], edges as of :func:`graph` -> as x.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.receiver, self.sender = nn.Linear(dim, 1), nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, within: Tensor, across: Tensor) -> Tensor:
        """Add the neighbours, each with its sign."""
        receiver, sender = self.receiver(x)[..., 0], self.sender(x)[..., 0]
        turns = within * (receiver[..., None] + sender[..., None, :]).tanh()
        modalities = across * (receiver[:, None] + sender).tanh()
        return x + turns @ x + torch.einsum("mndt,ndtc->mdtc", modalities, x)


def graph(present: Tensor) -> tuple[Tensor, Tensor]:
    """Edges between all utterances of a modality and all modalities of an utterance, each over root degrees.

    No node is its own neighbour; an absent one is nobody's.

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
    """Relate all utterances and modalities at once, by a hypergraph and by a graph's low and high frequencies.

    Chen et al. 2023, CVPR, pages 10761 to 10770 (:attr:`paper`)

    A node is an utterance in one modality. A two-layer BiGRU reads the text in dialogue order, a speaker embedding is
    added to it, and one linear layer makes x of every node. Two branches start from x: ``hypergraph_layers`` hyperedge
    convolutions (:class:`Hypergraph`, nothing but weights and biases, as in the authors' code) and
    ``frequency_layers`` filters (:class:`FrequencyFilter`). logits = W relu([both branches of all modalities]).

    Sizes and dropout are those of the authors' IEMOCAP run (MELD: dropout 0.4, 3 filters). Differs from their code:
    the utterance vectors come from the encoder that all methods share, which has LayerNorms, in place of BatchNorms on
    the text and one linear layer a modality; the weights of hyperedges and nodes belong to places in a dialogue,
    where theirs belong to places in a batch, so that a dialogue's logits depend on its batch-mates; a node's weight
    multiplies its vector and not only the edge's degree, likewise an edge's; weights are positive; the loss is the
    plain cross-entropy (theirs on MELD: a focal one). Both branches see future utterances, so it works offline only.

    Args:
        dims: Width of each modality, at least two.
        num_classes: Number of emotions.
        hidden: Width of the utterance vectors and of both branches, an even number.
        hypergraph_layers: Hyperedge convolutions; 0 leaves their branch out.
        frequency_layers: Filters; 0 leaves their branch out.
        dropout: Of the encoders, between the layers of the GRU and before the classifier.
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
        turns: Places in a dialogue that have hyperedge and node weights of their own; later ones share the last.
    """

    title = "M3Net"
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
        dims: Mapping[str, int],
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
            raise ValueError("hypergraph_layers and frequency_layers are both 0: one branch has to stay")
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.text_context = text_context(nn.GRU, self.dims, hidden, dropout=dropout)
        self.speakers = SpeakerEmbedding(speakers, hidden) if "text" in self.dims else None
        self.node = nn.Linear(hidden, hidden)
        self.hypergraph = Hypergraph(len(self.dims), hidden, hypergraph_layers, turns) if hypergraph_layers else None
        self.filters = nn.ModuleList(FrequencyFilter(hidden) for _ in range(frequency_layers))
        branches = (hypergraph_layers > 0) + (frequency_layers > 0)
        self.head = nn.Sequential(
            CheapDropout(dropout), nn.ReLU(), nn.Linear(branches * len(self.dims) * hidden, num_classes)
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
        """One modality's utterances, the text's with context and speakers: [dialogue, turn, hidden]."""
        h = batch.by_dialogue(self.encoders[name](batch.features[name]))
        if name == "text" and self.text_context is not None and self.speakers is not None:
            h = self.text_context(h, batch.turns) + self.speakers(batch.by_dialogue(batch.speaker))
        return h
