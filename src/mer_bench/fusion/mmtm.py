"""MMTM: gates on the channels of each modality that depend on all modalities (Joze et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.streams import Streams


class TransferModule(nn.Module):
    """The module: each channel of each modality is multiplied by a gate that depends on the means of all channels.

    With D channels in total, the joint representation has 2 D / ratio numbers, as in the authors' code, and the module
    4 D^2 / ratio + 2 D / ratio + D parameters.

    Shapes:
        modalities x [utterance, time, width] -> the same; lengths and widths may differ between modalities.
    """

    def __init__(self, widths: Sequence[int], ratio: int = 4, *, double: bool = False) -> None:
        super().__init__()
        self.widths, self.gain = list(widths), 2.0 if double else 1.0
        joint = 2 * sum(widths) // ratio
        self.squeeze = nn.Linear(sum(widths), joint)
        self.excite = nn.Linear(joint, sum(widths))

    def forward(self, tokens: Sequence[PaddedSequence]) -> list[PaddedSequence]:
        """Squeeze, excite and gate."""
        squeezed = torch.cat([masked_mean(x.values, x.mask) for x in tokens], -1)
        gates = self.gain * self.excite(self.squeeze(squeezed).relu()).sigmoid()
        parts = gates.split(self.widths, -1)
        return [PaddedSequence(x.values * gate[:, None], x.mask) for x, gate in zip(tokens, parts, strict=True)]


class MMTM(FusionModule):
    r"""Unimodal streams that recalibrate each other's channels, and whose logits are averaged.

    Joze et al. 2020, https://arxiv.org/abs/1911.08670

    With :math:`s_m` the mean over time of modality m's tokens :math:`x_m`

    .. math:: z = relu(W [s_1; ...; s_M] + b), \quad x'_m = \sigma(W_m z + b_m) \odot x_m, \quad
        logits = mean_m\, logits_m(x'_m)

    (:class:`TransferModule`). The paper's equation multiplies the gates by 2, so that a gate of zero logits changes
    nothing and channels may be amplified; the authors' code does not, and the default follows the code. At widths
    (1024, 32) and (2048, 64) and ratio 4, two sites of the MSAF authors' networks for RAVDESS, these modules have
    5,580,432 parameters, with the streams 31.50M; the table of MSAF prints 31.97M for sites that are not public.

    Differs from the paper, whose streams are large convolutional networks: here they are the encoder that all methods
    share, with one more convolution for each site after the first (:class:`~mer_bench.fusion.streams.Streams`), and
    sites read a quarter as many tokens as frames. The paper fuses two modalities, here any number; an absent one has a
    mean of zero, and the average runs over the modalities that are present.

    Args:
        hidden: Width of tokens and vectors.
        sites: Number of fusion sites.
        ratio: Factor by which the joint representation is smaller than twice the channels.
        double: Whether gates reach two instead of one, as in the paper's equation.
        dropout: Dropout probability of the encoders.
    """

    title = "MMTM"
    reads = frozenset({"functionals", "frames"})
    revision = 1
    paper = "https://arxiv.org/abs/1911.08670"
    unimodal_encoders = ("streams.encoders",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        sites: int = 2,
        ratio: int = 4,
        double: bool = False,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        modules = [TransferModule([hidden] * len(self.dims), ratio, double=double) for _ in range(sites)]
        self.streams = Streams(self.dims, hidden, num_classes, modules, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        present = self.present(batch)
        return self.streams(batch).sum(0) / present.sum(0).clamp(min=1)[:, None]
