"""Test a checkpoint again, on its own data or on other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stgcn_fast.training.config import Config
from stgcn_fast.training.datasets import evaluation_loader
from stgcn_fast.training.device import resolve_device
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.evaluation import Evaluation, evaluate
from stgcn_fast.training.prediction import Predictor
from stgcn_fast.training.progress import progress_bar
from stgcn_fast.training.source import built_from, open_source, split_source

__all__ = ["test"]


def test(
    checkpoint: str | os.PathLike[str],
    overrides: Sequence[str] = (),  # noqa: PT028
    part: str = "test",  # noqa: PT028
) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate a checkpoint of :func:`stgcn_fast.training.train`.

    Args:
        checkpoint: ``.safetensors`` file.
        overrides: Changes to the run's configuration, such as ``data.source=DIR`` or ``test.views=5``.
        part: ``train``, ``val``, ``test`` or ``all``.

    Returns:
        The figures and the class names.

    Raises:
        FileNotFoundError: Checkpoint or data are not there.
        ConfigError: The data do not fit the checkpoint, or the part is empty.
        FormatError: A data file breaks its format.
    """
    if part not in ("train", "val", "test", "all"):
        raise ValueError(f"test: part must be train, val, test or all, got {part!r}")
    predictor = Predictor(checkpoint)
    if "config" not in predictor.meta:
        raise ConfigError(
            f"{predictor.path}: checkpoint must say its 'config', got a file training did not write"
        )
    config = Config.from_dict(predictor.meta["config"], str(predictor.path)).override(overrides)
    device = resolve_device(config.training.device)
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
        count = len(predictor.class_names)
        highest = int(np.asarray(store.labels)[indices].max())
        if highest >= count:
            raise ConfigError(
                f"{where}: labels must be below the {count} classes of {predictor.path}, got {highest}"
            )
        with progress_bar("testing") as progress:
            result = evaluate(
                predictor.model, evaluation_loader(store, indices, config), count, device, progress
            )
        del store  # its files are mapped; release them before the scratch directory goes
    return result, predictor.class_names
