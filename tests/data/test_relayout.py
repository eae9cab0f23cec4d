"""Clips of one layout as clips of another."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from stgcn_fast import data
from stgcn_fast.graph import get_layout, joint_mapping


def clip_of(layout: str) -> data.Skeleton:
    """Each joint at the place its name says: the same body in every layout."""
    names = sorted(get_layout("kinect20").joints)
    joints = get_layout(layout).joints
    places = np.array([[names.index(joint), 7 - names.index(joint) ** 2, 1.0] for joint in joints])
    keypoints = np.tile(places, (2, 5, 1, 1)).astype(np.float32)
    confidence = keypoints[..., 0] / 20
    return data.Skeleton(keypoints, layout, confidence, name="a", label=3, subject=1)


@pytest.mark.parametrize(("source", "target"), [("kinect20", "utd20"), ("utd20", "kinect20")])
def test_joints_keep_their_names(source: str, target: str) -> None:
    mapped, expected = data.map_joints(clip_of(source), target), clip_of(target)
    assert mapped.layout == target
    np.testing.assert_array_equal(mapped.keypoints, expected.keypoints)
    assert mapped.confidence is not None
    np.testing.assert_array_equal(mapped.confidence, expected.confidence)
    assert (mapped.name, mapped.label, mapped.subject) == ("a", 3, 1)
    same = clip_of(source)
    assert data.map_joints(same, source) is same


def test_a_larger_layout_gives_up_joints() -> None:
    order = joint_mapping("body25", "openpose18")
    assert [get_layout("body25").joints[i] for i in order] == list(get_layout("openpose18").joints)


def test_a_view_is_the_store_in_another_layout() -> None:
    class Store(SimpleNamespace):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> data.Skeleton:
            return clip_of("utd20")

    store = Store(layout="utd20", labels=np.array([3]))
    view = data.LayoutView(store, "kinect20")
    assert (len(view), view.layout, view.labels.tolist()) == (1, "kinect20", [3])
    np.testing.assert_array_equal(view[0].keypoints, clip_of("kinect20").keypoints)
    sample, label, _ = data.SkeletonDataset(view, frames=5, persons=2)[0]
    assert (tuple(sample.shape), label) == ((3, 5, 20, 2), 3)
    with pytest.raises(AttributeError):
        view.nothing  # noqa: B018
    with pytest.raises(
        ValueError, match="source must have every joint of 'hand21', got 'utd20' without wrist"
    ):
        data.LayoutView(store, "hand21")


def test_a_view_goes_to_worker_processes() -> None:
    view = data.LayoutView(SimpleNamespace(layout="utd20", labels=[1]), "kinect20")
    again = pickle.loads(pickle.dumps(view))
    assert (again.layout, again.labels) == ("kinect20", [1])
