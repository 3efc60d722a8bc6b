"""MCTN: translate one modality into the others and back, and classify the learnt representation (Pham et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import resample


class Translator(nn.Module):
    """A bidirectional LSTM encoder, whose directions are added, and an LSTM decoder that attends to its output.

    Shapes:
        [utterance, step, hidden] -> [utterance, step, hidden] for encoding and for decoding.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.key, self.query = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.cell = nn.LSTMCell(hidden, hidden)

    def encode(self, x: Tensor) -> Tensor:
        """Encode a sequence."""
        ahead, back = self.encoder(x)[0].chunk(2, -1)
        return ahead + back

    def decode(self, encoded: Tensor) -> Tensor:
        """Hidden states of the decoder, as many as encoded steps."""
        keys = self.key(encoded)
        hidden = cell = torch.zeros_like(encoded[:, 0])
        states = []
        for _ in range(encoded.shape[1]):
            weights = self.score((keys + self.query(hidden)[:, None]).tanh()).softmax(1)
            hidden, cell = self.cell((weights * encoded).sum(1), (hidden, cell))
            states.append(hidden)
        return torch.stack(states, 1)


class MCTN(FusionModule):
    r"""Translate a source modality into all others and back, and classify the code of the last translation.

    Pham et al. 2019, https://arxiv.org/abs/1812.07809

    With source x, targets y and z, encoders E, decoders D and codes e,

    .. math:: e_1 = E_1(x), \quad \hat y = D_1(e_1), \quad \hat x = D_1(E_1(\hat y)), \quad
        e_2 = E_2(e_1), \quad \hat z = D_2(e_2)

    .. math:: loss = CE(f(e_2)) + \lambda_t (MSE(\hat y, y) + MSE(\hat z, z)) + \lambda_c MSE(\hat x, x)

    where f is an LSTM with attention over its steps. With two modalities there is no second level and f reads
    :math:`e_1`. Prediction needs the source only: the other modalities may be missing. In training a target counts for
    the utterances that have both it and the source; all utterances without the source get the same logits.

    The source is by default the first of text, audio and vision; the targets follow in the order vision, audio, text,
    since the paper's best translates text into vision and then into audio. Widths, loss weights, the length of 20 steps
    and the second level without a cycle are the authors' configuration.

    Differs from their code: since modalities differ in width, each has a linear layer before and after the common
    encoder and decoder of a cycle; attention is additive, where theirs cannot depend on the decoder's state; outputs
    are linear, because features are standardised; there is no L2 penalty on the output layer (0.01 there), but the
    weight decay of all methods. The frames are averaged over ``steps`` equal spans of the utterance
    (:func:`~mer_bench.fusion.layers.resample`) instead of being aligned to words and padded.

    Args:
        source: The source modality; by default the first.
        hidden: Width of all LSTMs.
        steps: Length of the common time axis.
        translation: Weight of the translations' mean squared errors.
        cycle: Weight of the mean squared error of the translation back; 0 removes the cycle.
        dropout: Dropout probability before the classifier (not in the authors' code).
    """

    title = "MCTN"
    reads = frozenset({"frames"})
    paper = "https://arxiv.org/abs/1812.07809"
    least = 2
    unimodal_encoders = ("enter",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        source: str | None = None,
        hidden: int = 32,
        steps: int = 20,
        translation: float = 0.1,
        cycle: float = 0.1,
        dropout: float = 0.15,
    ) -> None:
        super().__init__(dims, num_classes)
        if source is not None and source not in self.dims:
            raise unknown("source", source, self.dims)
        self.source = source or next(iter(self.dims))
        self.targets = [name for name in reversed(self.dims) if name != self.source]
        self.steps, self.translation, self.cycle = steps, translation, cycle
        entering = [self.source, *self.targets[: 1 if cycle else 0]]
        leaving = [*self.targets, *entering[: 1 if cycle else 0]]
        self.enter = nn.ModuleDict({name: nn.Linear(self.dims[name].frames, hidden) for name in entering})
        self.leave = nn.ModuleDict({name: nn.Linear(hidden, self.dims[name].frames) for name in leaving})
        self.levels = nn.ModuleList(Translator(hidden) for _ in self.targets)
        self.reader = nn.LSTM(hidden, hidden, batch_first=True)
        self.attention = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes], from the source alone."""
        return self.classify(self.codes(batch)[-1])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and the errors of each translation and of the translation back."""
        codes = self.codes(batch)
        losses = {"cross_entropy": self.cross_entropy(self.classify(codes[-1]), batch)}
        translations = [
            self.leave[name](level.decode(code))
            for name, level, code in zip(self.targets, self.levels, codes, strict=True)
        ]
        for name, translated in zip(self.targets, translations, strict=True):
            losses[f"translation_{name}"] = self.translation * self.error(translated, name, batch)
        if self.cycle:
            first = self.levels[0]
            back = first.decode(first.encode(self.enter[self.targets[0]](translations[0])))
            losses[f"cycle_{self.source}"] = self.cycle * self.error(self.leave[self.source](back), self.source, batch)
        return losses

    def codes(self, batch: Batch) -> list[Tensor]:
        """The code of each level, [utterance, step, hidden]; the last one is the joint representation."""
        code = self.enter[self.source](resample(batch.frames[self.source], self.steps))
        codes = []
        for level in self.levels:
            code = level.encode(code)
            codes.append(code)
        return codes

    def classify(self, code: Tensor) -> Tensor:
        """[utterance, step, hidden] -> logits [utterance, num_classes]."""
        states, _ = self.reader(code)
        weights = self.attention(states).tanh().softmax(1)
        return self.head((weights * states).sum(1))

    def error(self, translated: Tensor, name: str, batch: Batch) -> Tensor:
        """Mean squared error over the utterances that have the source and ``name``."""
        both = batch.present[self.source] & batch.present[name]
        squares = (translated - resample(batch.frames[name], self.steps)).square().mean((1, 2))
        return (squares * both).sum() / both.sum().clamp(min=1)
