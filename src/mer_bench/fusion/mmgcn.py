"""MMGCN: a deep graph convolution with one node per utterance and modality of a dialogue (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import (
    AngularGraph,
    DialogueEncoder,
    SpeakerEmbedding,
    deep_graph_convolutions,
    text_context,
)


class MMGCN(FusionModule):
    r"""Edges join all turns of a modality and all modalities of a turn; the deep convolution has initial residuals.

    Hu et al. 2021, https://arxiv.org/abs/2107.06779

    With the nodes' vectors :math:`x` (a BiLSTM reads the text; a speaker embedding is added), P the normalised graph of
    their angular similarities (:class:`AngularGraph`) and GCNII layers (:class:`DeepGraphConvolution`),

    .. math::
        h^0 = relu(W_0 x), \quad h^l = GCNII_l(P, h^{l-1}, h^0), \quad logits_t = W relu([x_{m,t} ; h^L_{m,t}]_m)

    Widths, alpha, eta and the variant of GCNII, which maps P h and the initial state separately, are those of the
    authors' code. Differs from it: utterance vectors come from the encoder that all methods share, where the code has
    one linear layer per modality; the speaker embedding is added to every modality, there to text only; there are 4
    layers, as in the authors' command, where the code ignores that option and builds 64; speakers are numbered by first
    appearance, on IEMOCAP there by gender; the loss is the plain cross-entropy, there weighted by class on IEMOCAP and
    focal on MELD. A missing modality has no node. Turns receive messages from later turns, so that the method works
    offline only.

    Args:
        hidden: Width of the nodes' vectors, even.
        graph: Width of the graph convolutions.
        layers: Number of graph convolutions.
        alpha: Share of the first layer's input in each layer.
        eta: How slowly the weight of the layers' linear maps decreases with depth.
        across_weight: Weight of the edges across modalities, relative to those within.
        dropout: Dropout probability everywhere.
        speaker_embedding: Ablation switch: without it, speakers are not used.
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
    """

    title = "MMGCN"
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2107.06779"
    unimodal_encoders = ("encoder", "text_context")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 200,
        graph: int = 100,
        layers: int = 4,
        alpha: float = 0.1,
        eta: float = 0.5,
        across_weight: float = 1.0,
        dropout: float = 0.4,
        speaker_embedding: bool = True,
        speakers: int = 9,
    ) -> None:
        super().__init__(dims, num_classes)
        self.across_weight = across_weight
        self.encoder = DialogueEncoder(self.dims, hidden, dropout=dropout)
        self.text_context = text_context(nn.LSTM, self.dims, hidden, dropout=dropout)
        self.speakers = SpeakerEmbedding(speakers, hidden) if speaker_embedding else None
        self.start = nn.Linear(hidden, graph)
        self.convolutions = deep_graph_convolutions(graph, layers, alpha=alpha, eta=eta)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear((hidden + graph) * len(self.dims), num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        x, present = self.encoder(batch)  # [dialogue, modality, turn, hidden]
        if self.text_context is not None:
            x = torch.cat([self.text_context(x[:, 0], batch.turns)[:, None], x[:, 1:]], 1)
        if self.speakers is not None:
            x = x + self.speakers(batch.by_dialogue(batch.speaker))[:, None]
        graph = AngularGraph.of(x, present, across_weight=self.across_weight)
        x = self.dropout(x)
        h = start = F.relu(self.start(x))
        for convolution in self.convolutions:
            h = convolution(self.dropout(h), start, graph)
        nodes = torch.cat([x, self.dropout(h)], -1).transpose(1, 2).flatten(2)
        return self.head(batch.flatten(self.dropout(F.relu(nodes))))
