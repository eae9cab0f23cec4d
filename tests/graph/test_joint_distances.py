"""Mean distance of each joint to the centre of gravity."""

from __future__ import annotations

import numpy as np
import pytest

from stgcn_fast.graph import Graph, mean_joint_distances


def test_streaming_equals_all_at_once() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(2, frames, 8, 3)) for frames in (1, 7, 20)]
    together = mean_joint_distances(np.concatenate(clips, axis=1))
    np.testing.assert_allclose(mean_joint_distances(iter(clips)), together)
    np.testing.assert_allclose(mean_joint_distances(clips), together)
    frames = np.concatenate(clips, axis=1).reshape(-1, 8, 3)
    expected = np.linalg.norm(frames - frames.mean(1, keepdims=True), axis=-1).mean(0)
    np.testing.assert_allclose(together, expected)
    assert Graph("natops8", joint_distances=together).num_partitions == 3


def test_invalid_joints_count_nowhere() -> None:
    rng = np.random.default_rng(1)
    points, valid = rng.normal(size=(30, 5, 2)), rng.random((30, 5)) > 0.3
    valid[0] = False
    expected = np.zeros(5)
    for joint in range(5):
        distances = [
            np.linalg.norm(frame[joint] - frame[seen].mean(0))
            for frame, seen in zip(points, valid, strict=True)
            if seen[joint]
        ]
        expected[joint] = np.mean(distances)
    np.testing.assert_allclose(mean_joint_distances(points, valid), expected)
    np.testing.assert_allclose(
        mean_joint_distances((points[i : i + 10], valid[i : i + 10]) for i in (0, 10, 20)), expected
    )
    holes = np.where(valid[..., None], points, np.nan)
    np.testing.assert_allclose(mean_joint_distances(holes), expected)


def test_moving_or_turning_a_clip_changes_nothing() -> None:
    points = np.random.default_rng(2).normal(size=(12, 6, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(mean_joint_distances(points @ turn + [3, -7]), mean_joint_distances(points))


@pytest.mark.parametrize(
    ("keypoints", "valid", "message"),
    [
        (np.zeros((3, 4)), None, r"shape \[..., T, V, C\], got \(3, 4\)"),
        (np.zeros((2, 3, 4)), np.ones((2, 4)), r"valid must have shape \(2, 3\), got \(2, 4\)"),
        (np.zeros((1, 2, 3)), [[True, False]], "once for every joint, got never for 1"),
        ([np.zeros((1, 2, 3)), np.zeros((1, 4, 3))], None, "must all have 2 joints, got 4"),
        (iter(()), None, "at least one clip, got none"),
    ],
)
def test_bad_input(keypoints: object, valid: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_joint_distances(keypoints, valid)
