"""Groups of utterances (whole dialogues, or single utterances): which ones form a batch, and on which device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import numpy as np
from torch.utils.data import Dataset, Sampler

from mer_bench.batch import Batch, Rows


class GroupDataset(Dataset[Batch]):
    """Groups of table rows, indexed by a list of group numbers, so that a batch is one vectorised gather."""

    def __init__(self, groups: Sequence[Rows], collate: Callable[[Sequence[Rows]], Batch]) -> None:
        self.groups, self.collate = groups, collate

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        return self.collate([self.groups[number] for number in numbers])


class GroupSampler(Sampler[list[int]]):
    """Batches of group numbers, bucketed by size. The order of an epoch depends only on seed and epoch.

    Training shuffles the groups, sorts them by size within windows of 16 batches (a compromise between little padding
    and much randomness) and shuffles the batches. Evaluation sorts all groups by size. With several devices, each
    takes every ``world``-th batch. In training the first batches are repeated until all devices have equally many; in
    evaluation none is repeated or dropped.

    Args:
        sizes: [group], number of turns or frames.
        batch_size: Groups per batch.
        shuffle_seed: Seed of the order in training; None for evaluation.
        rank: Number of this device, from 0.
        world: Number of devices.
    """

    def __init__(
        self, sizes: Rows, batch_size: int, *, shuffle_seed: int | None, rank: int = 0, world: int = 1
    ) -> None:
        self.sizes, self.batch_size, self.shuffle_seed = sizes, batch_size, shuffle_seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches of this device."""
        batches = -(-len(self.sizes) // self.batch_size)
        if self.shuffle_seed is not None:
            return -(-batches // self.world)
        return len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the group numbers of each batch of this device."""
        if self.shuffle_seed is None:
            batches = self._split(np.argsort(self.sizes, kind="stable"))
        else:
            generator = np.random.default_rng((self.shuffle_seed, self.epoch))
            order = generator.permutation(len(self.sizes))
            window = 16 * self.batch_size
            windows = [order[start : start + window] for start in range(0, len(order), window)]
            batches = self._split(np.concatenate([w[np.argsort(self.sizes[w], kind="stable")] for w in windows]))
            batches = [batches[i] for i in generator.permutation(len(batches))]
            batches = list(islice(cycle(batches), len(self) * self.world))
        yield from batches[self.rank :: self.world]

    def _split(self, order: Rows) -> list[list[int]]:
        return [order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size)]
