"""Results as the data of a page: what ``assets/data.js`` unpacks.

Maps are rounded to 8 bits and keypoints to 16, each clip over its own range; what stays away when a page
would become too large is clips, never precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.explain import Explanation
from stgcn_fast.graph import Layout
from stgcn_fast.report.html.encode import pack, pack_indices, pack_rounded, size_of
from stgcn_fast.report.html.results import Results

# A share of the room for mean maps of classes; the rest is for clips.
_CLASS_MAPS = 0.25
# In parts of a clip's extent: nearer than this on average, a joint is one that the body may be centred on.
_NEAR = 0.2


def build_payload(results: Results, title: str, room: int, owner: str) -> dict[str, Any]:
    """All that the page shows.

    Args:
        results: Parts of the report.
        title: Heading of the page.
        room: Bytes for clips and maps.
        owner: Name of the calling function, for messages.

    Returns:
        Values that JSON can hold.

    Raises:
        ValueError: Parts are of other classes.
    """
    e, geometry = results.explanation, results.geometry
    rows = _Rows()
    explain_part, geometry_part, first = None, None, np.zeros(0, np.int64)
    if e is not None:
        first = rows.add(e.names, e.labels, e.predictions, e.probabilities.max(1, initial=0))
        explain_part = _explain(e, int(room * _CLASS_MAPS))
    nodes = None
    if geometry is not None:
        if e is not None and list(geometry["class_names"]) != e.class_names:
            raise ValueError(
                f"{owner}: results must be of the same classes, got {len(e.class_names)} in explain.json and "
                f"{len(geometry['class_names'])} others in geometry.json"
            )
        nodes = rows.add(geometry["clips"], geometry["labels"], geometry["predictions"], None)
        geometry_part = _geometry(geometry, nodes)
    layout = e.layout if e is not None else results.bodies.layout if results.bodies is not None else None
    clips: list[dict[str, Any]] = []
    spent = 0
    for clip in _clips(results, first, nodes):
        size = size_of(clip["keypoints"]) + sum(size_of(one) for one in clip["maps"] or ())
        if spent + size > room * (1 - _CLASS_MAPS) and clips:
            continue
        clips.append(clip)
        spent += size
    return {
        "version": 1,
        "title": title,
        "skeleton": None if layout is None else _skeleton(layout, results),
        "classes": _classes(results),
        "layers": e.layers if e is not None else geometry["layers"] if geometry is not None else [],
        "rows": rows.packed(),
        "clips": clips,
        "explain": explain_part,
        "geometry": geometry_part,
        "confusion": _confusion(results),
        "noise": results.noise,
        "transfer": results.transfer,
        "test": _test(results.metrics),
    }


class _Rows:
    """Clips of all parts: the same name, for the n-th time in a part, is the same clip."""

    def __init__(self) -> None:
        self.place: dict[tuple[str, int], int] = {}
        self.names: list[str] = []
        self.labels: list[int] = []
        self.predictions: list[int] = []
        self.scores: list[float] = []

    def add(self, names: Any, labels: Any, predictions: Any, scores: Any) -> NDArray[np.int64]:
        """Row of each clip of a part."""
        seen: dict[str, int] = defaultdict(int)
        out = np.empty(len(names), np.int64)
        for i, name in enumerate(map(str, names)):
            key = (name, seen[name])
            seen[name] += 1
            if key not in self.place:
                self.place[key] = len(self.names)
                self.names.append(name)
                self.labels.append(int(labels[i]))
                self.predictions.append(int(predictions[i]))
                self.scores.append(float("nan") if scores is None else float(scores[i]))
            out[i] = self.place[key]
        return out

    def packed(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "labels": self.labels,
            "predictions": self.predictions,
            "scores": [round(score, 4) for score in self.scores],
        }


def _classes(results: Results) -> list[str]:
    if results.explanation is not None:
        return [str(name) for name in results.explanation.class_names]
    for part in (results.geometry, results.metrics):
        if part is not None:
            return [str(name) for name in part.get("class_names", ())]
    return []


def _skeleton(layout: Layout, results: Results) -> dict[str, Any]:
    e, bodies = results.explanation, results.bodies
    sets = [s for s in (None if e is None else e.keypoints, None if bodies is None else bodies.keypoints)
            if s is not None and s.ndim == 5]  # fmt: skip
    coordinates = sets[0].shape[-1] if sets else 3
    return {
        "name": layout.name,
        "joints": list(layout.joints),
        "edges": [list(edge) for edge in layout.edges],
        "left": list(layout.left),
        "right": list(layout.right),
        "coordinates": coordinates,
        "up": _up(layout, sets[0]) if sets else "y",
    }


def _up(layout: Layout, keypoints: NDArray[Any]) -> str:
    """The axis from feet to head; without both, y in 3-D and -y (images) in 2-D."""
    usual = "y" if keypoints.shape[-1] == 3 else "-y"

    def mean_of(*words: str) -> NDArray[Any] | None:
        found = [i for i, joint in enumerate(layout.joints) if any(word in joint.lower() for word in words)]
        points = keypoints[:, :, :, found].reshape(-1, keypoints.shape[-1])
        points = points[(points != 0).any(1)]
        return points.mean(0) if len(points) else None

    head, feet = mean_of("head", "nose"), mean_of("foot", "ankle")
    if head is None or feet is None:
        return usual
    way = head - feet
    axis = int(np.abs(way).argmax())
    return ("" if way[axis] > 0 else "-") + "xyz"[axis] if way[axis] else usual


def _explain(e: Explanation, room: int) -> dict[str, Any]:
    frames = sum(e.class_maps[name].shape[1] for name in e.layers)
    # Base64 makes 4 bytes of 3.
    step = max(1, -(-len(e.class_names) * frames * len(e.layout.joints) * 4 // (3 * max(room, 1))))
    return {
        "clips": len(e.names),
        "accuracy": e.accuracy,
        "mapFrames": [e.class_maps[name].shape[1] for name in e.layers],
        "importance": pack(e.importance.mean(1)),
        "classImportance": pack(e.class_importance),
        "classMaps": [pack_rounded(e.class_maps[name][:, ::step], 8) for name in e.layers],
        "figures": e.figures,
    }


def _clips(results: Results, rows: NDArray[np.int64], nodes: NDArray[np.int64] | None) -> Iterator[Any]:
    """Clips for the player, those with maps first and each kind class by class."""
    e, bodies = results.explanation, results.bodies
    done = set()
    if e is not None and len(e.kept) and e.keypoints.ndim == 5:
        kept = e.kept.tolist()
        for place in _alternating(e.explained[e.kept]):
            position = kept[place]
            done.add(int(rows[position]))
            filled = int(e.frames[position])
            maps = []
            for name in e.layers:
                one = e.maps[name][place]
                length = max(1, -(-one.shape[1] * filled // e.input_frames))
                maps.append(one[:, :length])
            clip = _clip(int(rows[position]), e.keypoints[place], filled, e.input_frames, maps)
            yield clip | {"explained": int(e.explained[position])}
    if bodies is not None and nodes is not None:
        fits = e is None or bodies.layout == e.layout
        inside = bodies.nodes < len(nodes)
        chosen = np.flatnonzero(inside & fits)
        assert results.geometry is not None
        labels = np.asarray(results.geometry["labels"], dtype=np.int64)
        for place in chosen[_alternating(labels[bodies.nodes[chosen]])].tolist():
            row = int(nodes[bodies.nodes[place]])
            if row not in done:
                done.add(row)
                points = bodies.keypoints[place]
                yield _clip(row, points, int(bodies.frames[place]), points.shape[1], None)


def _alternating(classes: NDArray[Any]) -> list[int]:
    """Places so that the classes take turns: a beginning of them holds about as many of each."""
    turn: dict[int, int] = defaultdict(int)
    keys = []
    for place, one in enumerate(classes.tolist()):
        keys.append((turn[one], one, place))
        turn[one] += 1
    return [place for _, _, place in sorted(keys)]


def _clip(row: int, keypoints: Any, filled: int, frames: int, maps: Any) -> dict[str, Any]:
    """A clip of the player: ``keypoints`` [M, T, V, C] and ``maps`` [M, T_l, V], without what is empty."""
    points = np.asarray(keypoints, dtype=np.float32)[:, : max(filled, 1)]
    persons = max(1, int(np.flatnonzero((points != 0).any((1, 2, 3))).max(initial=-1)) + 1)
    points = points[:persons]
    seen = np.stack([_seen(body) for body in points])
    # Joints out of sight must not widen the range that the others are rounded over.
    shown = np.where(seen[..., None], points, np.nan)
    return {
        "row": row,
        "frames": frames,
        "keypoints": pack_rounded(shown, 16),
        "seen": None if seen.all() else pack_rounded(seen, 8),
        "maps": None if maps is None else [pack_rounded(one[:persons], 8) for one in maps],
        "explained": None,
    }


def _seen(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Joints of a body that are there, ``[T, V]`` of ``[T, V, C]``: not zero, or the one it is centred on.

    That joint is zero in all frames, or begins there and stays near.
    """
    there: NDArray[np.bool_] = (points != 0).any(-1)
    if there.all():
        return there
    present = np.asarray(there.any(1))  # [T]
    away = np.linalg.norm(points, axis=-1)
    centre = int(away.sum(0).argmin())
    moved = away[there[:, centre], centre]
    if len(moved):
        centred = moved.mean() < _NEAR * np.ptp(points[there], axis=0).max()
    else:
        centred = (~there.any(0)).sum() == 1
    there[:, centre] |= present & centred
    return there


def _geometry(value: dict[str, Any], nodes: NDArray[np.int64]) -> dict[str, Any]:
    graphs = []
    for name in value["layers"]:
        graph = value["graphs"][name]
        graphs.append(
            {
                "edges": pack_indices(np.asarray(graph["edges"], dtype=np.int64).reshape(-1, 2)),
                "embedding": None if graph["embedding"] is None else pack(graph["embedding"]),
            }
        )
    return {
        "layers": value["layers"],
        "accuracy": value.get("accuracy"),
        "nodes": nodes.tolist(),
        "smoothness": value["smoothness"],
        "graphs": graphs,
        "options": value.get("options", {}),
        "seconds": value.get("seconds", {}),
    }


def _confusion(results: Results) -> list[list[int]] | None:
    """Of the explanation, or the geometry, or the run's test."""
    if results.explanation is not None and (results.explanation.labels >= 0).any():
        return [[int(cell) for cell in row] for row in results.explanation.confusion]
    if results.geometry is not None:
        return list(results.geometry["confusion"])
    return list(results.metrics["test"]["confusion"]) if results.metrics is not None else None


def _test(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Scores of a run's test."""
    if metrics is None:
        return None
    return {key: value for key, value in metrics["test"].items() if key != "confusion"}
