"""Transforms: the geometry and timing each one promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data.transforms import (
    AlignView,
    Centre,
    CropResize,
    DropFrames,
    DropJoints,
    JitterNoise,
    Motion,
    NormalizeBox,
    NormalizeImage,
    NormalizeScale,
    PadLoop,
    PadZero,
    RandomCrop,
    RandomFlip,
    RandomMove,
    RandomRotate,
    RandomScale,
    RandomShear,
    RandomTranslate,
    Resample,
    TrimEmpty,
    TwoOfFour,
    UniformSample,
)
from stgcn_fast.graph import get_layout

SEEDS = st.integers(0, 9999)


def body(seed: int, frames: int = 12, dimensions: int = 3, persons: int = 1) -> Motion:
    """A random, wholly visible clip."""
    rng = np.random.default_rng(seed)
    keypoints = rng.standard_normal((persons, frames, 25, dimensions)).astype(np.float32) + 2
    return Motion(keypoints, np.full((persons, frames, 25), 0.5, np.float32), "ntu25")


def bone_lengths(motion: Motion) -> np.ndarray:
    parents = get_layout(motion.layout).parents
    return np.linalg.norm(motion.keypoints - motion.keypoints[:, :, parents], axis=-1)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(seed=SEEDS, dimensions=st.sampled_from([2, 3]), about=st.sampled_from(["body", "origin"]))
def test_rotation_keeps_bone_lengths_and_its_pivot(seed: int, dimensions: int, about: str) -> None:
    motion = body(seed, dimensions=dimensions)
    out = RandomRotate(180.0, about)(motion, generator(seed))
    np.testing.assert_allclose(bone_lengths(out), bone_lengths(motion), rtol=0, atol=1e-4)
    assert np.abs(out.keypoints - motion.keypoints).max() > 1e-3
    if about == "body":
        np.testing.assert_allclose(out.points().mean(axis=0), motion.points().mean(axis=0), atol=1e-4)
    else:
        before, after = (np.linalg.norm(m.keypoints, axis=-1) for m in (motion, out))
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_rotation_stays_within_its_limits_and_axes() -> None:
    motion = body(0)
    for seed in range(50):
        out = RandomRotate((0.0, 30.0, 0.0), "origin")(motion, generator(seed))
        np.testing.assert_allclose(out.keypoints[..., 1], motion.keypoints[..., 1], atol=1e-5)
        before, after = (m.keypoints[..., 2] + 1j * m.keypoints[..., 0] for m in (motion, out))
        assert np.abs(np.degrees(np.angle(after / before))).max() <= 30.001


@given(seed=SEEDS, axis=st.sampled_from("xyz"), about=st.sampled_from(["body", "origin"]))
def test_flipping_twice_changes_nothing(seed: int, axis: str, about: str) -> None:
    motion = body(seed)
    flip = RandomFlip(axis, about=about, p=1.0)
    once = flip(motion, generator(0))
    np.testing.assert_allclose(flip(once, generator(0)).keypoints, motion.keypoints, rtol=0, atol=1e-5)
    assert np.abs(once.keypoints - motion.keypoints).max() > 0.01


def test_a_flipped_body_faces_on_with_left_still_left() -> None:
    layout = get_layout("ntu25")
    left, right = layout.joints.index("left_hand"), layout.joints.index("right_hand")
    motion = body(1)
    out = RandomFlip("x", about="origin", p=1.0)(motion, generator(0))
    mirrored = motion.keypoints * np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(out.keypoints[:, :, left], mirrored[:, :, right])
    plain = RandomFlip("x", swap=False, about="origin", p=1.0)(motion, generator(0))
    np.testing.assert_array_equal(plain.keypoints, mirrored)


@given(seed=SEEDS, frames=st.integers(1, 30), target=st.integers(2, 70))
def test_resampling_linear_motion_is_exact(seed: int, frames: int, target: int) -> None:
    rng = generator(seed)
    start, speed = rng.standard_normal((2, 1, 1, 25, 3))
    keypoints = (start + speed * np.arange(frames)[None, :, None, None]).astype(np.float32)
    motion = Motion(keypoints, np.ones((1, frames, 25), np.float32), "ntu25")
    out = Resample(target)(motion)
    expected = start + speed * np.linspace(0, frames - 1, target)[None, :, None, None]
    np.testing.assert_allclose(out.keypoints, expected, rtol=1e-5, atol=2e-5)
    assert (out.confidence == 1).all()


def test_resampling_between_a_seen_and_a_missing_joint_takes_the_nearer() -> None:
    motion = body(0, frames=2)
    motion = motion.kept(np.array([True, False])[None, :, None])
    out = Resample(5)(motion)
    assert out.valid[0, :, 0].tolist() == [True, True, True, False, False]
    np.testing.assert_array_equal(out.keypoints[0, 1], motion.keypoints[0, 0])
    np.testing.assert_array_equal(out.confidence[0, 2], motion.confidence[0, 0])


@given(seed=SEEDS, frames=st.integers(1, 60), low=st.floats(0.1, 1.0))
def test_crop_and_resize_takes_a_part_of_the_right_length(seed: int, frames: int, low: float) -> None:
    keypoints = np.broadcast_to(np.arange(1.0, frames + 1)[None, :, None, None], (1, frames, 25, 3))
    motion = Motion(keypoints.astype(np.float32), np.ones((1, frames, 25), np.float32), "ntu25")
    out = CropResize(32, (low, 1.0), min_frames=3)(motion, generator(seed)).keypoints[0, :, 0, 0]
    taken = out[-1] - out[0] + 1
    assert 1 <= out[0] <= out[-1] <= frames
    assert taken >= min(max(int(low * frames), 3), frames) - 1e-3
    np.testing.assert_allclose(np.diff(out), (taken - 1) / 31, atol=1e-4)


def test_the_centre_crop_is_in_the_centre() -> None:
    motion = body(0, frames=40)
    out = CropResize(20, (0.5, 0.5), position="centre")(motion)
    np.testing.assert_array_equal(out.keypoints, motion.keypoints[:, 10:30])
    cut = RandomCrop(20, position="centre")(motion)
    np.testing.assert_array_equal(cut.keypoints, motion.keypoints[:, 10:30])


@given(seed=SEEDS, frames=st.integers(1, 50), count=st.integers(1, 50))
def test_uniform_sampling_takes_one_frame_of_each_segment(seed: int, frames: int, count: int) -> None:
    keypoints = np.broadcast_to(np.arange(1.0, frames + 1)[None, :, None, None], (1, frames, 25, 3))
    motion = Motion(keypoints.astype(np.float32), np.ones((1, frames, 25), np.float32), "ntu25")
    taken = UniformSample(count)(motion, generator(seed)).keypoints[0, :, 0, 0] - 1
    edges = np.arange(count + 1) * frames / count
    assert (taken >= np.floor(edges[:-1] + 1e-9)).all()
    assert (taken <= edges[1:] + 1e-9).all()
    assert (np.diff(taken) >= 0).all()


def test_cropping_takes_consecutive_frames_and_reaches_all_of_them() -> None:
    motion = body(0, frames=9)
    starts = set()
    for seed in range(60):
        out = RandomCrop(4)(motion, generator(seed))
        start = int(np.flatnonzero((motion.keypoints[0, :, 0] == out.keypoints[0, 0, 0]).all(axis=1))[0])
        np.testing.assert_array_equal(out.keypoints, motion.keypoints[:, start : start + 4])
        starts.add(start)
    assert starts == set(range(6))
    assert RandomCrop(10)(motion, generator(0)) is motion


def test_padding() -> None:
    motion = body(0, frames=3)
    loop = PadLoop(8)(motion)
    np.testing.assert_array_equal(loop.keypoints, motion.keypoints[:, [0, 1, 2, 0, 1, 2, 0, 1]])
    zero = PadZero(8)(motion)
    np.testing.assert_array_equal(zero.keypoints[:, :3], motion.keypoints)
    assert zero.valid.any(axis=(0, 2)).tolist() == [True] * 3 + [False] * 5
    seen = {
        tuple(np.flatnonzero(PadZero(5, shift=True)(motion, generator(s)).valid.any(axis=(0, 2))))
        for s in range(40)
    }
    assert seen == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    assert TrimEmpty()(zero).frames == 3


def test_trimming_keeps_or_drops_holes() -> None:
    keep = np.array([0, 0, 1, 0, 1, 1, 0], dtype=bool)
    motion = body(0, frames=7).kept(keep[None, :, None])
    np.testing.assert_array_equal(TrimEmpty()(motion).keypoints, motion.keypoints[:, 2:6])
    np.testing.assert_array_equal(TrimEmpty("all")(motion).keypoints, motion.keypoints[:, keep])


@given(seed=SEEDS, reference=st.sampled_from(["first", "mean", "frame"]))
def test_centring_forgets_where_the_clip_was(seed: int, reference: str) -> None:
    motion = body(seed, persons=2)
    moved = motion.moved(motion.keypoints + np.array([5.0, -2.0, 1.0], np.float32))
    for joint in ("centre", "hips", "shoulders", "body", "head", 3):
        centre = Centre(joint, reference)
        out, same = centre(motion), centre(moved)
        np.testing.assert_allclose(same.keypoints, out.keypoints, rtol=0, atol=1e-4)
        apart = motion.keypoints[0] - motion.keypoints[1]
        np.testing.assert_allclose(out.keypoints[0] - out.keypoints[1], apart, rtol=0, atol=1e-4)
    if reference == "frame":
        assert np.abs(out.keypoints[0, :, 3]).max() == 0
        assert out.valid.all()


def test_centring_interpolates_a_lost_centre() -> None:
    keypoints = np.zeros((1, 5, 25, 3), np.float32)
    keypoints[..., 0] = np.arange(5)[None, :, None] + 1
    confidence = np.ones((1, 5, 25), np.float32)
    confidence[0, 2, 20] = 0
    motion = Motion(keypoints, confidence, "ntu25").moved(keypoints)
    out = Centre("centre", "frame")(motion)
    np.testing.assert_allclose(out.keypoints, 0, atol=1e-6)
    assert (out.valid == motion.valid).all()


@given(seed=SEEDS, up=st.sampled_from("yz"), reference=st.sampled_from(["first", "mean"]))
def test_full_alignment_undoes_any_rotation(seed: int, up: str, reference: str) -> None:
    motion = Centre("hips")(body(seed))
    turned = RandomRotate(180.0, "origin")(motion, generator(seed))
    align = AlignView("full", up, "both", reference)
    out = align(motion)
    np.testing.assert_allclose(align(turned).keypoints, out.keypoints, rtol=0, atol=5e-3)
    np.testing.assert_allclose(bone_lengths(out), bone_lengths(motion), rtol=0, atol=1e-4)
    # Left is left: a rotation, not a mirror image.
    assert np.linalg.det(np.linalg.lstsq(motion.points(), out.points(), rcond=None)[0]) > 0.9


@given(seed=SEEDS)
def test_alignment_puts_the_trunk_up_and_the_right_side_to_x(seed: int) -> None:
    motion = body(seed)
    points = AlignView("full", "z", "shoulders")(motion).keypoints[0, 0]
    names = get_layout("ntu25").joints
    shoulders = [points[names.index(f"{side}_shoulder")] for side in ("left", "right")]
    hips = [points[names.index(f"{side}_hip")] for side in ("left", "right")]
    trunk, side = (sum(shoulders) - sum(hips)) / 2, shoulders[1] - shoulders[0]
    np.testing.assert_allclose(trunk[:2], 0, atol=1e-4)
    assert trunk[2] > 0
    assert side[0] > 0
    assert abs(side[1]) < 1e-4


@given(seed=SEEDS, up=st.sampled_from("yz"))
def test_yaw_alignment_undoes_turns_about_the_vertical_only(seed: int, up: str) -> None:
    motion = body(seed)
    limits = (0.0, 180.0, 0.0) if up == "y" else (0.0, 0.0, 180.0)
    turned = RandomRotate(limits, "origin")(motion, generator(seed))
    align = AlignView("yaw", up, "hips")
    out, vertical = align(motion), "xyz".index(up)
    np.testing.assert_allclose(align(turned).keypoints, out.keypoints, rtol=0, atol=5e-3)
    np.testing.assert_allclose(out.keypoints[..., vertical], motion.keypoints[..., vertical], atol=1e-5)


def test_alignment_without_the_joints_it_needs_changes_nothing() -> None:
    motion = body(0)
    motion = motion.kept(np.arange(25)[None, None, :] != get_layout("ntu25").joints.index("left_hip"))
    assert AlignView()(motion) is motion


@given(seed=SEEDS, factor=st.floats(0.2, 5.0), by=st.sampled_from(["torso", "height", "std"]))
def test_scale_normalisation_forgets_the_size(seed: int, factor: float, by: str) -> None:
    motion = body(seed)
    normalize = NormalizeScale(by, 1.5)
    out = normalize(motion)
    same = normalize(motion.moved(motion.keypoints * factor))
    np.testing.assert_allclose(same.keypoints, out.keypoints, rtol=1e-4, atol=1e-4)
    if by == "std":
        assert np.std(out.points() - out.points().mean(axis=0)) == pytest.approx(1.5, rel=1e-4)


@given(seed=SEEDS, factor=st.floats(0.2, 5.0), dimensions=st.sampled_from([2, 3]))
def test_box_normalisation_fills_the_box(seed: int, factor: float, dimensions: int) -> None:
    motion = body(seed, dimensions=dimensions)
    for per_axis in (False, True):
        out = NormalizeBox(per_axis)(motion)
        low, high = out.points().min(axis=0), out.points().max(axis=0)
        np.testing.assert_allclose(low, -high, rtol=0, atol=1e-5)
        np.testing.assert_allclose(high if per_axis else high.max(), 1, rtol=0, atol=1e-5)
        same = NormalizeBox(per_axis)(motion.moved(motion.keypoints * factor + 3))
        np.testing.assert_allclose(same.keypoints, out.keypoints, rtol=1e-3, atol=1e-3)
    sides = np.ptp(motion.points(), axis=0)
    normalised = np.ptp(NormalizeBox()(motion).points(), axis=0)
    np.testing.assert_allclose(normalised, 2 * sides / sides.max(), rtol=1e-4)


@pytest.mark.parametrize("per_axis", [False, True])
def test_a_box_without_extent_or_joints_stays_finite(per_axis: bool) -> None:
    point = Motion(np.full((1, 2, 25, 3), 7, np.float32), np.ones((1, 2, 25), np.float32), "ntu25")
    assert not NormalizeBox(per_axis)(point).keypoints.any()
    nobody = body(0).kept(np.zeros((1, 1, 1), bool))
    assert NormalizeBox(per_axis)(nobody) is nobody


def test_image_normalisation_puts_the_middle_at_zero() -> None:
    keypoints = np.array([[80.0, 60.0], [160.0, 120.0]], np.float32)[None, None, [0, 1] * 12 + [0]]
    motion = Motion(keypoints, np.ones((1, 1, 25), np.float32), "ntu25")
    out = NormalizeImage(160, 120)(motion).keypoints[0, 0]
    np.testing.assert_allclose(out[:2], [[0, 0], [0.5, 0.5]])


@given(seed=SEEDS, dimensions=st.sampled_from([2, 3]))
def test_scaling_shearing_and_moving_are_affine(seed: int, dimensions: int) -> None:
    motion = body(seed, dimensions=dimensions)
    flat = np.concatenate([motion.points(), np.ones((len(motion.points()), 1))], axis=1)
    matrices = []
    for transform in (RandomScale((0.5, 0.8)), RandomShear(0.4), RandomTranslate(0.5)):
        out = transform(motion, generator(seed)).points()
        matrix, *_ = np.linalg.lstsq(flat, out.astype(np.float64), rcond=None)
        np.testing.assert_allclose(flat @ matrix, out, atol=1e-4)
        matrices.append(matrix)
    scale, shear, move = matrices
    np.testing.assert_allclose(scale[:-1], np.eye(dimensions) * scale[0, 0], atol=1e-4)
    assert 0.5 - 1e-4 <= scale[0, 0] <= 0.8 + 1e-4
    np.testing.assert_allclose(np.diag(shear), 1, atol=1e-4)
    assert np.abs(shear[:-1] - np.eye(dimensions)).max() <= 0.4 + 1e-4
    np.testing.assert_allclose(move[:-1], np.eye(dimensions), atol=1e-4)
    assert np.abs(move[-1]).max() <= 0.5 + 1e-4


def test_noise_has_the_strength_asked_for() -> None:
    motion = body(0, frames=200)
    noise = (JitterNoise(sigma=0.3)(motion, generator(0)).keypoints - motion.keypoints).ravel()
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    noisy = JitterNoise(snr_db=10.0)(motion, generator(0))
    power = np.mean((motion.points() - motion.points().mean(axis=0)) ** 2)
    assert 10 * np.log10(power / np.mean((noisy.keypoints - motion.keypoints) ** 2)) == pytest.approx(
        10, abs=0.1
    )


def test_dropping_joints_and_frames() -> None:
    motion = body(0, frames=400, persons=2)
    clipwise = DropJoints(0.3)(motion, generator(0)).valid
    assert (clipwise == clipwise[:, :1]).all()
    assert not clipwise.all()
    assert DropJoints(0.3, per_frame=True)(motion, generator(0)).valid.mean() == pytest.approx(0.7, abs=0.02)
    frames = DropFrames(0.3)(motion, generator(0)).valid
    assert (frames == frames[:1, :, :1]).all()
    assert frames.mean() == pytest.approx(0.7, abs=0.06)
    assert DropFrames(1.0)(motion, generator(0)).valid.any(axis=(0, 2)).sum() == 1
    assert (DropJoints(1.0)(motion, generator(0)).valid[:, 0].sum(axis=1) == 1).all()
    # What stays is something that was there.
    sparse = motion.kept((np.arange(25) == 3)[None, None] & (np.arange(400) % 100 == 50)[None, :, None])
    for drop in (DropJoints(1.0), DropJoints(1.0, per_frame=True), DropFrames(1.0)):
        assert drop(sparse, generator(1)).valid.any()


def test_two_of_four_applies_two_different_ones_half_of_the_time() -> None:
    motion = body(0, dimensions=2)
    policy = TwoOfFour(degrees=(10.0,), factors=(1.2,), shifts=((7.0, 0.0),), swap=False)
    flat = np.concatenate([motion.points() - motion.points().mean(axis=0), np.ones((300, 1))], axis=1)
    kinds, untouched = set(), 0
    for seed in range(300):
        out = policy(motion, generator(seed))
        if out is motion:
            untouched += 1
            continue
        place = (out.points() - motion.points().mean(axis=0)).astype(np.float64)
        matrix, *_ = np.linalg.lstsq(flat, place, rcond=None)
        linear, shift = matrix[:2], matrix[2]
        size = np.sqrt(abs(np.linalg.det(linear)))
        mirrored = np.linalg.det(linear) < 0
        upright = abs(linear[0, 1]) < 1e-3
        kinds.add((bool(mirrored), not upright, bool(np.abs(shift).max() > 1), bool(size > 1.1)))
    assert {sum(kind) for kind in kinds} == {2}
    assert len(kinds) == 6
    assert 120 < untouched < 180


def linear_map(policy: TwoOfFour, seed: int, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shift of what a policy does to a 2-D clip: ``x @ matrix + shift``."""
    rows = np.concatenate([motion.points(), np.ones((len(motion.points()), 1))], axis=1).astype(np.float64)
    found, *_ = np.linalg.lstsq(rows, policy(motion, generator(seed)).points().astype(np.float64))
    return found[:2], found[2]


