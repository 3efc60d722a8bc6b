"""Layers that CFN-SR, TACFN and LMR-CBT share: selection within a modality, and attention guided by another one."""

from __future__ import annotations

from torch import Tensor, nn

from mer_bench.batch import PaddedSequence
from mer_bench.fusion.layers import masked_softmax
from mer_bench.fusion.transformer import TransformerEncoder


class SelfSelection(nn.Module):
    """Selection within a modality: the last token of a causal pre-LayerNorm transformer.

    250,048 parameters at width 64 with 5 layers, as in the authors' CFN-SR code.

    Shapes:
        [utterance, time, dim] -> [utterance, dim]; zero for a missing modality.
    """

    def __init__(self, dim: int, *, heads: int, layers: int, dropout: float, embedding_dropout: float) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers {layers} is too small: self-attention needs at least 1 layer")
        self.encoder = TransformerEncoder(
            dim, heads=heads, layers=layers, causal=True, dropout=dropout, embedding_dropout=embedding_dropout
        )

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, dim]."""
        return self.encoder.last(sequence)


class GuidedAttention(nn.Module):
    r"""Additive attention over a target's tokens, guided by other modalities (CFN-SR, and TACFN in spliced form).

    With the guide's vector :math:`a` and the target's tokens :math:`x_t`

    .. math:: w = \operatorname{softmax}_t\big(v^\top \tanh(W [x_t ; a] + b)\big), \qquad x'_t = w_t x_t + x_t

    CFN-SR writes :math:`W_x x_t + W_a a` and TACFN concatenates; both are the same linear map. The weights are computed
    per utterance; CFN-SR's public code adds up the maps of all clips in a batch, so that clips depend on each other.

    Args:
        target: Width of the target's tokens.
        guide: Width of the guiding vector; 0 for none (the ablation without splice).
        hidden: Width of the additive attention.
        residual: Whether to add the tokens themselves (without them: an ablation).
        scale: Whether to multiply the weights by the number of tokens, so that their mean is one. Without it, as in the
            papers, :math:`w_t x_t` is negligible beside :math:`x_t` when there are many tokens: over 28 tokens it moves
            the target's utterance vector by 1 %, with it by 24 %, and CFN-SR's public code, which adds up the maps of
            16 clips, by 33 % (measured on untrained weights).

    Shapes:
        target [utterance, time, target], guide [utterance, guide] -> [utterance, time, target].
    """

    def __init__(self, target: int, guide: int, hidden: int, *, residual: bool = True, scale: bool = False) -> None:
        super().__init__()
        self.residual, self.scale = residual, scale
        self.target = nn.Linear(target, hidden)
        self.guide = nn.Linear(guide, hidden, bias=False) if guide else None
        self.score = nn.Linear(hidden, 1)

    def forward(self, target: PaddedSequence, guide: Tensor) -> PaddedSequence:
        """Reweight the target's tokens."""
        hidden = self.target(target.values)
        if self.guide is not None:
            hidden = hidden + self.guide(guide)[:, None]
        weight = masked_softmax(self.score(hidden.tanh())[..., 0], target.mask)[..., None]
        if self.scale:
            weight = weight * target.mask.sum(1)[:, None, None]
        return PaddedSequence(target.values * (weight + 1 if self.residual else weight), target.mask)
