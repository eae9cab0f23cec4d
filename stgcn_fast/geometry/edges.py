"""A graph as edges, and how weights of both ends become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

SYMMETRIES = ("reference", "max", "mean", "min", "none")


@dataclass(frozen=True)
class NNKGraph:
    """An NNK graph.

    Attributes:
        nodes: N.
        rows: int64 ``[E]``, ordered; an undirected edge stands twice.
        columns: int64 ``[E]``.
        weights: float64 ``[E]``, positive.
        indices: int64 ``[N, k]``, candidates of each node, nearest first.
        theta: float64 ``[N, k]``, their weights in the node's own problem.
        errors: float64 ``[N]``, squared error of the node's reconstruction, in [0, 1].
        sigma: float64 ``[N]``, width of the kernel of the node's problem.
        added: float64 ``[N]``, what was added to the diagonal of the node's kernel.
        symmetrize: How edges were made of theta.
    """

    nodes: int
    rows: Index
    columns: Index
    weights: Floats
    indices: Index
    theta: Floats
    errors: Floats
    sigma: Floats
    added: Floats
    symmetrize: str

    @property
    def edges(self) -> Index:
        """int64 ``[E, 2]``."""
        return np.stack([self.rows, self.columns], axis=1)

    @property
    def degrees(self) -> Floats:
        """Sum of the weights of each node's row, ``[N]``."""
        return np.bincount(self.rows, self.weights, self.nodes).astype(np.float64)

    def dense(self) -> Floats:
        """The weights as a matrix ``[N, N]``."""
        out = np.zeros((self.nodes, self.nodes))
        out[self.rows, self.columns] = self.weights
        return out

    def csr(self) -> Any:
        """The weights as ``scipy.sparse.csr_array`` ``[N, N]``.

        Raises:
            ImportError: SciPy is missing.
        """
        try:
            from scipy import sparse
        except ImportError as error:
            raise ImportError("NNKGraph.csr: needs SciPy: pip install scipy") from error
        return sparse.csr_array((self.weights, (self.rows, self.columns)), shape=(self.nodes, self.nodes))

    def with_symmetry(self, symmetrize: str) -> NNKGraph:
        """The same problems' weights made edges in another way.

        Raises:
            ValueError: An unknown way.
        """
        if symmetrize not in SYMMETRIES:
            known = ", ".join(SYMMETRIES)
            raise ValueError(f"NNKGraph: symmetrize must be one of {known}, got {symmetrize!r}")
        found = symmetrised(self.indices, self.theta, self.errors, symmetrize)
        return NNKGraph(
            self.nodes, *found, self.indices, self.theta, self.errors, self.sigma, self.added, symmetrize
        )


def symmetrised(
    indices: Index, theta: Floats, errors: Floats, symmetrize: str
) -> tuple[Index, Index, Floats]:
    """Edges from each node's weights.

    Args:
        indices: ``[N, k]``.
        theta: ``[N, k]``.
        errors: ``[N]``.
        symmetrize: One of ``SYMMETRIES``. "reference": only mutual candidates; the weight of the end with the
            smaller error counts, of equal errors the larger weight.

    Returns:
        Rows, columns and weights ``[E]``, ordered by row, then column.
    """
    count, k = indices.shape
    sources = np.repeat(np.arange(count), k)
    targets, values = indices.ravel(), theta.ravel()
    if symmetrize == "none":
        return _ordered(sources, targets, values)
    # Each candidate pair once, a < b, with the weight from either end; -1 where it is no candidate.
    low, high = np.minimum(sources, targets), np.maximum(sources, targets)
    keys, pair = np.unique(low * count + high, return_inverse=True)
    first, second = np.full(len(keys), -1.0), np.full(len(keys), -1.0)
    upward = sources < targets
    first[pair[upward]] = values[upward]
    second[pair[~upward]] = values[~upward]
    a, b = keys // count, keys % count
    if symmetrize == "reference":
        better = np.where(errors[a] < errors[b], first, second)
        better = np.where(errors[a] == errors[b], np.maximum(first, second), better)
        weights = np.where((first >= 0) & (second >= 0), better, 0.0)
    else:
        first, second = np.maximum(first, 0), np.maximum(second, 0)
        if symmetrize == "mean":
            weights = (first + second) / 2
        else:
            weights = np.maximum(first, second) if symmetrize == "max" else np.minimum(first, second)
    return _ordered(np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([weights, weights]))


def _ordered(rows: Index, columns: Index, weights: Floats) -> tuple[Index, Index, Floats]:
    kept = weights > 0
    rows, columns, weights = rows[kept], columns[kept], weights[kept]
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], weights[order]
