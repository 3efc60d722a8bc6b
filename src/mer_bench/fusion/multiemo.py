"""MultiEMO: cross-attention over the turns of a dialogue, correlated and contrastive (Shi and Huang 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.dialogue_rnn import DialogueCell, DialogueCells
from mer_bench.fusion.layers import masked_mean, perceptron
from mer_bench.fusion.transformer import Attention
from mer_bench.fusion.utterance import Encoders


class SpeakerContext(nn.Module):
    """The context of one modality's utterances: a bidirectional DialogueRNN and a linear layer with ReLU.

    Shapes:
        utterances [dialogue, turn, dim], speaker and real [dialogue, turn] -> [dialogue, turn, dim].
    """

    def __init__(self, dim: int, *, parties: int, dropout: float) -> None:
        super().__init__()
        self.cells = DialogueCells(
            DialogueCell(dim, (dim,) * 3, attention="simple", listener=False, parties=parties, dropout=dropout)
            for _ in range(2)
        )
        self.linear, self.dropout = nn.Linear(2 * dim, dim), nn.Dropout(dropout)

    def forward(self, utterances: Tensor, speaker: Tensor, real: Tensor) -> Tensor:
        """Read the dialogues."""
        return F.relu(self.dropout(self.linear(self.cells(utterances, speaker, real))))


class AttentionLayer(nn.Module):
    r"""Attention of a modality's turns to each other modality in turn, then a feed-forward block.

    .. math:: x \leftarrow LN(x + MHA_k(x, s_k, s_k)) \text{ for each source } s_k, \quad x \leftarrow LN(x + FFN(x))

    Shapes:
        x [dialogue, turn, dim], sources [source, dialogue, turn, dim], allowed [source, dialogue, turn]
        -> [dialogue, turn, dim].
    """

    def __init__(self, sources: int, dim: int, heads: int, ffn: int, *, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(dim, heads) for _ in range(sources))
        self.ffn = perceptron(dim, ffn, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(sources + 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sources: Tensor, allowed: Tensor) -> Tensor:
        """Attend to all turns that ``allowed`` marks."""
        for attention, norm, source, real in zip(self.attentions, self.norms, sources, allowed, strict=False):
            x = norm(x + self.dropout(attention(x, source, real[:, None])))
        return self.norms[-1](x + self.dropout(self.ffn(x)))


def soft_correlation(x: Tensor, y: Tensor, real: Tensor) -> Tensor:
    r"""Soft Hirschfeld-Gebelein-Renyi correlation of two samples, per feature (Wang et al. 2019).

    .. math:: \tfrac 1 d \big(E[x^\top y] - \tfrac 1 2 tr(cov(x)\, cov(y))\big)

    with x and y centred over the sample; at most one half.

    Shapes:
        x, y [sample, dim], real [sample] (False = no part of the sample) -> scalar; zero for an empty sample.
    """
    x, y = ((each - masked_mean(each, real)) * real[:, None] for each in (x, y))
    count = real.sum().clamp(min=1)
    together = (x * y).sum() / count
    apart = ((x.T @ x) * (y.T @ y)).sum() / count.square()
    return (together - apart / 2) / x.shape[-1]


def focal_contrast(x: Tensor, label: Tensor, weight: Tensor, temperature: float, focus: float) -> Tensor:
    r"""Sample-weighted focal contrastive loss: vectors of one class attract each other, all others repel.

    .. math::
        p_{ij} = softmax_{j \ne i}(\cos(x_i, x_j) / \tau), \quad
        loss = - \operatorname{mean}_i w_{y_i} \operatorname{mean}_{j \ne i, y_j = y_i} (1 - p_{ij})^\gamma \log p_{ij}

    Shapes:
        x [sample, dim], label [sample], weight [class] -> scalar; a sample without a partner of its class counts as 0.
    """
    unit = F.normalize(x, dim=-1)
    same = torch.eye(len(x), dtype=torch.bool, device=x.device)
    scores = (unit @ unit.T / temperature).masked_fill(same, torch.finfo(x.dtype).min)
    positive = (label == label[:, None]) & ~same
    log_p = scores.log_softmax(-1).masked_fill(~positive, 0)
    pairs = (1 - log_p.exp()).clamp(min=1e-6).pow(focus) * log_p
    each = pairs.sum(-1) / positive.sum(-1).clamp(min=1)
    return -(weight[label] * each).mean()


class MultiEMO(FusionModule):
    r"""Each modality's turns attend to the other modalities of the whole dialogue.

    Shi and Huang 2023, https://aclanthology.org/2023.acl-long.824

    Each modality's utterance vectors pass a DialogueRNN of their own (:class:`SpeakerContext`) to :math:`c_m`, and
    several layers of attention to the others (:class:`AttentionLayer`) to :math:`f_m`. Then

    .. math::
        z &= W [f_m]_m + b, \quad logits = W_2 relu(W_1 z) \\
        loss &= \alpha\, CE(logits) + \beta\, Contrast(z) - \gamma \sum_{m < n} HGR(f_m, f_n)

    where Contrast is :func:`focal_contrast` with class weights :math:`w_c \propto n_c^{-\delta}` that sum to one, and
    HGR is :func:`soft_correlation`. Both compare the utterances of a batch, in training only. Sizes and weights are
    those of the authors' command for IEMOCAP; for MELD they set ``layers=2``, ``classification=0.4``, ``contrast=0.3``,
    ``correlation=0.3``, ``temperature=1.4``, ``focus=2`` and ``class_exponent=1.2``, and there text has no DialogueRNN,
    the others read forwards only, and the classifier is twice as wide.

    Differs from that code: the vectors come from the encoder that all methods share, and dropout, there 0, is before
    the classifier's last layer instead of on the logits; padding and missing modalities are masked, where theirs attend
    to padding; the features are centred and the covariances are those of features over the sample, as in Wang et al.,
    where the code does not centre and takes covariances between utterances; the correlation is divided by the width
    instead of by the number of utterances, so that its weight does not depend on the batch. Attention reads future
    turns, so that the method works offline only.

    Args:
        hidden: Width throughout.
        layers: Number of attention layers of each modality.
        heads: Number of heads of each attention.
        ffn: Hidden width of the feed-forward blocks.
        classification: Weight of the cross-entropy (alpha).
        contrast: Weight of the contrastive loss (beta); 0 leaves it out.
        correlation: Weight of the correlations (gamma); 0 leaves them out.
        temperature: Temperature of the contrastive loss (tau), above 0.
        focus: Exponent of the contrastive loss's focus on hard pairs (gamma in its formula), at least 0.
        class_exponent: Exponent of the class weights (delta), from 0 (all classes alike).
        parties: Number of speakers with their own state; later speakers of a dialogue share the last one.
        dropout: Dropout probability of the encoders, the recurrent states, the attention layers and the classifier.
    """

    title = "MultiEMO"
    context = "dialogue"
    paper = "https://aclanthology.org/2023.acl-long.824"
    least = 2
    unimodal_encoders = ("encoders", "contexts")

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 256,
        layers: int = 6,
        heads: int = 4,
        ffn: int = 1024,
        classification: float = 0.2,
        contrast: float = 0.4,
        correlation: float = 0.4,
        temperature: float = 0.8,
        focus: float = 2.4,
        class_exponent: float = 1.1,
        parties: int = 9,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} is not positive")
        self.classification, self.contrast, self.correlation = classification, contrast, correlation
        self.temperature, self.focus, self.class_exponent = temperature, focus, class_exponent
        self.parties = parties
        modalities = len(self.dims)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.contexts = nn.ModuleDict(
            {name: SpeakerContext(hidden, parties=parties, dropout=dropout) for name in self.dims}
        )
        self.attention = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    AttentionLayer(modalities - 1, hidden, heads, ffn, dropout=dropout) for _ in range(layers)
                )
                for name in self.dims
            }
        )
        self.join = nn.Linear(modalities * hidden, hidden)
        self.head = perceptron(hidden, hidden, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        return self.head(self.join(torch.cat(list(self.fused(batch)), -1)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, contrast of the joined vectors and correlation of the modalities."""
        fused, present = self.fused(batch), self.present(batch)
        joined = self.join(torch.cat(list(fused), -1))
        losses = {"cross_entropy": self.classification * self.cross_entropy(self.head(joined), batch)}
        if self.contrast:
            weight = F.normalize(self.class_counts.clamp(min=1) ** -self.class_exponent, p=1, dim=0)
            contrast = focal_contrast(joined, batch.label, weight, self.temperature, self.focus)
            losses["contrast"] = self.contrast * contrast
        if self.correlation:
            pairs = combinations(zip(fused, present, strict=True), 2)
            correlations = [soft_correlation(x, y, in_x & in_y) for (x, in_x), (y, in_y) in pairs]
            losses["correlation"] = -self.correlation * torch.stack(correlations).sum()
        return losses

    def fused(self, batch: Batch) -> Tensor:
        """Vectors of each modality after attention to the others: [modality, utterance, hidden]."""
        speaker = batch.by_dialogue(batch.speaker).clamp(max=self.parties - 1)
        vectors = map(batch.by_dialogue, self.encoders(batch))
        contexts = [read(x, speaker, batch.turns) for read, x in zip(self.contexts.values(), vectors, strict=True)]
        present = [batch.by_dialogue(each) for each in self.present(batch)]
        fused = []
        for own, name in enumerate(self.dims):
            others = [index for index in range(len(contexts)) if index != own]
            sources = torch.stack([contexts[index] for index in others])
            allowed = torch.stack([present[index] for index in others])
            x = contexts[own]
            for layer in self.attention[name].children():
                x = layer(x, sources, allowed)
            fused.append(batch.flatten(x))
        return torch.stack(fused)
