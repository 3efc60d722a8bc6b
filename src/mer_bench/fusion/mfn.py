"""MFN: one LSTM per modality, attention over their cell states and one gated memory (Zadeh et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import perceptron, resample


class GatedMemory(nn.Module):
    r"""Multi-view gated memory of the interactions between modalities over time (MFN, Graph-MFN).

    With D networks of one hidden layer

    .. math:: u_t = \sigma(D_1 [x_t; u_{t-1}]) \odot u_{t-1} + \sigma(D_2 [x_t; u_{t-1}]) \odot \tanh(D_u x_t)

    Shapes:
        x [utterance, step, dim] -> the last memory [utterance, memory].
    """

    def __init__(self, dim: int, memory: int, inner: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.memory = memory
        self.proposal = perceptron(dim, inner, memory, dropout=dropout)
        self.retain, self.update = (perceptron(dim + memory, inner, memory, dropout=dropout) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Update the memory step by step; the proposals do not depend on it and are computed at once."""
        memory = x.new_zeros(len(x), self.memory)
        for step, proposal in zip(x.unbind(1), self.proposal(x).tanh().unbind(1), strict=True):
            both = torch.cat([step, memory], -1)
            memory = self.retain(both).sigmoid() * memory + self.update(both).sigmoid() * proposal
        return memory


class SystemOfLSTMs(nn.Module):
    """One LSTM per modality, all of the same width; ``nn.LSTM`` does not return the cell states of all steps.

    Shapes:
        modality -> [utterance, step, dim] -> last hidden states [utterance, modalities * hidden] and cells
        [utterance, 1 + step, modalities * hidden], the first of which are zero.
    """

    def __init__(self, dims: Mapping[str, Width], hidden: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict({name: nn.Linear(width.frames, 4 * hidden) for name, width in dims.items()})
        bound = hidden**-0.5
        self.recurrent = nn.Parameter(torch.empty(len(dims), hidden, 4 * hidden).uniform_(-bound, bound))

    def forward(self, sequences: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Run all LSTMs step by step."""
        gates = torch.stack([project(sequences[name]) for name, project in self.inputs.items()])
        hidden = cell = gates.new_zeros(*gates.shape[:2], self.recurrent.shape[1])  # [modality, utterance, hidden]
        cells = [cell]
        for step in gates.unbind(2):
            enter, keep, candidate, leave = (step + hidden @ self.recurrent).chunk(4, -1)
            cell = keep.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            cells.append(cell)
        return hidden.transpose(0, 1).flatten(1), torch.stack(cells).permute(2, 0, 1, 3).flatten(2)


class MFN(FusionModule):
    r"""Attend to changes of the modalities' LSTM cells from one step to the next, and store them in a gated memory.

    Zadeh et al. 2018, https://arxiv.org/abs/1802.00927

    With :math:`c_t` and :math:`h_t` the concatenated cells and hidden states of one LSTM per modality, which do not
    exchange information, and D a network of one hidden layer

    .. math:: c^*_t = [c_{t-1}; c_t], \quad \hat c_t = \operatorname{softmax}(D_a c^*_t) \odot c^*_t, \quad
        u_t = GatedMemory(\hat c_t, u_{t-1}), \quad logits = D_o [h_T; u_T]

    (:class:`GatedMemory`, whose gates also read the memory, as in the authors' code.) Differs from the paper, which
    aligns the modalities to spoken words: the frames are averaged over ``steps`` equal spans of the utterance
    (:func:`~mer_bench.fusion.layers.resample`), so that the time per batch does not grow with the number of frames. All
    LSTMs have the same width. The paper searches widths and dropouts; these defaults are ours. The classifier predicts
    emotions instead of sentiment. With one modality the attention runs within the cells of one LSTM.

    Args:
        hidden: Width of each LSTM.
        memory: Width of the gated memory.
        inner: Width of the hidden layers of the attention, the gates and the classifier.
        steps: Length of the common time axis.
        dropout: Dropout probability of those hidden layers.
    """

    title = "MFN"
    reads = frozenset({"frames"})
    paper = "https://arxiv.org/abs/1802.00927"
    unimodal_encoders = ("lstms",)

    def __init__(
        self,
        dims: Mapping[str, Width],
        num_classes: int,
        *,
        hidden: int = 64,
        memory: int = 128,
        inner: int = 64,
        steps: int = 20,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(dims, num_classes)
        self.steps = steps
        width = hidden * len(self.dims)
        self.lstms = SystemOfLSTMs(self.dims, hidden)
        self.attention = perceptron(2 * width, inner, 2 * width, dropout=dropout)
        self.memory = GatedMemory(2 * width, memory, inner, dropout=dropout)
        self.head = perceptron(width + memory, inner, num_classes, dropout=dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        hidden, cells = self.lstms({name: resample(batch.frames[name], self.steps) for name in self.dims})
        change = torch.cat([cells[:, :-1], cells[:, 1:]], -1)
        attended = self.attention(change).softmax(-1) * change
        return self.head(torch.cat([hidden, self.memory(attended)], -1))
