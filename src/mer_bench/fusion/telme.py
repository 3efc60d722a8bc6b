"""TelME: one modality teaches the others, which then shift its vector (Yun et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.transformer import Attention
from mer_bench.fusion.utterance import Encoders


class ShiftingFusion(nn.Module):
    r"""Shift the teacher's vector t by what its students' vectors s (concatenated) add, but not too far.

    .. math::
        a &= dropout(LN(s + MHA(s, s, s))), \quad d = relu(W_g [a ; t]) \odot W_d a \\
        z &= dropout(LN(t + \min(1, \beta \lVert t \rVert / \lVert d \rVert)\, d))

    where the attention is over the turns of a dialogue. Where the teacher is missing the whole displacement counts.

    Shapes:
        teacher [dialogue, turn, dim], students [dialogue, turn, students * dim], taught (the teacher is there) and
        allowed (a student is there) [dialogue, turn] -> [dialogue, turn, dim].
    """

    def __init__(self, dim: int, students: int, heads: int, *, shift: float, dropout: float) -> None:
        super().__init__()
        width = students * dim
        self.shift = shift
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width)
        self.gate, self.displacement = nn.Linear(width + dim, dim), nn.Linear(width, dim)
        self.output_norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, teacher: Tensor, students: Tensor, taught: Tensor, allowed: Tensor) -> Tensor:
        """The shifted vectors."""
        mixed = self.norm(students + self.attention(students, students, allowed[:, None]))
        mixed = self.dropout(mixed)
        moved = F.relu(self.gate(torch.cat([mixed, teacher], -1))) * self.displacement(mixed)
        length, reach = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (moved, teacher))
        scale = (self.shift * reach / (length + 1e-6)).clamp(max=1).masked_fill(~taught[..., None], 1)
        return self.dropout(self.output_norm(teacher + scale * moved))


def correlation_gap(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """One minus Pearson's correlation over the last dimension: [row, column], mask [row or 1, column] -> [row]."""
    x, y = ((each - masked_mean(each[..., None], mask)) * mask for each in (x, y))
    return 1 - (x * y).sum(-1) / (torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1) + 1e-8)


def response_distance(student: Tensor, teacher: Tensor, both: Tensor, temperature: float) -> Tensor:
    r"""Distance of two classifiers' answers (DIST, Huang et al. 2022), with :math:`p = softmax(logits / \tau)`.

    .. math:: \tau^2 \big(2 - mean_i\, \rho_c(p_{ic}, q_{ic}) - mean_c\, \rho_i(p_{ic}, q_{ic})\big)

    where :math:`\rho_c` is Pearson's correlation over the classes, and :math:`\rho_i` over the utterances of a batch.

    Shapes:
        student, teacher [utterance, class], both [utterance] (both are there) -> scalar; zero without utterances.
    """
    p, q = ((logits / temperature).softmax(-1) for logits in (student, teacher))
    within = masked_mean(correlation_gap(p, q, torch.ones_like(p, dtype=torch.bool))[:, None], both)[0]
    across = correlation_gap(p.T, q.T, both.expand(p.shape[1], -1)).mean() * both.any()
    return temperature**2 * (within + across)


def similarity_divergence(student: Tensor, teacher: Tensor, both: Tensor) -> Tensor:
    r"""Divergence of how alike a student's and the teacher's vectors are to the teacher's vectors of the batch.

    .. math:: \operatorname{mean}_i KL(softmax_j \cos(t_i, t_j) \,\Vert\, softmax_j \cos(t_i, s_j))

    Shapes:
        student, teacher [utterance, dim], both [utterance] (both are there) -> scalar; zero without utterances.
    """
    s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    lowest = torch.finfo(s.dtype).min
    wanted, found = ((t @ each.T).masked_fill(~both, lowest).log_softmax(-1) for each in (t, s))
    return masked_mean((wanted.exp() * (wanted - found)).sum(-1)[:, None], both)[0]


