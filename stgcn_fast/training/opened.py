"""A checkpoint with clips for it: the data that it was trained on, or other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data import SkeletonStore
from stgcn_fast.training.config import Config
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.prediction import Predictor
from stgcn_fast.training.progress import progress_bar
from stgcn_fast.training.source import built_from, open_source, split_source

__all__ = ["PARTS", "Opened", "open_clips"]

PARTS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Opened:
    """A network and clips of its layout.

    Attributes:
        predictor: The network with its preprocessing.
        config: Its run's configuration, with the changes asked for.
        store: The clips.
        indices: Positions of the part asked for.
    """

    predictor: Predictor
    config: Config
    store: SkeletonStore
    indices: NDArray[np.int64]


@contextmanager
def open_clips(
    checkpoint: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    part: str = "test",
    *,
    same_classes: bool = True,
    owner: str = "open_clips",
) -> Iterator[Opened]:
    """Opens a checkpoint of :func:`stgcn_fast.training.train` and clips for it.

    Args:
        checkpoint: ``.safetensors`` file.
        overrides: Changes to the run's configuration, such as ``data.source=DIR`` or ``test.views=5``.
        part: ``train``, ``val``, ``test`` or ``all``.
        same_classes: Whether the clips must be of the checkpoint's classes.
        owner: Name of the calling function, for messages.

    Raises:
        FileNotFoundError: Checkpoint or data are not there.
        ConfigError: The data do not fit the checkpoint, or the part is empty.
        FormatError: A data file breaks its format.
    """
    if part not in PARTS:
        raise ValueError(f"{owner}: part must be train, val, test or all, got {part!r}")
    predictor = Predictor(checkpoint)
    if "config" not in predictor.meta:
        raise ConfigError(
            f"{predictor.path}: checkpoint must say its 'config', got a file training did not write"
        )
    config = Config.from_dict(predictor.meta["config"], str(predictor.path)).override(overrides)
    with tempfile.TemporaryDirectory(prefix="stgcn_fast_") as scratch:
        # The run's own store serves where it was built from these very files; it is never rebuilt from here.
        own = predictor.path.parent / "store"
        target = (
            own if config.data.store is None and built_from(config.data, own) else Path(scratch) / "store"
        )
        with progress_bar("reading clips") as progress:
            store = open_source(config.data, target, progress)
        where = config.data.source
        if store.layout != predictor.layout:
            raise ConfigError(
                f"{where}: layout must be {predictor.layout!r} as in {predictor.path}, got {store.layout!r}"
            )
        if same_classes:
            for number, (name, expected) in enumerate(zip(store.class_names, predictor.class_names)):
                if name not in (expected, str(number)):  # a class without a name is called by its number
                    raise ConfigError(
                        f"{where}: class {number} must be {expected!r} as in {predictor.path}, got {name!r}"
                    )
        if part == "all":
            indices = np.arange(len(store), dtype=np.int64)
        else:
            indices = split_source(store, config.data.split, config.training.seed)[part]
        if not len(indices):
            raise ConfigError(f"{where}: part {part!r} must hold at least one clip, got none")
        if same_classes:
            count = len(predictor.class_names)
            highest = int(np.asarray(store.labels)[indices].max())
            if highest >= count:
                raise ConfigError(
                    f"{where}: labels must be below the {count} classes of {predictor.path}, got {highest}"
                )
        yield Opened(predictor, config, store, indices)
        del store  # its files are mapped; release them before the scratch directory goes
