"""From the data section of a configuration to an open store and the indices of its splits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast import data
from stgcn_fast.data.synthetic import generate_kth
from stgcn_fast.training import distributed
from stgcn_fast.training.config import SYNTHETIC_KTH, DataConfig, SplitConfig
from stgcn_fast.training.errors import ConfigError

__all__ = ["Indices", "built_from", "chosen_protocol", "is_store", "open_source", "split_source"]

Indices = dict[str, NDArray[np.int64]]
Progress = Callable[[int, "int | None"], None]

# Beside a store built on the fly: what it was built from, so that it is reused only for the same.
_ORIGIN_SUFFIX = ".origin.json"


_ID = "store"  # under this key of the note: the identity of the store it speaks of


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a store rather than a directory of some format."""
    return data.SkeletonStore.is_store(path)


def _fingerprint(source: Path) -> dict[str, int]:
    """Count, size and newest change of a source's files: cheap, and enough to see that it changed."""
    if source.is_file():
        files = [source.stat()]
    else:
        files = [
            entry.stat()
            for folder, _, names in os.walk(source)
            for entry in (Path(folder) / name for name in names)
            if entry.exists()
        ]
    return {
        "files": len(files),
        "bytes": sum(entry.st_size for entry in files),
        "newest": max((entry.st_mtime_ns for entry in files), default=0),
    }


def _origin(config: DataConfig) -> dict[str, Any]:
    if config.source == SYNTHETIC_KTH:
        return {"source": SYNTHETIC_KTH, "options": config.options}
    source = Path(config.source)
    return {
        "source": str(source.resolve()),
        "format": config.format,
        "options": config.options,
        **_fingerprint(source),
    }


def _skeletons(config: DataConfig) -> Iterable[data.Skeleton]:
    if config.source == SYNTHETIC_KTH:
        return generate_kth(**config.options)
    return data.read_dataset(config.source, config.format, **config.options)


def open_source(
    config: DataConfig, default_store: str | os.PathLike[str], progress: Progress | None = None
) -> Any:
    """Open the clips of a run; what is not a store yet is first streamed into one.

    With several processes the first builds and the others wait. A store built earlier from the same files
    with the same options is reused.

    Args:
        config: The data section.
        default_store: Where to build when ``config.store`` is null.
        progress: Called with clips done and their total where known.

    Returns:
        The open store; a :class:`stgcn_fast.data.LayoutView` of it where ``config.layout`` is another layout.

    Raises:
        FileNotFoundError: The source does not exist.
        ConfigError: ``config.store`` is taken by something else, or the clips do not have every joint of
            ``config.layout``.
        FormatError: A file of the source breaks its format.
    """
    store = _open_store(config, default_store, progress)
    if config.layout in (None, store.layout):
        return store
    try:
        return data.LayoutView(store, config.layout)
    except ValueError as error:
        raise ConfigError(f"data.layout: {error}") from error


def _open_store(
    config: DataConfig, default_store: str | os.PathLike[str], progress: Progress | None
) -> data.SkeletonStore:
    if config.source != SYNTHETIC_KTH:
        if not Path(config.source).exists():
            raise FileNotFoundError(f"{config.source}: data.source must exist, got nothing there")
        if is_store(config.source):
            return data.SkeletonStore(config.source)
    target = Path(config.store or default_store)
    if distributed.is_main():
        note = _note_of(target)
        if not built_from(config, target):
            if target.exists() and not note.exists():
                raise ConfigError(
                    f"{target}: data.store must be free or built from data.source, got something else there"
                )
            # The old note stays until the new one is there: it names its store, so it vouches for no other.
            origin = _origin(config)
            skeletons = _skeletons(config)
            target.parent.mkdir(parents=True, exist_ok=True)
            store = data.SkeletonStore.build(target, skeletons, progress=progress)
            partial = note.with_name(note.name + ".partial")
            partial.write_text(json.dumps(origin | {_ID: store.id}), encoding="utf-8")
            os.replace(partial, note)
    distributed.barrier()
    return data.SkeletonStore(target)


