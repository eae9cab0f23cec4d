"""Streams: identities between them, confidence, both array kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data.streams import list_streams, to_stream
from stgcn_fast.graph import get_layout

LAYOUTS = ("ntu25", "coco17", "openpose18", "body25", "kinect20")


def clip(
    seed: int, layout: str = "ntu25", channels: int = 3, frames: int = 7, persons: int = 2
) -> np.ndarray:
    shape = (channels, frames, len(get_layout(layout).joints), persons)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(seed=st.integers(0, 999), layout=st.sampled_from(LAYOUTS), frames=st.integers(1, 9))
def test_bones_do_not_know_where_the_body_is(seed: int, layout: str, frames: int) -> None:
    x = clip(seed, layout, frames=frames)
    shift = np.array([3.0, -1.0, 2.0], dtype=np.float32)[:, None, None, None]
    np.testing.assert_allclose(
        to_stream(x + shift, layout, "bone"), to_stream(x, layout, "bone"), rtol=0, atol=2e-6
    )


@given(seed=st.integers(0, 999), layout=st.sampled_from(LAYOUTS))
def test_bones_are_child_minus_parent_and_lead_back_to_the_joints(seed: int, layout: str) -> None:
    x = clip(seed, layout)
    bones = to_stream(x, layout, "bone")
    tree = get_layout(layout)
    for joint, parent in enumerate(tree.parents):
        np.testing.assert_array_equal(bones[:, :, joint], x[:, :, joint] - x[:, :, parent])
        place, walker = np.zeros_like(x[:, :, 0]), joint
        while walker != tree.root:
            place += bones[:, :, walker]
            walker = int(tree.parents[walker])
        np.testing.assert_allclose(place + x[:, :, tree.root], x[:, :, joint], rtol=0, atol=1e-5)
    assert not bones[:, :, tree.root].any()


@given(seed=st.integers(0, 999), stream=st.sampled_from(["joint", "bone"]), frames=st.integers(1, 9))
def test_motion_sums_to_displacement(seed: int, stream: str, frames: int) -> None:
    x = clip(seed, frames=frames)
    still, moving = to_stream(x, "ntu25", stream), to_stream(x, "ntu25", f"{stream}_motion")
    np.testing.assert_allclose(moving.sum(axis=1), still[:, -1] - still[:, 0], rtol=0, atol=1e-5)
    assert not moving[:, -1].any()


@pytest.mark.parametrize("stream", list_streams())
@pytest.mark.parametrize("has_confidence", [False, True])
def test_arrays_tensors_and_batches_agree(stream: str, has_confidence: bool) -> None:
    x = np.abs(clip(1)) * (clip(2) > 0)
    before = x.copy()
    expected = to_stream(x, "ntu25", stream, has_confidence=has_confidence)
    tensor = to_stream(torch.from_numpy(x), "ntu25", stream, has_confidence=has_confidence)
    batch = to_stream(np.stack([x, 2 * x]), get_layout("ntu25"), stream, has_confidence=has_confidence)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(batch[0], expected)
    np.testing.assert_array_equal(x, before)
    assert expected.dtype == np.float32
    assert expected.shape == x.shape


def test_a_difference_needs_both_of_its_ends() -> None:
    x = np.ones((3, 4, 18, 1), dtype=np.float32)
    x[0] = np.arange(18)[:, None]
    x[2] = np.linspace(0.2, 0.9, 18)[:, None]
    x[:, 1, 3] = 0  # right elbow, whose child is the right wrist and whose parent the right shoulder
    bone = to_stream(x, "openpose18", "bone", has_confidence=True)
    assert not bone[:, 1, [3, 4]].any()
    assert bone[0, 0, 4] == 1
    assert bone[0, 0, 3] == 1
    np.testing.assert_allclose(bone[2, 0, 4], x[2, 0, 3])
    np.testing.assert_allclose(bone[2, 0, 1], x[2, 0, 1])
    step = to_stream(x, "openpose18", "joint_motion", has_confidence=True)
    assert not step[:, [0, 1], 3].any()
    np.testing.assert_allclose(step[2, 2, 3], x[2, 2, 3])
    masked = to_stream(x[:2], "openpose18", "bone", valid=x[2] > 0)
    np.testing.assert_array_equal(masked, bone[:2])
    plain = to_stream(x[:2], "openpose18", "bone")
    np.testing.assert_array_equal(plain[0, 1, 4], [4.0])


def test_bone_motion_is_the_motion_of_bones() -> None:
    x = clip(3)
    twice = to_stream(to_stream(x, "ntu25", "bone"), "ntu25", "joint_motion")
    np.testing.assert_array_equal(to_stream(x, "ntu25", "bone_motion"), twice)


def test_errors_say_what_is_wrong() -> None:
    x = clip(0)
    with pytest.raises(ValueError, match=r"^to_stream: stream must be one of joint, .*, got 'limb'$"):
        to_stream(x, "ntu25", "limb")
    with pytest.raises(
        ValueError, match=r"^to_stream: x must be \[\.\.\., C, T, 17, M\] for layout 'coco17'"
    ):
        to_stream(x, "coco17")
    with pytest.raises(TypeError, match=r"^to_stream: x must be of a floating-point dtype, got int64$"):
        to_stream(x.astype(np.int64), "ntu25")
    with pytest.raises(TypeError, match=r"^to_stream: x must be a numpy array or a torch tensor, got list$"):
        to_stream([1.0], "ntu25")  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"^to_stream: valid must be \[\.\.\., T, V, M\] = \[7, 25, 2\], "):
        to_stream(x, "ntu25", valid=np.ones((7, 25, 1), dtype=bool))
    with pytest.raises(ValueError, match=r"^to_stream: x must have C >= 2 with a confidence channel"):
        to_stream(x[:1], "ntu25", has_confidence=True)
