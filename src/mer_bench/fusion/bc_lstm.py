"""bc-LSTM: a bidirectional LSTM over the utterances of a dialogue (Poria et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import BidirectionalRNN, perceptron
from mer_bench.fusion.utterance import Encoders


class BCLSTM(FusionModule):
    r"""Concatenate the modalities' utterance vectors and read them in both directions of the dialogue.

    Poria et al. 2017, https://aclanthology.org/P17-1081

    .. math:: c_1, ..., c_N = BiLSTM([h_{m,1}]_m, ..., [h_{m,N}]_m), \quad logits_t = W_2 relu(W_1 c_t)

    The utterance vectors come from the encoder that all methods share, whether a feature is a sequence of frames or a
    single vector. Differs from the paper, which trains one contextual LSTM per modality and then another one on their
    outputs: this is the single network, trained at once, that became the usual baseline, with the sizes of the authors'
    later code (two layers of width 100, dropout 0.25). That code drops out between the layers of the LSTM and in the
    classifier; here the encoders and the LSTM's output have dropout as well. The backward direction reads future
    utterances, so that the method works offline only.

    Args:
        hidden: Width of the utterance vectors, of the LSTM in each direction and of the hidden layer.
        layers: Number of layers of the LSTM.
        dropout: Dropout probability of the encoders, between the LSTM's layers, on its output and in the classifier.
    """

    title = "bc-LSTM"
    context = "dialogue"
    revision = 1
    paper = "https://aclanthology.org/P17-1081"

    def __init__(
        self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 100, layers: int = 2, dropout: float = 0.25
    ) -> None:
        super().__init__(dims, num_classes)
        self.encoders = Encoders(self.dims, hidden, dropout=dropout)
        self.rnn = BidirectionalRNN(nn.LSTM, hidden * len(self.dims), hidden, layers=layers, dropout=dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), perceptron(2 * hidden, hidden, num_classes, dropout=dropout))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        context = self.rnn(batch.by_dialogue(self.encoders.joined(batch)), batch.turns)
        return self.head(batch.flatten(context))
