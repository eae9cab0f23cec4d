"""A plain O(T^2) DTW to compare with, and small random collections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Table = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def table() -> Table:
    """table(x, y, radius=None): accumulated squared costs by the textbook loop, in float64."""

    def run(x: np.ndarray, y: np.ndarray, radius: int | None = None) -> np.ndarray:
        x, y = (np.asarray(s, np.float64).reshape(len(s), -1) for s in (x, y))
        n, m = len(x), len(y)
        r = max(n, m) if radius is None else radius
        g = np.full((n + 1, m + 1), np.inf)
        g[0, 0] = 0
        for i in range(n):
            for j in range(m):
                if -r - max(0, n - m) <= j - i <= r + max(0, m - n):
                    g[i + 1, j + 1] = ((x[i] - y[j]) ** 2).sum() + min(g[i, j], g[i, j + 1], g[i + 1, j])
        return g[1:, 1:]

    return run


@pytest.fixture
def collection() -> Callable[..., list[np.ndarray]]:
    """collection(lengths, features, dtype=float64, seed=0): random walks."""

    def make(lengths: list[int], features: int, dtype: type = np.float64, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [np.cumsum(rng.normal(size=(t, features)), 0).astype(dtype) for t in lengths]

    return make
