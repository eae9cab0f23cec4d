"""Samples of a run: clips through transforms, one or several views of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stgcn_fast import data
from stgcn_fast.training.config import Config, DataConfig
from stgcn_fast.training.errors import ConfigError

__all__ = ["build_dataset", "evaluation_loader", "sample_shape", "transforms_of"]

Sample = tuple[Tensor, int, int]

# Body-centred and body-sized, so that metres and pixels train alike.
_DEFAULT_EVAL: list[Any] = ["Centre", "NormalizeScale"]
_DEFAULT_TRAIN: list[Any] = [
    *_DEFAULT_EVAL,
    {"name": "RandomScale", "factor": [0.9, 1.1]},
    {"name": "RandomShear", "amount": 0.1},
]


def transforms_of(config: Config, part: str) -> list[Any]:
    """The transform list of ``part`` (``train`` or ``eval``), the default where the file gives none."""
    given = config.transforms.train if part == "train" else config.transforms.eval
    if given is not None:
        return given
    return _DEFAULT_TRAIN if part == "train" else _DEFAULT_EVAL


class _Views(Dataset[Sample]):
    """Several versions of each clip, stacked in front: [R, C, T, V, M]."""

    def __init__(self, versions: list[data.SkeletonDataset]) -> None:
        self.versions = versions

    def __len__(self) -> int:
        return len(self.versions[0])

    def __getitem__(self, position: int) -> Sample:
        samples = [version[position] for version in self.versions]
        return torch.stack([sample[0] for sample in samples]), samples[0][1], samples[0][2]


def build_dataset(
    source: Any,
    indices: NDArray[np.int64] | None,
    entries: Sequence[Any],
    config: DataConfig,
    layout: str,
    seed: int = 0,
) -> data.SkeletonDataset:
    """Samples of ``source`` (a store or a list of clips) as ``config`` wants them.

    Raises:
        ConfigError: A transform does not fit the layout.
    """
    try:
        transform = data.build_transform(entries, layout)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error).removeprefix("build_transform: ")) from error
    return data.SkeletonDataset(
        source,
        indices,
        transform=transform,
        stream=config.stream,
        frames=config.frames,
        persons=config.persons,
        seed=seed,
        fit=config.fit,
        confidence=config.confidence,
    )


def sample_shape(store: Any, config: Config, part: str = "eval") -> tuple[int, int, int, int]:
    """Shape [C, T, V, M] of one sample of ``part`` (``train`` or ``eval``), which the network is built for.

    Raises:
        ConfigError: A transform does not fit the clips.
    """
    first = np.zeros(1, dtype=np.int64)
    dataset = build_dataset(store, first, transforms_of(config, part), config.data, store.layout)
    try:
        c, t, v, m = dataset[0][0].shape
    except ValueError as error:
        raise ConfigError(f"transforms.{part}: {error}") from error
    return c, t, v, m


def evaluation_loader(store: Any, indices: NDArray[np.int64], config: Config) -> DataLoader[Any]:
    """Loader of batches [N, R, C, T, V, M], labels [N] and positions [N] in order, R = ``test.views``."""
    seed = config.training.seed
    lists = [transforms_of(config, "eval")] + [config.test.transforms or []] * (config.test.views - 1)
    versions = [
        build_dataset(store, indices, entries, config.data, store.layout, seed + view)
        for view, entries in enumerate(lists)
    ]
    size = config.training.eval_batch_size or config.training.batch_size
    return DataLoader(_Views(versions), batch_size=size, num_workers=config.training.workers)
