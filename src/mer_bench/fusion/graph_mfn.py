"""Graph-MFN: the memory fusion network with a dynamic fusion graph in place of its attention (Zadeh et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import perceptron, resample
from mer_bench.fusion.mfn import GatedMemory


class DynamicFusionGraph(nn.Module):
    """DFG: one vertex per subset of modalities, computed from its proper subsets with input-dependent efficacies.

    The vertices of single modalities are the input. The vertex of a larger subset is a network of one hidden layer on
    the vertices of its proper subsets, each multiplied by the efficacy of its edge, a number in (0, 1); the output is
    such a network on all vertices. One more network computes all efficacies from the single modalities: 19 for three
    modalities, 5 for two.

    Shapes:
        modalities x [..., dim] -> [..., dim].
    """

    def __init__(self, modalities: int, dim: int, inner: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        vertices = [one for size in range(1, modalities + 1) for one in combinations(range(modalities), size)]
        #: The input vertices of each further vertex and, last, of the output.
        self.sources = [
            [number for number, other in enumerate(vertices) if set(other) < set(vertex)]
            for vertex in vertices[modalities:]
        ] + [list(range(len(vertices)))]
        self.networks = nn.ModuleList(
            perceptron(dim * len(sources), inner, dim, dropout=dropout) for sources in self.sources
        )
        self.efficacies = perceptron(dim * modalities, inner, sum(map(len, self.sources)), dropout=dropout)

    def forward(self, singles: Sequence[Tensor]) -> Tensor:
        """Build the vertices from the smallest subsets to the output."""
        efficacies = self.efficacies(torch.cat(list(singles), -1)).sigmoid()
        vertices = list(singles)
        parts = efficacies.split([len(sources) for sources in self.sources], -1)
        for sources, network, efficacy in zip(self.sources, self.networks, parts, strict=True):
            inputs = torch.stack([vertices[number] for number in sources], -2) * efficacy[..., None]
            vertices.append(network(inputs.flatten(-2)))
        return vertices[-1]


class GraphMFN(FusionModule):
    r"""Fuse the modalities' LSTM states at each step in a graph of all their subsets, and store the result in a memory.

    Zadeh et al. 2018, https://aclanthology.org/P18-1208

    .. math:: s_{m,t} = relu(W_m [h_{m,t-1}; h_{m,t}]), \quad g_t = DFG(s_{1,t}, ..., s_{M,t}), \quad
        u_t = GatedMemory(g_t, u_{t-1}), \quad logits = D_o [h_{1,T}; ...; h_{M,T}; u_T]

    with D a network of one hidden layer, :class:`DynamicFusionGraph` the graph and
    :class:`~mer_bench.fusion.mfn.GatedMemory` the memory of MFN. The input of the graph (two hidden states, not cells)
    follows the public reimplementation in MMSA; the sigmoids of the efficacies, the number of hidden layers, all sizes
    and the dropout are inferred. Differs from the paper, which aligns the modalities to spoken words: the frames are
    averaged over ``steps`` equal spans of the utterance (:func:`~mer_bench.fusion.layers.resample`), so that the time
    per batch does not grow with the number of frames.

    Args:
        hidden: Width of each LSTM.
        vertex: Width of the graph's vertices.
        memory: Width of the gated memory.
        inner: Width of the hidden layers of the graph, the gates and the classifier.
        steps: Length of the common time axis.
        dropout: Dropout probability of those hidden layers.
    """

    title = "Graph-MFN"
    reads = frozenset({"frames"})
    paper = "https://aclanthology.org/P18-1208"
    unimodal_encoders = ("lstms", "singles")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        vertex: int = 64,
        memory: int = 128,
        inner: int = 64,
        steps: int = 20,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(dims, num_classes)
        self.steps = steps
        self.lstms = nn.ModuleDict(
            {name: nn.LSTM(width.frames, hidden, batch_first=True) for name, width in self.dims.items()}
        )
        self.singles = nn.ModuleDict({name: nn.Linear(2 * hidden, vertex) for name in self.dims})
        self.graph = DynamicFusionGraph(len(self.dims), vertex, inner, dropout=dropout)
        self.memory = GatedMemory(vertex, memory, inner, dropout=dropout)
        self.head = perceptron(hidden * len(self.dims) + memory, inner, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        hidden = {name: lstm(resample(batch.frames[name], self.steps))[0] for name, lstm in self.lstms.items()}
        fused = self.graph([self.single(name, states) for name, states in hidden.items()])
        last = [states[:, -1] for states in hidden.values()]
        return self.head(torch.cat([*last, self.memory(fused)], -1))

    def single(self, name: str, states: Tensor) -> Tensor:
        """The vertex of one modality at each step: [utterance, step, hidden] -> [utterance, step, vertex]."""
        before = F.pad(states, (0, 0, 1, 0))[:, :-1]
        return F.relu(self.singles[name](torch.cat([before, states], -1)))
