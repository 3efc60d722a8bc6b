"""The batch that methods read: utterances on one axis, features padded in time, dialogues as a grid of indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[Any]  #: integers: row numbers of the utterance table, or offsets into packed features


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device; asynchronously to a GPU, so that it never idles between batches."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@dataclass(frozen=True)
class PaddedSequence:
    """Sequences of one modality, padded in time. An utterance whose mask is False everywhere lacks the modality."""

    values: Tensor  #: [utterance, time, dim]; zero in the padding
    mask: Tensor  #: [utterance, time]; True marks a frame, False padding

    def to(self, device: torch.device | str) -> PaddedSequence:
        """Copy the sequences to another device."""
        return PaddedSequence(to_device(self.values, device), to_device(self.mask, device))


@dataclass(frozen=True)
class Batch:
    """Utterances of whole dialogues (context "dialogue") or single utterances (context "utterance") on one axis.

    ``grid`` [dialogue, turn] holds the index of each turn on the utterance axis, and -1 after a dialogue's last turn.
    In utterance context it has one column. A method for dialogues regroups in three lines::

        context = batch.by_dialogue(hidden)        # [dialogue, turn, dim]
        context = self.rnn(context, batch.turns)   # turns: [dialogue, turn], True = there is an utterance
        hidden = batch.flatten(context)            # [utterance, dim]
    """

    features: Mapping[str, PaddedSequence]
    label: Tensor  #: [utterance] class index
    speaker: Tensor  #: [utterance] number of the speaker within the dialogue, by order of appearance: 0, 1, ...
    dialogue: Tensor  #: [utterance] row of ``grid``
    turn: Tensor  #: [utterance] column of ``grid``
    index: Tensor  #: [utterance] row number in the utterance table
    grid: Tensor  #: [dialogue, turn]

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to another device (Lightning calls this method because the dataclass is frozen)."""
        tensors = (self.label, self.speaker, self.dialogue, self.turn, self.index, self.grid)
        features = {name: sequence.to(device) for name, sequence in self.features.items()}
        return Batch(features, *(to_device(tensor, device) for tensor in tensors))

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.label)

    @property
    def turns(self) -> Tensor:
        """Mask [dialogue, turn], True where there is an utterance."""
        return self.grid >= 0

    def by_dialogue(self, flat: Tensor) -> Tensor:
        """Regroup [utterance, ...] to [dialogue, turn, ...]; zero after a dialogue's last turn."""
        grouped = flat[self.grid.clamp(min=0)]
        return grouped.masked_fill(~self.turns.reshape(self.grid.shape + (1,) * (flat.ndim - 1)), 0)

    def flatten(self, grouped: Tensor) -> Tensor:
        """Regroup [dialogue, turn, ...] to [utterance, ...], the inverse of :meth:`by_dialogue`."""
        return grouped[self.dialogue, self.turn]


def gather(
    values: Tensor, offsets: Rows, rows: Rows, statistics: tuple[Tensor, Tensor] | None = None
) -> PaddedSequence:
    """Gather the frames of ``rows`` from packed ``values`` into one padded tensor, without a loop.

    Args:
        values: [frames, dim], memory-mapped or on a device, where the batch is then gathered without a
            synchronisation. Integers become floats of the same value.
        offsets: [number of all rows + 1], where the frames of each row begin.
        rows: [utterance], row numbers.
        statistics: Mean [dim] and inverse standard deviation [dim] to standardise with, on the device of ``values``.
    """
    start = offsets[rows]
    length = offsets[rows + 1] - start
    steps = np.arange(max(length.max(), 1))  # indices are computed in numpy, whose calls cost less than torch's
    mask = steps < length[:, None]
    index = np.where(mask, start[:, None] + steps, 0)
    copy = partial(to_device, device=values.device)
    frames = values.index_select(0, copy(torch.from_numpy(index.ravel()))).float()
    if statistics is not None:
        frames.sub_(statistics[0]).mul_(statistics[1])
    # takes a quarter of the time of masked_fill_
    frames.index_fill_(0, copy(torch.from_numpy(np.flatnonzero(~mask))), 0)
    return PaddedSequence(frames.reshape(*mask.shape, -1), copy(torch.from_numpy(mask)))
