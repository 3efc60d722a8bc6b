"""MMIN: imagine the missing modalities of an utterance from those that it has (Zhao et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.utterance import Encoders


class ResidualAutoencoders(nn.Module):
    r"""A cascade of autoencoders, each of which reads the sum of the input and all outputs before it.

    .. math::
        x_k = x + \sum_{i < k} D_i(E_i(x_i)), \quad
        output = T(x_{K+1}), \quad latent = [E_1(x_1); ...; E_K(x_K)]

    An encoder has three layers (of four, two and one times the width of the latent vector) with leaky ReLUs between
    them, a decoder the same backwards with ReLUs, T two with a ReLU.

    Shapes:
        [utterance, dim] -> output [utterance, dim], latent [utterance, blocks * latent width].
    """

    def __init__(self, dim: int, latent: int, blocks: int) -> None:
        super().__init__()
        down = (dim, 4 * latent, 2 * latent, latent)
        self.encoders = nn.ModuleList(_layers(down, nn.LeakyReLU) for _ in range(blocks))
        self.decoders = nn.ModuleList(_layers(down[::-1], nn.ReLU) for _ in range(blocks))
        self.transition = _layers((dim, dim, dim), nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output and all latent vectors."""
        latents = []
        for encode, decode in zip(self.encoders, self.decoders, strict=True):
            latents.append(encode(x))
            x = x + decode(latents[-1])
        return self.transition(x), torch.cat(latents, -1)


def _layers(widths: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for ahead, behind in pairwise(widths):
        layers += [nn.Linear(ahead, behind), activation()]
    return nn.Sequential(*layers[:-1])


def classifier(dim: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Two hidden layers with ReLU and dropout."""
    hidden_layers = [
        layer for width in (dim, hidden) for layer in (nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
    ]
    return nn.Sequential(*hidden_layers, nn.Linear(hidden, classes))


def pattern(present: Tensor, complete: float) -> Tensor:
    """Draw which modalities an utterance keeps: all with probability ``complete``, else any other non-empty set.

    All those other sets are equally likely. An utterance that would lose everything keeps what it has.

    Shapes:
        present [modality, utterance] -> the same shape; False also where a modality is absent already.
    """
    modalities, utterances = present.shape
    sets = torch.randint(1, 2**modalities - 1, (utterances,), device=present.device)
    bits = 2 ** torch.arange(modalities, device=present.device)
    kept = (sets & bits[:, None]) > 0
    all_of_it = torch.rand(utterances, device=present.device) < complete
    kept = (kept | all_of_it) & present
    return torch.where(kept.any(0), kept, present)


class MMIN(FusionModule):
    r"""Train a cascade of autoencoders to imagine missing modalities, and classify its latent vectors.

    Zhao et al. 2021, https://aclanthology.org/2021.acl-long.203

    In training an utterance keeps a random set of its modalities (:func:`pattern`). With :math:`a` the concatenated
    vectors of those kept (zero for the others) and :math:`b` those of the ones that were dropped (zero for the kept),
    two :class:`ResidualAutoencoders` form a cycle:

    .. math::
        \hat b, l &= A(a), \quad \hat a, \cdot = A'(\hat b), \quad logits = MLP(l) \\
        loss &= CE + \lambda \lVert \hat b - b \rVert^2 + \mu \lVert \hat a - a \rVert^2 + CE_{teacher}

    The squared errors are means over features, utterances in which something was dropped, and modalities that these
    have; their targets have no gradient. The teacher is a classifier of all vectors: it makes them worth imagining. In
    evaluation the utterance keeps what it has. Sizes, loss weights and dropout are those of the authors' command for
    IEMOCAP.

    Differs from that code: the encoder that all methods share replaces its LSTMs and text CNN; a missing modality has
    the vector zero, where theirs has the encoding of zero features; the teacher is trained at the same time on the same
    encoders, where theirs is trained before, and a frozen copy of its encoders gives the targets; utterances are
    complete with probability ``complete``, there never, since there each test utterance lacks a modality, and here none
    does unless the table of robustness takes it; what a corpus itself lacks has no part in the errors.

    Args:
        hidden: Width of the utterance vectors.
        latent: Width of each autoencoder's latent vector.
        blocks: Number of autoencoders in each cascade.
        head: Width of the classifiers' two hidden layers.
        complete: Probability that an utterance keeps all its modalities in training, from 0 to below 1.
        imagination: Weight of the error of what is imagined (lambda), above 0.
        cycle: Weight of the error of the way back (mu); 0 leaves it out.
        dropout: Dropout probability of the encoders.
        head_dropout: Dropout probability in the classifiers.
    """

    title = "MMIN"
    paper = "https://aclanthology.org/2021.acl-long.203"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 128,
        latent: int = 64,
        blocks: int = 5,
        head: int = 128,
        complete: float = 0.5,
        imagination: float = 4.0,
        cycle: float = 2.0,
        dropout: float = 0.15,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(dims, num_classes)
        if not 0 <= complete < 1:
            raise Misuse(f"option complete = {complete} of mmin is not between 0 and 1 (1 excluded)")
        self.complete, self.imagination, self.cycle = complete, imagination, cycle
        width = len(self.dims) * hidden
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.imagine = ResidualAutoencoders(width, latent, blocks)
        self.recall = ResidualAutoencoders(width, latent, blocks) if cycle else None
        self.head = classifier(blocks * latent, head, num_classes, head_dropout)
        self.teacher = classifier(width, head, num_classes, head_dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes], from all modalities that are present."""
        return self.head(self.imagine(self.encoders.joined(batch))[1])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the kept modalities and of the teacher, and the errors of both cascades."""
        vectors, present = self.encoders(batch), self.present(batch)
        kept = pattern(present, self.complete)
        known, dropped = vectors * kept[..., None], vectors * (present & ~kept)[..., None]
        imagined, latent = self.imagine(torch.cat(list(known), -1))
        losses = {
            "cross_entropy": self.cross_entropy(self.head(latent), batch),
            "teacher": self.cross_entropy(self.teacher(torch.cat(list(vectors), -1)), batch),
            "imagination": self.imagination * _error(imagined, dropped, present, kept),
        }
        if self.recall is not None:
            losses["cycle"] = self.cycle * _error(self.recall(imagined)[0], known, present, kept)
        return losses


def _error(output: Tensor, target: Tensor, present: Tensor, kept: Tensor) -> Tensor:
    """Mean squared error over the present modalities of utterances in which one was dropped."""
    ours = torch.stack(output.chunk(len(target), -1))
    counts = present & (present & ~kept).any(0)
    errors = F.mse_loss(ours, target.detach(), reduction="none").mean(-1)
    return masked_mean(errors.flatten()[:, None], counts.flatten())[0]
