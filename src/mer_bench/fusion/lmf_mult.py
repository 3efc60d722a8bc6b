"""LMF-MulT: modalities and their low-rank fusion, a sequence itself, read each other (Sahay et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import TemporalConvolution, masked_mean
from mer_bench.fusion.low_rank import LowRankFusion
from mer_bench.fusion.transformer import ResidualHead, TransformerEncoder

#: Whose queries: the modalities' (they read the fused sequence), the fused sequence's (it reads them), or both.
DIRECTIONS = {"both": ("to_modality", "to_fused"), "to_modality": ("to_modality",), "to_fused": ("to_fused",)}


def interpolate(sequence: PaddedSequence, steps: int) -> Tensor:
    """Every sequence stretched or shrunk to ``steps`` tokens by linear interpolation; the identity at that length.

    [utterance, time, dim] -> [utterance, steps, dim]; zero for a missing modality.
    """
    values, mask = sequence.values, sequence.mask
    length = mask.sum(1, keepdim=True).to(values.dtype)
    step = torch.arange(steps, device=values.device, dtype=values.dtype)
    last = (length - 1).clamp(min=0)
    place = torch.minimum(((step + 0.5) * length / steps - 0.5).clamp(min=0), last)
    before = place.floor()
    after = torch.minimum(before + 1, last)
    first, second = (values.take_along_dim(index.long()[..., None], 1) for index in (before, after))
    return torch.lerp(first, second, (place - before)[..., None])


class LMFMulT(FusionModule):
    r"""Cross-modal transformers between every modality and one sequence that low-rank fusion makes of all.

    Sahay et al. 2020, https://arxiv.org/abs/2007.02038

    With the projected sequences :math:`x_m`, their fusion at each step and cross-modal transformers CM as in MulT
    (target first),

    .. math::
        f_t = b + \sum_r \lambda_r \prod_m [1; x_{m,t}]^\top W_m^{(r)}, \quad
        z = \big[mean_t\ CM_{f \to m}(x_m, f) ; mean_t\ CM_{m \to f}(f, x_m)\big]_m, \quad
        logits = W(z + W_2 relu(W_1 z))

    With three modalities that takes six cross-modal transformers as in MulT, or three in one direction, and no
    self-attention after them, where most of MulT's parameters are.

    No code is public and only the abstract could be read, which has both parts and both directions: this is a
    reconstruction. Inferred are the sizes, dropouts and classifier (those of MulT), the rank (that of ``low_rank``),
    the mean over time (MulT's causal mask and last step would see one step of the target alone, for want of
    self-attention) and how sequences of different lengths are fused: each is resampled to the same number of steps, 20
    like the words of the IEMOCAP release, so that aligned words stay as they are. The parameter count that others
    print for it, 0.86M, is hence not reached (424,865 at their widths with one output).

    Args:
        dims: Width of each modality.
        num_classes: Number of emotions.
        dim: Width of the transformers; ``heads`` must divide it.
        heads: Of each attention.
        layers: Of each cross-modal transformer.
        rank: Of the fusion.
        steps: Length of the fused sequence.
        direction: "both", "to_modality" (modalities read the fused sequence) or "to_fused" (it reads them).
        kernel: Of the temporal convolution.
        stride: Of the temporal convolution; for hundreds of frames take e.g. ``stride=4, kernel=5``.
        transformer_dropout: Of the transformers' attention, feed-forward blocks and residual branches.
        embedding_dropout: Of the transformers' inputs.
        output_dropout: Within the residual block before the classifier.
    """

    title = "LMF-MulT"
    revision = 1
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2007.02038"
    unimodal_encoders = ("projections",)

    def __init__(
        self,
        dims: Mapping[str, int],
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
            {name: TemporalConvolution(width, dim, kernel=kernel, stride=stride) for name, width in self.dims.items()}
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
        sequences = {name: project(batch.features[name]) for name, project in self.projections.items()}
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
