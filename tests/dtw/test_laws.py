"""What holds for every input."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stgcn_fast import dtw

numbers = st.floats(-100, 100, width=32)


@st.composite
def collections(draw, most=6, same_length=False):
    features = draw(st.sampled_from([1, 2, 5]))
    count = draw(st.integers(2, most))
    length = draw(st.integers(1, 12))
    return [
        draw(
            hnp.arrays(
                np.float64, (length if same_length else draw(st.integers(1, 12)), features), elements=numbers
            )
        )
        for _ in range(count)
    ]


@given(collections(), st.sampled_from([None, 0, 0.3]))
def test_symmetric_nonnegative_zero_on_identity(x, window):
    d = dtw.dtw_pairwise_distance([*x, x[0].copy()], window)
    np.testing.assert_array_equal(d, d.T)
    np.testing.assert_array_equal(np.diag(d), 0)
    assert d[0, -1] == 0
    assert (d >= 0).all()


@given(collections())
def test_a_wider_band_is_never_larger(x):
    longest = max(map(len, x))
    tables = [dtw.dtw_pairwise_distance(x, window) for window in range(longest + 1)]
    for narrow, wide in itertools.pairwise(tables):
        assert (wide <= narrow).all()
    full = dtw.dtw_pairwise_distance(x)
    np.testing.assert_array_equal(tables[-1], full)
    np.testing.assert_array_equal(dtw.dtw_pairwise_distance(x, 1.0), full)


@given(collections())
def test_a_wider_band_of_another_kind_is_never_larger(x):
    longest = max(map(len, x))
    full = dtw.dtw_pairwise_distance(x)
    slanted = [dtw.dtw_pairwise_distance(x, window, band="slanted") for window in range(longest + 1)]
    steep = [
        dtw.dtw_pairwise_distance(x, band="itakura", max_slope=slope) for slope in (1.0, 1.5, 2.0, 4.0, 50.0)
    ]
    for tables in slanted, steep:
        for narrow, wide in itertools.pairwise([*tables, full]):
            assert (wide <= narrow).all()
            np.testing.assert_array_equal(narrow, narrow.T)
            np.testing.assert_array_equal(np.diag(narrow), 0)
    np.testing.assert_array_equal(slanted[-1], full)


@given(collections(), st.sampled_from([None, 0, 0.3]))
def test_means_lie_between_the_sums_over_both_lengths(x, window):
    means = dtw.dtw_pairwise_distance(x, window, normalize="path", squared=True)
    sums = dtw.dtw_pairwise_distance(x, window, squared=True)
    n = np.array([len(a) for a in x])
    np.testing.assert_array_equal(means, means.T)
    assert (means * np.maximum(n[:, None], n) <= sums * (1 + 1e-12)).all()
    assert (means * (n[:, None] + n - 1) >= sums * (1 - 1e-12)).all()


@given(collections(same_length=True))
def test_without_a_band_it_is_euclidean(x):
    for a in x:
        np.testing.assert_allclose(dtw.dtw_distance(a, x[0], 0), np.linalg.norm(a - x[0]), rtol=1e-12)


@given(collections(), st.randoms())
def test_order_of_sequences_and_features_does_not_matter(x, random):
    d = dtw.dtw_pairwise_distance(x, 0.5)
    order = random.sample(range(len(x)), len(x))
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance([x[i] for i in order], 0.5), d[np.ix_(order, order)]
    )
    features = random.sample(range(x[0].shape[1]), x[0].shape[1])
    np.testing.assert_allclose(dtw.dtw_pairwise_distance([a[:, features] for a in x], 0.5), d, rtol=1e-12)


@given(collections(most=2), st.sampled_from([None, 0, 1]))
def test_path_matrix_and_distance_belong_together(x, window):
    a, b = x[:2]
    path, distance = dtw.dtw_alignment_path(a, b, window)
    matrix = dtw.dtw_cost_matrix(a, b, window)
    assert distance == dtw.dtw_distance(a, b, window) == np.sqrt(matrix[-1, -1])
    assert np.isfinite(matrix[tuple(path.T)]).all()
    np.testing.assert_allclose(
        ((a[path[:, 0]] - b[path[:, 1]]) ** 2).sum(), matrix[-1, -1], rtol=1e-12, atol=1e-12
    )


@given(collections(), st.integers(2, 4))
def test_scaling_scales(x, factor):
    d = dtw.dtw_pairwise_distance(x)
    np.testing.assert_allclose(dtw.dtw_pairwise_distance([factor * a for a in x]), factor * d, rtol=1e-12)


@given(collections())
def test_repeating_frames_costs_nothing(x):
    slow = [np.repeat(a, 2, axis=0) for a in x]
    assert [dtw.dtw_distance(a, b) for a, b in zip(x, slow)] == [0] * len(x)
