"""What a directory of results holds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stgcn_fast.data import FormatError
from stgcn_fast.explain import Explanation, load_explanation
from stgcn_fast.report.html.bodies import Bodies, load_bodies

_STUDIES = {
    "geometry": (
        "layers", "class_names", "clips", "labels", "predictions", "confusion", "smoothness", "graphs",
    ),
    "noise": ("layers", "snr_db", "accuracy", "smoothness"),
    "transfer": ("frozen", "accuracy", "train_accuracy", "parameters"),
}  # fmt: skip
_FORMATS = {
    "geometry": "stgcn_fast geometry",
    "noise": "stgcn_fast geometry noise",
    "transfer": "stgcn_fast geometry transfer",
}
_VERSION = 1


@dataclass(frozen=True)
class Results:
    """Parts of a report; any may be missing, but not all.

    Attributes:
        explanation: Of ``explain_clips``.
        geometry: What ``geometry.json`` holds (docs/geometry.md).
        noise: What ``noise.json`` holds.
        transfer: What ``transfer.json`` holds.
        bodies: Clips of ``geometry``, for the player.
        metrics: What a training run wrote to ``metrics.json``.
    """

    explanation: Explanation | None = None
    geometry: dict[str, Any] | None = None
    noise: dict[str, Any] | None = None
    transfer: dict[str, Any] | None = None
    bodies: Bodies | None = None
    metrics: dict[str, Any] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is there that a page could show."""
        return not any((self.explanation, self.geometry, self.noise, self.transfer, self.metrics))


def read_results(directory: str | os.PathLike[str]) -> Results:
    """Reads whatever results lie in a directory.

    Args:
        directory: With some of ``explain.json`` (and ``explain.npz``), ``geometry.json`` (and ``clips.npz``),
            ``noise.json``, ``transfer.json`` and ``metrics.json``.

    Returns:
        The results.

    Raises:
        FileNotFoundError: There are none, or a file is missing beside another.
        FormatError: A file is not of its format.
    """
    folder = Path(directory)
    explanation = load_explanation(folder) if (folder / "explain.json").is_file() else None
    studies = {name: _study(folder / f"{name}.json", name) for name in _STUDIES}
    found = Results(
        explanation=explanation,
        bodies=load_bodies(folder) if studies["geometry"] is not None else None,
        metrics=_metrics(folder / "metrics.json"),
        **studies,
    )
    if found.empty:
        raise FileNotFoundError(
            "read_results: directory must hold explain.json, geometry.json, noise.json, transfer.json or "
            f"metrics.json, got {str(folder)!r}"
        )
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(path, "file must be JSON", str(error)) from None


def _study(path: Path, name: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = _json(path)
    kind = (_FORMATS[name], _VERSION)
    if not isinstance(value, dict) or (value.get("format"), value.get("version")) != kind:
        raise FormatError(path, f"file must be of format {kind[0]!r}, version {kind[1]}", "another")
    missing = [key for key in _STUDIES[name] if key not in value]
    if missing:
        raise FormatError(path, f"file must hold {', '.join(missing)}", "none of it")
    return value


def _metrics(path: Path) -> dict[str, Any] | None:
    """Of a training run; a file of this name that is something else is left alone."""
    if not path.is_file():
        return None
    value = _json(path)
    test = value.get("test") if isinstance(value, dict) else None
    return value if isinstance(test, dict) and "confusion" in test else None
