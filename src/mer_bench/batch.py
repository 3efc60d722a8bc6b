"""The one batch type: utterances flat, features padded in time, dialogues as a grid of positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[Any]  #: integers: row numbers, or where their spans begin


def move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on another device; a GPU is not waited for, or each batch would first let it run out of work."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@dataclass(frozen=True)
class PaddedSequence:
    """Sequences of one modality, padded in time: values [utterance, time, dim], mask [utterance, time] (True = real).

    Padded values are zero; an utterance whose mask is all False lacks the modality.
    """

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> PaddedSequence:
        """The same sequences on another device."""
        return PaddedSequence(move(self.values, device), move(self.mask, device))


@dataclass(frozen=True)
class Batch:
    """Utterances of whole dialogues (dialogue context) or single ones (utterance context), flat over utterances.

    ``grid`` [dialogue, turn] holds each dialogue's positions on the flat axis, -1 where a dialogue has ended; in
    utterance context it is one column, every utterance on its own. A conversational method regroups in three lines::

        context = batch.by_dialogue(hidden)        # [dialogue, turn, dim]
        context = self.rnn(context, batch.turns)   # turns: [dialogue, turn], True = real
        hidden = batch.flatten(context)            # [utterance, dim]
    """

    features: Mapping[str, PaddedSequence]
    label: Tensor  #: [utterance] class index
    speaker: Tensor  #: [utterance] within its dialogue, by order of appearance: 0, 1, ...
    dialogue: Tensor  #: [utterance] row of ``grid``
    turn: Tensor  #: [utterance] column of ``grid``
    index: Tensor  #: [utterance] row of the utterance table
    grid: Tensor  #: [dialogue, turn]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device (Lightning asks this of a frozen dataclass)."""
        tensors = (self.label, self.speaker, self.dialogue, self.turn, self.index, self.grid)
        features = {name: sequence.to(device) for name, sequence in self.features.items()}
        return Batch(features, *(move(tensor, device) for tensor in tensors))

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.label)

    @property
    def turns(self) -> Tensor:
        """Mask [dialogue, turn], True where there is an utterance."""
        return self.grid >= 0

    def by_dialogue(self, flat: Tensor) -> Tensor:
        """[utterance, ...] -> [dialogue, turn, ...], zero where a dialogue has ended."""
        grouped = flat[self.grid.clamp(min=0)]
        return grouped.masked_fill(~self.turns.reshape(self.grid.shape + (1,) * (flat.ndim - 1)), 0)

    def flatten(self, grouped: Tensor) -> Tensor:
        """[dialogue, turn, ...] -> [utterance, ...], the inverse of :meth:`by_dialogue`."""
        return grouped[self.dialogue, self.turn]


def gather(values: Tensor, offsets: Rows, rows: Rows, standard: tuple[Tensor, Tensor] | None = None) -> PaddedSequence:
    """Gather the spans of ``rows`` from packed ``values`` [frames, dim] as one padded tensor, without a loop.

    Args:
        values: [frames, dim]; may be memory-mapped, or on a device, which then gathers and is not waited for. Integers
            become floats of the same value, once they are gathered.
        offsets: [all rows + 1].
        rows: [utterance] table rows.
        standard: What to subtract from real frames, [dim], and then to multiply them with, [dim]; where values are.
    """
    start = offsets[rows]
    length = offsets[rows + 1] - start
    steps = np.arange(max(length.max(), 1))  # numpy, since a call of it takes a fraction of one of torch
    mask = steps < length[:, None]
    index = np.where(mask, start[:, None] + steps, 0)
    place = partial(move, device=values.device)
    frames = values.index_select(0, place(torch.from_numpy(index.ravel()))).float()
    if standard is not None:
        frames.sub_(standard[0]).mul_(standard[1])
    padding = torch.from_numpy(np.flatnonzero(~mask))
    frames.index_fill_(0, place(padding), 0)  # a fourth of what masked_fill_ takes
    return PaddedSequence(frames.reshape(*mask.shape, -1), place(torch.from_numpy(mask)))
