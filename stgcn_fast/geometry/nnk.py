"""Graphs of non-negative kernel regression (NNK).

Source: Shekkizhar and Ortega, "Graph Construction from Data by Non-Negative Kernel Regression"
(ICASSP 2020, arXiv 1910.09383).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.dtw._engine import run, thread_count
from stgcn_fast.geometry._nnls import solve_all
from stgcn_fast.geometry.edges import SYMMETRIES, NNKGraph, symmetrised

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

SOLVERS = ("nnls", "pruned")
# Smallest weight of the released code, and the size of gradients at zero weights that counts as none.
_PRUNED_TOLERANCE, _EXACT_TOLERANCE = 1e-6, 1e-10
_DIAGONAL = 1e-6  # first share of the mean diagonal added to a kernel that is not positive definite
_CHUNK_BYTES = 64 << 20
_MOST_NEIGHBOURS = 512

# Distances [k, k] among the items at some positions [k].
Among = Callable[[Index], Any]


@dataclass(frozen=True)
class Settings:
    """How a graph is made of distances.

    Attributes:
        k: Candidates of each node, its nearest others.
        sigma: Width of the Gaussian kernel ``exp(-d^2 / (2 sigma^2))``; None: a third of the mean distance to
            the k-th neighbour.
        per_node: A width for each node's own problem, a third of its distance to its k-th neighbour.
        solver: ``"nnls"``, exact; ``"pruned"``, the heuristic of the released code.
        symmetrize: ``"reference"`` keeps an edge between mutual candidates, with the weight of the end that
            is reconstructed better; ``"max"``, ``"mean"`` and ``"min"`` of both weights; ``"none"``:
            directed.
    """

    k: int = 10
    sigma: float | None = None
    per_node: bool = False
    solver: Literal["nnls", "pruned"] = "nnls"
    symmetrize: Literal["reference", "max", "mean", "min", "none"] = "reference"

    def check(self, count: int, owner: str) -> None:
        """Raises TypeError or ValueError unless all fit a graph of ``count`` nodes."""
        if isinstance(self.k, bool) or not isinstance(self.k, (int, np.integer)):
            raise TypeError(f"{owner}: k must be an int, got {self.k!r}")
        most = min(count - 1, _MOST_NEIGHBOURS)
        if not 1 <= self.k <= most:
            raise ValueError(f"{owner}: k must be from 1 to {most} for {count} nodes, got {self.k}")
        if self.sigma is not None and not (np.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"{owner}: sigma must be positive, got {self.sigma}")
        if self.sigma is not None and self.per_node:
            raise ValueError(f"{owner}: sigma must be None with per_node, got {self.sigma}")
        if self.solver not in SOLVERS:
            raise ValueError(f"{owner}: solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}")
        if self.symmetrize not in SYMMETRIES:
            known = ", ".join(SYMMETRIES)
            raise ValueError(f"{owner}: symmetrize must be one of {known}, got {self.symmetrize!r}")


def nnk_graph(
    distances: Any,
    k: int = 10,
    *,
    sigma: float | None = None,
    per_node: bool = False,
    solver: Literal["nnls", "pruned"] = "nnls",
    symmetrize: Literal["reference", "max", "mean", "min", "none"] = "reference",
) -> NNKGraph:
    """NNK graph of items with known distances.

    Node i takes the weights ``theta >= 0`` over its k nearest others S that minimise
    ``theta' K_SS theta / 2 - K_Si' theta`` with the kernel ``K = exp(-d^2 / (2 sigma^2))``. Where K_SS is not
    positive definite (duplicates; distances that are no metric) a millionth, or what is needed, is added to
    its diagonal.

    Args:
        distances: ``[N, N]``, symmetric, zero on the diagonal; an array that lies on disk is read by rows.
        k: See :class:`Settings`.
        sigma: See :class:`Settings`.
        per_node: See :class:`Settings`.
        solver: See :class:`Settings`.
        symmetrize: See :class:`Settings`.

    Returns:
        The graph.

    Raises:
        TypeError: ``k`` is no int.
        ValueError: Distances are not square, negative, not finite or not symmetric; an option is out of range
            (k must be below N); all distances to neighbours are zero and no sigma is given.

    Examples:
        >>> import numpy as np
        >>> place = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
        >>> graph = nnk_graph(np.abs(place[:, None] - place), k=2, symmetrize="max")
        >>> [(a, b) for a, b in graph.edges.tolist() if a < b]
        [(0, 1), (1, 2), (2, 3), (3, 4)]
    """
    owner = "nnk_graph"
    settings = Settings(k, sigma, per_node, solver, symmetrize)
    shape = getattr(distances, "shape", np.shape(distances))
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(f"{owner}: distances must have shape [N, N], N at least 2, got {list(shape)}")
    settings.check(shape[0], owner)
    table = distances if hasattr(distances, "shape") else np.asarray(distances)
    if hasattr(table, "detach"):
        table = table.detach().cpu().numpy()
    near, indices = _nearest(table, settings.k, owner)

    def among(members: Index) -> Any:
        if isinstance(table, np.ndarray):
            return table[np.ix_(members, members)]
        return np.asarray(table[members])[:, members]

    return from_neighbours(near, indices, among, settings, owner)


def from_neighbours(near: Any, indices: Index, among: Among, settings: Settings, owner: str) -> NNKGraph:
    """The graph of items whose nearest others are known.

    Args:
        near: ``[N, k]``, distances to the nearest others, ascending.
        indices: ``[N, k]``, which they are.
        among: Gives the distances ``[k, k]`` among some items.
        settings: How.
        owner: Name of the calling function, for messages.

    Raises:
        ValueError: All distances are zero and no sigma is given.
    """
    near = np.asarray(near, dtype=np.float64)
    count, k = near.shape
    widths = _widths(near, settings, owner)
    theta, errors, added = np.empty((count, k)), np.empty(count), np.empty(count)
    size = max(1, _CHUNK_BYTES // (8 * k * k))
    exact = settings.solver == "nnls"
    tolerance = _EXACT_TOLERANCE if exact else _PRUNED_TOLERANCE
    threads = thread_count(None, owner)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        tables = np.stack([np.asarray(among(members), dtype=np.float64) for members in indices[part]])
        scale = 0.5 / widths[part] ** 2
        kernel = np.exp(-(tables**2) * scale[:, None, None])
        towards = np.exp(-(near[part] ** 2) * scale[:, None])
        outputs = (theta[part], errors[part], added[part])
        _solve(kernel, towards, exact, tolerance, outputs, threads)
    rows, columns, weights = symmetrised(indices, theta, errors, settings.symmetrize)
    return NNKGraph(count, rows, columns, weights, indices, theta, errors, widths, added, settings.symmetrize)


def _solve(
    kernel: Floats,
    towards: Floats,
    exact: bool,
    tolerance: float,
    outputs: tuple[Floats, Floats, Floats],
    threads: int,
) -> None:
    """Shares the problems out among threads; the outputs do not depend on their number."""

    def work(part: slice) -> int:
        solve_all(kernel[part], towards[part], exact, tolerance, _DIAGONAL, *(o[part] for o in outputs))
        return 0

    step = -(-len(kernel) // (4 * threads)) if threads > 1 else len(kernel)
    for _ in run([slice(i, i + step) for i in range(0, len(kernel), step)], work, threads):
        pass


def _widths(near: Floats, settings: Settings, owner: str) -> Floats:
    """Sigma of each node's kernel, ``[N]``."""
    if settings.sigma is not None:
        return np.full(len(near), float(settings.sigma))
    last = near[:, -1] / 3
    mean = float(last.mean())
    if not mean > 0:
        raise ValueError(f"{owner}: distances to neighbours must not all be zero without sigma, got zeros")
    if settings.per_node:
        return np.where(last > 0, last, mean)  # all neighbours are duplicates: any width says so
    return np.full(len(near), mean)


def _nearest(table: Any, k: int, owner: str) -> tuple[Floats, Index]:
    """The k nearest others of each row, ascending, the smaller position first among equals."""
    count = table.shape[0]
    values, indices = np.empty((count, k)), np.empty((count, k), np.int64)
    size = max(1, _CHUNK_BYTES // (8 * count))
    for start in range(0, count, size):
        rows = np.array(table[start : start + size], dtype=np.float64)
        if not np.isfinite(rows).all() or (rows < 0).any():
            raise ValueError(f"{owner}: distances must be finite and at least 0, got others")
        mirror = np.asarray(table[:, start : start + size], dtype=np.float64).T
        if not np.allclose(rows, mirror, rtol=1e-5, atol=1e-8):
            raise ValueError(f"{owner}: distances must be symmetric, got others")
        own = np.arange(len(rows))
        rows[own, start + own] = np.inf
        order = np.argsort(rows, axis=1, kind="stable")[:, :k]
        values[start : start + size] = np.take_along_axis(rows, order, 1)
        indices[start : start + size] = order
    return values, indices