def _note_of(store: Path) -> Path:
    return store.with_name(store.name + _ORIGIN_SUFFIX)


def built_from(config: DataConfig, store: str | os.PathLike[str]) -> bool:
    """Whether ``store`` was built from the source of ``config`` as it is now."""
    path = Path(store)
    if not is_store(path) or is_store(config.source):
        return False
    try:
        note = json.loads(_note_of(path).read_text(encoding="utf-8"))
        identity = data.SkeletonStore(path).id
    except (OSError, ValueError):
        return False
    return bool(note == json.loads(json.dumps(_origin(config) | {_ID: identity})))


# The published protocol of each data set that is known by its format.
_PUBLISHED = {"utd_mhad": "utd_mhad", "nw_ucla": "nw_ucla", "natops": "natops", "ntu": "ntu60_xsub"}
_NTU60_SUBJECTS = 40  # further performers are of NTU RGB+D 120, which has protocols of its own


def _published_protocol(store: data.SkeletonStore) -> str | None:
    """The published protocol of the clips' data set, if it trains or tests every one of them."""
    name = _PUBLISHED.get(store.source_format or "")
    if name is None or (name == "ntu60_xsub" and int(store.subjects.max()) > _NTU60_SUBJECTS):
        return None
    try:
        parts = data.split(store, name)
    except ValueError:
        return None
    whole = sum(len(part) for part in parts.values()) == len(store)
    return name if whole and len(parts["train"]) and len(parts["test"]) else None


def default_protocol(store: data.SkeletonStore, seed: int) -> tuple[str, dict[str, Any]]:
    """A protocol that fits the clips: published, their files' own split, by performer, else random."""
    published = _published_protocol(store)
    if published is not None:
        return published, {}
    if any(store.splits):
        return "given", {}
    subjects = {subject for subject in store.subjects.tolist() if subject >= 0}
    if len(subjects) > 1 and int(store.subjects.min()) >= 0:
        return "cross_subject", {"train": sorted(subjects)[0::2], "test": sorted(subjects)[1::2]}
    return "random", {"seed": seed}


def chosen_protocol(store: data.SkeletonStore, config: SplitConfig, seed: int) -> tuple[str, dict[str, Any]]:
    """Name and options of the protocol that :func:`split_source` takes: the one given or a default."""
    if config.protocol is not None:
        return config.protocol, config.options
    return default_protocol(store, seed)


def split_source(store: data.SkeletonStore, config: SplitConfig, seed: int) -> Indices:
    """Indices of the ``train``, ``val`` and ``test`` clips.

    Args:
        store: Clips with labels.
        config: Protocol, fractions.
        seed: Of the fractions' choice.

    Raises:
        ConfigError: The protocol does not fit the clips, or a part that is needed is empty.
    """
    protocol, options = chosen_protocol(store, config, seed)
    try:
        parts = data.split(store, protocol, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"data.split: {error}") from error
    indices: Indices = {
        name: np.asarray(parts.get(name, ()), dtype=np.int64) for name in ("train", "val", "test")
    }
    labels = np.asarray(store.labels)
    for name, part in indices.items():
        missing = part[labels[part] < 0] if len(part) else part
        if len(missing):
            raise ConfigError(
                f"data.split: every {name} clip must have a label, got none for {store.names[missing[0]]}"
            )
    if config.train_fraction < 1.0:
        indices["train"] = data.random_fraction(indices["train"], labels, config.train_fraction, seed)
    if config.validation_fraction > 0.0 and not len(indices["val"]):
        held = data.random_fraction(indices["train"], labels, config.validation_fraction, seed)
        indices["val"] = held
        indices["train"] = np.setdiff1d(indices["train"], held)
    if not len(indices["train"]):
        raise ConfigError(f"data.split: protocol {protocol!r} must leave training clips, got none")
    return indices
