"""SDT: transformers within and between modalities, two levels of gates and self-distillation (Ma et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.graphs import SpeakerEmbedding
from mer_bench.fusion.layers import sinusoidal_positions
from mer_bench.fusion.transformer import Attention
from mer_bench.fusion.utterance import Encoders


class Interaction(nn.Module):
    r"""One transformer layer from a source modality's turns to a target's, then the unimodal-level gate.

    .. math:: y = x + MHA(x, s, s), \quad z = y + FFN(LN(y)), \quad z \odot \sigma(W z)

    There is one layer; the authors' code would normalise the attention's input only in further layers.

    Shapes:
        target and source [dialogue, turn, dim], allowed [dialogue, 1, turn] -> [dialogue, turn, dim].
    """

    def __init__(self, dim: int, heads: int, dropout: float, *, learned_gates: bool) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.ffn = nn.Sequential(
            nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(dim, dim),
            nn.GELU("tanh"),
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
            nn.Dropout(dropout),
        )
        self.gate = nn.Linear(dim, dim, bias=False) if learned_gates else nn.Identity()

    def forward(self, target: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        """The target's turns after they have attended to the source's."""
        x = target + self.dropout(self.attention(target, source, allowed))
        x = x + self.ffn(x)
        return x * self.gate(x).sigmoid()


class SDTNetwork(nn.Module):
    """The authors' network, from one vector per utterance and modality to one teacher and one student per modality.

    79,668,248 parameters for text 1024, audio 1582, vision 342, six classes and two speakers at width 1024. Theirs has
    19,456 more that are never trained: nine LayerNorms of first layers and the speaker embedding of the padding.

    Arguments are those of :class:`SDT`, except that ``dims`` are the widths of the vectors.

    Shapes:
        vectors {modality: [dialogue, turn, dim]}, present {modality: [dialogue, turn]}, speaker [dialogue, turn]
        -> teacher [dialogue, turn, num_classes], students [dialogue, turn, modality, num_classes].
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        hidden: int = 1024,
        heads: int = 8,
        dropout: float = 0.5,
        speakers: int = 9,
        learned_gates: bool = True,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(dim, hidden, bias=False) for name, dim in dims.items()})
        self.speakers = SpeakerEmbedding(speakers, hidden)
        self.dropout = nn.Dropout(dropout)
        self.interactions = nn.ModuleDict(
            {
                f"{source}_to_{target}": Interaction(hidden, heads, dropout, learned_gates=learned_gates)
                for target in dims
                for source in dims
            }
        )
        self.reductions = nn.ModuleDict({name: nn.Linear(len(dims) * hidden, hidden) for name in dims})
        self.gate = nn.Linear(hidden, hidden, bias=False) if len(dims) > 1 else None
        self.students = nn.ModuleDict(
            {name: nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)) for name in dims}
        )
        self.teacher = nn.Linear(hidden, num_classes)

    def forward(
        self, vectors: Mapping[str, Tensor], present: Mapping[str, Tensor], speaker: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of the teacher and of the students."""
        speakers = self.speakers(speaker)
        positions = speakers + sinusoidal_positions(speakers.shape[1], speakers.shape[2], speakers.device)
        x = {name: self.dropout(project(vectors[name]) + positions) for name, project in self.projections.items()}
        fused = {}
        for target, reduce in self.reductions.items():
            read = [self.interactions[f"{j}_to_{target}"](x[target], x[j], present[j][:, None]) for j in x]
            fused[target] = reduce(torch.cat(read, -1))
        students = torch.stack([classify(fused[name]) for name, classify in self.students.items()], 2)
        modalities = torch.stack(list(fused.values()), 2)  # [dialogue, turn, modality, hidden]
        if self.gate is not None:
            modalities = self.gate(modalities).softmax(2) * modalities
        return self.teacher(modalities.sum(2)), students


class SDT(FusionModule):
    r"""One transformer layer per ordered pair of modalities and per modality, fused by gates on two levels.

    Ma et al. 2023, https://arxiv.org/abs/2310.20494

    Each modality's utterance vectors are projected; sinusoidal positions and speaker embeddings are added. With
    :math:`z_{j \to m}` the result of attention from modality m to j (:class:`Interaction`, with the unimodal-level
    gate),

    .. math::
        h_m = W_m [z_{j \to m}]_j + b_m, \quad
        h = \sum_m \operatorname{softmax}_m(W h_m) \odot h_m, \quad teacher = W_t h, \quad student_m = W_s relu(h_m)

    The teacher predicts; its soft labels and the hard ones train the students, and with them the representations:

    .. math:: L = CE(teacher) + \gamma_2 \sum_m CE(student_m) + \gamma_3 \sum_m KL(teacher^{1/T} || student_m^{1/T})

    As in the authors' code the KL terms also have gradients with respect to the teacher, and they are not multiplied by
    :math:`T^2`. Sizes and dropout are theirs. For MELD they set ``temperature=8`` and ``learned_gates=False``.

    Differs from that code: the vectors come from the encoder that all methods share, before the paper's one-by-one
    convolution (:class:`SDTNetwork` begins with it); dropout is drawn once per modality's input instead of once per
    interaction that reads it; speakers are numbered by first appearance, on IEMOCAP there by gender; all classes have
    the same weight, where the authors weigh them by inverse frequency on IEMOCAP. Other utterances do not attend to a
    missing modality, but it attends to them. With one modality there is no multimodal-level gate. Attention reads
    future utterances, so that the method works offline only.

    Args:
        hidden: Width throughout.
        heads: Number of heads of each attention.
        dropout: Dropout probability everywhere, the encoders included.
        speakers: Size of the speaker embedding; later speakers of a dialogue share the last.
        learned_gates: Whether the unimodal-level gates have weights; otherwise a gate is the sigmoid of its input.
        student_weight: Weight of the students' cross-entropies (gamma_2).
        distillation_weight: Weight of the divergences from the teacher (gamma_3).
        temperature: Temperature of the distillation.
        detach_teacher: Whether the divergences have no gradient with respect to the teacher (not in the paper).
    """

    title = "SDT"
    context = "dialogue"
    revision = 1
    paper = "https://arxiv.org/abs/2310.20494"
    unimodal_encoders = ("encoders", "network.projections")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 1024,
        heads: int = 8,
        dropout: float = 0.5,
        speakers: int = 9,
        learned_gates: bool = True,
        student_weight: float = 1.0,
        distillation_weight: float = 1.0,
        temperature: float = 1.0,
        detach_teacher: bool = False,
    ) -> None:
        super().__init__(dims, num_classes)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} is not positive")
        self.student_weight, self.distillation_weight = student_weight, distillation_weight
        self.temperature, self.detach_teacher = temperature, detach_teacher
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.network = SDTNetwork(
            dict.fromkeys(self.dims, hidden),
            num_classes,
            hidden=hidden,
            heads=heads,
            dropout=dropout,
            speakers=speakers,
            learned_gates=learned_gates,
        )

    def forward(self, batch: Batch) -> Tensor:
        """The teacher's logits [utterance, num_classes]."""
        return self.teacher_and_students(batch)[0]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the teacher; for each student its cross-entropy and its divergence from the teacher."""
        teacher, students = self.teacher_and_students(batch)
        soft_label = ((teacher.detach() if self.detach_teacher else teacher) / self.temperature).softmax(-1)
        losses = {"cross_entropy": self.cross_entropy(teacher, batch)}
        for name, student in zip(self.dims, students.unbind(1), strict=True):
            divergence = F.kl_div((student / self.temperature).log_softmax(-1), soft_label, reduction="batchmean")
            losses[f"{name}_cross_entropy"] = self.student_weight * self.cross_entropy(student, batch)
            losses[f"{name}_distillation"] = self.distillation_weight * divergence
        return losses

    def teacher_and_students(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [utterance, num_classes] and [utterance, modality, num_classes]."""
        vectors = dict(zip(self.dims, map(batch.by_dialogue, self.encoders(batch)), strict=True))
        present = dict(zip(self.dims, map(batch.by_dialogue, self.present(batch)), strict=True))
        teacher, students = self.network(vectors, present, batch.by_dialogue(batch.speaker))
        return batch.flatten(teacher), batch.flatten(students)
