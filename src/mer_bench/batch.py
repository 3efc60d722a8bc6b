"""The batch that methods read: utterances on one axis, features padded in time, dialogues as a grid of indices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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
class Width:
    """Widths of one modality's features."""

    frames: int  #: values per frame
    functionals: int  #: values per utterance, see :mod:`mer_bench.functionals`


@dataclass(frozen=True)
class Batch:
    """Utterances of whole dialogues (context "dialogue") or single utterances (context "utterance") on one axis.

    ``grid`` [dialogue, turn] holds the index of each turn on the utterance axis, and -1 after a dialogue's last turn.
    In utterance context it has one column. ``functionals`` and ``frames`` are empty unless the method reads them
    (:attr:`~mer_bench.fusion.FusionModule.reads`). A method for dialogues regroups in three lines::

        context = batch.by_dialogue(hidden)        # [dialogue, turn, dim]
        context = self.rnn(context, batch.turns)   # turns: [dialogue, turn], True = there is an utterance
        hidden = batch.flatten(context)            # [utterance, dim]
    """

    present: Mapping[str, Tensor]  #: modality -> [utterance]; False where an utterance lacks the modality
    functionals: Mapping[str, Tensor]  #: modality -> [utterance, width]; zero where it is missing
    frames: Mapping[str, PaddedSequence]  #: modality -> its sequences
    label: Tensor  #: [utterance] class index
    speaker: Tensor  #: [utterance] number of the speaker within the dialogue, by order of appearance: 0, 1, ...
    dialogue: Tensor  #: [utterance] row of ``grid``
    turn: Tensor  #: [utterance] column of ``grid``
    index: Tensor  #: [utterance] row number in the utterance table
    grid: Tensor  #: [dialogue, turn]

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to another device (Lightning calls this method because the dataclass is frozen)."""
        tensors = (self.label, self.speaker, self.dialogue, self.turn, self.index, self.grid)
        present, functionals = (
            {name: to_device(tensor, device) for name, tensor in each.items()}
            for each in (self.present, self.functionals)
        )
        frames = {name: sequence.to(device) for name, sequence in self.frames.items()}
        return Batch(present, functionals, frames, *(to_device(tensor, device) for tensor in tensors))

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

    def only(self, chosen: Collection[str]) -> Batch:
        """The batch with the modalities ``chosen`` alone; the others are masked as missing ones are."""
        return self.without(
            {name: torch.ones_like(there) for name, there in self.present.items() if name not in chosen}
        )

    def without(self, lost: Mapping[str, Tensor]) -> Batch:
        """The batch without the modalities that utterances have ``lost``: modality -> [utterance]."""
        present, functionals, frames = dict(self.present), dict(self.functionals), dict(self.frames)
        for name, gone in lost.items():
            present[name] = present[name] & ~gone
            if name in functionals:
                functionals[name] = functionals[name].masked_fill(gone[:, None], 0)
            if name in frames:
                values, mask = frames[name].values, frames[name].mask
                frames[name] = PaddedSequence(values.masked_fill(gone[:, None, None], 0), mask & ~gone[:, None])
        return replace(self, present=present, functionals=functionals, frames=frames)


@dataclass(frozen=True)
class Source:
    """Features to gather batches from, standardised on the way."""

    values: Tensor  #: [row, dim], memory-mapped or on a device. Integers become floats of the same value.
    statistics: tuple[Tensor, Tensor] | None = None  #: mean and inverse deviation [dim]; None = as they are
    limit: float = math.inf  #: number of deviations at which standardised values are cut
    ready: bool = False  #: whether the values are standardised already; the statistics then serve others

    def take(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """The standardised rows [number of rows, dim], on the device of the values without a synchronisation."""
        taken = self.values.index_select(0, self._here(rows)).float()
        return taken if self.ready else self.standardise(taken)

    def standardise(self, values: Tensor) -> Tensor:
        """Standardise ``values`` [row, dim] of one's own in place, on their device."""
        if self.statistics is not None:
            mean, scale = (to_device(each, values.device) for each in self.statistics)
            values.sub_(mean).mul_(scale)
        return values.clamp_(-self.limit, self.limit) if self.limit < math.inf else values

    def to(self, device: torch.device | str) -> Source:
        """The same source with standardised values on a device; batches have the same values to the last bit."""
        moved = self.values.to(device, torch.float32, copy=True)
        return replace(self, values=moved if self.ready else self.standardise(moved), ready=True)

    def gather(self, offsets: Rows, rows: Rows) -> PaddedSequence:
        """Gather the frames of utterances from packed values into one padded tensor, without a loop.

        Args:
            offsets: [number of all rows + 1], where the frames of each row begin.
            rows: [utterance], row numbers.
        """
        start = offsets[rows]
        length = offsets[rows + 1] - start
        steps = np.arange(max(length.max(), 1))  # indices are computed in numpy, whose calls cost less than torch's
        mask = steps < length[:, None]
        frames = self.take(np.where(mask, start[:, None] + steps, 0).ravel())
        # takes a quarter of the time of masked_fill_
        frames.index_fill_(0, self._here(np.flatnonzero(~mask)), 0)
        return PaddedSequence(frames.reshape(*mask.shape, -1), self._here(mask))

    def gather_vectors(self, present: npt.NDArray[np.bool_], rows: Rows) -> Tensor:
        """Gather the vectors [utterance, dim] of utterances; zero where ``present`` [utterance] is False."""
        return self.take(rows).index_fill_(0, self._here(np.flatnonzero(~present)), 0)

    def _here(self, array: npt.NDArray[Any]) -> Tensor:
        return to_device(torch.from_numpy(array), self.values.device)
