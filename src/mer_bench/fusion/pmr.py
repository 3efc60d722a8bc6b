"""PMR: a message hub and the modalities reinforce each other, layer by layer (Lv et al. 2021, CVPR)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import CheapDropout, TemporalConvolution, masked_mean, sinusoidal_positions
from mer_bench.fusion.transformer import Attention, ResidualHead


class ReinforcementUnit(nn.Module):
    r"""A sequence takes from another what a gate lets through, and the rest from itself.

    With :math:`a` = attention from the target to the source and :math:`s` = self-attention of the target, both behind
    a LayerNorm,

    .. math:: g = \sigma(W [a ; s] + b), \quad y = x + g a + (1 - g) s, \quad x' = y + FFN(LN(y))

    Args:
        dim: Width of both sequences.
        heads: Of both attentions.
        dropout: Of attention weights, residual branches and the feed-forward block.
        gate: Whether there is the gate; without it a and s are added in full.

    Shapes:
        target [utterance, time, dim], source [utterance, other time, dim] -> [utterance, time, dim].
    """

    def __init__(self, dim: int, heads: int, *, dropout: float, gate: bool) -> None:
        super().__init__()
        self.cross, self.own = (Attention(dim, heads, dropout=dropout) for _ in range(2))
        self.target_norm, self.source_norm, self.ffn_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.gate = nn.Linear(2 * dim, dim) if gate else None
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), CheapDropout(dropout), nn.Linear(4 * dim, dim))
        self.dropout = CheapDropout(dropout)

    def forward(self, target: PaddedSequence, source: PaddedSequence) -> PaddedSequence:
        """Reinforce the target; its padding becomes zero again."""
        query = self.target_norm(target.values)
        heard = self.cross(query, self.source_norm(source.values), source.mask[:, None])
        own = self.own(query, query, target.mask[:, None])
        if self.gate is None:
            taken = heard + own
        else:
            taken = torch.lerp(own, heard, self.gate(torch.cat([heard, own], -1)).sigmoid())
        x = target.values + self.dropout(taken)
        x = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return PaddedSequence(x * target.mask[..., None], target.mask)


class ReinforcementLayer(nn.Module):
    """Each modality reads the hub; then the hub, if it has a unit, reads what they became.

    Shapes:
        sequences x [utterance, time, dim], hub [utterance, all times, dim] -> the same shapes.
    """

    def __init__(self, modalities: int, dim: int, heads: int, *, dropout: float, gate: bool, progressive: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(ReinforcementUnit(dim, heads, dropout=dropout, gate=gate) for _ in range(modalities))
        self.hub = ReinforcementUnit(dim, heads, dropout=dropout, gate=gate) if progressive else None

    def forward(
        self, sequences: Sequence[PaddedSequence], hub: PaddedSequence
    ) -> tuple[list[PaddedSequence], PaddedSequence]:
        """Exchange messages once."""
        reinforced = [unit(sequence, hub) for unit, sequence in zip(self.units, sequences, strict=True)]
        return reinforced, hub if self.hub is None else self.hub(hub, one_after_another(reinforced))


def one_after_another(sequences: Sequence[PaddedSequence]) -> PaddedSequence:
    """M sequences [utterance, time, dim] -> [utterance, sum of times, dim]; padding stays where it is."""
    values = torch.cat([sequence.values for sequence in sequences], 1)
    return PaddedSequence(values, torch.cat([sequence.mask for sequence in sequences], 1))


class PMR(FusionModule):
    r"""Progressive modality reinforcement: modalities never attend to each other but to a hub of all their messages.

    Lv et al. 2021,
    https://openaccess.thecvf.com/content/CVPR2021/html/Lv_Progressive_Modality_Reinforcement_for_Human_Multimodal_Emotion_Recognition_From_Unaligned_CVPR_2021_paper.html

    The hub :math:`c` starts as all modalities' projected sequences one after another. In each layer, with
    :class:`ReinforcementUnit` R,

    .. math:: x_m \leftarrow R_m(x_m, c), \quad c \leftarrow R_c(c, [x_1 ; ... ; x_M]), \quad
        logits = W(z + W_2 relu(W_1 z)), \quad z = [\bar x_1, ..., \bar x_M, \bar c]

    where a bar is the mean over time.

    No code is public and the paper could not be read: this is a reconstruction from second-hand descriptions. They give
    the hub, that modalities and hub reinforce each other by cross-modal attention layer after layer, and a gate that
    filters what passes. Inferred are the temporal convolutions, the form of the gate and the self-attention beside it,
    the order within a layer, the pooling, the classifier (MulT's) and all sizes (MulT's); 2.15M parameters, which
    others print for it, are not reached (377,431 at their widths with one output).

    Args:
        dims: Width of each modality, at least two.
        num_classes: Number of emotions.
        dim: Width throughout; ``heads`` must divide it.
        heads: Of each attention.
        layers: Of reinforcement.
        kernel: Of the temporal convolution.
        stride: Of the temporal convolution; for hundreds of frames take e.g. ``stride=4, kernel=5``.
        gate: Ablation switch; see ReinforcementUnit.
        progressive: Ablation switch: without it the hub stays what it is at first, and does not enter z.
        transformer_dropout: Of attention weights, residual branches and feed-forward blocks.
        embedding_dropout: Of the projected sequences.
        output_dropout: Within the residual block before the classifier.
    """

    title = "PMR"
    revision = 1
    provenance = "reconstruction"
    paper = (
        "https://openaccess.thecvf.com/content/CVPR2021/html/Lv_Progressive_Modality_Reinforcement_for_Human_"
        "Multimodal_Emotion_Recognition_From_Unaligned_CVPR_2021_paper.html"
    )
    least = 2
    unimodal_encoders = ("projections",)

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        dim: int = 30,
        heads: int = 5,
        layers: int = 5,
        kernel: int = 1,
        stride: int = 1,
        gate: bool = True,
        progressive: bool = True,
        transformer_dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, num_classes)
        self.progressive = progressive
        self.projections = nn.ModuleDict(
            {name: TemporalConvolution(width, dim, kernel=kernel, stride=stride) for name, width in self.dims.items()}
        )
        self.embedding_dropout = CheapDropout(embedding_dropout)
        self.layers = nn.ModuleList(
            ReinforcementLayer(
                len(self.dims), dim, heads, dropout=transformer_dropout, gate=gate, progressive=progressive
            )
            for _ in range(layers)
        )
        self.head = ResidualHead(dim * (len(self.dims) + progressive), num_classes, dropout=output_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = [self._embed(project(batch.features[name])) for name, project in self.projections.items()]
        hub = one_after_another(sequences)
        for layer in self.layers:
            sequences, hub = layer(sequences, hub)
        read = [*sequences, hub] if self.progressive else sequences
        return self.head(torch.cat([masked_mean(sequence.values, sequence.mask) for sequence in read], -1))

    def _embed(self, sequence: PaddedSequence) -> PaddedSequence:
        """Scaled, with positions, as in MulT."""
        _, time, dim = sequence.values.shape
        positions = sinusoidal_positions(time, dim, sequence.values.device)
        values = self.embedding_dropout(math.sqrt(dim) * sequence.values + positions)
        return PaddedSequence(values * sequence.mask[..., None], sequence.mask)
