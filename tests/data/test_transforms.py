"""Transforms: what all of them keep, and how they are listed in YAML."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.transforms import (
    Centre,
    Compose,
    FillMissing,
    Motion,
    RandomFlip,
    RandomRotate,
    Resample,
    Transform,
    build_transform,
    list_transforms,
    register_transform,
)

EVERY: list[dict[str, Any]] = [
    {"name": "Centre"},
    {"name": "Centre", "joint": "hips", "reference": "mean"},
    {"name": "Centre", "joint": "body", "reference": "frame"},
    {"name": "Centre", "joint": "head", "reference": "frame"},
    {"name": "AlignView"},
    {"name": "AlignView", "mode": "yaw", "up": "y", "side": "both", "reference": "mean"},
    {"name": "NormalizeScale"},
    {"name": "NormalizeScale", "by": "torso"},
    {"name": "NormalizeScale", "by": "height"},
    {"name": "NormalizeScale", "by": "std", "target": 2.0},
    {"name": "NormalizeBox"},
    {"name": "NormalizeBox", "per_axis": True},
    {"name": "NormalizeImage", "width": 160.0, "height": 120.0},
    {"name": "Resample", "frames": 5},
    {"name": "Resample", "frames": 40},
    {"name": "CropResize", "frames": 16},
    {"name": "CropResize", "frames": 16, "ratio": [0.95, 0.95], "position": "centre"},
    {"name": "UniformSample", "frames": 9},
    {"name": "UniformSample", "frames": 30, "position": "centre"},
    {"name": "RandomCrop", "frames": 6},
    {"name": "PadLoop", "frames": 31},
    {"name": "PadZero", "frames": 31, "shift": True},
    {"name": "TrimEmpty"},
    {"name": "TrimEmpty", "where": "all"},
    {"name": "RandomRotate", "degrees": 30.0},
    {"name": "RandomRotate", "degrees": [5.0, 60.0, 5.0], "about": "origin"},
    {"name": "RandomScale", "factor": [0.8, 1.2], "per_axis": True},
    {"name": "RandomShear"},
    {"name": "RandomTranslate", "amount": 0.3},
    {"name": "RandomFlip", "p": 1.0},
    {"name": "RandomFlip", "axis": "z", "about": "origin"},
    {"name": "JitterNoise", "sigma": 0.05},
    {"name": "JitterNoise", "snr_db": 20.0},
    {"name": "DropJoints", "probability": 0.4},
    {"name": "DropJoints", "probability": 0.4, "per_frame": True},
    {"name": "DropFrames", "probability": 0.4},
    {"name": "TwoOfFour", "p": 1.0},
    {"name": "RandomMove", "segments": 3},
    {"name": "Compose", "transforms": [{"name": "Centre"}, {"name": "RandomShear"}], "p": 0.9},
]
NAMES = [f"{i}-{spec['name']}" for i, spec in enumerate(EVERY)]


def make_motion(seed: int, frames: int = 20, persons: int = 2, missing: float = 0.2) -> Motion:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1.0, (persons, frames, 20)).astype(np.float32)
    confidence[rng.random(confidence.shape) < missing] = 0
    confidence[:, :, 7] = 0  # a joint that is never seen
    confidence[:, :: frames - 1] = 0  # frames in which nobody is
    keypoints = np.array([0.5, 1.0, 3.0]) + rng.standard_normal((persons, frames, 20, 3))
    return Motion(keypoints.astype(np.float32), confidence, "kinect20").moved(keypoints)


def build(spec: dict[str, Any]) -> Transform:
    return build_transform([spec], "kinect20").transforms[0]


def test_the_list_above_leaves_none_out() -> None:
    assert {spec["name"] for spec in EVERY} | {"FillMissing"} == set(list_transforms())


@pytest.mark.parametrize("spec", EVERY, ids=NAMES)
def test_what_every_transform_keeps(spec: dict[str, Any]) -> None:
    transform = build(spec)
    for seed in range(4):
        motion = make_motion(seed)
        untouched = Motion(motion.keypoints.copy(), motion.confidence.copy(), motion.layout)
        motion.keypoints.setflags(write=False)
        motion.confidence.setflags(write=False)
        out = transform(motion, np.random.default_rng(seed))
        again = transform(motion, np.random.default_rng(seed))
        for arrays in (motion, again):
            expected = untouched if arrays is motion else out
            np.testing.assert_array_equal(arrays.keypoints, expected.keypoints)
            np.testing.assert_array_equal(arrays.confidence, expected.confidence)
        assert out.keypoints.dtype == out.confidence.dtype == np.float32
        assert np.isfinite(out.keypoints).all()
        assert out.keypoints.shape[:3] == out.confidence.shape
        assert out.keypoints.shape[0] == 2
        assert out.keypoints.shape[2:] == (20, 3)
        never = [11] if spec["name"] == "RandomFlip" and spec.get("p") == 1.0 else None
        if never is None and spec["name"] not in ("RandomFlip", "TwoOfFour"):
            never = [7]
        assert not out.valid[:, :, never or []].any()
        assert not out.keypoints[~out.valid].any()
        assert out.valid.any()


@pytest.mark.parametrize("spec", EVERY, ids=NAMES)
def test_a_clip_comes_back_as_a_clip(spec: dict[str, Any]) -> None:
    motion = make_motion(5)
    clip = Skeleton(motion.keypoints, "kinect20", motion.confidence, name="a", label=3, subject=2)
    transform = build(spec)
    out = transform(clip, np.random.default_rng(1))
    direct = transform(motion, np.random.default_rng(1))
    assert (out.name, out.label, out.subject, out.layout) == ("a", 3, 2, "kinect20")
    np.testing.assert_array_equal(out.keypoints, direct.keypoints)
    np.testing.assert_array_equal(out.valid, direct.valid)


@pytest.mark.parametrize("spec", EVERY, ids=NAMES)
def test_an_empty_clip_passes(spec: dict[str, Any]) -> None:
    empty = Motion(np.zeros((1, 4, 20, 3), np.float32), np.zeros((1, 4, 20), np.float32), "kinect20")
    out = build(spec)(empty, np.random.default_rng(0))
    assert not out.keypoints.any()
    assert not out.confidence.any()


@pytest.mark.parametrize("spec", EVERY, ids=NAMES)
def test_one_frame_is_enough(spec: dict[str, Any]) -> None:
    motion = make_motion(3).at(np.array([5]))
    out = build(spec)(motion, np.random.default_rng(0))
    assert out.frames >= 1
    assert np.isfinite(out.keypoints).all()


@pytest.mark.parametrize("spec", EVERY, ids=NAMES)
def test_written_and_built_again_it_is_the_same(spec: dict[str, Any]) -> None:
    transform = build(spec)
    entry = transform.to_dict()
    assert build(entry) == transform
    assert pickle.loads(pickle.dumps(transform)) == transform
    for key, value in spec.items():
        if key == "transforms":
            assert [part["name"] for part in entry[key]] == [part["name"] for part in value]
        elif not (key == "p" and value == 1.0):
            assert entry[key] == value


def test_the_specs_survive_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    chain = build_transform(EVERY, "kinect20")
    assert build_transform(yaml.safe_load(yaml.safe_dump(chain.to_list())), "kinect20") == chain


@given(seed=st.integers(0, 999))
def test_a_chain_is_its_parts_in_order(seed: int) -> None:
    parts = [Centre("hips"), RandomRotate(40.0), Resample(11), RandomFlip()]
    motion = make_motion(seed)
    rng, expected = np.random.default_rng(seed), motion
    for part in parts:
        expected = part(expected, rng)
    out = Compose(tuple(parts))(motion, np.random.default_rng(seed))
    np.testing.assert_array_equal(out.keypoints, expected.keypoints)


def test_randomness_comes_from_outside_only() -> None:
    motion = make_motion(0)
    with pytest.raises(TypeError, match=r"^RandomRotate: rng must be .*Generator, got NoneType$"):
        RandomRotate(5.0)(motion)
    rng = np.random.default_rng(3)
    state = rng.bit_generator.state
    assert not Centre().is_random
    assert not build_transform([{"name": "UniformSample", "frames": 4, "position": "centre"}]).is_random
    Centre()(motion, rng)
    assert rng.bit_generator.state == state


def test_p_is_the_chance_of_being_applied() -> None:
    motion = make_motion(0)
    chance = build_transform([{"name": "RandomTranslate", "amount": 1.0, "p": 0.3}])
    rng = np.random.default_rng(0)
    applied = sum(not np.array_equal(chance(motion, rng).keypoints, motion.keypoints) for _ in range(400))
    assert 90 < applied < 150
    assert RandomFlip().p == 0.5
    assert build({"name": "RandomFlip", "p": 1.0}).p == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "Turn"}, r"transforms\[0\]\.name must be one of .*AlignView.*, got 'Turn'"),
        ({}, r"transforms\[0\]\.name must be one of .*, got None"),
        ({"name": "Resample"}, r"transforms\[0\]\.frames must be given for Resample, got nothing"),
        ({"name": "Resample", "frames": 0}, r"transforms\[0\]\.frames \(Resample\) must be >= 1, got 0"),
        (
            {"name": "Resample", "frames": 5, "T": 4},
            r"transforms\[0\]\.T must be a field of Resample \(.*frames.*\), got 'T'",
        ),
        (
            {"name": "JitterNoise"},
            r"transforms\[0\]\.sigma \(JitterNoise\) must be given if and only if snr_db is not, got None",
        ),
        (
            {"name": "JitterNoise", "sigma": -1},
            r"transforms\[0\]\.sigma \(JitterNoise\) must be >= 0, got -1.0",
        ),
        (
            {"name": "CropResize", "frames": 8, "ratio": [0.5, 1.5]},
            r"transforms\[0\]\.ratio \(CropResize\) must be \[low, high\] with 0 < .* <= 1, got \[.*\]",
        ),
        (
            {"name": "RandomRotate", "degrees": [1, 2]},
            r"transforms\[0\]\.degrees \(RandomRotate\) must have 3 numbers, got \[1.0, 2.0\]",
        ),
        (
            {"name": "Compose", "transforms": [{"name": "RandomFlip", "axis": "w"}]},
            r"transforms\[0\]\.transforms\[0\]\.axis \(RandomFlip\) must be one of x, y, z, got 'w'",
        ),
        (
            {"name": "RandomScale", "p": 2},
            r"transforms\[0\]\.p \(RandomScale\) must be >= 0 and <= 1, got 2.0",
        ),
        (
            {"name": "TwoOfFour", "shifts": [[1, 2, 3, 4]]},
            r"transforms\[0\]\.shifts\[0\] \(TwoOfFour\) must have 2 or 3 numbers, got \[1.0, .*\]",
        ),
        (
            {"name": "Centre", "joint": "tail"},
            r"transforms\[0\] \(Centre: joint must be one of hip_centre, .*, got 'tail'\)",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_field(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^build_transform: {message}$"):
        build_transform([spec], "kinect20")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"name": "Centre"}, r"transforms must be a list, got dict"),
        ([5], r"transforms\[0\] must be a name or a dictionary, got int"),
        (
            [{"name": "Resample", "frames": 2.5}],
            r"transforms\[0\]\.frames \(Resample\) must be an int, got float",
        ),
        (
            [{"name": "RandomFlip", "swap": 1}],
            r"transforms\[0\]\.swap \(RandomFlip\) must be true or false, got int",
        ),
        (
            [{"name": "TwoOfFour", "degrees": "5"}],
            r"transforms\[0\]\.degrees \(TwoOfFour\) must be a list of numbers, got str",
        ),
    ],
)
def test_a_wrong_type_is_named_by_its_field(specs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^build_transform: {message}$"):
        build_transform(specs)


def test_layouts_without_a_trunk_are_refused_when_building() -> None:
    for spec in (
        {"name": "AlignView"},
        {"name": "NormalizeScale", "by": "torso"},
        {"name": "Centre", "joint": "hips"},
    ):
        with pytest.raises(ValueError, match=r"must have left and right shoulders and hips, got 'natops8'"):
            build_transform([spec], "natops8")
    hands = Motion(np.ones((1, 2, 8, 3), np.float32), np.ones((1, 2, 8), np.float32), "natops8")
    assert build_transform(["NormalizeScale"], "natops8")(hands).valid.all()
    motion = make_motion(0)
    flat = Motion(motion.keypoints[..., :2], motion.confidence, "kinect20")
    with pytest.raises(ValueError, match=r"^AlignView: clip must have 3 dimensions, got 2$"):
        build({"name": "AlignView"})(flat)


def test_direct_errors_and_items() -> None:
    with pytest.raises(ValueError, match=r"^Resample: frames must be >= 1, got 0$"):
        Resample(0)
    with pytest.raises(TypeError, match=r"^Centre: item must be a Skeleton or a Motion, got ndarray$"):
        Centre()(np.zeros((1, 2, 20, 3)))  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"^register_transform: name must be new, got 'Centre'$"):
        register_transform(type("Centre", (Transform,), {}))


@pytest.mark.parametrize(("max_gap", "filled"), [(0, True), (2, True), (1, False)])
def test_filling_draws_a_straight_line(max_gap: int, filled: bool) -> None:
    keypoints = np.arange(6, dtype=np.float32)[None, :, None, None] * np.ones((1, 6, 20, 3), np.float32) + 1
    confidence = np.ones((1, 6, 20), np.float32)
    confidence[0, 2:4, 4] = 0
    confidence[0, :, 9] = 0
    motion = Motion(keypoints, confidence, "kinect20").moved(keypoints)
    out = FillMissing(confidence=0.25, max_gap=max_gap)(motion)
    assert out.valid[0, 2:4, 4].all() == filled
    assert not out.valid[0, :, 9].any()
    assert not out.keypoints[0, :, 9].any()
    if filled:
        np.testing.assert_allclose(out.keypoints[0, :, 4], keypoints[0, :, 4])
        np.testing.assert_array_equal(out.confidence[0, 2:4, 4], [0.25, 0.25])
