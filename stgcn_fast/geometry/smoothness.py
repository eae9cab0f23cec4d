"""Label smoothness: how far a graph's neighbours agree in their labels; lower is smoother.

Source: Das, Shekkizhar and Ortega, arXiv 2312.07777.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stgcn_fast.geometry.edges import NNKGraph

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

KINDS = ("rw", "quad", "sym", "rmse")


@dataclass(frozen=True)
class Smoothness:
    """Label smoothness error of a graph.

    Attributes:
        value: Of the whole graph.
        per_class: ``[K]``, over the nodes of each class; NaN for a class none of whose nodes has an edge.
        isolated: Nodes without edges, which are left out.
        kind: Which of the four.
    """

    value: float
    per_class: Floats
    isolated: int
    kind: str

    def __float__(self) -> float:
        return self.value


def label_smoothness(graph: Any, labels: ArrayLike, kind: str = "rw") -> Smoothness:
    """Label smoothness error of a graph, W its weights, D the sums of its rows, Y the labels one-hot.

    Args:
        graph: :class:`NNKGraph`, an array ``[N, N]`` or a SciPy sparse array, weights not negative.
        labels: ``[N]``, integers from 0.
        kind: ``"rw"``: ``tr(Y' (I - D^-1 W) Y) / N``, the mean share of a node's weight that leads to other
            classes, which is also the released code's error; ``"quad"``: ``tr(Y' (D - W) Y) / sum W``, the
            share of all weight between classes; ``"sym"``: ``tr(Y' (I - D^-1/2 W D^-1/2) Y) / N``;
            ``"rmse"``: the mean over nodes of the root mean square, over classes, of the labels less those
            their neighbours vote for.

    Returns:
        The error, in [0, 1] ("sym" may leave that range by a little where degrees differ).

    Raises:
        TypeError: Labels are no integers.
        ValueError: An unknown kind, shapes or weights that do not fit, fewer than two classes, no edges, or a
            directed graph for "quad" and "sym".

    Examples:
        >>> import numpy as np
        >>> chain = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
        >>> label_smoothness(chain, [0, 0, 1, 1]).value
        0.25
    """
    owner = "label_smoothness"
    if kind not in KINDS:
        raise ValueError(f"{owner}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    count, rows, columns, weights = _edges(graph, owner)
    given = np.asarray(labels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{owner}: labels must be integers, got {given.dtype}")
    if given.shape != (count,) or given.min() < 0:
        raise ValueError(f"{owner}: labels must be {count} integers from 0, got shape {list(given.shape)}")
    present = np.unique(given)
    if len(present) < 2:
        raise ValueError(f"{owner}: labels must hold at least two classes, got {len(present)}")
    classes = int(given.max()) + 1
    degrees = np.bincount(rows, weights, count).astype(np.float64)
    there = degrees > 0
    if not there.any():
        raise ValueError(f"{owner}: graph must have edges, got none")
    if kind in ("quad", "sym") and not _is_symmetric(count, rows, columns, weights):
        raise ValueError(f"{owner}: graph must be symmetric for {kind!r}, got a directed one")
    same = given[rows] == given[columns]
    error, share = np.zeros(count), there / there.sum()  # the value is the sum over nodes of share * error
    if kind == "rw":
        agreeing = np.bincount(rows, weights * same, count)
        error[there] = 1 - agreeing[there] / degrees[there]
    elif kind == "quad":
        crossing = np.bincount(rows, weights * ~same, count)
        error[there] = crossing[there] / degrees[there]
        share = degrees / degrees.sum()
    elif kind == "sym":
        scaled = weights / np.sqrt(degrees[rows] * degrees[columns])
        error[there] = 1 - np.bincount(rows, scaled * same, count)[there]
    else:
        error = _rmse(given, classes, rows, columns, weights, degrees)
    per_class = np.full(classes, np.nan)
    totals = np.bincount(given, share, classes)
    sums = np.bincount(given, share * error, classes)
    per_class[totals > 0] = sums[totals > 0] / totals[totals > 0]
    value = float((share * error).sum())
    if kind != "sym":
        value = min(max(value, 0.0), 1.0)  # rounding
    return Smoothness(value, per_class, int((~there).sum()), kind)


def _rmse(labels: Any, classes: int, rows: Index, columns: Index, weights: Floats, degrees: Floats) -> Floats:
    """Root mean square over classes of one-hot labels less the neighbours' votes, ``[N]``."""
    votes: Floats = np.zeros((len(labels), classes))
    np.add.at(votes, (rows, labels[columns]), weights)
    there = degrees > 0
    votes[there] /= degrees[there, None]
    votes[np.arange(len(labels)), labels] -= 1
    found = np.sqrt((votes**2).mean(1))
    return np.asarray(np.where(there, found, 0.0))


def _edges(graph: Any, owner: str) -> tuple[int, Index, Index, Floats]:
    if isinstance(graph, NNKGraph):
        return graph.nodes, graph.rows, graph.columns, graph.weights
    if hasattr(graph, "tocoo"):
        entries = graph.tocoo()
        shape = graph.shape
        rows, columns = np.asarray(entries.row, np.int64), np.asarray(entries.col, np.int64)
        weights = np.asarray(entries.data, np.float64)
    else:
        table = np.asarray(graph, dtype=np.float64)
        shape = table.shape
        rows, columns = np.nonzero(table) if table.ndim == 2 else (np.zeros(0, int), np.zeros(0, int))
        weights = table[rows, columns] if table.ndim == 2 else np.zeros(0)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"{owner}: graph must have shape [N, N], got {list(shape)}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{owner}: graph must have finite weights of at least 0, got others")
    return int(shape[0]), rows, columns, weights


def _is_symmetric(count: int, rows: Index, columns: Index, weights: Floats) -> bool:
    forward, backward = np.lexsort((columns, rows)), np.lexsort((rows, columns))
    return (
        np.array_equal(rows[forward], columns[backward])
        and np.array_equal(columns[forward], rows[backward])
        and bool(np.allclose(weights[forward], weights[backward], rtol=1e-9, atol=0))
    )