def test_two_of_four_draws_from_the_kinds_it_is_given() -> None:
    motion = body(0, dimensions=2)
    policy = TwoOfFour(kinds=("scaling", "rotation", "translation"), p=1.0)
    assert policy.kinds == ("rotation", "translation", "scaling")
    turned = set()
    for seed in range(60):
        matrix, _ = linear_map(policy, seed, motion)
        assert np.linalg.det(matrix) > 0
        turned.add(abs(matrix[0, 1]) > 1e-3)
    assert turned == {True, False}
    both = TwoOfFour(kinds=["translation", "scaling"], shifts=[[7.0, 1.0]], factors=[1.1], p=1.0)
    for seed in range(3):
        matrix, shift = linear_map(both, seed, motion)
        np.testing.assert_allclose(matrix, 1.1 * np.eye(2), atol=1e-4)
        centre = motion.points().mean(axis=0)
        np.testing.assert_allclose(shift, centre - 1.1 * centre + [7, 1], atol=1e-3)


def test_two_of_four_as_the_code_of_the_study_does_it() -> None:
    motion = body(0, dimensions=2)
    policy = TwoOfFour(degrees=(10.0,), factors=(1.1,), kth_compat=True, p=1.0)
    seen = set()
    for seed in range(200):
        matrix, shift = linear_map(policy, seed, motion)
        np.testing.assert_allclose(shift, 0, atol=1e-4)  # about the origin, and translation does nothing
        scale = np.sqrt(abs(np.linalg.det(matrix)))
        mirrored = np.linalg.det(matrix) < 0
        angle = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0] * (-1 if mirrored else 1)))
        seen.add((bool(mirrored), bool(scale > 1.05), round(abs(angle))))
    flip, scaled, turned = (True, False, 0), (False, True, 0), (False, False, 10)
    pairs = {(True, True, 0), (True, False, 10), (False, True, 10)}
    assert seen == pairs | {flip, scaled, turned, (False, False, 0)}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"kinds": "flip"}, TypeError, "kinds must be a list of names, got str"),
        ({"kinds": ["flip", 3]}, TypeError, "kinds must be a list of names, got list"),
        ({"kinds": ["flip"]}, ValueError, r"kinds must be at least two of flip, .*, got \['flip'\]"),
        ({"kinds": ["flip", "flip"]}, ValueError, "kinds must be at least two of flip"),
        ({"kinds": ["flip", "shear"]}, ValueError, "kinds must be at least two of flip"),
        ({"kth_compat": 1}, TypeError, "kth_compat must be true or false, got int"),
    ],
)
def test_two_of_four_refuses_other_fields(fields: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^TwoOfFour: {message}"):
        TwoOfFour(**fields)


@given(seed=SEEDS)
def test_random_move_starts_and_ends_at_drawn_amounts(seed: int) -> None:
    motion = body(seed, frames=9, dimensions=2)
    still = RandomMove((0.0,), (1.0,), (0.0,))(motion, generator(seed))
    np.testing.assert_allclose(still.keypoints, motion.keypoints, atol=1e-6)
    shifted = RandomMove((0.0,), (1.0,), (0.0, 4.0))(motion, generator(seed)).keypoints - motion.keypoints
    assert set(np.round(shifted[0, [0, -1], 0].ravel(), 3).tolist()) <= {0.0, 4.0}
    np.testing.assert_allclose(np.diff(shifted[0, :, 0], n=2, axis=0), 0, atol=1e-4)
    turned = RandomMove((30.0,), (2.0,), (0.0,))(motion, generator(seed)).keypoints
    before, after = (k[..., 0] + 1j * k[..., 1] for k in (motion.keypoints, turned))
    np.testing.assert_allclose(after / before, 2 * np.exp(1j * np.pi / 6), atol=1e-3)
