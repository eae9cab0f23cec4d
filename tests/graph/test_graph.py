"""Graph: partitions, normalisations, parity with the public code's figures, configurations."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.graph import PARTITIONS, Graph, Layout, get_layout, hop_distances, list_layouts

MIRRORED = [name for name in list_layouts() if get_layout(name).left]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """A random tree with a mirrored pair, joints in random order."""
    size = draw(st.integers(3, 12))
    order = draw(st.permutations(range(size)))
    edges = [(order[i], order[draw(st.integers(0, i - 1))]) for i in range(1, size)]
    joints = tuple(f"j{i}" for i in range(size))
    return Layout("drawn", joints, tuple(edges), draw(st.sampled_from(order)), (order[1],), (order[2],))


def relabelled(layout: Layout, new: list[int]) -> Layout:
    """The same skeleton with joint i renamed to new[i]."""
    joints = [""] * layout.num_joints
    for old, joint in enumerate(layout.joints):
        joints[new[old]] = joint
    move = lambda indices: tuple(new[i] for i in indices)  # noqa: E731
    edges = tuple(move(edge) for edge in layout.edges)
    return Layout("moved", tuple(joints), edges, new[layout.centre], move(layout.left), move(layout.right))


@given(layouts(), st.integers(1, 3), st.sampled_from(PARTITIONS))
def test_subsets_are_disjoint_and_cover_the_neighbourhood(layout: Layout, reach: int, partition: str) -> None:
    A = Graph(layout, partition, reach, "none").A
    assert set(np.unique(A)) <= {0, 1}
    assert A.sum(0).max() == 1
    hops = hop_distances(layout)
    covered = A.sum(0) > 0
    assert covered[hops <= reach].all()
    if partition != "symmetric":
        assert not covered[hops > reach].any()
    if partition != "uniform":
        np.testing.assert_array_equal(A[0], np.eye(layout.num_joints))
    assert (
        len(A)
        == {"uniform": 1, "distance": reach + 1, "spatial": 2 * reach + 1, "symmetric": reach + 1}[partition]
    )


@given(layouts(), st.integers(1, 3), st.sampled_from(PARTITIONS), st.booleans())
def test_column_normalisation_gives_unit_columns(
    layout: Layout, reach: int, partition: str, cap: bool
) -> None:
    A = Graph(layout, partition, reach, "column", hop_cap=cap).A
    np.testing.assert_allclose(A.sum((0, 1)), 1, rtol=1e-6)


@given(layouts(), st.integers(1, 3), st.sampled_from(["symmetric", "symmetric_rows", "none"]))
def test_undirected_partitions_are_symmetric(layout: Layout, reach: int, normalization: str) -> None:
    for partition in ("uniform", "distance", "symmetric"):
        A = Graph(layout, partition, reach, normalization).A
        np.testing.assert_array_equal(A, A.transpose(0, 2, 1))


@given(layouts(), st.integers(1, 3))
def test_spatial_subsets_of_a_tree_are_each_others_transpose(layout: Layout, reach: int) -> None:
    A = Graph(layout, "spatial", reach, "none").A
    hops = hop_distances(layout)
    for hop in range(1, reach + 1):
        outward, inward = A[2 * hop - 1], A[2 * hop]
        tied = (hops == hop) & (hops[layout.centre][:, None] == hops[layout.centre][None])
        np.testing.assert_array_equal(outward - tied, inward.T)


@given(layouts(), st.data(), st.sampled_from(PARTITIONS), st.integers(1, 2))
def test_relabelling_joints_relabels_the_matrices(
    layout: Layout, data: st.DataObject, partition: str, reach: int
) -> None:
    new = data.draw(st.permutations(range(layout.num_joints)))
    radius = np.linspace(0.5, 2, layout.num_joints) if partition == "spatial" else None
    moved_radius = None if radius is None else radius[np.argsort(new)]
    before = Graph(layout, partition, reach, joint_distances=radius).A
    after = Graph(relabelled(layout, new), partition, reach, joint_distances=moved_radius).A
    np.testing.assert_allclose(after[:, new][:, :, new], before, rtol=1e-6)


@pytest.mark.parametrize("name", MIRRORED)
def test_symmetric_partition_is_that_of_its_definition(name: str) -> None:
    layout = get_layout(name)
    A = Graph(layout, "symmetric", normalization="none").A
    neighbours = hop_distances(layout) == 1
    for joint in range(layout.num_joints):
        near = np.flatnonzero(neighbours[joint])
        expected = set(near) | {layout.mirror[n] for n in near} | {layout.mirror[joint]}
        assert set(np.flatnonzero(A[1, :, joint])) == expected - {joint}


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("name", [n for n in MIRRORED if n != "natops8"])
def test_mirroring_a_body_leaves_its_graph_alone(name: str, partition: str) -> None:
    A, mirror = Graph(name, partition).A, get_layout(name).mirror
    np.testing.assert_array_equal(A[:, mirror][:, :, mirror], A)


@pytest.mark.parametrize(
    ("layout", "options", "nonzeros"),
    [
        ("ntu25", {"hop_cap": True}, [25, 40, 8]),
        ("ntu25", {}, [25, 24, 24]),
        ("openpose18", {"hop_cap": True}, [18, 25, 9]),
        ("openpose18", {}, [18, 17, 17]),
        ("body25", {"partition": "symmetric"}, [25, 102]),
        ("ntu25", {"partition": "distance"}, [25, 48]),
        ("ntu25", {"partition": "uni"}, [73]),
    ],
)
@pytest.mark.parametrize("normalization", ["column", "symmetric", "none"])
def test_known_numbers_of_entries(
    layout: str, options: dict, nonzeros: list[int], normalization: str
) -> None:
    A = Graph(layout, **options, normalization=normalization).A
    assert [np.count_nonzero(subset) for subset in A] == nonzeros


def test_orientation_is_source_first() -> None:
    chain = Layout("chain", ("centre", "middle", "tip"), ((1, 0), (2, 1)), 0)
    A = Graph(chain, normalization="none").A
    # Subset 1 reads from joints further out, subset 2 from joints nearer to the centre.
    np.testing.assert_array_equal(A[1], [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(A[2], [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_symmetric_normalisation_is_the_papers_formula_on_undirected_subsets() -> None:
    plain = Graph("body25", "distance", 2, "none").A.astype(np.float64)
    for alpha in (1e-3, 0.5):
        expected = []
        for subset in plain:
            root = np.diag((subset.sum(1) + alpha) ** -0.5)
            expected.append(root @ subset @ root)
        for name in ("symmetric", "symmetric_rows"):
            np.testing.assert_allclose(Graph("body25", "distance", 2, name, alpha).A, expected, rtol=1e-6)


def test_symmetric_normalisation_of_directed_subsets() -> None:
    A = Graph("ntu25", normalization="symmetric").A
    assert A.max() < 1
    np.testing.assert_allclose(A[1], A[2].T, rtol=1e-6)
    to_the_letter = Graph("ntu25", normalization="symmetric_rows").A
    plain = Graph("ntu25", normalization="none").A[2].astype(np.float64)
    root = np.diag((plain.sum(1) + 1e-3) ** -0.5)
    np.testing.assert_allclose(to_the_letter[2], root @ plain @ root, rtol=1e-6)
    assert to_the_letter.max() > 20


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_kth_codes_normalisation_is_dense(partition: str) -> None:
    plain = Graph("body25", partition, normalization="none").A.astype(np.float64)
    expected = []
    for subset in plain:
        rows = subset.T  # the code has targets first
        power = (np.diag(rows.sum(1)) + 1e-3) ** -0.5  # entry by entry, zeros beside the diagonal included
        expected.append((power @ rows @ power).T)
    A = Graph("body25", partition, normalization="kth_code").A
    np.testing.assert_allclose(A, expected, rtol=1e-6)
    assert 1.8e4 < A.min() < A.max() < 9.8e4


def test_measured_distances_decide_who_is_nearer() -> None:
    radius = np.arange(25, dtype=float)
    A = Graph("ntu25", normalization="none", joint_distances=radius).A
    v, w = np.nonzero(A[1])
    assert (v > w).all()
    v, w = np.nonzero(A[2])
    assert (v < w).all()
    hops = hop_distances(get_layout("ntu25"))[20]
    np.testing.assert_array_equal(Graph("ntu25", joint_distances=hops).A, Graph("ntu25").A)


def test_hop_distances_with_a_cycle() -> None:
    ring = Layout("ring", tuple("abcde"), ((1, 0), (2, 1), (3, 2), (4, 3), (4, 0)), 0)
    assert hop_distances(ring)[0].tolist() == [0, 1, 2, 2, 1]
    assert hop_distances(ring, cap=1)[0].tolist() == [0, 1, np.inf, np.inf, 1]


@pytest.mark.parametrize(
    "graph",
    [
        Graph("ntu25", hop_cap=True, normalization="column"),
        Graph("natops8", "distance", 3, alpha=0.1),
        Graph("coco17", joint_distances=np.linspace(1, 2, 17)),
        Graph(Layout("mine", ("a", "b"), ((1, 0),), 0, (0,), (1,)), "symmetric"),
        Graph.from_adjacency(np.random.default_rng(0).normal(size=(2, 21, 21)), "hand21"),
    ],
    ids=repr,
)
def test_graphs_survive_json_pickle_and_copies(graph: Graph) -> None:
    back = Graph.from_config(json.loads(json.dumps(graph.config)))
    assert back == graph == pickle.loads(pickle.dumps(graph)) == copy.deepcopy(graph)
    assert hash(back) == hash(graph)
    assert not copy.deepcopy(graph).A.flags.writeable
    assert back.config == graph.config


def test_adjacency_is_a_fresh_tensor_and_A_read_only() -> None:
    graph = Graph("hand21")
    first = graph.adjacency()
    assert first.dtype == torch.float32
    assert graph.adjacency(torch.float64).dtype == torch.float64
    first.zero_()
    assert graph.adjacency().any()
    with pytest.raises(ValueError, match="read-only"):
        graph.A[0] = 0
    assert graph != Graph("hand21", "uniform")
    assert graph != "hand21"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "ntu"}, ValueError, r"layout must be one of .*, got 'ntu'"),
        ({"layout": 25}, TypeError, "layout must be a name or a Layout, got int"),
        ({"partition": "radial"}, ValueError, "one of uniform, distance, spatial, symmetric, got 'radial'"),
        ({"normalization": "row"}, ValueError, "normalization must be one of"),
        ({"max_distance": 0}, ValueError, "at least 1, got 0"),
        ({"max_distance": 26}, ValueError, "at most the number of joints, 25, got 26"),
        ({"max_distance": 1.0}, TypeError, "max_distance must be an integer"),
        ({"alpha": 0.0}, ValueError, "alpha must be positive"),
        ({"alpha": "x"}, TypeError, "alpha must be a number"),
        ({"layout": "hand21", "partition": "symmetric"}, ValueError, "left and right joints.*'hand21'"),
        ({"joint_distances": [1.0, 2.0]}, ValueError, r"shape \[25\] for layout 'ntu25', got \[2\]"),
        ({"joint_distances": [np.nan] * 25}, ValueError, "finite"),
        (
            {"joint_distances": [1.0] * 25, "partition": "uniform"},
            ValueError,
            "unless partition is 'spatial'",
        ),
        ({"joint_distances": [1.0] * 25, "hop_cap": True}, ValueError, "hop_cap must be False"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Graph(**{"layout": "ntu25", **options})
    assert "\n" not in str(caught.value)


def test_bad_configurations_and_matrices() -> None:
    with pytest.raises(ValueError, match="must have a layout"):
        Graph.from_config({"partition": "uniform"})
    with pytest.raises(ValueError, match="known keys, got partitions"):
        Graph.from_config({"layout": "ntu25", "partitions": 3})
    with pytest.raises(ValueError, match=r"must lie in \[1, 8, 8\], got \[0, 9, 0\]"):
        Graph.from_config({"layout": "natops8", "num_partitions": 1, "entries": [[0, 9, 0, 1.0]]})
    with pytest.raises(ValueError, match=r"shape \[K, 8, 8\] for layout 'natops8', got \[1, 7, 7\]"):
        Graph.from_adjacency(np.ones((1, 7, 7)), "natops8")
    with pytest.raises(ValueError, match="finite"):
        Graph.from_adjacency(np.full((1, 8, 8), np.nan), "natops8")
