"""Normalisation of partitioned adjacencies ``[K, V, W]`` (source v, target w)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrices = NDArray[np.float64]


def symmetric(subsets: Matrices, alpha: float) -> Matrices:
    """``L^-1/2 A_k R^-1/2`` for each subset, L and R the degrees of sources and of targets plus alpha.

    For an undirected subset L = R and this is the paper's ``Λ_k^-1/2 A_k Λ_k^-1/2`` with
    ``Λ_k^ii = sum_j A_k^ij + alpha``. The subsets of the spatial partition are directed: there each side
    takes the degree it has in the subset, so alpha meets only empty rows and columns; entries stay below 1.
    """
    sources = subsets.sum(2, keepdims=True) + alpha
    targets = subsets.sum(1, keepdims=True) + alpha
    normalised: Matrices = subsets / np.sqrt(sources * targets)
    return normalised


def symmetric_rows(subsets: Matrices, alpha: float) -> Matrices:
    """``Λ_k^-1/2 A_k Λ_k^-1/2`` to the letter: row sums plus alpha on both sides, for directed subsets too.

    An edge that meets an empty row of its own subset is scaled by up to ``alpha^-1/2``: 31.6 for 0.001.
    """
    rows = subsets.sum(2) + alpha
    normalised: Matrices = subsets / np.sqrt(rows[:, :, None] * rows[:, None, :])
    return normalised


def kth_code(subsets: Matrices, alpha: float) -> Matrices:
    """What the code of the KTH study (Nagy, Panesar and Qian) computes in place of its report's formula.

    Alpha is added to every entry of the diagonal matrix of degrees, and the power -1/2 is taken entry by
    entry: beside the diagonal stands ``alpha^-1/2``, and every subset becomes dense (entries of 1e4 and more
    for 0.001). Degrees are those of targets, which are the rows there.
    """
    rooted = subsets.transpose(0, 2, 1)  # [K, W, V]
    diagonal = np.eye(subsets.shape[1])
    factors = (rooted.sum(2)[:, :, None] * diagonal + alpha) ** -0.5
    normalised: Matrices = (factors @ rooted @ factors).transpose(0, 2, 1)
    return normalised


def column(subsets: Matrices, alpha: float) -> Matrices:
    """Unit columns of the sum over all subsets, as in the public ST-GCN code; alpha is not used."""
    normalised: Matrices = subsets / subsets.sum((0, 1), keepdims=True)
    return normalised


def none(subsets: Matrices, alpha: float) -> Matrices:
    """The plain 0/1 subsets; alpha is not used."""
    return subsets
