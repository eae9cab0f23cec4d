"""The clip type: its rules, its masks, and what its methods keep."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, Skeleton


def points(m: int = 2, t: int = 5, v: int = 8, c: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(m, t, v, c)).astype(np.float32)


def clip(**fields: Any) -> Skeleton:
    given: dict[str, Any] = {"keypoints": points(), "layout": "natops8", "name": "clip"}
    return Skeleton(**{**given, **fields})


def test_sizes_and_defaults() -> None:
    one = clip()
    assert (one.num_persons, one.frames, one.num_joints, one.num_coordinates) == (2, 5, 8, 3)
    assert one.confidence is None
    assert one.label is one.subject is one.camera is one.setup is one.replication is None
    assert repr(one) == "Skeleton('clip', 'natops8', M=2, T=5, V=8, C=3)"
    assert repr(one.with_label(3)) == "Skeleton('clip', 'natops8', M=2, T=5, V=8, C=3, label=3)"


def test_other_number_types_become_float32_and_int() -> None:
    one = clip(keypoints=points().astype(np.float64), label=np.int64(4), subject=np.uint8(3))
    assert one.keypoints.dtype == np.float32
    assert type(one.label) is int
    assert type(one.subject) is int
    assert clip(
        keypoints=points().transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    ).keypoints.flags.c_contiguous


NAN = points()
NAN[1, 2, 3, 0] = np.nan
HUGE = points().astype(np.float64)
HUGE[0, 0, 0, 0] = 1e300
SHAPE_RULE = "Skeleton: keypoints must be [M, T, V, C] with M, T, V >= 1 and C = 2 or 3"


@pytest.mark.parametrize(
    ("fields", "error", "line"),
    [
        (
            {"keypoints": points()[0]},
            ValueError,
            f"{SHAPE_RULE}, got shape [5, 8, 3]",
        ),
        (
            {"keypoints": np.zeros((1, 0, 8, 3), np.float32)},
            ValueError,
            f"{SHAPE_RULE}, got shape [1, 0, 8, 3]",
        ),
        (
            {"keypoints": np.zeros((1, 2, 8, 4), np.float32)},
            ValueError,
            f"{SHAPE_RULE}, got shape [1, 2, 8, 4]",
        ),
        (
            {"layout": "ntu25"},
            ValueError,
            "Skeleton: keypoints must be [M, T, 25, C] for layout 'ntu25', got shape [2, 5, 8, 3]",
        ),
        (
            {"keypoints": NAN},
            ValueError,
            "Skeleton: keypoints must be finite, got 1 non-finite of 240 values",
        ),
        (
            {"keypoints": HUGE},
            ValueError,
            "Skeleton: keypoints must be finite, got 1 non-finite of 240 values",
        ),
        (
            {"keypoints": [[1.0]]},
            TypeError,
            "Skeleton: keypoints must be a float32 numpy array, got list",
        ),
        (
            {"keypoints": points().astype(complex)},
            TypeError,
            "Skeleton: keypoints must be a float32 numpy array, got an array of complex128",
        ),
        (
            {"confidence": np.ones((2, 5), np.float32)},
            ValueError,
            "Skeleton: confidence must be [M, T, V] = [2, 5, 8], got shape [2, 5]",
        ),
        (
            {"confidence": np.full((2, 5, 8), -0.5, np.float32)},
            ValueError,
            "Skeleton: confidence must be at least 0, got -0.5",
        ),
        ({"label": -1}, ValueError, "Skeleton: label must be at least 0 or None, got -1"),
        ({"label": 1.5}, TypeError, "Skeleton: label must be an int or None, got float"),
        ({"subject": True}, TypeError, "Skeleton: subject must be an int or None, got bool"),
        ({"label_name": 3}, TypeError, "Skeleton: label_name must be a str or None, got int"),
        ({"name": None}, TypeError, "Skeleton: name must be a str, got NoneType"),
        ({"layout": 25}, TypeError, "Skeleton: layout must be a name, got int"),
        ({"body_ids": ("a",)}, ValueError, "Skeleton: body_ids must be empty or 2 long, got 1"),
        ({"splits": "train"}, TypeError, "Skeleton: splits must be a sequence of str, got 'train'"),
    ],
)
def test_a_broken_rule_gives_one_line(fields: dict[str, Any], error: type[Exception], line: str) -> None:
    with pytest.raises(error) as raised:
        clip(**fields)
    assert str(raised.value) == line


def test_an_unknown_layout_is_an_error() -> None:
    with pytest.raises(ValueError, match="'octopus'"):
        clip(layout="octopus")


def test_valid_follows_confidence_and_otherwise_zeros() -> None:
    keypoints = points()
    keypoints[0, 1, 2] = 0
    keypoints[1, 3] = 0
    without = clip(keypoints=keypoints)
    expected = np.ones((2, 5, 8), bool)
    expected[0, 1, 2] = expected[1, 3] = False
    np.testing.assert_array_equal(without.valid, expected)
    np.testing.assert_array_equal(without.present, expected.any(-1))
    assert not without.present[1, 3]
    scores = np.ones((2, 5, 8), np.float32)
    scores[0, 0, 0] = 0
    with_scores = clip(keypoints=keypoints, confidence=scores)
    np.testing.assert_array_equal(with_scores.valid, scores > 0)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5))
def test_select_persons_picks_all_that_belongs_to_them(order: list[int]) -> None:
    scores = np.random.default_rng(1).uniform(size=(3, 5, 8)).astype(np.float32)
    one = clip(keypoints=points(3), confidence=scores, body_ids=("a", "b", "c"), label=1, subject=7)
    some = one.select_persons(order)
    assert some.body_ids == tuple("abc"[person] for person in order)
    for position, person in enumerate(order):
        np.testing.assert_array_equal(some.keypoints[position], one.keypoints[person])
        assert some.confidence is not None
        np.testing.assert_array_equal(some.confidence[position], scores[person])
    assert (some.label, some.subject, some.name) == (1, 7, "clip")


@given(st.integers(0, 4), st.integers(1, 5))
def test_select_frames_is_a_slice(start: int, length: int) -> None:
    one = clip()
    stop = min(one.frames, start + length)
    np.testing.assert_array_equal(one.select_frames(start, stop).keypoints, one.keypoints[:, start:stop])


def test_selections_out_of_range() -> None:
    with pytest.raises(ValueError) as raised:
        clip().select_persons([0, 2])
    assert str(raised.value) == "Skeleton.select_persons: persons must be some of [0, 2), got [0, 2]"
    with pytest.raises(ValueError, match=r"got \[\]"):
        clip().select_persons([])
    with pytest.raises(ValueError) as raised:
        clip().select_frames(3, 3)
    assert str(raised.value) == "Skeleton.select_frames: 0 <= start < stop <= 5 must hold, got [3, 3)"


def test_with_methods_keep_the_rest_and_leave_the_original() -> None:
    one = clip(label=2, label_name="two", subject=4, splits=["train"], body_ids=["a", "b"])
    before = one.keypoints.copy()
    other = one.with_keypoints(one.keypoints * 2)
    np.testing.assert_array_equal(one.keypoints, before)
    np.testing.assert_array_equal(other.keypoints, before * 2)
    assert other.body_ids == ("a", "b")
    assert (other.label, other.subject, other.splits) == (2, 4, ("train",))
    assert one.with_keypoints(one.keypoints[:1]).body_ids == ()
    assert one.with_label(None).label_name is None
    assert one.with_fields(camera=3).camera == 3


def test_fields_cannot_be_assigned() -> None:
    with pytest.raises(AttributeError):
        clip().label = 3  # type: ignore[misc]


def test_copies_and_pickles() -> None:
    one = clip(label=2, confidence=np.ones((2, 5, 8), np.float32), body_ids=("a", "b"))
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        np.testing.assert_array_equal(other.keypoints, one.keypoints)
        np.testing.assert_array_equal(other.confidence, one.confidence)
        assert (other.label, other.body_ids, other.layout) == (2, ("a", "b"), "natops8")


def test_trusted_equals_checked() -> None:
    fields = {"keypoints": points(), "layout": "natops8", "label": 3}
    trusted, checked = Skeleton.trusted(**fields), Skeleton(**fields)
    for field in Skeleton.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(trusted, field), getattr(checked, field))


def test_format_error_is_one_short_line_and_travels_between_processes() -> None:
    error = FormatError("clips/a.json", "label must be in [1, 10]", "many\nlines " * 50)
    assert isinstance(error, ValueError)
    assert "\n" not in str(error)
    assert len(str(error)) < 130
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.path, again.rule, again.got) == (error.path, error.rule, error.got)
