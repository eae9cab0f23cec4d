"""DS-Graphs: NNK graphs of clips by windowed DTW between their features at a layer.

Source: Das, Shekkizhar and Ortega, arXiv 2312.07777.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.dtw import Sequences, WindowedDTW
from stgcn_fast.geometry.edges import NNKGraph
from stgcn_fast.geometry.nnk import Settings, from_neighbours, nnk_graph

Floats = NDArray[np.float64]

# Clips up to which all distances are held: 128 MiB in float64.
_MOST_IN_FULL = 4096
# Clips whose distances to all others place everything on the plane.
_LANDMARKS = 512


@dataclass(frozen=True)
class DSGraph:
    """A DS-Graph of one layer.

    Attributes:
        graph: The NNK graph.
        distances: ``[N, N]`` of windowed DTW; None where only neighbours were sought.
        embedding: float64 ``[N, 2]``, the clips on a plane: multidimensional scaling of the distances (to
            landmarks, where there are many clips); None where none was asked for.
        seconds: Spent on ``dtw`` and on ``nnk`` (the kernel regressions and the plane).
    """

    graph: NNKGraph
    distances: NDArray[Any] | None
    embedding: Floats | None
    seconds: dict[str, float] = field(default_factory=dict)


def windows_for(frames: int) -> WindowedDTW:
    """The default windows for a network's input of T frames: 16 frames of 300, every 8.

    Args:
        frames: T.

    Examples:
        >>> windows_for(300).window, windows_for(300).hop, windows_for(32).window
        (16, 8, 2)
    """
    return WindowedDTW(max(1, round(16 * frames / 300)), max(1, round(8 * frames / 300)))


def ds_graph(
    sequences: Any,
    k: int = 10,
    *,
    dtw: WindowedDTW | None = None,
    settings: Settings | None = None,
    embed: bool = True,
    full: bool | None = None,
) -> DSGraph:
    """DS-Graph of clips' features at one layer.

    Args:
        sequences: N arrays ``[T_i, C * V]``, of :func:`stgcn_fast.dtw.layer_sequences`.
        k: Candidates of each clip.
        dtw: Windows and distance, counted in the frames of the sequences; by default windows of 16 frames
            of 300, of the longest sequence.
        settings: Kernel, solver and edges; its ``k`` gives way to the argument's.
        embed: Whether to place the clips on a plane.
        full: Whether to hold all distances; None: up to 4,096 clips. Without, distances are formed for
            neighbours and those among them alone, and the graph is the same.

    Returns:
        The graph.

    Raises:
        TypeError: As :func:`stgcn_fast.geometry.nnk_graph`.
        ValueError: As :func:`stgcn_fast.geometry.nnk_graph`; fewer than two clips, or sequences that do not
            fit together.
    """
    owner = "ds_graph"
    if dtw is None:
        lengths = sequences.lengths if isinstance(sequences, Sequences) else [len(s) for s in sequences]
        dtw = windows_for(max([int(n) for n in lengths], default=1))
    chosen = replace(settings or Settings(), k=k)
    symbols = dtw.symbols(sequences)
    if len(symbols) < 2:
        raise ValueError(f"{owner}: sequences must be at least two, got {len(symbols)}")
    chosen.check(len(symbols), owner)
    # The windows are cut: each symbol is a frame of its own from here on.
    ready = WindowedDTW(1, 1, "stack", dtw.band, dtw.normalize, "none", dtw.squared)
    if full is None:
        full = len(symbols) <= _MOST_IN_FULL
    started = time.perf_counter()
    if full:
        table = ready.pairwise(symbols)
        formed = time.perf_counter()
        graph = nnk_graph(
            table,
            k,
            sigma=chosen.sigma,
            per_node=chosen.per_node,
            solver=chosen.solver,
            symmetrize=chosen.symmetrize,
        )
        plane = embed_plane(table) if embed else None
        return DSGraph(graph, table, plane, _spent(formed - started, started))
    near, indices = ready.knn(symbols, k=k)
    within = time.perf_counter() - started

    def among(members: NDArray[np.int64]) -> Any:
        nonlocal within
        begun = time.perf_counter()
        table = ready.pairwise([symbols[int(i)] for i in members], n_jobs=1)
        within += time.perf_counter() - begun
        return table

    graph = from_neighbours(near, indices, among, chosen, owner)
    if not embed:
        return DSGraph(graph, None, None, _spent(within, started))
    count = min(_LANDMARKS, len(symbols))
    chosen_clips = np.unique(np.linspace(0, len(symbols) - 1, count).round().astype(int))
    landmarks = [symbols[int(i)] for i in chosen_clips]
    begun = time.perf_counter()
    tables = ready.pairwise(landmarks), ready.cdist(symbols, landmarks)
    within += time.perf_counter() - begun
    return DSGraph(graph, None, embed_plane(*tables), _spent(within, started))


def _spent(dtw: float, started: float) -> dict[str, float]:
    return {"dtw": dtw, "nnk": time.perf_counter() - started - dtw}


def embed_plane(distances: Any, towards: Any = None) -> Floats:
    """Items on a plane, by classical multidimensional scaling (Torgerson 1952; with landmarks, de Silva
    2004).

    Args:
        distances: ``[L, L]``, among all items or among landmarks.
        towards: ``[N, L]``, from all items to the landmarks; None: the landmarks are all items.

    Returns:
        float64 ``[N, 2]``, centred, the first axis the longer one; each axis' largest value is positive.
    """
    squared = np.asarray(distances, dtype=np.float64) ** 2
    mean = squared.mean(0)
    centred = -0.5 * (squared - mean - mean[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(centred)
    values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2]
    if len(values) < 2:
        values, vectors = np.append(values, 0.0), np.column_stack([vectors, np.zeros(len(vectors))])
    lengths = np.sqrt(np.maximum(values, 0))
    axes = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    from_all = squared if towards is None else np.asarray(towards, dtype=np.float64) ** 2
    places = -0.5 * (from_all - mean) @ axes
    places -= places.mean(0)
    largest = places[np.abs(places).argmax(0), [0, 1]]
    return np.asarray(places * np.where(largest < 0, -1.0, 1.0))
