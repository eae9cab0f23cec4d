"""NNK graphs: optimality, SciPy, the released heuristic, edges, duplicates, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.geometry import NNKGraph, nnk_graph


def distances_of(points: Any) -> Any:
    return np.sqrt(((points[:, None] - points) ** 2).sum(-1))


def problem(distances: Any, graph: NNKGraph, i: int) -> tuple[Any, Any]:
    """K_SS with what was added to it, and K_Si."""
    members, scale = graph.indices[i], 0.5 / graph.sigma[i] ** 2
    kernel = np.exp(-(distances[np.ix_(members, members)] ** 2) * scale)
    return kernel + graph.added[i] * np.eye(len(members)), np.exp(-(distances[i, members] ** 2) * scale)


def kkt_residual(kernel: Any, towards: Any, theta: Any) -> float:
    """Largest violation of: theta >= 0, gradient >= 0, theta * gradient = 0."""
    gradient = kernel @ theta - towards
    return float(max(np.max(-theta), np.max(-gradient), np.max(np.abs(theta * gradient))))


@pytest.fixture(scope="module")
def points() -> Any:
    return np.random.default_rng(0).normal(size=(150, 5))


@pytest.mark.parametrize("per_node", [False, True])
@pytest.mark.parametrize("k", [1, 5, 15, 50])
def test_weights_are_optimal_and_equal_scipy(points: Any, k: int, per_node: bool) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    distances = distances_of(points)
    graph = nnk_graph(distances, k, per_node=per_node)
    for i in range(len(points)):
        kernel, towards = problem(distances, graph, i)
        assert kkt_residual(kernel, towards, graph.theta[i]) <= 1e-8
        # min |L' theta - L^-1 b| has the same solution.
        lower = np.linalg.cholesky(kernel)
        expected, _ = optimize.nnls(lower.T, np.linalg.solve(lower, towards))
        assert kkt_residual(kernel, towards, expected) <= 1e-8
        assert np.allclose(graph.theta[i], expected, atol=1e-6)
        error = 1 - 2 * expected @ towards + expected @ (kernel - graph.added[i] * np.eye(k)) @ expected
        assert graph.errors[i] == pytest.approx(error, abs=1e-6)


def heuristic(kernel: Any, towards: Any, tolerance: float = 1e-6) -> Any:
    """The released steps, from their description."""
    same = towards > 1 - tolerance
    if same.any():
        return np.where(same, towards, 0)
    free = towards > tolerance
    for _ in range(50 * len(towards)):
        theta = np.zeros(len(towards))
        if free.any():
            theta[free] = np.linalg.solve(kernel[np.ix_(free, free)], towards[free])
        low = theta < tolerance
        worst = np.abs(theta[low]).max() if low.any() else 0
        free &= theta > tolerance
        if worst <= tolerance:
            break
    return np.where(theta < tolerance, 0, theta)


def test_pruned_equals_a_transcription(points: Any) -> None:
    twice = np.concatenate([points, points[:3]])
    distances = distances_of(twice)
    graph = nnk_graph(distances, 15, solver="pruned")
    exact = nnk_graph(distances, 15)
    violations = 0
    for i in range(len(twice)):
        kernel, towards = problem(distances, graph, i)
        assert np.allclose(graph.theta[i], heuristic(kernel, towards), atol=1e-9)
        violations += kkt_residual(kernel, towards, graph.theta[i]) > 1e-4
    assert violations > 0  # it is no exact solver
    assert (exact.errors <= graph.errors + 1e-9).all()


def test_weights_by_hand() -> None:
    """A neighbour behind another one in the same direction gets no weight."""
    place = np.array([0.0, 1.0, 2.0, -1.0])
    graph = nnk_graph(np.abs(place[:, None] - place), 3, sigma=1.0, symmetrize="none")
    weights = graph.dense()[0]
    assert weights[2] == 0
    near, apart = np.exp(-0.5), np.exp(-2.0)
    assert weights[[1, 3]] == pytest.approx(near / (1 + apart))


def edges_by_hand(graph: NNKGraph, rule: str) -> Any:
    """Edges from theta, entry by entry."""
    n = graph.nodes
    theta, candidate = np.zeros((n, n)), np.zeros((n, n), bool)
    for i in range(n):
        theta[i, graph.indices[i]] = graph.theta[i]
        candidate[i, graph.indices[i]] = True
    if rule == "none":
        return theta
    if rule != "reference":
        return {"max": np.maximum(theta, theta.T), "min": np.minimum(theta, theta.T)}.get(
            rule, (theta + theta.T) / 2
        )
    kept = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if candidate[i, j] and candidate[j, i] and graph.errors[i] <= graph.errors[j]:
                kept[i, j] = theta[i, j]
    return np.maximum(kept, kept.T)


@pytest.mark.parametrize("rule", ["reference", "max", "mean", "min", "none"])
def test_symmetrisation(points: Any, rule: Any) -> None:
    graph = nnk_graph(distances_of(points), 10, symmetrize=rule)
    dense = graph.dense()
    assert np.allclose(dense, edges_by_hand(graph, rule))
    assert np.allclose(dense, dense.T) == (rule != "none")
    again = nnk_graph(distances_of(points), 10).with_symmetry(rule)
    assert np.array_equal(again.dense(), dense)
    assert np.array_equal(graph.csr().toarray(), dense)
    assert np.allclose(graph.degrees, dense.sum(1))
    assert (graph.weights > 0).all()


@given(st.integers(3, 12), st.integers(1, 6), st.integers(0, 2**31), st.floats(0.3, 30))
def test_laws(count: int, k: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, count - 1)
    points = rng.normal(size=(count, 2))
    distances = distances_of(points)
    graph = nnk_graph(distances, k)
    assert ((graph.errors >= 0) & (graph.errors <= 1)).all()
    # The width follows the scale, and the order of items is a matter of names.
    wider = nnk_graph(distances * scale, k)
    assert np.allclose(wider.dense(), graph.dense(), atol=1e-6)
    order = rng.permutation(count)
    moved = nnk_graph(distances[np.ix_(order, order)], k)
    assert np.allclose(moved.dense(), graph.dense()[np.ix_(order, order)], atol=1e-6)
    # More candidates never make a reconstruction worse, all else equal.
    if k + 1 < count:
        more = nnk_graph(distances, k + 1, sigma=float(graph.sigma[0]))
        same = nnk_graph(distances, k, sigma=float(graph.sigma[0]))
        assert (more.errors <= same.errors + 1e-6).all()


@pytest.mark.parametrize("solver", ["nnls", "pruned"])
def test_duplicates(solver: Any) -> None:
    """Zero distances: the kernel is singular, and copies reconstruct each other."""
    base = np.random.default_rng(1).normal(size=(6, 3))
    points = np.repeat(base, 4, 0)
    graph = nnk_graph(distances_of(points), 6, sigma=0.5, solver=solver)
    assert np.isfinite(graph.theta).all()
    assert (graph.errors < 1e-4).all() or solver == "pruned"
    assert (graph.added > 0).all()
    for i, members in enumerate(graph.indices):
        assert set(members[:3] // 4) == {i // 4}
        assert graph.theta[i, :3].min() > 0.1
    # Copies stay neighbours although their errors are equal.
    assert all(graph.dense()[i, (i // 4) * 4 + (i + 1) % 4] > 0 for i in range(24))


def test_distances_that_are_no_metric() -> None:
    rng = np.random.default_rng(2)
    table = rng.random((40, 40)) + 0.1
    table = (table + table.T) * (1 - np.eye(40))
    graph = nnk_graph(table, 20)
    assert (graph.added > 0).any()
    for i in range(40):
        assert kkt_residual(*problem(table, graph, i), graph.theta[i]) <= 1e-8


def test_a_matrix_on_disk(points: Any, tmp_path: Any) -> None:
    distances = distances_of(points)
    np.save(tmp_path / "d.npy", distances)
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    assert np.array_equal(nnk_graph(mapped).dense(), nnk_graph(distances).dense())


def test_bad_input(points: Any) -> None:
    distances = distances_of(points[:8])
    with pytest.raises(ValueError, match=r"^nnk_graph: k must be from 1 to 7 for 8 nodes, got 8$"):
        nnk_graph(distances, 8)
    with pytest.raises(TypeError, match=r"^nnk_graph: k must be an int, got 2.0$"):
        nnk_graph(distances, 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"distances must have shape \[N, N\], N at least 2, got \[8, 3\]$"):
        nnk_graph(distances[:, :3])
    with pytest.raises(ValueError, match=r"^nnk_graph: distances must be symmetric, got others$"):
        nnk_graph(distances + np.triu(np.ones((8, 8)), 1), 2)
    with pytest.raises(ValueError, match=r"^nnk_graph: distances must be finite and at least 0, got others$"):
        nnk_graph(np.full((4, 4), np.nan), 2)
    with pytest.raises(ValueError, match=r"must not all be zero without sigma, got zeros$"):
        nnk_graph(np.zeros((4, 4)), 2)
    with pytest.raises(ValueError, match=r"^nnk_graph: sigma must be positive, got 0$"):
        nnk_graph(distances, 2, sigma=0)
    with pytest.raises(ValueError, match=r"^nnk_graph: solver must be one of nnls, pruned, got 'pgd'$"):
        nnk_graph(distances, 2, solver="pgd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^nnk_graph: symmetrize must be one of reference, max, mean"):
        nnk_graph(distances, 2, symmetrize="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^nnk_graph: sigma must be None with per_node, got 1.0$"):
        nnk_graph(distances, 2, sigma=1.0, per_node=True)
