"""LMF-MulT: cross-modal transformers between each modality and a low-rank fusion of all (Sahay et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import TemporalConvolution, masked_mean
from mer_bench.fusion.low_rank import LowRankFusion
from mer_bench.fusion.transformer import ResidualHead, TransformerEncoder

#: Where the queries come from: the modalities (they read the fused sequence), the fused sequence, or both.
DIRECTIONS = {"both": ("to_modality", "to_fused"), "to_modality": ("to_modality",), "to_fused": ("to_fused",)}


def interpolate(sequence: PaddedSequence, steps: int) -> Tensor:
    """Resample every sequence to ``steps`` tokens by linear interpolation; a sequence of that length stays as it is.

    [utterance, time, dim] -> [utterance, steps, dim]; zero for a missing modality.
    """
    values, mask = sequence.values, sequence.mask
    length = mask.sum(1, keepdim=True).to(values.dtype)
    step = torch.arange(steps, device=values.device, dtype=values.dtype)
    last = (length - 1).clamp(min=0)
    position = torch.minimum(((step + 0.5) * length / steps - 0.5).clamp(min=0), last)
    before = position.floor()
    after = torch.minimum(before + 1, last)
    first, second = (values.take_along_dim(index.long()[..., None], 1) for index in (before, after))
    return torch.lerp(first, second, (position - before)[..., None])


class LMFMulT(FusionModule):
    r"""Cross-modal transformers between each modality and one sequence, the low-rank fusion of all of them.

    Sahay et al. 2020, https://arxiv.org/abs/2007.02038

    With the projected sequences :math:`x_m`, their fusion at each step and cross-modal transformers CM as in MulT
    (target first),

    .. math::
        f_t = b + \sum_r \lambda_r \prod_m [1; x_{m,t}]^\top W_m^{(r)}, \quad
        z = \big[mean_t\ CM_{f \to m}(x_m, f) ; mean_t\ CM_{m \to f}(f, x_m)\big]_m, \quad
        logits = W(z + W_2 relu(W_1 z))

    With three modalities there are six cross-modal transformers as in MulT, or three in one direction, but no
    self-attention after them, which has most of MulT's parameters.

    A reconstruction: no code is public and only the abstract was available, which describes both parts and both
    directions. Inferred are the sizes, dropouts and classifier (those of MulT), the rank (that of ``low_rank``), the
    mean over time (without self-attention, MulT's causal mask and last step would use one step of the target only) and
    the fusion of sequences of different lengths: each is resampled to 20 steps, the number of words in the IEMOCAP
    release, so that aligned words are not changed. The parameter count printed elsewhere, 0.86M, is not reproduced
    (424,865 at those widths with one output).

    Args:
        dim: Width of the transformers; ``heads`` must divide it.
        heads: Number of heads of each attention.
        layers: Number of layers of each cross-modal transformer.
        rank: Number of rank-one terms of the fusion.
        steps: Length of the fused sequence.
        direction: "both", "to_modality" (modalities read the fused sequence) or "to_fused" (it reads them).
        kernel: Kernel size of the temporal convolution.
        stride: Stride of the temporal convolution; for hundreds of frames use for example ``stride=4, kernel=5``.
        transformer_dropout: Dropout probability of the transformers' attention, feed-forward blocks and residual
            branches.
        embedding_dropout: Dropout probability of the transformers' inputs.
        output_dropout: Dropout probability within the residual block before the classifier.
    """

    title = "LMF-MulT"
    reads = frozenset({"frames"})
    revision = 1
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2007.02038"
    unimodal_encoders = ("projections",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        dim: int = 30,
        heads: int = 5,
        layers: int = 5,
        rank: int = 4,
        steps: int = 20,
        direction: str = "both",
        kernel: int = 1,
        stride: int = 1,
        transformer_dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, num_classes)
        if direction not in DIRECTIONS:
            raise unknown("direction", direction, DIRECTIONS)
        self.steps = steps
        self.projections = nn.ModuleDict(
            {
                name: TemporalConvolution(width.frames, dim, kernel=kernel, stride=stride)
                for name, width in self.dims.items()
            }
        )
        self.fusion = LowRankFusion(len(self.dims), dim, dim, rank)
        self.crossmodal = nn.ModuleDict(
            {
                f"{name}_{way}": TransformerEncoder(
                    dim, heads=heads, layers=layers, dropout=transformer_dropout, embedding_dropout=embedding_dropout
                )
                for name in self.dims
                for way in DIRECTIONS[direction]
            }
        )
        self.head = ResidualHead(dim * len(self.crossmodal), num_classes, dropout=output_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        sequences = {name: project(batch.frames[name]) for name, project in self.projections.items()}
        fused = self.fuse(sequences)
        views = []
        for key, encode in self.crossmodal.items():
            own = sequences[key.partition("_")[0]]
            view = encode(own, fused) if key.endswith("_to_modality") else encode(fused, own)
            views.append(masked_mean(view.values, view.mask))
        return self.head(torch.cat(views, -1))

    def fuse(self, sequences: Mapping[str, PaddedSequence]) -> PaddedSequence:
        """Low-rank fusion at each step: M x [utterance, time, dim] -> [utterance, steps, dim]."""
        aligned = [interpolate(sequence, self.steps).flatten(0, 1) for sequence in sequences.values()]
        present = torch.stack([sequence.mask.any(1) for sequence in sequences.values()]).any(0)
        mask = present[:, None].expand(-1, self.steps)
        return PaddedSequence(self.fusion(aligned).reshape(*mask.shape, -1) * mask[..., None], mask)
