"""The limits of every row of a band against its definition, and the digests that caches and stores go by."""

from __future__ import annotations

import math
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stgcn_fast.dtw import _jit, _large
from stgcn_fast.dtw._bands import ITAKURA, SAKOE_CHIBA, SLANTED, band, limits
from stgcn_fast.dtw.sequences import Sequences

SIDES = st.integers(1, 40)


def cells(n, m, radius, share, kind, slope=0.0):
    """[n, m], which cells `limits` lets take part."""
    inside = np.zeros((n, m), bool)
    before = (0, 0)
    for i in range(n):
        low, high = limits(i, n, m, radius, share, kind, slope)
        assert 0 <= low <= m
        assert 0 <= high <= m
        assert low >= before[0]
        assert high >= before[1]
        before = low, high
        inside[i, low:high] = True
    return inside


@given(SIDES, SIDES, st.integers(0, 12), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(deadline=None, max_examples=60)
def test_sakoe_and_chiba(n, m, radius, share):
    a, b = band(n, m, radius, share)
    extra = radius + math.floor(share * max(n, m) + 0.5)
    assert (a, b) == (extra + max(0, n - m), extra + max(0, m - n))
    away = np.arange(m) - np.arange(n)[:, None]
    np.testing.assert_array_equal(cells(n, m, radius, share, SAKOE_CHIBA), (-a <= away) & (away <= b))


@given(SIDES, SIDES, st.integers(0, 12), st.sampled_from([0.0, 0.1, 0.5]))
@settings(deadline=None, max_examples=60)
def test_slanted(n, m, radius, share):
    shorter, longer = min(n, m), max(n, m)
    reach = radius + math.floor(share * shorter)
    centre = np.array([math.floor((j + 1) / (longer + 1) * shorter) for j in range(longer)])
    want = np.abs(np.arange(shorter)[:, None] - centre) <= reach  # [shorter, longer]
    np.testing.assert_array_equal(cells(n, m, radius, share, SLANTED), want if n <= m else want.T)


@given(SIDES, SIDES, st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(2), Fraction(7, 3)]))
@settings(deadline=None, max_examples=60)
def test_itakura(n, m, slope):
    want = np.zeros((n, m), bool)
    for i in range(n):
        for j in range(m):
            ahead, behind = (i, j), (n - 1 - i, m - 1 - j)
            want[i, j] = all(
                Fraction(rows * m, n) / slope <= columns <= slope * Fraction(rows * m, n)
                for rows, columns in (ahead, behind)
            )
    np.testing.assert_array_equal(cells(n, m, 0, 0.0, ITAKURA, float(slope)), want)


def test_the_digest_of_kernels_tells_every_change_of_their_sources(tmp_path, monkeypatch):
    source = Path(_jit.__file__).parent
    for path in source.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(_jit, "__file__", str(tmp_path / "_jit.py"))
    assert _jit._digest() == _jit._sources
    (tmp_path / "knn.py").write_text("")  # compiles nothing
    assert _jit._digest() == _jit._sources
    seen = {_jit._sources}
    for name in ("_tiles.py", "_bands.py", "_vectors.py"):
        with open(tmp_path / name, "a") as file:
            file.write("\n")
        seen.add(_jit._digest())
    assert len(seen) == 4


def test_a_kernel_is_cached_under_the_digest():
    @_jit.jit(nogil=True)
    def twice(x):
        return 2 * x

    assert twice.py_func.__qualname__.endswith(f"twice_{_jit._sources}")
    assert twice(3) == 6


def test_the_digest_of_data():
    frames = np.arange(24, dtype=np.float32).reshape(8, 3)
    same = _large._digest(Sequences(frames, np.array([0, 3, 8])))
    assert same == _large._digest(Sequences(frames.copy(), np.array([0, 3, 8], np.int32)))
    other = frames.copy()
    other[7, 2] = np.nextafter(other[7, 2], np.float32(99))
    negative = frames.copy()
    negative[0, 0] = -0.0
    changed = [
        Sequences(frames, np.array([0, 4, 8])),
        Sequences(frames, np.array([0, 8])),
        Sequences(other, np.array([0, 3, 8])),
        Sequences(negative, np.array([0, 3, 8])),
        Sequences(frames.reshape(12, 2), np.array([0, 3, 12])),
        Sequences(frames.astype(np.float64), np.array([0, 3, 8])),
    ]
    assert len({same, *map(_large._digest, changed)}) == 7


@pytest.mark.parametrize("how", ["list", "array"])
def test_a_collection_outlives_changes_of_the_callers_array(how):
    """Only what ends with the call may lie in the caller's memory."""
    from stgcn_fast.dtw.sequences import as_collections

    x = np.arange(24.0).reshape(2, 4, 3)
    value = list(x) if how == "list" else x
    (kept,) = as_collections({"X": value}, None, "test")
    assert not np.shares_memory(kept.frames, x)
    (shared,) = as_collections({"X": x}, None, "test", share=True)
    assert np.shares_memory(shared.frames, x)
    np.testing.assert_array_equal(shared.frames, kept.frames)
    np.testing.assert_array_equal(shared.offsets, kept.offsets)
