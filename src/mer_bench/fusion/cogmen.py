"""COGMEN: a transformer over the dialogue, then a relational and an attentive graph layer (Joshi et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import GraphTransformer, RelationalConvolution, SpeakerRelations, mean_weights, window
from mer_bench.fusion.layers import perceptron
from mer_bench.fusion.transformer import TransformerEncoder
from mer_bench.fusion.utterance import Encoders


class COGMEN(FusionModule):
    r"""Global context by self-attention over the whole dialogue, local context by a graph of nearby turns.

    Joshi et al. 2022, https://arxiv.org/abs/2205.02455

    With :math:`N_i` the window of turn i (itself included), divided by speakers and order into :math:`N_i^r`
    (:class:`SpeakerRelations`),

    .. math::
        x &= W_x Transformer([h_m]_m) \\
        x'_i &= W_0 x_i + b + \sum_r \frac{1}{|N_i^r|} \sum_{j \in N_i^r} W_r x_j \\
        z_i &= leakyrelu(norm(GraphTransformer(x')_i)), \quad logits_i = W_2 relu(W_1 z_i)

    where the graph transformer (:class:`GraphTransformer`) attends within :math:`N_i`. Widths, windows, layers, dropout
    and the two speakers of a dyad are those of the authors' code. Differs from it: utterance vectors come from the
    encoder that all methods share, where the code reads the features themselves; the transformer is pre-LayerNorm,
    reads the turns' positions, masks padding (theirs does not) and has feed-forward blocks of four times its width
    (there 2048), and multiplies its input by the root of its width (theirs does not); a turn receives messages from its
    window, where the code's edges lead from the turn to its window; speakers are numbered by first appearance, there by
    gender; the norm is a LayerNorm, there a BatchNorm. Attention reads future turns, so that the method works offline
    only.

    Args:
        hidden: Width of each modality's utterance vectors, of the graph and of the classifier.
        layers: Number of layers of the transformer.
        heads: Number of heads of the transformer, whose width is ``hidden`` times the number of modalities.
        graph_heads: Number of heads of the graph transformer.
        window_past: Number of earlier turns in the window of a turn.
        window_future: Number of later turns in it.
        relations: "pairs" of speakers, or "same_other", which suits dialogues of many speakers.
        speakers: Number of speakers that "pairs" distinguishes; later speakers of a dialogue count as the last one.
        dropout: Dropout probability of the encoders, the transformer and the classifier.
        graph: Ablation switch: without it the transformer's output is classified.
    """

    title = "COGMEN"
    may_be_zero = frozenset({"window_past", "window_future"})
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2205.02455"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 100,
        layers: int = 2,
        heads: int = 10,
        graph_heads: int = 1,
        window_past: int = 5,
        window_future: int = 5,
        relations: str = "pairs",
        speakers: int = 2,
        dropout: float = 0.5,
        graph: bool = True,
    ) -> None:
        super().__init__(dims, num_classes)
        width = hidden * len(self.dims)
        self.window = (window_past, window_future)
        self.relations = SpeakerRelations(relations, speakers)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.transformer = TransformerEncoder(width, heads=heads, layers=layers, dropout=dropout)
        self.project = nn.Linear(width, hidden)
        self.relational = RelationalConvolution(hidden, hidden, self.relations.count) if graph else None
        self.attentive = GraphTransformer(hidden, hidden, heads=graph_heads) if graph else None
        features = hidden * graph_heads if graph else hidden
        self.norm = nn.LayerNorm(features)
        self.head = perceptron(features, hidden, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        turns = PaddedSequence(batch.by_dialogue(self.encoders.joined(batch)), batch.turns)
        x = self.project(self.transformer(turns).values)
        if self.relational is not None and self.attentive is not None:
            near = window(x.shape[1], *self.window, x.device) & batch.turns[:, None]
            x = self.relational(x, mean_weights(self.relations(batch.by_dialogue(batch.speaker), near)))
            x = self.attentive(x, near)
        return self.head(batch.flatten(F.leaky_relu(self.norm(x))))
