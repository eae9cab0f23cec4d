"""An explanation on disk: ``explain.npz``, ``explain.json`` and tables.

The arrays of ``explain.npz`` and the keys of ``explain.json`` are described in ``docs/explain.md``; other
programs may read them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from stgcn_fast.data import FormatError
from stgcn_fast.explain.study import Explanation
from stgcn_fast.graph import Layout
from stgcn_fast.training.files import write_json, write_text

FORMAT = "stgcn_fast explain"
VERSION = 1


def save_explanation(explanation: Explanation, directory: str | os.PathLike[str]) -> list[Path]:
    """Writes an explanation; each file appears whole or not at all.

    Args:
        explanation: Of :func:`explain_clips`.
        directory: Where to; made where it is missing.

    Returns:
        ``explain.npz``, ``explain.json``, ``importance.csv``, and where there are such figures
        ``contrastivity.csv`` and ``faithfulness.csv``.

    Raises:
        OSError: A file cannot be written.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    e = explanation
    arrays: dict[str, Any] = {
        "labels": e.labels, "predictions": e.predictions, "probabilities": e.probabilities,
        "explained": e.explained, "frames": e.frames, "counted": e.counted, "importance": e.importance,
        "class_importance": e.class_importance, "kept": e.kept, "keypoints": e.keypoints,
        "confusion": e.confusion,
    }  # fmt: skip
    arrays |= {f"maps/{name}": value for name, value in e.maps.items()}
    arrays |= {f"class_maps/{name}": value for name, value in e.class_maps.items()}
    files = [target / "explain.npz", target / "explain.json", target / "importance.csv"]
    write_npz(files[0], arrays)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "layout": e.layout.name,
        "joints": list(e.layout.joints),
        "edges": [list(edge) for edge in e.layout.edges],
        "sides": {"left": list(e.layout.left), "right": list(e.layout.right), "centre": e.layout.centre},
        "layers": e.layers,
        "class_names": e.class_names,
        "clips": e.names,
        "input_frames": e.input_frames,
        "accuracy": None if np.isnan(e.accuracy) else e.accuracy,
        "figures": e.figures,
    }
    write_json(files[1], description)
    write_csv(
        files[2],
        ["layer", "class", *e.layout.joints],
        [
            [layer, name, *row]
            for layer, table in zip(e.layers, e.class_importance.tolist())
            for name, row in zip(e.class_names, table)
            if not np.isnan(row).any()
        ],
    )
    contrast = e.figures.get("contrastivity")
    if contrast:
        files.append(target / "contrastivity.csv")
        rows = [[name, *(contrast[kind][name] for kind in contrast)] for name in e.layers]
        write_csv(files[-1], ["layer", *contrast], rows)
    faith = e.figures.get("faithfulness")
    if faith:
        files.append(target / "faithfulness.csv")
        header = [f"{which} {what}" for which in ("most", "least", "random") for what in _DROPS]
        rows = [
            [
                name,
                *(
                    faith["layers"][name][which][what]
                    for which in ("most", "least", "random")
                    for what in _DROPS
                ),
            ]
            for name in e.layers
        ]
        write_csv(files[-1], ["layer", *header], rows)
    return files


_DROPS = ("accuracy_drop", "probability_drop")


def load_explanation(directory: str | os.PathLike[str]) -> Explanation:
    """Reads what :func:`save_explanation` wrote.

    Raises:
        FileNotFoundError: A file is missing.
        FormatError: A file is not of this format.
    """
    folder = Path(directory)
    path = folder / "explain.json"
    for file in (path, folder / "explain.npz"):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: explanation must have this file, got none")
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(path, "file must be JSON", str(error)) from None
    if not isinstance(text, dict) or (text.get("format"), text.get("version")) != (FORMAT, VERSION):
        raise FormatError(path, f"file must be of format {FORMAT!r}, version {VERSION}", "another")
    with np.load(folder / "explain.npz", allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    sides = text["sides"]
    layout = Layout(
        text["layout"],
        tuple(text["joints"]),
        tuple((child, parent) for child, parent in text["edges"]),
        sides["centre"],
        tuple(sides["left"]),
        tuple(sides["right"]),
    )
    layers = text["layers"]
    del arrays["confusion"]
    maps = {name: arrays.pop(f"maps/{name}") for name in layers}
    class_maps = {name: arrays.pop(f"class_maps/{name}") for name in layers}
    return Explanation(
        layout=layout,
        layers=layers,
        class_names=text["class_names"],
        names=text["clips"],
        input_frames=text["input_frames"],
        maps=maps,
        class_maps=class_maps,
        figures=text["figures"],
        **arrays,
    )


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Writes compressed arrays under a temporary name, then renames."""
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Writes a table; numbers with six digits."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
