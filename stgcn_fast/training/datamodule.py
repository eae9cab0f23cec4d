"""The Lightning data module: loaders whose every sample follows from seed, epoch and position."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from stgcn_fast import data
from stgcn_fast.training import distributed
from stgcn_fast.training.config import Config
from stgcn_fast.training.datasets import Sample, build_dataset, transforms_of
from stgcn_fast.training.sampler import EpochSampler
from stgcn_fast.training.source import Indices

__all__ = ["SkeletonDataModule"]


class _Drawn(Dataset[Sample]):
    """Samples by ``(epoch, position)``, so that worker processes need not be told the epoch."""

    def __init__(self, base: data.SkeletonDataset) -> None:
        self.base = base

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, position = item
        self.base.set_epoch(epoch)
        sample: Sample = self.base[position]
        return sample


class SkeletonDataModule(pl.LightningDataModule):
    """Loaders of one run.

    Args:
        store: Open store.
        indices: Its splits.
        config: The run.
    """

    def __init__(self, store: data.SkeletonStore, indices: Indices, config: Config) -> None:
        super().__init__()
        self._config = config
        seed = config.training.seed
        parts = {
            name: _Drawn(
                build_dataset(
                    store, indices[part], transforms_of(config, name), config.data, store.layout, seed
                )
            )
            for name, part in (("train", "train"), ("eval", "val"))
            if len(indices[part])
        }
        self._train = parts["train"]
        self._val = parts.get("eval")

    @property
    def has_validation(self) -> bool:
        """Whether there are validation clips."""
        return self._val is not None

    def _loader(self, dataset: _Drawn | None, size: int, train: bool) -> DataLoader[Any]:
        if dataset is None:
            raise RuntimeError(
                "SkeletonDataModule: indices must hold validation clips for a validation loader"
            )
        training = self._config.training
        world = distributed.world_size()
        epoch = int(self.trainer.current_epoch) if train and self.trainer is not None else 0
        sampler = EpochSampler(
            dataset,
            shuffle=train,
            seed=training.seed,
            epoch=epoch,
            rank=distributed.rank(),
            world_size=world,
        )
        return DataLoader(
            dataset,
            batch_size=size // world,
            sampler=sampler,
            num_workers=training.workers,
            persistent_workers=training.workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=train and training.drop_last and len(dataset) >= size,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training clips."""
        return self._loader(self._train, self._config.training.batch_size, train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation clips in order."""
        training = self._config.training
        return self._loader(self._val, training.eval_batch_size or training.batch_size, train=False)
