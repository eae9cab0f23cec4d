"""Label smoothness against its matrix form, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.geometry import label_smoothness, nnk_graph

KINDS = ("rw", "quad", "sym", "rmse")


def by_matrices(W: Any, labels: Any, kind: str) -> float:
    there = W.sum(1) > 0
    Y, W = np.eye(labels.max() + 1)[labels][there], W[np.ix_(there, there)]
    D, n = W.sum(1), len(W)
    if kind == "rw":
        return float(np.trace(Y.T @ (np.eye(n) - W / D[:, None]) @ Y) / n)
    if kind == "quad":
        return float(np.trace(Y.T @ (np.diag(D) - W) @ Y) / W.sum())
    if kind == "sym":
        return float(np.trace(Y.T @ (np.eye(n) - W / np.sqrt(D[:, None] * D)) @ Y) / n)
    return float(np.sqrt(((Y - W / D[:, None] @ Y) ** 2).mean(1)).mean())


@given(st.integers(4, 14), st.integers(2, 4), st.integers(0, 2**31))
def test_equals_the_matrix_form(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    W = np.triu(rng.random((count, count)) * (rng.random((count, count)) < 0.5), 1)
    W[0, 1] = 1
    W = W + W.T
    labels = rng.integers(0, classes, count)
    labels[:2] = 0, classes - 1
    for kind in KINDS:
        found = label_smoothness(W, labels, kind)
        assert found.value == pytest.approx(by_matrices(W, labels, kind), abs=1e-9)
        assert found.isolated == (W.sum(1) == 0).sum()
        assert float(found) == found.value
        # Labels are names.
        assert label_smoothness(W, classes - 1 - labels, kind).value == pytest.approx(found.value, abs=1e-9)
        if kind != "sym":
            assert 0 <= found.value <= 1
    # The mean over classes by their sizes is the whole.
    rw, sizes = label_smoothness(W, labels), np.bincount(labels[W.sum(1) > 0], minlength=classes)
    per_class = np.nan_to_num(rw.per_class[: len(sizes)])
    assert (per_class * sizes[: len(per_class)]).sum() / sizes.sum() == pytest.approx(rw.value)


def test_limits() -> None:
    labels = np.array([0, 0, 1, 1])
    within, across = np.zeros((4, 4)), np.zeros((4, 4))
    within[[0, 1, 2, 3], [1, 0, 3, 2]] = 2.0
    across[[0, 2, 1, 3], [2, 0, 3, 1]] = 0.5
    for kind in KINDS:
        assert label_smoothness(within, labels, kind).value == pytest.approx(0, abs=1e-12)
        assert label_smoothness(across, labels, kind).value == pytest.approx(1)


def test_isolated_nodes_and_absent_classes() -> None:
    W = np.zeros((5, 5))
    W[0, 1] = W[1, 0] = 1
    found = label_smoothness(W, [0, 1, 1, 3, 3])
    assert found.isolated == 3
    assert found.value == 1
    assert found.per_class[:2].tolist() == [1, 1]
    assert np.isnan(found.per_class[2:]).all()


def test_every_form_of_a_graph() -> None:
    points = np.random.default_rng(0).normal(size=(30, 2))
    labels = (points[:, 0] > 0).astype(int)
    graph = nnk_graph(np.sqrt(((points[:, None] - points) ** 2).sum(-1)), 6)
    for kind in KINDS:
        value = label_smoothness(graph, labels, kind).value
        assert label_smoothness(graph.dense(), labels, kind).value == pytest.approx(value)
        assert label_smoothness(graph.csr(), labels, kind).value == pytest.approx(value)
    assert label_smoothness(graph, labels).value < 0.3


def test_bad_input() -> None:
    W = np.ones((3, 3)) - np.eye(3)
    with pytest.raises(ValueError, match=r"^label_smoothness: labels must hold at least two classes, got 1$"):
        label_smoothness(W, [1, 1, 1])
    with pytest.raises(ValueError, match=r"labels must be 3 integers from 0, got shape \[2\]$"):
        label_smoothness(W, [0, 1])
    with pytest.raises(TypeError, match=r"^label_smoothness: labels must be integers, got float64$"):
        label_smoothness(W, [0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"^label_smoothness: kind must be one of rw, quad, sym, rmse"):
        label_smoothness(W, [0, 1, 1], "laplace")
    with pytest.raises(ValueError, match=r"^label_smoothness: graph must be symmetric for 'quad'"):
        label_smoothness(np.triu(W), [0, 1, 1], "quad")
    with pytest.raises(ValueError, match=r"^label_smoothness: graph must have edges, got none$"):
        label_smoothness(np.zeros((3, 3)), [0, 1, 1])
    with pytest.raises(ValueError, match=r"^label_smoothness: graph must have finite weights of at least 0"):
        label_smoothness(-W, [0, 1, 1])
    with pytest.raises(ValueError, match=r"^label_smoothness: graph must have shape \[N, N\], got \[3, 2\]$"):
        label_smoothness(W[:, :2], [0, 1, 1])
