"""PMR: modalities exchange information through a common message hub, layer by layer (Lv et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import TemporalConvolution, masked_mean
from mer_bench.fusion.transformer import Attention, ResidualHead, scaled_with_positions


class ReinforcementUnit(nn.Module):
    r"""A gate mixes attention from a sequence to another one with self-attention.

    With :math:`a` = attention from the target to the source and :math:`s` = self-attention of the target, both of
    normalised inputs,

    .. math:: g = \sigma(W [a ; s] + b), \quad y = x + g a + (1 - g) s, \quad x' = y + FFN(LN(y))

    Shapes:
        target [utterance, time, dim], source [utterance, other time, dim] -> [utterance, time, dim].
    """

    def __init__(self, dim: int, heads: int, *, dropout: float, gate: bool) -> None:
        super().__init__()
        self.cross, self.own = (Attention(dim, heads, dropout=dropout) for _ in range(2))
        self.target_norm, self.source_norm, self.ffn_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.gate = nn.Linear(2 * dim, dim) if gate else None
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, target: PaddedSequence, source: PaddedSequence) -> PaddedSequence:
        """Reinforce the target; its padding is set to zero again."""
        query = self.target_norm(target.values)
        cross = self.cross(query, self.source_norm(source.values), source.mask[:, None])
        own = self.own(query, query, target.mask[:, None])
        if self.gate is None:
            mixed = cross + own
        else:
            mixed = torch.lerp(own, cross, self.gate(torch.cat([cross, own], -1)).sigmoid())
        x = target.values + self.dropout(mixed)
        x = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return PaddedSequence(x * target.mask[..., None], target.mask)


class ReinforcementLayer(nn.Module):
    """Each modality reads the hub; then the hub, if it has a unit, reads all modalities.

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
        """One exchange of messages."""
        reinforced = [unit(sequence, hub) for unit, sequence in zip(self.units, sequences, strict=True)]
        return reinforced, hub if self.hub is None else self.hub(hub, one_after_another(reinforced))


def one_after_another(sequences: Sequence[PaddedSequence]) -> PaddedSequence:
    """M sequences [utterance, time, dim] -> [utterance, sum of times, dim], with the padding of each."""
    values = torch.cat([sequence.values for sequence in sequences], 1)
    return PaddedSequence(values, torch.cat([sequence.mask for sequence in sequences], 1))


class PMR(FusionModule):
    r"""Progressive modality reinforcement: modalities attend to a hub of all messages instead of each other.

    Lv et al. 2021, CVPR (:attr:`paper`)

    The hub :math:`c` initially contains all modalities' projected sequences, one after another. In each layer, with
    :class:`ReinforcementUnit` R,

    .. math:: x_m \leftarrow R_m(x_m, c), \quad c \leftarrow R_c(c, [x_1 ; ... ; x_M]), \quad
        logits = W(z + W_2 relu(W_1 z)), \quad z = [\bar x_1, ..., \bar x_M, \bar c]

    where a bar is the mean over time.

    A reconstruction from descriptions by others: no code is public and the paper was not available. The descriptions
    contain the hub, the cross-modal attention by which modalities and hub reinforce each other layer by layer, and a
    gate that filters messages. Inferred are the temporal convolutions, the form of the gate and the self-attention
    beside it, the order within a layer, the pooling, the classifier (MulT's) and all sizes (MulT's). The 2.15M
    parameters printed elsewhere are not reproduced (377,431 at those widths with one output).

    Args:
        dim: Width throughout; ``heads`` must divide it.
        heads: Number of heads of each attention.
        layers: Number of reinforcement layers.
        kernel: Kernel size of the temporal convolution.
        stride: Stride of the temporal convolution; for hundreds of frames use for example ``stride=4, kernel=5``.
        gate: Ablation switch, see :class:`ReinforcementUnit`.
        progressive: Ablation switch: without it the hub does not change and is not part of z.
        transformer_dropout: Dropout probability of attention weights, residual branches and feed-forward blocks.
        embedding_dropout: Dropout probability of the projected sequences.
        output_dropout: Dropout probability within the residual block before the classifier.
    """

    title = "PMR"
    reads = frozenset({"frames"})
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
        dims: Mapping[str, Width],
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
            {
                name: TemporalConvolution(width.frames, dim, kernel=kernel, stride=stride)
                for name, width in self.dims.items()
            }
        )
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.layers = nn.ModuleList(
            ReinforcementLayer(
                len(self.dims), dim, heads, dropout=transformer_dropout, gate=gate, progressive=progressive
            )
            for _ in range(layers)
        )
        self.head = ResidualHead(dim * (len(self.dims) + progressive), num_classes, dropout=output_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = [self._embed(project(batch.frames[name])) for name, project in self.projections.items()]
        hub = one_after_another(sequences)
        for layer in self.layers:
            sequences, hub = layer(sequences, hub)
        read = [*sequences, hub] if self.progressive else sequences
        return self.head(torch.cat([masked_mean(sequence.values, sequence.mask) for sequence in read], -1))

    def _embed(self, sequence: PaddedSequence) -> PaddedSequence:
        """Scaled, with positions, as in MulT."""
        values = self.embedding_dropout(scaled_with_positions(sequence.values))
        return PaddedSequence(values * sequence.mask[..., None], sequence.mask)
