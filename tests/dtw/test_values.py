"""The numbers: against the textbook loop, dtaidistance and tslearn; precision; bit-equality between verbs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from dtaidistance import dtw as dtai
from dtaidistance import dtw_ndim
from tslearn.metrics import dtw as tslearn_dtw

from stgcn_fast import dtw

# Around the tile (3 to 5 columns), the strip (8), the vector (8, 16 lanes) and one strip of frames (80).
LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 21, 33, 40, 41, 79, 80, 81]


@pytest.mark.parametrize("window", [None, 0, 1, 6, 0.2])
@pytest.mark.parametrize("features", [1, 3, 520])
def test_pairwise_equals_the_textbook(table, collection, features, window):
    x = collection(LENGTHS, features)
    got = dtw.dtw_pairwise_distance(x, window, n_jobs=2)
    for i in range(len(x)):
        for j in range(0, i + 1, 3):
            longer = max(len(x[i]), len(x[j]))
            radius = int(0.2 * longer + 0.5) if window == 0.2 else window
            want = np.sqrt(table(x[i], x[j], radius)[-1, -1])
            assert got[i, j] == pytest.approx(want, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [1, 2, 75, 1100])
@pytest.mark.parametrize("window", [None, 4])
def test_every_verb_gives_the_same_bits(collection, features, window, dtype):
    x = collection(LENGTHS, features, dtype)
    y = collection(LENGTHS[::-2], features, dtype, seed=1)
    both = dtw.dtw_pairwise_distance(x + y, window)
    assert both.dtype == dtype
    np.testing.assert_array_equal(both, both.T)
    np.testing.assert_array_equal(np.diag(both), 0)
    between = dtw.dtw_cdist(x, y, window)
    np.testing.assert_array_equal(between, both[: len(x), len(x) :])
    np.testing.assert_array_equal(dtw.dtw_cdist(y, x, window).T, between)
    for i, j in [(0, 0), (3, 5), (10, 2), (17, 8), (16, 0)]:
        limit = None if window is None else min(window, max(len(x[i]), len(y[j])))
        assert dtw.dtw_distance(x[i], y[j], limit) == between[i, j]
        matrix = dtw.dtw_cost_matrix(x[i], y[j], limit)
        assert np.sqrt(matrix[-1, -1]) == between[i, j]


@pytest.mark.parametrize("window", [None, 0, 3, 11])
@pytest.mark.parametrize("features", [1, 2, 40])
def test_agrees_with_dtaidistance(collection, features, window):
    x = collection([30, 30, 41, 12, 55], features)
    ours = dtw.dtw_pairwise_distance(x, window)
    peer = None if window is None else window + 1
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            want = dtw_ndim.distance(a, b, window=peer)
            assert ours[i, j] == pytest.approx(want, rel=1e-9, abs=1e-9)
            if features == 1:
                assert dtai.distance(a[:, 0], b[:, 0], window=peer) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("window", [None, 0, 3, 11])
@pytest.mark.parametrize("features", [1, 2, 40])
def test_agrees_with_tslearn(collection, features, window):
    x = collection([30, 30, 41, 12, 55], features)
    ours = dtw.dtw_pairwise_distance(x, window)
    band = {} if window is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": window}
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            assert ours[i, j] == pytest.approx(tslearn_dtw(a, b, **band), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("apart", [1e-1, 1e-3, 1e-4])
@pytest.mark.parametrize("features", [1, 75, 6400])
def test_near_identical_frames_lose_no_precision(features, apart):
    rng = np.random.default_rng(0)
    base = (rng.normal(size=(40, features)) + 3).astype(np.float32)
    near = [(base + apart * rng.normal(size=base.shape)).astype(np.float32) for _ in range(4)]
    got = dtw.dtw_pairwise_distance([base, *near], 5)
    want = dtw.dtw_pairwise_distance([base, *near], 5, dtype=np.float64)
    off = ~np.eye(5, dtype=bool)
    assert np.abs(got - want)[off].max() <= 2e-6 * want[off].min()
    assert dtw.dtw_pairwise_distance([base, base.copy()]).max() == 0


def test_squared_is_the_square(collection):
    x = collection([12, 9, 20], 3)
    squares = dtw.dtw_pairwise_distance(x, squared=True)
    np.testing.assert_allclose(np.sqrt(squares), dtw.dtw_pairwise_distance(x), rtol=1e-15)
    assert dtw.dtw_distance(x[0], x[1], squared=True) == squares[0, 1]
    np.testing.assert_array_equal(dtw.dtw_cdist(x, x, squared=True), squares)


def test_cost_matrix_equals_the_textbook(table, collection):
    for x, y, window in [
        (*collection([90, 130], 3), 7),
        (*collection([13, 5], 1), None),
        (*collection([1, 9], 2), 0),
    ]:
        np.testing.assert_allclose(dtw.dtw_cost_matrix(x, y, window), table(x, y, window), rtol=1e-12)


def test_overflow_is_infinity():
    far = [np.full((3, 2), value, np.float32) for value in (0, 1e30)]
    assert dtw.dtw_pairwise_distance(far).tolist() == [[0, np.inf], [np.inf, 0]]
    assert dtw.dtw_distance(*far) == np.inf
    with pytest.raises(ValueError, match="dtw_alignment_path: accumulated costs must fit float32, got inf"):
        dtw.dtw_alignment_path(*far)
    assert np.isfinite(dtw.dtw_distance(*far, dtype=np.float64))


@pytest.mark.parametrize("shapes", [(1, 1), (1, 6), (25, 9), (30, 30)])
@pytest.mark.parametrize("window", [None, 1])
def test_path_is_valid_and_costs_the_distance(collection, shapes, window):
    x, y = collection(list(shapes), 3)
    path, distance = dtw.dtw_alignment_path(x, y, window)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [len(x) - 1, len(y) - 1]
    assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(0, 1), (1, 0), (1, 1)}
    cost = ((x[path[:, 0]] - y[path[:, 1]]) ** 2).sum()
    assert distance == dtw.dtw_distance(x, y, window)
    assert np.sqrt(cost) == pytest.approx(distance, rel=1e-12)
    assert dtw.dtw_alignment_path(x, y, window, squared=True)[1] == pytest.approx(cost, rel=1e-12)


def test_many_small_panels_change_nothing(collection, monkeypatch):
    x = collection(list(np.random.default_rng(0).integers(5, 60, 50)), 4)
    want = dtw.dtw_pairwise_distance(x, 5)
    monkeypatch.setattr("stgcn_fast.dtw._engine._PANEL_BYTES", 1)
    monkeypatch.setattr("stgcn_fast.dtw._engine._GROUP", 3)
    monkeypatch.setattr("stgcn_fast.dtw._engine._TASK", 1.0)
    np.testing.assert_array_equal(dtw.dtw_pairwise_distance(x, 5, n_jobs=3), want)
    np.testing.assert_array_equal(dtw.dtw_cdist(x[:7], x[7:], 5, n_jobs=3), want[:7, 7:])


def test_narrow_vectors_agree(collection):
    """The code for a processor without AVX (other lanes, another tile) gives the same numbers."""
    program = (
        "import numpy as np\n"
        "from stgcn_fast import dtw\n"
        "from stgcn_fast.dtw._vectors import VECTOR_BYTES\n"
        "rng = np.random.default_rng(0)\n"
        "x = [np.cumsum(rng.normal(size=(t, 3)), 0) for t in (30, 7, 19, 4, 11)]\n"
        "print(VECTOR_BYTES, dtw.dtw_pairwise_distance(x, 3).sum(), dtw.dtw_distance(x[0], x[2]))\n"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    width, total, single = result.stdout.split()
    rng = np.random.default_rng(0)
    x = [np.cumsum(rng.normal(size=(t, 3)), 0) for t in (30, 7, 19, 4, 11)]
    assert width == "16"
    assert float(total) == pytest.approx(dtw.dtw_pairwise_distance(x, 3).sum(), rel=1e-13)
    assert float(single) == pytest.approx(dtw.dtw_distance(x[0], x[2]), rel=1e-13)
