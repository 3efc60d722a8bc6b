"""MCB: a random sketch of the modalities' outer product, computed by FFT (Fukui et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import Encoders


class CountSketch(nn.Module):
    r"""Count sketch of an outer product: the circular convolution of the modalities' sketches.

    The sketch of a vector adds its i-th entry, with a random sign, to one of ``size`` bins at random, so that inner
    products of sketches equal those of the vectors in expectation. Signs and bins are buffers, drawn once from
    ``seed``.

    Shapes:
        x [utterance, modality, dim], present [utterance, modality] -> [utterance, size]; an absent modality is left
        out of the product.
    """

    bins: Tensor
    signs: Tensor

    def __init__(self, modalities: int, dim: int, size: int, seed: int = 0) -> None:
        super().__init__()
        self.size = size
        draw = torch.Generator().manual_seed(seed)
        self.register_buffer("bins", torch.randint(size, (modalities, dim), generator=draw))
        self.register_buffer("signs", 2.0 * torch.randint(2, (modalities, dim), generator=draw) - 1)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Sketch each modality and multiply the spectra, in double precision because a root follows."""
        spectra = torch.fft.rfft(self.sketch(x.double()))
        spectra = spectra.masked_fill(~present[..., None], 1)  # the neutral element of convolution
        product = spectra[:, 0]
        for spectrum in spectra.unbind(1)[1:]:
            product = product * spectrum
        return torch.fft.irfft(product, self.size).to(x.dtype)

    def sketch(self, x: Tensor) -> Tensor:
        """[utterance, modality, dim] -> [utterance, modality, size]."""
        signed = x * self.signs
        return signed.new_zeros(*x.shape[:2], self.size).scatter_add(2, self.bins.expand_as(x), signed)


class CompactBilinear(FusionModule):
    r"""Classify a count sketch of the outer product of the modalities' utterance vectors.

    Fukui et al. 2016, https://arxiv.org/abs/1606.01847; "MCBP" in the tables of MSAF and CFN-SR

    .. math:: \Psi = FFT^{-1}\Big(\prod_m FFT(\psi_m(h_m))\Big), \quad
        y = sign(\Psi) \sqrt{|\Psi|}, \quad logits = W y / \|y\|_2 + b

    with :math:`\psi_m` the count sketch of modality m (:class:`CountSketch`). The cost grows with the size of the
    sketch, where tensor fusion's grows with the product of the widths; unlike there, products of fewer modalities are
    not included.

    Differs from the paper, which fuses two modalities: here the product runs over all that are present (three give a
    sketch of the trilinear product, one its own sketch); the square root is smoothed within 1e-6 of zero, where its
    gradient is unbounded; the utterance vectors come from the encoder that all methods share. The table of MSAF prints
    51.03M parameters, which the public material does not determine.

    Args:
        hidden: Width of the utterance vectors.
        sketch: Size of the sketch (the paper's best: 16,000).
        seed: Seed of the sketch's random bins and signs, which are not trained.
        dropout: Dropout probability of the encoders.
    """

    title = "MCB"
    may_be_zero = frozenset({"seed"})
    revision = 1
    paper = "https://arxiv.org/abs/1606.01847"

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        sketch: int = 16_000,
        seed: int = 0,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.sketch = CountSketch(len(self.dims), hidden, sketch, seed)
        self.head = nn.Linear(sketch, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        vectors = torch.stack(list(self.encoders(batch)), 1)
        product = self.sketch(vectors, self.present(batch).T)
        root = product / (product.abs() + 1e-6).sqrt()
        return self.head(F.normalize(root, dim=-1, eps=1e-6))
