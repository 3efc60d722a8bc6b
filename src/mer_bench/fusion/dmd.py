"""DMD: modalities split into shared and specific parts teach one another over two graphs (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.fusion.transformer import ResidualHead, TransformerEncoder
from mer_bench.fusion.utterance import token_encoders, tokens_with_summary

#: Ordered pairs (student, teacher) to which the authors' priors give the larger weight, per graph.
FAVOURED = {
    "shared": {("audio", "text"), ("vision", "text")},
    "specific": {("audio", "text"), ("vision", "text"), ("audio", "vision")},
}


class GraphDistillation(nn.Module):
    r"""Modalities imitate one another's predictions along edges whose weights are learnt (GD units of DMD).

    With :math:`z_m = [W_l l_m ; W_r r_m]` of the logits and the representation of modality m,

    .. math::
        w_{j \leftarrow i} &= softmax_{i,j} \big(\tfrac{1}{8} w^\top [z_j ; z_i]\big) \\
        loss &= \sum_{j \neq i} \operatorname{mean} \big((w_{j \leftarrow i} + p_{j \leftarrow i})
            \lVert \sigma(l_j) - \sigma(l_i) \rVert_1\big)
            + 10 \sum_{j \neq i} (\operatorname{mean} w_{j \leftarrow i} - p_{j \leftarrow i})^2

    where :math:`\sigma` is the softmax over classes, no gradient reaches the teacher i, and the prior p is the softmax
    of 4 for favoured pairs and 0 for all others.

    Shapes:
        logits [modality, utterance, class], vectors [modality, utterance, width], present [modality, utterance]
        -> scalar. Only utterances with both modalities count in an edge.
    """

    prior: Tensor

    def __init__(
        self, modalities: tuple[str, ...], classes: int, width: int, size: int, favoured: set[tuple[str, str]]
    ) -> None:
        super().__init__()
        pairs = list(permutations(range(len(modalities)), 2))
        self.students, self.teachers = ([pair[side] for pair in pairs] for side in range(2))
        # a softmax over the edges cancels all biases
        self.logits, self.vectors, self.edge = (
            nn.Linear(inputs, outputs, bias=False)
            for inputs, outputs in ((classes, size), (width, size), (4 * size, 1))
        )
        scores = torch.tensor([4.0 * ((modalities[j], modalities[i]) in favoured) for j, i in pairs])
        self.register_buffer("prior", scores.softmax(0))

    def forward(self, logits: Tensor, vectors: Tensor, present: Tensor) -> Tensor:
        """Imitation of the teachers, and the distance of the mean weights from the prior."""
        both = present[self.students] & present[self.teachers]
        weights = self.weights(logits, vectors)
        probabilities = logits.softmax(-1)
        gaps = (probabilities[self.students] - probabilities[self.teachers].detach()).abs().sum(-1)
        imitation = masked_mean(((weights + self.prior[:, None]) * gaps)[..., None], both).sum()
        drift = (masked_mean(weights[..., None], both)[:, 0] - self.prior) * both.any(-1)
        return imitation + 10 * drift.square().sum()

    def weights(self, logits: Tensor, vectors: Tensor) -> Tensor:
        """Weights of the edges, which sum to one: [pair, utterance]."""
        z = torch.cat([self.logits(logits), self.vectors(vectors)], -1)
        scores = self.edge(torch.cat([z[self.students], z[self.teachers]], -1))[..., 0]
        return (scores / 8).softmax(0)


def margin_loss(vectors: Tensor, labels: Tensor, present: Tensor, margin: float) -> Tensor:
    r"""Other modalities of the same class are to be closer than the same modality of other classes.

    .. math:: \operatorname{mean}_{m \neq n, y_i = y_j, y_i \neq y_k}
        \max(0, margin - \cos(c_{m,i}, c_{n,j}) + \cos(c_{m,i}, c_{m,k}))

    Shapes:
        vectors c [modality, utterance, dim], labels [utterance], present [modality, utterance] -> scalar; zero without
        a triplet.
    """
    unit = F.normalize(vectors, dim=-1)
    cosine = torch.einsum("mid,njd->mnij", unit, unit)
    modality = torch.arange(len(vectors), device=labels.device)
    other = modality[:, None] != modality
    exist = present[:, None, :, None] & present[None, :, None]  # [m, n, i, j]
    same = labels[:, None] == labels
    positive = exist & other[..., None, None] & same
    negative = exist[modality, modality] & ~same
    # [m, n, i, j, k]
    violation = F.relu(margin - cosine[..., None] + cosine[modality, modality][:, None, :, None])
    triplets = positive[..., None] & negative[:, None, :, None]
    return (violation * triplets).sum() / triplets.sum().clamp(min=1)


class Parts(NamedTuple):
    """What the classifiers and the losses read; the dictionaries have one sequence per modality."""

    inputs: dict[str, PaddedSequence]
    shared: dict[str, PaddedSequence]
    specific: dict[str, PaddedSequence]
    pooled: Tensor  #: first steps of the shared parts, [modality, utterance, hidden]
    joint: Tensor  #: shared parts after self-attention, [utterance, modalities * hidden]
    views: Tensor  #: specific parts after cross-modal attention, [modality, utterance, memory width]


class DMD(FusionModule):
    r"""Decoupled multimodal distillation: shared parts teach one another directly, specific parts after attention.

    Li et al. 2023, "Decoupled Multimodal Distilling for Emotion Recognition", https://arxiv.org/abs/2303.13802

    With a modality's sequence :math:`x_m` of its utterance vector and its tokens, one linear map
    :math:`c_m = W_c x_m` that all modalities share and one per modality, :math:`s_m = W_{s,m} x_m`, the first step
    :math:`\bar c_m` of :math:`c_m`, and transformers as in MulT, of which "first" is the first step too,

    .. math::
        g_m &= first(SA_m(c_m)), \quad v_m = first\big(Memory_m([CM_{j \to m}(s_m, s_j)]_{j \neq m})\big) \\
        z &= sigmoid\big([W_{v,m} v_m]_m ; W_g [g_m]_m\big), \quad logits = head(z) \\
        loss &= CE(head(z)) + CE(head_g([g_m]_m)) + \sum_m CE(head_{c,m}(\bar c_m)) + CE(head_{v,m}(v_m)) \\
            &+ \delta\, (GD_c + GD_v) + \gamma \sum_m \big(\lVert x_m - \hat x_m \rVert^2
            + \lVert s_m - W_{s,m} \hat x_m \rVert^2\big)
            + \gamma \beta \Big(margin + \sum_m \max(0, \cos(s_m, c_m))\Big)

    where :math:`\hat x_m = W_{d,m} [s_m ; c_m]`, all heads are MulT's, GD is :class:`GraphDistillation` between the
    classifiers of the shared parts and between those of the specific parts, and :func:`margin_loss` reads a projection
    of :math:`\bar c_m`. Sizes, dropouts and weights (0.05, 0.1, 0.1) are those of the authors' code for MOSEI.

    Reconstruction in the class head: the paper predicts one number. Here the L1 loss is a cross-entropy, classifiers
    imitate one another's probabilities, and the margin is 0.15 between any two classes (there 0.15 times the difference
    of the two labels).

    Differs from the code: the encoder that all methods share, with its tokens, replaces BERT and one convolution; in
    place of the first step, the code reads the last one after attention and flattens the shared parts over a fixed
    length, and its attention is causal; padding is masked; cosines are over features, there over the utterances of a
    batch; the margin loss is the paper's, between modalities; both graphs read the vector before a classifier's last
    layer (there GD_c reads its hidden layer); the second loss of its GD_v, which makes representations dissimilar and
    is not in the paper, and the biases of the graphs, which a softmax cancels, are left out. A missing modality counts
    in no auxiliary loss. The losses compare the utterances of a batch; the logits of an utterance do not depend on the
    others.

    Args:
        hidden: Width of vectors, tokens and transformers; ``heads`` must divide it.
        heads: Number of heads of each attention.
        layers: Number of layers of the encoders; the memories have at least 3, as in MulT.
        distillation: Weight delta of both graphs' losses.
        decoupling: Weight gamma of reconstruction and cycle.
        separation: Weight beta of the margin and orthogonality within gamma.
        margin: Margin of the cosines.
        dropout: Dropout probability of the encoders.
        attention_dropout: Dropout probability of the attention weights where text is the source, and in the memories.
        output_dropout: Dropout probability within the heads.
    """

    title = "DMD"
    reads = frozenset({"functionals", "frames"})
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2303.13802"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 30,
        heads: int = 6,
        layers: int = 4,
        distillation: float = 0.05,
        decoupling: float = 0.1,
        separation: float = 0.1,
        margin: float = 0.15,
        dropout: float = 0.15,
        attention_dropout: float = 0.4,
        output_dropout: float = 0.5,
    ) -> None:
        super().__init__(dims, num_classes)
        self.distillation, self.decoupling, self.separation = distillation, decoupling, separation
        self.margin = margin
        names, modalities = tuple(self.dims), len(self.dims)
        wide, joint = hidden * (modalities - 1), hidden * modalities

        def encoder(width: int, dropout: float, depth: int) -> TransformerEncoder:
            return TransformerEncoder(width, heads=heads, layers=depth, dropout=0.0, attention_dropout=dropout)

        def reading(source: str) -> TransformerEncoder:
            return encoder(hidden, attention_dropout if source == "text" else 0.0, layers)

        def head(width: int) -> ResidualHead:
            return ResidualHead(width, num_classes, dropout=output_dropout)

        def per_modality(width: int, out: int) -> nn.ModuleDict:
            return nn.ModuleDict({name: nn.Linear(width, out, bias=False) for name in names})

        self.encoders = token_encoders(self.dims, hidden, dropout=dropout)
        self.shared, self.specific = nn.Linear(hidden, hidden, bias=False), per_modality(hidden, hidden)
        self.decoders = per_modality(2 * hidden, hidden) if decoupling else nn.ModuleDict()
        self.aligned = per_modality(hidden, hidden) if decoupling and separation else nn.ModuleDict()
        self.attention = nn.ModuleDict({name: reading(name) for name in names})
        self.crossmodal = nn.ModuleDict(
            {f"{source}_to_{target}": reading(source) for target, source in permutations(names, 2)}
        )
        self.memory = nn.ModuleDict({name: encoder(wide, attention_dropout, max(layers, 3)) for name in names})
        self.shared_heads = nn.ModuleDict({name: head(hidden) for name in names})
        self.specific_heads = nn.ModuleDict({name: head(wide) for name in names})
        self.joint_head = head(joint)
        self.gates = nn.ModuleList([*(nn.Linear(wide, wide) for _ in names), nn.Linear(joint, joint)])
        self.head = head(wide * modalities + joint)
        sizes = {"shared": (hidden, 64), "specific": (wide, 32)} if distillation else {}
        self.graphs = nn.ModuleDict(
            {part: GraphDistillation(names, num_classes, *size, FAVOURED[part]) for part, size in sizes.items()}
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.fuse(self.split(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of all classifiers, imitation over both graphs, reconstruction, separation of the parts."""
        parts, present = self.split(batch), self.present(batch)
        shared, shared_logits = classify(self.shared_heads, parts.pooled)
        specific, specific_logits = classify(self.specific_heads, parts.views)
        each = [self.modality_cross_entropies(logits, batch) for logits in (shared_logits, specific_logits)]
        losses = {
            "cross_entropy": self.cross_entropy(self.fuse(parts), batch),
            "parts": self.cross_entropy(self.joint_head(parts.joint), batch) + torch.stack(each).sum(),
        }
        if self.distillation:
            graphs = self.graphs["shared"](shared_logits, shared, present) + self.graphs["specific"](
                specific_logits, specific, present
            )
            losses["distillation"] = self.distillation * graphs
        if self.decoupling:
            losses["reconstruction"] = self.decoupling * self.reconstruction(parts)
        if self.decoupling and self.separation:
            aligned = torch.stack([align(c) for align, c in zip(self.aligned.values(), parts.pooled, strict=True)])
            overlap = torch.stack([self.overlap(parts.specific[name], parts.shared[name]) for name in self.dims])
            separation = margin_loss(aligned, batch.label, present, self.margin) + overlap.sum()
            losses["separation"] = self.decoupling * self.separation * separation
        return losses

    def split(self, batch: Batch) -> Parts:
        """Encode all modalities, split them and let each part attend."""
        inputs = {name: tokens_with_summary(e, batch, positions=False) for name, e in self.encoders.items()}
        shared = {name: _mapped(self.shared, x) for name, x in inputs.items()}
        specific = {name: _mapped(self.specific[name], x) for name, x in inputs.items()}
        return Parts(
            inputs,
            shared,
            specific,
            torch.stack([c.values[:, 0] for c in shared.values()]),
            torch.cat([self.attention[name](c).values[:, 0] for name, c in shared.items()], -1),
            torch.stack([self._view(name, specific) for name in specific]),
        )

    def fuse(self, parts: Parts) -> Tensor:
        """Logits of all parts together: [utterance, num_classes]."""
        gated = [gate(vector).sigmoid() for gate, vector in zip(self.gates, [*parts.views, parts.joint], strict=True)]
        return self.head(torch.cat(gated, -1))

    def reconstruction(self, parts: Parts) -> Tensor:
        """Squared errors of the inputs and of the specific parts of what is decoded, as means over frames: scalar."""
        errors = []
        for name, x in parts.inputs.items():
            s = parts.specific[name].values
            decoded = self.decoders[name](torch.cat([s, parts.shared[name].values], -1))
            for error in (x.values - decoded, s - self.specific[name](decoded)):
                errors.append(masked_mean(error.square().mean(-1).reshape(-1, 1), x.mask.flatten()))
        return torch.cat(errors).sum()

    @staticmethod
    def overlap(specific: PaddedSequence, shared: PaddedSequence) -> Tensor:
        """Mean over frames of the positive part of the cosine of both parts: scalar."""
        cosine = (F.normalize(specific.values, dim=-1) * F.normalize(shared.values, dim=-1)).sum(-1)
        return masked_mean(F.relu(cosine).reshape(-1, 1), specific.mask.flatten())[0]

    def _view(self, target: str, specific: Mapping[str, PaddedSequence]) -> Tensor:
        """First step of the memory of all other modalities: [utterance, memory width]."""
        own = specific[target]
        others = [name for name in specific if name != target]
        read = [self.crossmodal[f"{source}_to_{target}"](own, specific[source]).values for source in others]
        return self.memory[target](PaddedSequence(torch.cat(read, -1), own.mask)).values[:, 0]


def classify(heads: nn.ModuleDict, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors before the last layer of each modality's classifier, and its logits: two [modality, utterance, ...]."""
    pairs = list(zip(heads.values(), vectors, strict=True))
    before = torch.stack([vector + head.residual(vector) for head, vector in pairs])
    return before, torch.stack([head.output(x) for head, x in zip(heads.values(), before, strict=True)])


def _mapped(layer: nn.Module, sequence: PaddedSequence) -> PaddedSequence:
    return PaddedSequence(layer(sequence.values), sequence.mask)
