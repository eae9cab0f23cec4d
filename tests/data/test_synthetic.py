"""The synthetic KTH clips: reproducible, anatomically sound, and told apart by how they move."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.synthetic import (
    KTH_CLASSES,
    KTH_SCENARIOS,
    KTH_SUBJECTS,
    SimulatedMotion,
    generate_kth,
    simulate_kth,
)
from stgcn_fast.data.transforms import Centre, Motion, NormalizeScale
from stgcn_fast.graph import get_layout

LAYOUT = get_layout("body25")
GAITS = KTH_CLASSES[:3]


def joint(motion: SimulatedMotion, name: str) -> np.ndarray:
    return motion.joints[:, LAYOUT.joints.index(name)]


@pytest.fixture(scope="module")
def clips() -> list[Skeleton]:
    """Ten performers, every action and scenario."""
    return list(generate_kth(subjects=range(1, 11)))


def digest(clip: Skeleton) -> str:
    assert clip.confidence is not None
    return hashlib.sha256(clip.keypoints.tobytes() + clip.confidence.tobytes()).hexdigest()


def test_there_are_600_clips_of_25_people() -> None:
    assert (len(KTH_SUBJECTS), len(KTH_CLASSES), len(KTH_SCENARIOS)) == (25, 6, 4)
    clips = list(generate_kth(frames=(2, 3)))
    assert len({clip.name for clip in clips}) == 600
    assert {clip.subject for clip in clips} == set(range(1, 26))
    assert np.bincount([clip.label for clip in clips]).tolist() == [100] * 6


def test_names_labels_and_shapes(clips: list[Skeleton]) -> None:
    clip = clips[2 * 24 + 2 * 4 + 1]
    assert (clip.name, clip.label, clip.label_name) == ("person03_running_d2", 2, "running")
    assert (clip.subject, clip.setup, clip.layout) == (3, 2, "body25")
    for clip in clips:
        assert clip.confidence is not None
        assert clip.keypoints.shape == (1, clip.frames, 25, 2)
        assert 60 <= clip.frames <= 120
        assert (clip.confidence <= 1).all()
        assert not clip.keypoints[~clip.valid].any()
        seen = clip.keypoints[clip.valid]
        assert (seen >= 0).all()
        assert (seen < [160, 120]).all()
    assert len({clip.frames for clip in clips}) > 20


def test_a_clip_depends_on_nothing_but_its_own_key(clips: list[Skeleton]) -> None:
    by_name = {clip.name: digest(clip) for clip in clips}
    alone = next(generate_kth(subjects=[7], actions=["boxing"], scenarios=[3]))
    shuffled = {
        c.name: digest(c) for c in generate_kth(subjects=[7, 2], actions=KTH_CLASSES[::-1], scenarios=[3, 1])
    }
    assert digest(alone) == by_name[alone.name]
    assert shuffled == {name: by_name[name] for name in shuffled}
    assert len(set(by_name.values())) == len(by_name)
    other = next(generate_kth(1, subjects=[7], actions=["boxing"], scenarios=[3]))
    assert digest(other) != digest(alone)
    assert (other.name, other.label) == (alone.name, alone.label)


@pytest.mark.parametrize("action", KTH_CLASSES)
def test_bones_keep_their_length_and_feet_the_ground(action: str) -> None:
    for subject in (1, 9):
        motion = simulate_kth(subject, action, 1)
        bones = np.linalg.norm(motion.joints - motion.joints[:, LAYOUT.parents], axis=-1)
        moving = [i for i in range(25) if i not in (LAYOUT.root, *_shoulders_and_hips())]
        np.testing.assert_allclose(
            bones[:, moving], np.broadcast_to(bones[0, moving], (len(bones), len(moving)))
        )
        assert motion.joints[..., 2].min() >= -1e-9
        lowest = motion.joints[..., 2].min(axis=1)
        assert lowest.max() < (0.12 if action in ("jogging", "running") else 1e-9)
        assert 1.3 < np.median(joint(motion, "nose")[:, 2]) < 1.95


def _shoulders_and_hips() -> list[int]:
    # The spine turns between them, which no single bone of this layout follows.
    return [
        LAYOUT.joints.index(f"{side}_{part}") for side in ("left", "right") for part in ("shoulder", "hip")
    ]


def test_knees_and_elbows_bend_the_right_way() -> None:
    for action in KTH_CLASSES:
        motion = simulate_kth(4, action, 1)
        facing = np.stack([np.cos(motion.heading), np.sin(motion.heading)], axis=-1)
        for side in ("left", "right"):
            hip, knee, ankle = (joint(motion, f"{side}_{name}") for name in ("hip", "knee", "ankle"))
            # The knee lies before the line from hip to ankle.
            share = ((hip[:, 2] - knee[:, 2]) / (hip[:, 2] - ankle[:, 2]))[:, None]
            before = ((knee - hip - share * (ankle - hip))[:, :2] * facing).sum(axis=1)
            assert (before > -0.02).all()
            shoulder, wrist = joint(motion, f"{side}_shoulder"), joint(motion, f"{side}_wrist")
            toe, heel = joint(motion, f"{side}_big_toe"), joint(motion, f"{side}_heel")
            assert (((toe - heel)[:, :2] * facing).sum(axis=1) > 0).mean() > 0.7
            assert (np.linalg.norm(wrist - shoulder, axis=1) < 0.8).all()


def test_left_is_left() -> None:
    for action in KTH_CLASSES:
        motion = simulate_kth(2, action, 4)
        left = np.stack([-np.sin(motion.heading), np.cos(motion.heading)], axis=-1)
        for part in ("shoulder", "hip"):
            side = (joint(motion, f"left_{part}") - joint(motion, f"right_{part}"))[:, :2]
            assert ((side * left).sum(axis=1) > 0.1).all()


def test_everybody_walks_slower_than_they_jog_and_jogs_slower_than_they_run() -> None:
    tempo, speed = np.zeros((25, 3)), np.zeros((25, 3))
    for subject in KTH_SUBJECTS:
        for kind, action in enumerate(GAITS):
            motions = [simulate_kth(subject, action, scenario, frames=(2, 2)) for scenario in KTH_SCENARIOS]
            tempo[subject - 1, kind] = np.mean([motion.tempo for motion in motions])
            speed[subject - 1, kind] = np.mean([motion.speed for motion in motions])
    assert (np.diff(tempo, axis=1) > 0).all()
    assert (np.diff(speed, axis=1) > 0).all()
    # But one person's jog is another's run.
    assert tempo[:, 1].max() > tempo[:, 2].min()
    assert 1.0 < speed[:, 0].mean() < 1.6
    assert 3.2 < speed[:, 2].mean() < 5.5


def test_gaits_cross_the_image_both_ways_and_leave_it(clips: list[Skeleton]) -> None:
    hips = LAYOUT.joints.index("mid_hip")
    ways: set[bool] = set()
    for clip in clips:
        empty = 1 - clip.present.mean()
        if clip.label_name in GAITS:
            both = clip.valid[0, 1:, hips] & clip.valid[0, :-1, hips]
            step = np.diff(clip.keypoints[0, :, hips, 0])[both]
            ways |= {bool(s) for s in np.unique(step[np.abs(step) > 1] > 0)}
            assert empty < 0.6
        else:
            assert empty < 0.15
    assert ways == {True, False}


def test_other_clothes_lose_more_joints_and_the_zoom_changes_size(clips: list[Skeleton]) -> None:
    still = [clip for clip in clips if clip.label_name in ("handwaving", "handclapping")]
    lost = [np.mean([1 - clip.valid.mean() for clip in still if clip.setup == s]) for s in KTH_SCENARIOS]
    assert lost[2] > 1.5 * max(lost[0], lost[1], lost[3])
    for scenario, changes in ((1, False), (2, True)):
        zoom = simulate_kth(1, "handwaving", scenario).zoom
        assert (zoom.max() / zoom.min() > 1.2) == changes


def test_a_mean_pose_does_not_tell_the_actions_apart_but_motion_does(clips: list[Skeleton]) -> None:
    labels = np.array([clip.label for clip in clips])
    train = np.array([clip.subject <= 6 for clip in clips])  # type: ignore[operator]
    poses, spreads = [], []
    for clip in clips:
        motion = NormalizeScale()(Centre("centre", "frame")(Motion.of(clip)))
        seen, places = motion.valid[0][..., None], motion.keypoints[0]
        count = np.maximum(seen.sum(axis=0), 1)
        mean = places.sum(axis=0) / count
        poses.append(mean.ravel())
        spreads.append(np.sqrt((seen * (places - mean) ** 2).sum(axis=0) / count).ravel())

    def nearest_mean(features: np.ndarray) -> float:
        scaled = (features - features[train].mean(axis=0)) / (features[train].std(axis=0) + 1e-6)
        means = np.stack([scaled[train & (labels == k)].mean(axis=0) for k in range(6)])
        guess = ((scaled[~train, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
        return float((guess == labels[~train]).mean())

    by_pose = nearest_mean(np.array(poses))
    by_motion = nearest_mean(np.concatenate([np.array(poses), np.array(spreads)], axis=1))
    assert by_pose < 0.85
    assert by_motion > by_pose + 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be >= 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be an int, got float"),
        ({"subjects": [26]}, ValueError, "subjects must be in 1 to 25, got 26"),
        ({"scenarios": [0]}, ValueError, "scenarios must be in 1 to 4, got 0"),
        ({"actions": ["skipping"]}, ValueError, r"actions must be of walking, .*, got 'skipping'"),
        ({"frames": (9, 8)}, ValueError, r"frames must be \[smallest, largest\], got \[9, 8\]"),
        ({"frames": 5}, TypeError, r"frames must be \[smallest, largest\], got 5"),
    ],
)
def test_errors_come_before_the_first_clip(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^generate_kth: {message}$"):
        generate_kth(**arguments)
