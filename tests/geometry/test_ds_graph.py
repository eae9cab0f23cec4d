"""DS-Graphs: with all distances and without, and the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stgcn_fast.dtw import WindowedDTW
from stgcn_fast.geometry import Settings, ds_graph, embed_plane, label_smoothness, nnk_graph, windows_for


@pytest.fixture(scope="module")
def clips() -> tuple[list[Any], Any]:
    """Features of 40 clips of two kinds of motion, of several lengths; some shorter than a window."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    sequences = []
    for label in labels:
        length = int(rng.integers(3, 30))
        wave = np.sin(np.linspace(0, 3 + 5 * label, length))[:, None]
        sequences.append((wave + 0.1 * rng.normal(size=(length, 4))).astype(np.float32))
    return sequences, labels


def test_without_all_distances_the_graph_is_the_same(clips: Any) -> None:
    sequences, labels = clips
    dtw = WindowedDTW(4, 2)
    whole = ds_graph(sequences, 6, dtw=dtw)
    parts = ds_graph(sequences, 6, dtw=dtw, full=False)
    assert parts.distances is None
    assert np.array_equal(whole.graph.edges, parts.graph.edges)
    assert np.allclose(whole.graph.weights, parts.graph.weights, atol=1e-7)
    assert whole.distances is not None
    assert np.array_equal(whole.distances, dtw.pairwise(sequences))
    assert whole.embedding is not None
    assert parts.embedding is not None
    assert np.allclose(whole.embedding, parts.embedding, atol=1e-4)
    assert label_smoothness(whole.graph, labels).value < 0.2


def test_settings_reach_the_graph(clips: Any) -> None:
    sequences, _ = clips
    found = ds_graph(sequences, 5, settings=Settings(solver="pruned", symmetrize="max"), embed=False)
    assert found.embedding is None
    expected = nnk_graph(found.distances, 5, solver="pruned", symmetrize="max")
    assert np.array_equal(found.graph.dense(), expected.dense())


def test_default_windows() -> None:
    assert windows_for(300) == WindowedDTW(16, 8)
    assert windows_for(20) == WindowedDTW(1, 1)


def test_the_plane_keeps_plane_distances() -> None:
    places = np.random.default_rng(0).normal(size=(20, 2)) * [3, 1]
    table = np.sqrt(((places[:, None] - places) ** 2).sum(-1))
    found = embed_plane(table)
    assert np.allclose(np.sqrt(((found[:, None] - found) ** 2).sum(-1)), table)
    assert found[:, 0].std() > found[:, 1].std()
    marked = embed_plane(table[:6, :6], table[:, :6])
    assert np.allclose(np.sqrt(((marked[:, None] - marked) ** 2).sum(-1)), table)
    assert embed_plane(np.zeros((3, 3))).tolist() == [[0, 0]] * 3


def test_bad_input(clips: Any) -> None:
    sequences, _ = clips
    with pytest.raises(ValueError, match=r"^ds_graph: k must be from 1 to 39 for 40 nodes, got 40$"):
        ds_graph(sequences, 40)
    with pytest.raises(ValueError, match=r"^ds_graph: sequences must be at least two, got 1$"):
        ds_graph(sequences[:1])
