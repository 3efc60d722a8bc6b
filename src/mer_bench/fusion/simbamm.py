"""SimBaMM: a transformer over tokens of the modalities, the simple baseline (Rheude, Eils and Wild 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import drop_modalities, masked_mean
from mer_bench.fusion.transformer import TransformerLayer
from mer_bench.fusion.utterance import Encoders


class SimBaMM(FusionModule):
    r"""Late fusion by self-attention over the modalities that are present.

    Rheude, Eils and Wild 2025, "Fusion or Confusion? Multimodal Complexity Is Not All You Need",
    https://arxiv.org/abs/2512.22991

    With the utterance vectors :math:`e_m`, a projection of each modality to :math:`k` tokens of one width, and
    attention masked to the modalities A that the utterance has,

    .. math::
        [s_{m,1} ; \dots ; s_{m,k}] = P_m e_m, \quad
        H = Transformer\big((s_{m,i})_{m \in A, i}\big), \quad
        logits = W \operatorname{LN}\big(\operatorname{mean}_{m \in A, i} H_{m,i}\big) + b

    With one token per modality this is the paper's SimBaMM-CLS, with several its SimBaMM. In training a modality that
    is present is masked with a probability of ``modality_dropout``, except where none would be left.

    No code was found, and only descriptions of the paper could be read. Stated there: an encoder and a linear
    projection per modality, one or several tokens, the mask, a transformer, and the loss of the task alone. Inferred:
    the mean over tokens, pre-LayerNorm layers, all sizes, rates and the masking in training (the paper tunes each
    method on each data set). Tokens have no position, since the projections tell modalities apart. Where the paper
    takes several tokens from an encoder's sequence, here all of them are projections of the utterance vector.

    Args:
        hidden: Width of the utterance vectors and of the tokens; ``heads`` must divide it.
        tokens: Number k of tokens per modality.
        layers: Number of layers of the transformer.
        heads: Number of heads of each layer.
        dropout: Dropout probability of the encoders and of the transformer.
        modality_dropout: Probability that a modality is masked in training.
    """

    title = "SimBaMM"
    provenance = "reconstruction"
    paper = "https://arxiv.org/abs/2512.22991"
    least = 2

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        tokens: int = 1,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.15,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, num_classes)
        self.tokens, self.modality_dropout = tokens, modality_dropout
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.projections = nn.ModuleList(nn.Linear(hidden, tokens * hidden) for _ in self.dims)
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, 4 * hidden, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        vectors = zip(self.projections, self.encoders(batch), strict=True)
        x = torch.cat([project(vector).unflatten(-1, (self.tokens, -1)) for project, vector in vectors], 1)
        real = self.kept(self.present(batch)).T.repeat_interleave(self.tokens, 1)
        for layer in self.layers:
            x = layer(x, None, real[:, None])
        return self.head(self.norm(masked_mean(x, real)))

    def kept(self, present: Tensor) -> Tensor:
        """Present modalities that are not masked: [modality, utterance] -> the same shape; all in evaluation."""
        if not self.training or not self.modality_dropout:
            return present
        return drop_modalities(present, self.modality_dropout)
