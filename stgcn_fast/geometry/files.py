"""Studies on disk: ``geometry.json``, ``noise.json``, ``transfer.json`` and tables.

The keys of ``geometry.json`` are described in ``docs/geometry.md``; other programs may read them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stgcn_fast.explain.files import write_csv
from stgcn_fast.geometry.depth import DepthStudy
from stgcn_fast.geometry.noise import NoiseStudy
from stgcn_fast.geometry.smoothness import KINDS
from stgcn_fast.geometry.transfer import TransferStudy
from stgcn_fast.training.files import write_json

FORMAT = "stgcn_fast geometry"
VERSION = 1


def plain(value: Any) -> Any:
    """A number as JSON can hold it: six digits, None for what is no number."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(one) for one in value]
    return None if not np.isfinite(value) else float(f"{value:.6g}")


def save_depth(
    study: DepthStudy,
    directory: str | os.PathLike[str],
    *,
    class_names: Sequence[str],
    names: Sequence[str],
    options: dict[str, Any] | None = None,
) -> list[Path]:
    """Writes a study of depth; each file appears whole or not at all.

    Args:
        study: Of :func:`stgcn_fast.geometry.smoothness_by_depth`.
        directory: Where to; made where it is missing.
        class_names: Names of the classes.
        names: Names of all clips, by position.
        options: What else to keep, as JSON can hold it.

    Returns:
        ``geometry.json``, ``smoothness.csv`` and ``smoothness_by_class.csv``.

    Raises:
        OSError: A file cannot be written.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    labels, predictions = study.predicted.labels, study.predicted.predictions
    count = len(class_names)
    confusion = np.zeros((count, count), np.int64)
    inside = predictions < count
    np.add.at(confusion, (labels[inside], predictions[inside]), 1)
    graphs = {}
    for name, found in zip(study.layers, study.graphs):
        edges = found.graph.edges
        once = edges[:, 0] < edges[:, 1] if found.graph.symmetrize != "none" else np.ones(len(edges), bool)
        graphs[name] = {
            "directed": found.graph.symmetrize == "none",
            "edges": edges[once].tolist(),
            "weights": plain(found.graph.weights[once]),
            "sigma": plain(found.graph.sigma.mean()),
            "embedding": None if found.embedding is None else plain(found.embedding),
        }
    values = {
        "format": FORMAT,
        "version": VERSION,
        "class_names": [str(name) for name in class_names],
        "layers": study.layers,
        "clips": [str(names[int(i)]) for i in study.predicted.positions],
        "positions": study.predicted.positions.tolist(),
        "labels": labels.tolist(),
        "predictions": predictions.tolist(),
        "accuracy": study.predicted.accuracy,
        "confusion": confusion.tolist(),
        "smoothness": {
            kind: {
                "values": plain([each[kind].value for each in study.smoothness]),
                "per_class": [plain(_padded(each[kind].per_class, count)) for each in study.smoothness],
                "isolated": [each[kind].isolated for each in study.smoothness],
                "spearman": plain(study.trend(kind)),
            }
            for kind in KINDS
        },
        "graphs": graphs,
        "seconds": {name: round(value, 3) for name, value in study.seconds.items()},
        "options": options or {},
    }
    files = [target / name for name in ("geometry.json", "smoothness.csv", "smoothness_by_class.csv")]
    write_json(files[0], values)
    rows = [
        [name, *(each[kind].value for kind in KINDS), each["quad"].isolated]
        for name, each in zip(study.layers, study.smoothness)
    ]
    write_csv(files[1], ["layer", *KINDS, "isolated"], rows)
    by_class = np.stack([_padded(each["rw"].per_class, count) for each in study.smoothness])  # [L, K]
    write_csv(
        files[2],
        ["class", *study.layers],
        [[str(name), *row] for name, row in zip(class_names, by_class.T.tolist())],
    )
    return files


def _padded(values: Any, count: int) -> Any:
    """Up to the last class, where the highest ones have no clips."""
    return np.concatenate([values, np.full(max(0, count - len(values)), np.nan)])


def save_noise(study: NoiseStudy, directory: str | os.PathLike[str]) -> list[Path]:
    """Writes ``noise.json`` and ``noise.csv`` (means over the repeats).

    Raises:
        OSError: A file cannot be written.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    files = [target / "noise.json", target / "noise.csv"]
    write_json(
        files[0],
        {
            "format": f"{FORMAT} noise",
            "version": VERSION,
            "layers": study.layers,
            "snr_db": plain(study.snr_db),  # None is clean
            "accuracy": plain(study.accuracy),
            "smoothness": plain(study.smoothness),
        },
    )
    means = study.smoothness.mean(1)
    rows = [
        ["clean" if np.isinf(level) else f"{level:g}", float(study.accuracy[i].mean()), *means[i].tolist()]
        for i, level in enumerate(study.snr_db)
    ]
    write_csv(files[1], ["snr_db", "accuracy", *study.layers], rows)
    return files


def save_transfer(
    study: TransferStudy,
    directory: str | os.PathLike[str],
    *,
    smoothness: DepthStudy | None = None,
    class_names: Sequence[str] = (),
) -> list[Path]:
    """Writes ``transfer.json`` and ``transfer.csv``.

    Args:
        study: Of :func:`stgcn_fast.geometry.transfer_study`.
        directory: Where to; made where it is missing.
        smoothness: Of the source network's features on the new classes.
        class_names: Of the new classes.

    Raises:
        OSError: A file cannot be written.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    files = [target / "transfer.json", target / "transfer.csv"]
    write_json(
        files[0],
        {
            "format": f"{FORMAT} transfer",
            "version": VERSION,
            "class_names": [str(name) for name in class_names],
            "frozen": study.depths,
            "accuracy": plain(study.accuracy),
            "train_accuracy": plain(study.train_accuracy),
            "parameters": study.trained,
            "layers": None if smoothness is None else smoothness.layers,
            "smoothness": None if smoothness is None else plain(smoothness.curve()),
        },
    )
    columns = zip(study.depths, study.trained, study.accuracy, study.train_accuracy)
    write_csv(
        files[1], ["frozen", "parameters", "accuracy", "train_accuracy"], [list(row) for row in columns]
    )
    return files
