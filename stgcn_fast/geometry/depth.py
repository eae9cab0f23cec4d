"""Label smoothness against depth: the graph of every layer's features.

Source: Das, Shekkizhar and Ortega, arXiv 2312.07777.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stgcn_fast.dtw import WindowedDTW
from stgcn_fast.geometry.ds_graph import DSGraph, ds_graph, windows_for
from stgcn_fast.geometry.features import Batches, Predicted, Progress, layer_features
from stgcn_fast.geometry.nnk import Settings
from stgcn_fast.geometry.smoothness import KINDS, Smoothness, label_smoothness

# Kinds that are made of each node's own weights; the others need an undirected graph.
_DIRECTED = ("rw", "rmse")


@dataclass(frozen=True)
class DepthStudy:
    """Label smoothness of every layer.

    Attributes:
        layers: Names of the layers.
        smoothness: Of each layer, by kind.
        graphs: DS-Graph of each layer; its distances are dropped.
        predicted: Labels and predictions of the clips.
        seconds: Spent on ``features``, ``dtw`` and ``nnk`` (with the plane), layers together.
    """

    layers: list[str]
    smoothness: list[dict[str, Smoothness]]
    graphs: list[DSGraph]
    predicted: Predicted
    seconds: dict[str, float]

    def curve(self, kind: str = "rw") -> NDArray[np.float64]:
        """Smoothness errors of the layers, ``[L]``."""
        return np.array([each[kind].value for each in self.smoothness])

    def trend(self, kind: str = "rw") -> float:
        """Spearman's correlation of the errors with depth; NaN for less than two layers or equal errors."""
        return spearman(np.arange(len(self.layers)), self.curve(kind))


def smoothness_by_depth(
    model: nn.Module,
    batches: Batches,
    layers: str | Sequence[str] = "blocks",
    k: int = 10,
    *,
    dtw: WindowedDTW | None = None,
    settings: Settings | None = None,
    person: int | None = 0,
    embed: bool = True,
    progress: Progress | None = None,
) -> DepthStudy:
    """DS-Graph and label smoothness of every layer of a network.

    "rw" and "rmse" are of each node's own weights over its candidates, as released; "quad" and "sym" of the
    undirected graph.

    Args:
        model: From ``[N, C, T, V, M]`` to scores.
        batches: ``x``, labels (all known) and positions; gone through at least once.
        layers: As for :class:`stgcn_fast.explain.STGGradCAM`.
        k: Candidates of each clip.
        dtw: Windows counted in input frames; by default 16 frames of 300, every 8.
        settings: See :func:`ds_graph`.
        person: Whose features; None for all persons'.
        embed: Whether to place the clips on a plane.
        progress: Called with layers done and their number.

    Raises:
        ValueError: Clips without labels or of one class, k not below their number, or as
            :func:`stgcn_fast.geometry.layer_features`.
    """
    owner = "smoothness_by_depth"
    known: list[Predicted] = []
    names: list[str] = []
    smooth: list[dict[str, Smoothness]] = []
    graphs: list[DSGraph] = []
    spent = {"features": 0.0, "dtw": 0.0, "nnk": 0.0}
    started = time.perf_counter()

    def check(predicted: Predicted) -> None:
        labels = predicted.labels
        if (labels < 0).any():
            count = int((labels < 0).sum())
            raise ValueError(f"{owner}: labels must be known for every clip, got {count} without")
        if len(np.unique(labels)) < 2:
            raise ValueError(f"{owner}: labels must hold at least two classes, got one")
        known.append(predicted)

    for features in layer_features(model, batches, layers, person=person, done=check):
        spent["features"] += time.perf_counter() - started
        window = windows_for(features.input_frames) if dtw is None else dtw
        own = window.for_layer(features.frames, features.input_frames)
        found = ds_graph(features.sequences, k, dtw=own, settings=settings, embed=embed)
        spent["dtw"] += found.seconds["dtw"]
        spent["nnk"] += found.seconds["nnk"]
        names.append(features.layer)
        directed = found.graph.with_symmetry("none")
        undirected = found.graph
        if undirected.symmetrize == "none":
            undirected = undirected.with_symmetry("reference")
        labels = known[0].labels
        smooth.append(
            {
                kind: label_smoothness(directed if kind in _DIRECTED else undirected, labels, kind)
                for kind in KINDS
            }
        )
        graphs.append(replace(found, distances=None))
        if progress is not None:
            progress(len(names), None)
        started = time.perf_counter()
    return DepthStudy(names, smooth, graphs, known[0], spent)


def spearman(x: Any, y: Any) -> float:
    """Spearman's rank correlation; equal values share their mean rank. NaN where it is not defined."""
    ranks = []
    for values in (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[place])
    first, second = (r - r.mean() for r in ranks)
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / norm) if norm > 0 else float("nan")
