"""Slanted bands and Itakura parallelograms on every verb, and means along the path."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tslearn.metrics import dtw as tslearn_dtw
from tslearn.metrics import itakura_mask

from stgcn_fast import dtw

LENGTHS = [1, 2, 3, 5, 8, 16, 17, 33, 50, 81]
BANDS = [
    {"band": "slanted", "window": 0},
    {"band": "slanted", "window": 1},
    {"band": "slanted", "window": 0.25},
    {"band": "itakura"},
    {"band": "itakura", "max_slope": 1.3},
]


def slanted(n, m, window):
    """Column by column of the longer one, as aeon fills its matrix."""
    if n > m:
        return slanted(m, n, window).T
    radius = window if isinstance(window, int) else int(window * n)
    mask = np.zeros((n, m), bool)
    for step in range(m + 1):
        i, j = math.floor(step / (m + 1) * n), math.floor(step / (m + 1) * m)
        mask[max(0, i - radius) : i + radius + 1, j] = True
    return mask


def itakura(n, m, slope):
    """Cells between the four lines, in the unit square of both sequences."""
    if n == 1 or m == 1:
        x, y = np.zeros((n, m)), np.zeros((n, m))
        if n == m:
            return np.ones((1, 1), bool)
    x = np.arange(n)[:, None] / n
    y = np.arange(m) / m
    dx, dy = (n - 1) / n - x, (m - 1) / m - y
    tiny = 1e-6
    inside = (y <= slope * x + tiny) & (y >= x / slope - tiny)
    return inside & (dy <= slope * dx + tiny) & (dy >= dx / slope - tiny)


def mask_of(n, m, options):
    if options["band"] == "slanted":
        return slanted(n, m, options["window"])
    return itakura(n, m, options.get("max_slope", 2.0))


def textbook(x, y, mask):
    """(g, cells of the shortest best path) of every cell of the mask."""
    best = {(-1, -1): (0.0, 0)}
    for i, j in np.argwhere(mask):
        before = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
        if before:
            total, cells = min(before)
            best[i, j] = total + float(((x[i] - y[j]) ** 2).sum()), cells + 1
    return best.get((len(x) - 1, len(y) - 1), (math.inf, 1))


@pytest.mark.parametrize("features", [1, 3, 600])
@pytest.mark.parametrize("options", BANDS, ids=str)
def test_every_verb_equals_the_textbook(collection, options, features):
    x = collection(LENGTHS, features)
    y = collection(LENGTHS[1::3], features, seed=1)
    matrix = dtw.dtw_pairwise_distance(x, **options, n_jobs=2)
    between = dtw.dtw_cdist(x, y, **options)
    np.testing.assert_array_equal(matrix, matrix.T)
    for i, j in itertools.combinations_with_replacement(range(len(x)), 2):
        want = math.sqrt(textbook(x[i], x[j], mask_of(len(x[i]), len(x[j]), options))[0])
        assert matrix[i, j] == pytest.approx(want, rel=1e-12, abs=1e-12), (i, j)
    for i, j in itertools.product(range(len(x)), range(len(y))):
        limit = options.get("window")
        if isinstance(limit, int) and limit > max(len(x[i]), len(y[j])):
            continue
        assert dtw.dtw_distance(x[i], y[j], **options) == between[i, j]
        table = dtw.dtw_cost_matrix(x[i], y[j], **options)
        assert np.sqrt(table[-1, -1]) == between[i, j]
        assert np.isinf(table[~mask_of(len(x[i]), len(y[j]), options)]).all()
        if np.isfinite(between[i, j]):
            path, distance = dtw.dtw_alignment_path(x[i], y[j], **options)
            assert distance == between[i, j]
            assert mask_of(len(x[i]), len(y[j]), options)[tuple(path.T)].all()
    for got in (
        dtw.dtw_knn(x, y, 2, **options, method="brute"),
        dtw.dtw_knn(x, y, 2, **options, method="bound"),
    ):
        np.testing.assert_array_equal(got[0], np.sort(between, 1)[:, :2])


@pytest.mark.parametrize("slope", [1.2, 2.0, 3.5])
@pytest.mark.parametrize("length", [5, 20, 41])
def test_itakura_agrees_with_tslearn(collection, length, slope):
    x, y = collection([length, length], 3)
    mask = np.asarray(itakura_mask(length, length, slope), bool)
    np.testing.assert_array_equal(mask, itakura(length, length, slope))
    want = tslearn_dtw(x, y, global_constraint="itakura", itakura_max_slope=slope)
    assert dtw.dtw_distance(x, y, band="itakura", max_slope=slope) == pytest.approx(want, rel=1e-9)


# Of aeon 1.6: dtw_distance(sin(0.3 t), sin(0.25 t + 0.4), window=w), whose results are squares.
def test_slanted_of_equal_lengths_is_sakoe_chiba(collection):
    x = collection([40, 40, 40], 4)
    for window in (0, 3, 0.2, 1.0, None):
        np.testing.assert_array_equal(
            dtw.dtw_pairwise_distance(x, window, band="slanted"), dtw.dtw_pairwise_distance(x, window)
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [1, 3, 600])
@pytest.mark.parametrize("options", [{}, {"window": 2}, *BANDS[1:4]], ids=str)
def test_means_along_the_path(collection, options, features, dtype):
    x = collection(LENGTHS, features, dtype)
    matrix = dtw.dtw_pairwise_distance(x, **options, normalize="path", squared=True, n_jobs=2)
    np.testing.assert_array_equal(matrix, matrix.T)
    plain = dtw.dtw_pairwise_distance(x, **options, squared=True)
    for i, j in itertools.combinations(range(len(x)), 2):
        n, m = len(x[i]), len(x[j])
        if isinstance(options.get("window"), int) and options["window"] > max(n, m):
            continue
        single = dtw.dtw_distance(x[i], x[j], **options, normalize="path", squared=True)
        assert single == matrix[i, j]
        if np.isfinite(single):
            path, mean = dtw.dtw_alignment_path(x[i], x[j], **options, normalize="path", squared=True)
            assert mean == single == plain[i, j] / dtype(len(path))
    roots = dtw.dtw_pairwise_distance(x, **options, normalize="path")
    np.testing.assert_array_equal(roots, np.sqrt(matrix))
    values, _, how = dtw.dtw_knn(x, k=3, **options, normalize="path", info=True)
    assert how.method == "brute"
    np.fill_diagonal(roots, np.inf)
    np.testing.assert_array_equal(values[:5], np.sort(roots, 1)[:5, :3])


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9), st.lists(st.integers(0, 3), min_size=1, max_size=9)
)
def test_of_equally_good_paths_the_shortest_counts(a, b):
    x, y = (np.array(s, float)[:, None] for s in (a, b))
    total, cells = textbook(x, y, np.ones((len(x), len(y)), bool))
    assert dtw.dtw_distance(x, y, normalize="path", squared=True) == total / cells
    path, _ = dtw.dtw_alignment_path(x, y)
    assert len(path) == cells
    assert dtw.dtw_cdist([x, x[::-1]], [y], normalize="path", squared=True)[0, 0] == total / cells


def test_the_band_is_kept_on_disk(collection, tmp_path):
    x = collection(LENGTHS, 2)
    options = {"band": "slanted", "window": 0.3, "normalize": "path"}
    out = tmp_path / "m.npy"
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance(x, **options, out=out), dtw.dtw_pairwise_distance(x, **options)
    )
    work = dtw.distance_matrix_record(out)["work"]
    assert (work["band"], work["window"], work["normalize"]) == ("slanted", 0.3, "path")
    for other, word in (
        ({"band": "sakoe_chiba"}, "band slanted, got sakoe_chiba"),
        ({"normalize": None}, "normalize path, got None"),
    ):
        with pytest.raises(ValueError, match=f"dtw_pairwise_distance: out must .* has {word}"):
            dtw.dtw_pairwise_distance(x, **{**options, **other}, out=out)
    two = tmp_path / "two.npy"
    want = dtw.dtw_cdist(x, x[:3], band="itakura", max_slope=3)
    np.testing.assert_array_equal(dtw.dtw_cdist(x, x[:3], band="itakura", max_slope=3, out=two), want)
    with pytest.raises(ValueError, match=r"has max_slope 3.0, got 2.5"):
        dtw.dtw_cdist(x, x[:3], band="itakura", max_slope=2.5, out=two)


def test_a_record_from_before_there_were_bands(collection, tmp_path):
    x = collection(LENGTHS, 2)
    out = tmp_path / "m.npy"
    want = dtw.dtw_pairwise_distance(x, out=out)
    record = json.loads((tmp_path / "m.npy.json").read_text())
    for name in ("band", "max_slope", "normalize"):
        del record["work"][name]
    (tmp_path / "m.npy.json").write_text(json.dumps(record))
    np.testing.assert_array_equal(dtw.dtw_pairwise_distance(x, out=out), want)
    with pytest.raises(ValueError, match="has band sakoe_chiba, got itakura"):
        dtw.dtw_pairwise_distance(x, band="itakura", out=out)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"band": "round"}, "band must be one of sakoe_chiba, slanted, itakura, got 'round'"),
        ({"band": "itakura", "window": 3}, "window must be None with band='itakura', got 3"),
        ({"band": "itakura", "max_slope": 0.5}, "max_slope must be at least 1, got 0.5"),
        ({"max_slope": 3.0}, "max_slope must come with band='itakura', got 3.0"),
        ({"normalize": "mean"}, "normalize must be None or 'path', got 'mean'"),
        ({"band": "slanted", "window": 1.5}, "window as a float must be a share from 0.0 to 1.0, got 1.5"),
    ],
)
def test_bad_input(options, line):
    x = [[0.0, 1.0, 2.0]] * 3
    for call in (
        lambda: dtw.dtw_distance(x[0], x[1], **options),
        lambda: dtw.dtw_alignment_path(x[0], x[1], **options),
        lambda: dtw.dtw_pairwise_distance(x, **options),
        lambda: dtw.dtw_cdist(x, x, **options),
        lambda: dtw.dtw_knn(x, **options),
    ):
        with pytest.raises(ValueError, match=r"^dtw_\w+: ") as caught:
            call()
        assert str(caught.value).split(": ", 1)[1] == line
    with pytest.raises(TypeError, match="max_slope must be a number, got '2'"):
        dtw.dtw_distance(x[0], x[1], band="itakura", max_slope="2")
    with pytest.raises(ValueError, match="method must be auto or brute with normalize='path', got 'bound'"):
        dtw.dtw_knn(x, normalize="path", method="bound")


def test_where_no_path_fits_the_distance_is_infinite():
    x, y = np.zeros((1, 1)), np.zeros((4, 1))
    assert dtw.dtw_distance(x, y, band="itakura") == math.inf
    with pytest.raises(ValueError, match="dtw_alignment_path: band must leave a path, got none from 1 to 4"):
        dtw.dtw_alignment_path(x, y, band="itakura")
