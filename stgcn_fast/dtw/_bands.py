"""Bands: which cells of the table of a pair take part. Compiled into the kernels that import them."""

from __future__ import annotations

import math

from stgcn_fast.dtw._jit import jit

SAKOE_CHIBA, SLANTED, ITAKURA = 0, 1, 2
# Numbers of cells are quotients of small integers: what is as near to an integer as this is one.
_NEAR = 1e-6


@jit(inline="always")
def band(n: int, m: int, radius: int, fraction: float) -> tuple[int, int]:
    """(a, b) such that cell (i, j) of n x m is in the band of Sakoe and Chiba where -a <= j - i <= b."""
    cells = radius + int(fraction * max(n, m) + 0.5)
    return cells + max(0, n - m), cells + max(0, m - n)


@jit(nogil=True)
def _centre(step: int, longer: int, shorter: int) -> int:
    """Where the diagonal of the shorter axis stands at a step along the longer one."""
    return math.floor(((step + 1) / (longer + 1)) * shorter)


@jit(nogil=True)
def _first(row: int, n: int, m: int) -> int:
    """First column, of m >= n, where the diagonal has reached `row`; m if it never does."""
    if row <= 0:
        return 0
    column = min(m, max(0, row * (m + 1) // n - 2))
    while column < m and _centre(column, m, n) < row:
        column += 1
    return column


@jit(nogil=True)
def limits(i: int, n: int, m: int, radius: int, fraction: float, kind: int, slope: float) -> tuple[int, int]:
    """Columns low..high-1 of row i of an n x m table that are in the band; neither decreases with i.

    Every band of the transposed table is the transposed band.

    Sakoe-Chiba: `radius` cells, and `fraction` of the longer side, on each side of the diagonal, widened by
    the difference of the sides. Slanted: `radius` cells, and `fraction` of the shorter side, on the shorter
    axis on each side of a line between the corners. Itakura: the parallelogram between lines of `slope` and
    1 / `slope` times the table's own through both corners.
    """
    if kind == SAKOE_CHIBA:
        a, b = band(n, m, radius, fraction)
        return min(m, max(0, i - a)), min(m, i + b + 1)
    if kind == SLANTED:
        cells = radius + int(fraction * min(n, m))
        if n > m:
            centre = _centre(i, n, m)
            return max(0, centre - cells), min(m, centre + cells + 1)
        return _first(i - cells, n, m), _first(i + cells + 1, n, m)
    steep, flat = slope * m / n, m / (slope * n)
    left = n - 1 - i
    low = max(math.ceil(i * flat - _NEAR), m - 1 - math.floor(left * steep + _NEAR))
    high = 1 + min(math.floor(i * steep + _NEAR), m - 1 - math.ceil(left * flat - _NEAR))
    return min(m, max(0, int(low))), min(m, max(0, int(high)))
