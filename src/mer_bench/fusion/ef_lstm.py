"""EF-LSTM: concatenate the modalities' features at each time step and read them with one LSTM (Zadeh et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import perceptron, resample


class EFLSTM(FusionModule):
    r"""One LSTM over the concatenated features of all modalities, brought to a common time axis.

    A baseline in many tables, first in that of Zadeh et al. 2018, https://arxiv.org/abs/1802.00927

    .. math:: h_t = LSTM([x_{text,t}; x_{audio,t}; x_{vision,t}], h_{t-1}), \quad logits = W_2 relu(W_1 h_T)

    Differs from those baselines, which align the modalities to spoken words: here word times are not known and the
    modalities differ in frame rate, so that each modality's frames are averaged over ``steps`` equal spans of the
    utterance (:func:`~mer_bench.fusion.layers.resample`). An absent modality is zero at every step, a single vector is
    repeated. All sizes are inferred. The number of steps also limits the time per batch, whatever the number of frames.

    Args:
        hidden: Width of the LSTM and of the hidden layer.
        layers: Number of layers of the LSTM.
        steps: Length of the common time axis.
        dropout: Dropout probability between the LSTM's layers, on its last state and in the classifier.
    """

    title = "EF-LSTM"
    reads = frozenset({"frames"})
    provenance = "baseline"
    paper = "https://arxiv.org/abs/1802.00927"
    unimodal_encoders = ()

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 128,
        layers: int = 1,
        steps: int = 20,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(dims, num_classes)
        self.steps = steps
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.LSTM(
            sum(width.frames for width in self.dims.values()), hidden, layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(dropout)
        self.head = perceptron(hidden, hidden, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        steps, _ = self.rnn(torch.cat([resample(batch.frames[name], self.steps) for name in self.dims], -1))
        return self.head(self.dropout(steps[:, -1]))
