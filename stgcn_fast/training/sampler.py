"""The order in which clips are drawn: a pure function of seed and epoch, for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

__all__ = ["EpochSampler"]


class EpochSampler(Sampler[tuple[int, int]]):
    """Draw ``(epoch, position)`` pairs; every process draws every ``world_size``-th of the same order.

    A batch over all processes therefore holds the same clips for any number of them, and a resumed run
    draws what the uninterrupted one would have drawn. The pair carries the epoch into DataLoader workers.

    Attributes:
        real: Draws of this process that are not padding; padding comes last.

    Args:
        data: Anything with a length.
        shuffle: Whether to draw in a random order.
        seed: Seed of that order.
        epoch: First epoch.
        rank: Rank of this process.
        world_size: Number of processes; the order is padded with its own beginning to a multiple of it.
    """

    def __init__(
        self,
        data: Sized,
        *,
        shuffle: bool,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count = len(data)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.real = len(range(rank, self.count, world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
        else:
            order = list(range(self.count))
        for step in range(len(self)):
            yield self.epoch, order[(step * self.world_size + self.rank) % self.count]