class TelME(FusionModule):
    r"""The strongest modality teaches the others, and their vectors shift its own.

    Yun et al. 2024, https://arxiv.org/abs/2401.12987

    Each modality has an utterance vector and a classifier of it. The teacher (text) is trained by cross-entropy alone,
    each student s by

    .. math:: CE_s + \lambda\, Response(s, teacher) + \mu\, Similarity(s, teacher)

    (:func:`response_distance`, :func:`similarity_divergence`; without gradient to the teacher). Then
    :class:`ShiftingFusion` shifts the teacher's vector, and a linear layer classifies it. As in the paper, whose
    encoders are frozen when its fusion is trained, the fusion has no gradient to the encoders; here both are trained in
    the same steps. The losses compare the utterances of a batch; the logits do not. Width, heads, dropout, loss
    weights, temperature and shift are the authors' for IEMOCAP; for MELD they set ``heads=3``, ``shift=0.1``,
    ``temperature=4`` and ``response=1``.

    Differs from the paper, which finetunes a language model on the dialogue so far, and one model each for sound and
    video: here all are frozen features that the encoder of all methods reads. The authors' attention takes a batch of
    four shuffled utterances as one sequence; here the sequence is the dialogue, so that a prediction does not depend on
    which utterances share a batch (it is theirs if a batch is a dialogue). A corpus without text has another teacher.
    The attention reads future turns, so that the method works offline only.

    Args:
        teacher: The modality that teaches; by default the first of text, audio and vision.
        hidden: Width of the utterance vectors.
        heads: Number of heads of the attention, whose width is ``hidden`` times the number of students.
        shift: Largest length of the displacement, as a share of the length of the teacher's vector (beta), from 0.
        response: Weight of the distance of answers (lambda); 0 leaves it out.
        similarity: Weight of the divergence of similarities (mu); 0 leaves it out.
        temperature: Temperature of the answers, above 0.
        joint: Whether the loss of the fusion trains the encoders too (not in the paper).
        dropout: Dropout probability of the encoders.
        fusion_dropout: Dropout probability in the fusion.
    """

    title = "TelME"
    context = "dialogue"
    paper = "https://arxiv.org/abs/2401.12987"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        teacher: str | None = None,
        hidden: int = 768,
        heads: int = 4,
        shift: float = 0.2,
        response: float = 0.1,
        similarity: float = 1.0,
        temperature: float = 2.0,
        joint: bool = False,
        dropout: float = 0.15,
        fusion_dropout: float = 0.2,
    ) -> None:
        super().__init__(dims, num_classes)
        if teacher is not None and teacher not in self.dims:
            raise unknown("teacher", teacher, self.dims)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} is not positive")
        self.teacher = teacher or next(iter(self.dims))
        self.students = [name for name in self.dims if name != self.teacher]
        self.response, self.similarity, self.temperature, self.joint = response, similarity, temperature, joint
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.answers = nn.ModuleDict({name: nn.Linear(hidden, num_classes) for name in self.dims})
        self.fusion = ShiftingFusion(hidden, len(self.students), heads, shift=shift, dropout=fusion_dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.fuse(self.vectors(batch), batch)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the fusion and of each modality, and each student's distances from the teacher."""
        vectors = self.vectors(batch)
        answers = {name: self.answers[name](vector) for name, vector in vectors.items()}
        losses = {"cross_entropy": self.cross_entropy(self.fuse(vectors, batch), batch)}
        losses |= {f"{name}_cross_entropy": self.cross_entropy(each, batch) for name, each in answers.items()}
        taught, answer = vectors[self.teacher].detach(), answers[self.teacher].detach()
        for name in self.students:
            both = batch.present[name] & batch.present[self.teacher]
            if self.response:
                distance = response_distance(answers[name], answer, both, self.temperature)
                losses[f"{name}_response"] = self.response * distance
            if self.similarity:
                losses[f"{name}_similarity"] = self.similarity * similarity_divergence(vectors[name], taught, both)
        return losses

    def vectors(self, batch: Batch) -> dict[str, Tensor]:
        """Utterance vectors [utterance, hidden] by modality."""
        return dict(zip(self.dims, self.encoders(batch), strict=True))

    def fuse(self, vectors: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Logits [utterance, num_classes] from the utterance vectors."""
        if not self.joint:
            vectors = {name: vector.detach() for name, vector in vectors.items()}
        students = torch.cat([vectors[name] for name in self.students], -1)
        some = torch.stack([batch.present[name] for name in self.students]).any(0)
        grouped = map(batch.by_dialogue, (vectors[self.teacher], students, batch.present[self.teacher], some))
        return self.head(batch.flatten(self.fusion(*grouped)))
