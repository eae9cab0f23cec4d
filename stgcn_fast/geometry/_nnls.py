"""Compiled solvers of many small non-negative regressions.

Each minimises ``theta' A theta / 2 - b' theta`` over ``theta >= 0``, A symmetric positive definite ``[k,
k]``.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _jit(function: Any) -> Any:
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(error_model="numpy", nogil=True)(function)


@_jit
def _factor(A: Floats, members: Any, first: int, count: int, L: Floats) -> int:
    """Rows ``first`` to ``count`` of the lower Cholesky factor of A[members][:, members].

    Returns the row whose pivot is not positive, or -1.
    """
    for r in range(first, count):
        row = members[r]
        for c in range(r):
            value = A[row, members[c]]
            for j in range(c):
                value -= L[r, j] * L[c, j]
            L[r, c] = value / L[c, c]
        pivot = A[row, row]
        for j in range(r):
            pivot -= L[r, j] * L[r, j]
        if not pivot > 1e-12 * A[row, row]:
            return r
        L[r, r] = np.sqrt(pivot)
    return -1


@_jit
def _solve(L: Floats, b: Floats, members: Any, count: int, out: Floats) -> None:
    """``out[:count]`` such that L L' out = b[members]."""
    for r in range(count):
        value = b[members[r]]
        for j in range(r):
            value -= L[r, j] * out[j]
        out[r] = value / L[r, r]
    for r in range(count - 1, -1, -1):
        value = out[r]
        for j in range(r + 1, count):
            value -= L[j, r] * out[j]
        out[r] = value / L[r, r]


@_jit
def _raise(A: Floats, members: Any, L: Floats, smallest: float) -> float:
    """Adds to the diagonal of A what makes it positive definite; returns what was added."""
    k = len(A)
    trace = 0.0
    for j in range(k):
        members[j] = j
        trace += A[j, j]
    added = 0.0
    while True:
        if _factor(A, members, 0, k, L) < 0:
            return added
        more = smallest * trace / k if added == 0 else 9 * added
        for j in range(k):
            A[j, j] += more
        added += more


@_jit
def _exact(A: Floats, b: Floats, tolerance: float, theta: Floats, members: Any, L: Floats, z: Floats) -> None:
    """Lawson and Hanson's active set method on the normal equations."""
    k = len(b)
    passive = np.zeros(k, np.bool_)
    theta[:] = 0
    count = 0
    for _ in range(10 * k):
        # The variable that the objective falls fastest by.
        best, steepest = -1, tolerance
        for j in range(k):
            if not passive[j]:
                slope = b[j]
                for c in range(count):
                    slope -= A[j, members[c]] * theta[members[c]]
                if slope > steepest:
                    best, steepest = j, slope
        if best < 0:
            return
        members[count] = best
        if _factor(A, members, count, count + 1, L) >= 0:
            return  # rounding: no further variable is independent of those there
        passive[best] = True
        count += 1
        while True:
            _solve(L, b, members, count, z)
            step, negative = 1.0, False
            for c in range(count):
                if z[c] <= 0:
                    negative = True
                    old = theta[members[c]]
                    share = old / (old - z[c]) if old > 0 else 0.0
                    step = min(step, share)
            if not negative:
                for c in range(count):
                    theta[members[c]] = z[c]
                break
            first = count
            for c in range(count):
                j = members[c]
                theta[j] += step * (z[c] - theta[j])
                # What the step brought to zero, but for rounding.
                if z[c] <= 0 and theta[j] <= 1e-15:
                    theta[j] = 0.0
                    passive[j] = False
                    first = min(first, c)
            if first == count:  # nothing left, by rounding: leave what stands
                break
            kept = first
            for c in range(first, count):
                if passive[members[c]]:
                    members[kept] = members[c]
                    kept += 1
            count = kept
            _factor(A, members, first, count, L)
            if count == 0:
                break


@_jit
def _pruned(
    A: Floats, b: Floats, tolerance: float, theta: Floats, members: Any, L: Floats, z: Floats
) -> None:
    """The heuristic of the released code: what falls below the tolerance never comes back."""
    k = len(b)
    theta[:] = 0
    duplicates = False
    for j in range(k):
        if b[j] > 1 - tolerance:
            theta[j] = b[j]
            duplicates = True
    if duplicates:
        return
    count = 0
    for j in range(k):
        if b[j] > tolerance:
            members[count] = j
            count += 1
    for _ in range(50 * k):
        if count == 0 or _factor(A, members, 0, count, L) >= 0:
            return
        _solve(L, b, members, count, z)
        worst, kept = 0.0, 0
        theta[:] = 0
        for c in range(count):
            if z[c] < tolerance:
                worst = max(worst, abs(z[c]))
            if z[c] > tolerance:
                theta[members[c]] = z[c]
                members[kept] = members[c]
                kept += 1
        count = kept
        if worst <= tolerance:
            return


@_jit
def solve_all(
    A: Floats,
    b: Floats,
    exact: bool,
    tolerance: float,
    smallest: float,
    theta: Floats,
    errors: Floats,
    added: Floats,
) -> None:
    """Solves N problems; lets go of the interpreter lock meanwhile.

    Args:
        A: ``[N, k, k]``, symmetric; changed where something is added to the diagonal.
        b: ``[N, k]``.
        exact: Lawson and Hanson's method, else the pruned heuristic.
        tolerance: Of the gradient at zero weights (exact), of weights (pruned).
        smallest: First share of the mean diagonal that is added where A is not positive definite.
        theta: Result, ``[N, k]``.
        errors: Result, ``[N]``, the squared errors for a kernel of ones on the diagonal.
        added: Result, ``[N]``, what was added to the diagonals.
    """
    n, k = b.shape
    for i in range(n):
        members = np.empty(k, np.int64)
        L = np.empty((k, k))
        z = np.empty(k)
        added[i] = _raise(A[i], members, L, smallest)
        if exact:
            _exact(A[i], b[i], tolerance, theta[i], members, L, z)
        else:
            _pruned(A[i], b[i], tolerance, theta[i], members, L, z)
        error = 1.0
        for r in range(k):
            if theta[i, r] != 0:
                error -= 2 * theta[i, r] * b[i, r]
                for c in range(k):
                    error += theta[i, r] * A[i, r, c] * theta[i, c]
        errors[i] = max(error, 0.0)
