"""Layouts: the register, the laws of a definition, and the joint orders of real recordings."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from stgcn_fast.graph import Layout, get_layout, list_layouts, register_layout

BUILT_IN = {
    "ntu25": 25, "coco17": 17, "openpose18": 18, "body25": 25, "kinect20": 20,
    "utd20": 20, "natops8": 8, "mediapipe33": 33, "hand21": 21,
}  # fmt: skip
TRIANGLE = {"joints": ["a", "b", "c"], "edges": [(1, 0), (2, 0), (2, 1)], "centre": 0}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_layouts_are_symmetric_trees_with_a_root(name: str) -> None:
    layout = get_layout(name)
    assert layout.num_joints == BUILT_IN[name] == len(layout.joints)
    assert layout.parents[layout.root] == layout.root
    np.testing.assert_array_equal(layout.mirror[layout.mirror], np.arange(layout.num_joints))
    bones = {frozenset(edge) for edge in layout.edges}
    assert {frozenset(int(layout.mirror[j]) for j in bone) for bone in bones} == bones
    for i, j in enumerate(layout.mirror):
        sides = layout.joints[i].replace("left", "right"), layout.joints[j].replace("left", "right")
        assert sides[0] == sides[1]
    paired = {i for i, joint in enumerate(layout.joints) if joint.startswith(("left", "right"))}
    assert paired == set(layout.left) | set(layout.right)


def test_parents_of_the_public_layouts() -> None:
    openpose = [1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15]
    assert get_layout("openpose18").parents.tolist() == openpose
    assert get_layout("ntu25").root == get_layout("ntu25").centre == 20
    body = get_layout("body25")
    pairs = [
        (2, 5),
        (3, 6),
        (4, 7),
        (9, 12),
        (10, 13),
        (11, 14),
        (15, 16),
        (17, 18),
        (19, 22),
        (20, 23),
        (21, 24),
    ]
    assert all(body.mirror[a] == b and body.mirror[b] == a for a, b in pairs)


def test_a_second_edge_of_a_child_is_a_connection_but_no_parent() -> None:
    layout = Layout("triangle", **TRIANGLE)
    assert layout.parents.tolist() == [0, 0, 0]
    assert len(layout.edges) == 3


def test_definition_round_trips() -> None:
    for name in list_layouts():
        layout = get_layout(name)
        assert Layout.from_config(json.loads(json.dumps(layout.config))) == layout
        assert pickle.loads(pickle.dumps(layout)) == copy.deepcopy(layout) == layout
        assert [layout.index(joint) for joint in layout.joints] == list(range(layout.num_joints))


def test_register_layout_twice_the_same_is_fine_and_another_is_not() -> None:
    first = register_layout("test_triangle", **TRIANGLE)
    assert register_layout("test_triangle", **TRIANGLE) is first is get_layout("test_triangle")
    assert "test_triangle" in list_layouts()
    with pytest.raises(ValueError, match="name must be new, got 'test_triangle'"):
        register_layout("test_triangle", ["a", "b"], [(1, 0)], 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"joints": ["a", "b", "b"]}, ValueError, "distinct names, got b more than once"),
        ({"joints": "abc"}, TypeError, "joints must be a sequence"),
        ({"joints": []}, TypeError, "joints must be a sequence"),
        ({"edges": [(1, 0)]}, ValueError, "exactly one joint without a parent, got a, c"),
        ({"edges": [(1, 0), (0, 1), (2, 1)]}, ValueError, "distinct, got .0, 1. more than once"),
        ({"edges": [(1, 0), (2, 3)]}, ValueError, "indices in 0..2, got 3"),
        ({"edges": [(1, 0), (2, 2)]}, ValueError, "two different joints, got .2, 2."),
        ({"edges": [(1, 0), (2, 0.5)]}, TypeError, "joint indices, got 0.5"),
        ({"edges": [(1, 0), 2]}, TypeError, "pairs, got 2"),
        (
            {"joints": list("abcd"), "edges": [(1, 2), (2, 3), (3, 1)]},
            ValueError,
            "root a, got none for b, c, d",
        ),
        ({"centre": 3}, ValueError, "centre must hold indices in 0..2, got 3"),
        ({"left": [1]}, ValueError, "same length, got 1 and 0"),
        ({"left": [1], "right": [1]}, ValueError, "each joint once"),
    ],
)
def test_bad_definitions(change: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Layout("bad", **{**TRIANGLE, **change})
    assert "\n" not in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*ntu25.*, got 'ntu'"):
        get_layout("ntu")
    with pytest.raises(ValueError, match="joint must be one of"):
        get_layout("ntu25").index("tail")
    with pytest.raises(ValueError, match="config must have centre, joints"):
        Layout.from_config({"name": "x", "edges": []})
    with pytest.raises(ValueError, match="known keys, got center"):
        Layout.from_config({**get_layout("hand21").config, "center": 0})


def utd_mhad(root: Path) -> list[np.ndarray]:
    scipy_io = pytest.importorskip("scipy.io")
    files = [root / "utd_mhad" / "Skeleton" / f"a{a}_s1_t1_skeleton.mat" for a in (1, 6, 17, 22, 27)]
    return [scipy_io.loadmat(file)["d_skel"].transpose(2, 0, 1) for file in files]


def nw_ucla(root: Path) -> list[np.ndarray]:
    files = sorted((root / "nw_ucla" / "all_sqe").glob("a0[2-5]_s01_e0[0-3]_v01.json"))
    clips = [np.array(json.loads(file.read_text())["skeletons"]) for file in files]
    return [clip for clip in clips if len(clip) >= 10]


def ntu(root: Path) -> list[np.ndarray]:
    clips = []
    for name in ("S001C001P001R001A001", "S001C001P001R001A011", "S001C001P001R002A033"):
        words = (root / "ntu_rgbd" / f"{name}.skeleton").read_text().split()
        frames, at = [], 1
        for _ in range(int(words[0])):
            bodies, at = int(words[at]), at + 1
            for body in range(bodies):
                joints = np.array(words[at + 11 : at + 11 + 300], dtype=float).reshape(25, 12)
                at += 311
                if body == 0:
                    frames.append(joints[:, :3])
        clips.append(np.stack(frames))
    return clips


def natops(root: Path) -> list[np.ndarray]:
    text = (root / "natops" / "NATOPS_TRAIN.ts").read_text(encoding="latin-1")
    rows = text.split("@data\n")[1].splitlines()[::20]
    series = [np.array([s.split(",") for s in row.split(":")[:24]], dtype=float) for row in rows]
    return [s.reshape(8, 3, -1).transpose(2, 0, 1) for s in series]


READERS = {"utd20": utd_mhad, "kinect20": nw_ucla, "ntu25": ntu, "natops8": natops}


LIMBS = [("elbow", "shoulder"), ("wrist", "elbow"), ("knee", "hip"), ("ankle", "knee")]


def median_spread(clips: list[np.ndarray], a: int, b: int) -> float:
    """Standard deviation over time of the distance between two joints, median over clips."""
    return float(np.median([np.linalg.norm(clip[:, a] - clip[:, b], axis=-1).std() for clip in clips]))


def mean_distance(clips: list[np.ndarray], a: int, b: int) -> float:
    """Mean distance between two joints over all frames."""
    return float(
        np.mean(np.concatenate([np.linalg.norm(clip[:, a] - clip[:, b], axis=-1) for clip in clips]))
    )


@pytest.mark.parametrize("name", READERS)
def test_bones_of_real_recordings_keep_their_length(name: str, test_data: Path) -> None:
    layout, clips = get_layout(name), READERS[name](test_data)
    assert clips
    assert all(clip.shape[1] == layout.num_joints for clip in clips)
    limbs = [(a, b) for a, b in LIMBS if f"left_{a}" in layout.joints and f"left_{b}" in layout.joints]
    for child, parent in ((f"{side}_{a}", f"{side}_{b}") for a, b in limbs for side in ("left", "right")):
        i, j = layout.index(child), layout.index(parent)
        assert layout.parents[i] == j or layout.parents[j] == i
        mirrored = int(layout.mirror[j])
        assert mean_distance(clips, i, j) < mean_distance(clips, i, mirrored), (child, parent)
        if child.endswith("wrist"):  # hands move: only the true forearm keeps its length
            others = np.median([median_spread(clips, i, k) for k in range(layout.num_joints) if k != i])
            assert median_spread(clips, i, j) < 0.6 * min(others, median_spread(clips, i, mirrored))


@pytest.mark.parametrize("name", ["utd20", "kinect20", "ntu25"])
def test_real_bodies_stand_upright_with_their_left_on_one_side(name: str, test_data: Path) -> None:
    layout, clips = get_layout(name), READERS[name](test_data)
    pose = np.median(np.concatenate(clips), axis=0)
    height = {joint: pose[i, 1] for i, joint in enumerate(layout.joints)}
    assert (
        height["head"]
        > height["left_shoulder"]
        > height["left_hip"]
        > height["left_knee"]
        > height["left_ankle"]
    )
    assert height["head"] > height["right_shoulder"] > height["right_hip"] > height["right_knee"]
    # People face the sensor, whose x axis grows to its own left: their left has the smaller x.
    for joint in ("shoulder", "hip", "knee", "ankle"):
        assert pose[layout.index(f"left_{joint}"), 0] < pose[layout.index(f"right_{joint}"), 0]


@pytest.mark.parametrize("clip", ["clip_3", "clip_39"])
def test_real_openpose_bodies_stand_upright(clip: str, test_data: Path) -> None:
    layout = get_layout("openpose18")
    frames = [
        json.loads(f.read_text())["people"] for f in sorted((test_data / "openpose_frames" / clip).glob("*"))
    ]
    poses = np.array([people[0]["pose_keypoints_2d"] for people in frames if people])
    poses = poses.reshape(-1, layout.num_joints, 3)  # x, y down, score
    for side in ("left", "right"):
        chain = [layout.index(j) for j in ("nose", f"{side}_hip", f"{side}_knee", f"{side}_ankle")]
        for upper, lower in itertools.pairwise(chain):
            seen = (poses[:, upper, 2] > 0.1) & (poses[:, lower, 2] > 0.1)
            assert seen.sum() > 10
            assert np.median(poses[seen, lower, 1] - poses[seen, upper, 1]) > 0


def test_real_kinetics_bodies(test_data: Path) -> None:
    for name in ("clip_a", "clip_b_two_people"):
        clip = json.loads((test_data / "kinetics_skeleton" / f"{name}.json").read_text())
        people = [frame["skeleton"][0] for frame in clip["data"] if frame["skeleton"]]
        assert {len(person["pose"]) for person in people} == {2 * get_layout("openpose18").num_joints}
