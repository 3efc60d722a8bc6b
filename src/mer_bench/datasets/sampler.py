"""The order of training groups, and each device's share of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
from torch.utils.data import Sampler

from mer_bench.batch import Rows


class GroupSampler(Sampler[list[int]]):
    """Batches of group numbers, bucketed by size; an epoch's order depends on seed and epoch alone.

    Training shuffles, sorts within windows of 16 batches (little padding, much randomness) and shuffles the batches.
    Evaluation takes groups from short to long. With several devices each takes every world-th batch: in training
    the first ones are repeated until the shares are equal, in evaluation nothing is repeated or dropped.
    """

    def __init__(
        self, sizes: Rows, batch_size: int, *, shuffle_seed: int | None, rank: int = 0, world: int = 1
    ) -> None:
        self.sizes, self.batch_size, self.shuffle_seed = sizes, batch_size, shuffle_seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of this device."""
        batches = -(-len(self.sizes) // self.batch_size)
        if self.shuffle_seed is not None:
            return -(-batches // self.world)
        return len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of group numbers."""
        if self.shuffle_seed is None:
            order = np.argsort(self.sizes, kind="stable")
            batches = self._chunks(order)
        else:
            generator = np.random.default_rng((self.shuffle_seed, self.epoch))
            order = generator.permutation(len(self.sizes))
            window = 16 * self.batch_size
            windows = [order[start : start + window] for start in range(0, len(order), window)]
            order = np.concatenate([part[np.argsort(self.sizes[part], kind="stable")] for part in windows])
            batches = self._chunks(order)
            batches = [batches[i] for i in generator.permutation(len(batches))]
            batches = list(islice(cycle(batches), len(self) * self.world))
        yield from batches[self.rank :: self.world]

    def _chunks(self, order: Rows) -> list[list[int]]:
        return [order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size)]
