"""Splits: the published protocols, lists, random parts, and that no clip is ever in two parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import Skeleton, SkeletonStore, list_protocols, random_fraction, split
from stgcn_fast.data.splits import ID_SETS


def described(**columns: Any) -> SimpleNamespace:
    """A data set as splits see it."""
    count = len(next(iter(columns.values())))
    whole: dict[str, Any] = {name: np.full(count, -1) for name in ("labels", "subjects", "cameras", "setups")}
    whole |= {"names": [f"clip{i}" for i in range(count)], "splits": [()] * count}
    return SimpleNamespace(**{**whole, **columns})


def assert_partition(parts: dict[str, Any], count: int | None) -> None:
    assert list(parts) == ["train", "val", "test"]
    joined = np.concatenate(list(parts.values()))
    for part in parts.values():
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert len(np.unique(joined)) == len(joined)
    if count is not None:
        assert sorted(joined) == list(range(count))


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.sets(st.integers(1, 9)),
    st.sets(st.integers(1, 9)),
)
def test_parts_by_subject_hold_exactly_their_subjects(
    subjects: list[int], train: set[int], val: set[int]
) -> None:
    train, val = train & set(subjects), val & set(subjects) - train
    data = described(subjects=np.array(subjects))
    if not train:
        with pytest.raises(ValueError, match="train must hold at least one clip, got none"):
            split(data, "cross_subject", train=train, val=val)
        return
    parts = split(data, "cross_subject", train=sorted(train), val=val)
    assert_partition(parts, len(subjects))
    for part, chosen in (("train", train), ("val", val), ("test", set(subjects) - train - val)):
        assert {subjects[i] for i in parts[part]} == chosen


def test_ntu_subjects() -> None:
    """The lists as the two papers print them, in words of their own."""
    sixty = "1 2 4 5 8 9 13 14 15 16 17 18 19 25 27 28 31 34 35 38"
    more = (
        "45 46 47 49 50 52 53 54 55 56 57 58 59 70 74 78 80 81 82 83 84 85 86 89 91 92 93 94 95 97 98 100 103"
    )
    assert ID_SETS["ntu60"] == {int(number) for number in sixty.split()}
    assert ID_SETS["ntu120"] == {int(number) for number in f"{sixty} {more}".split()}
    assert len(ID_SETS["ntu60"]) == 20
    assert len(ID_SETS["ntu120"]) == 53
    parts = split(described(subjects=np.arange(1, 107)), "ntu120_xsub")
    assert (len(parts["train"]), len(parts["test"])) == (53, 53)
    parts = split(described(subjects=np.arange(1, 41)), "ntu60_xsub")
    assert (parts["train"] + 1).tolist() == [int(number) for number in sixty.split()]


def test_the_other_published_protocols() -> None:
    cameras = np.array([1, 2, 3, 1, 2, 3])
    assert split(described(cameras=cameras), "ntu60_xview")["train"].tolist() == [1, 2, 4, 5]
    assert split(described(cameras=cameras), "nw_ucla")["train"].tolist() == [0, 1, 3, 4]
    parts = split(described(setups=np.arange(1, 33)), "ntu120_xset")
    assert (parts["train"] + 1).tolist() == list(range(2, 33, 2))
    assert (parts["test"] + 1).tolist() == list(range(1, 33, 2))
    parts = split(described(subjects=np.arange(1, 9)), "utd_mhad")
    assert (parts["train"] + 1).tolist() == [1, 3, 5, 7]
    assert (parts["test"] + 1).tolist() == [2, 4, 6, 8]
    parts = split(described(subjects=np.arange(1, 26)), "kth")
    assert_partition(parts, 25)
    assert (parts["train"] + 1).tolist() == list(range(11, 19))
    assert (parts["val"] + 1).tolist() == [1, 4, 19, 20, 21, 23, 24, 25]
    assert split(described(splits=[("train",), ("test",), ("train",)]), "natops")["test"].tolist() == [1]


def test_a_published_protocol_can_be_changed_in_part() -> None:
    parts = split(described(subjects=np.arange(1, 9)), "utd_mhad", val=[2])
    assert (parts["val"] + 1).tolist() == [2]
    assert (parts["test"] + 1).tolist() == [4, 6, 8]


def test_protocols_are_described() -> None:
    lines = list_protocols()
    assert {"cross_subject", "cross_view", "cross_setup", "given", "random", "ntu60_xsub", "kth"} <= set(
        lines
    )
    assert all(line.endswith(".") and "\n" not in line for line in lines.values())


def test_lists_of_names_in_every_form(tmp_path: Path) -> None:
    data = described(labels=np.zeros(5), splits=[("a",), ("a",), ("b",), (), ("b",)])
    listed = tmp_path / "test.txt"
    listed.write_text("# the test\nclip3\n\n  clip4\nclip4\n")
    parts = split(data, "given", train="a", val=["clip2"], test=str(listed))
    assert {name: part.tolist() for name, part in parts.items()} == {
        "train": [0, 1],
        "val": [2],
        "test": [3, 4],
    }
    parts = split(data, "given", train=listed)
    assert parts["train"].tolist() == [3, 4]
    assert len(parts["val"]) == len(parts["test"]) == 0


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([("train",), ("test",), ("val",)], [[0], [2], [1]]),
        ([("xsub_train",), ("xsub_val",), ("xsub_val",)], [[0], [1, 2], []]),
        ([("xsub_train",), ("xsub_test",), ()], [[0], [], [1]]),
    ],
)
def test_the_splits_of_a_data_set_itself(own: list[tuple[str, ...]], expected: list[list[int]]) -> None:
    parts = split(described(splits=own), "given")
    assert [part.tolist() for part in parts.values()] == expected


def test_several_splits_must_be_chosen_from() -> None:
    data = described(splits=[("xsub_train", "xview_train"), ("xsub_val",), ("xview_val",)])
    with pytest.raises(ValueError) as raised:
        split(data, "given")
    names = "['xsub_train', 'xsub_val', 'xview_train', 'xview_val']"
    assert str(raised.value) == f"given: train must be given for a data set with the splits {names}, got none"
    parts = split(data, "given", train="xview_train", test="xview_val")
    assert parts["test"].tolist() == [2]


EIGHT = {"subjects": np.arange(1, 9), "cameras": np.full(8, 1), "setups": np.full(8, -1)}


@pytest.mark.parametrize(
    ("protocol", "options", "error", "said"),
    [
        ("cross_age", {}, ValueError, "split: protocol must be one of cross_subject, cross_view, "
         "cross_setup, given, "),
        ("cross_subject", {}, TypeError, "cross_subject: train must be given, got nothing"),
        ("cross_subject", {"trian": "odd"}, TypeError,
         "cross_subject: options must be among train, val, test, got 'trian'"),
        ("random", {"train": "much"}, TypeError, "random: train must be a share, got 'much'"),
        ("cross_subject", {"train": [1, 11]}, ValueError,
         "cross_subject: train must be among the subject numbers [1, 2, 3, 4, 5, 6, 7, 8], got [11]"),
        ("cross_subject", {"train": ["1"]}, TypeError,
         "cross_subject: train must be subject numbers, got ['1']"),
        ("cross_subject", {"train": 3}, TypeError, "cross_subject: train must be subject numbers, got 3"),
        ("cross_subject", {"train": "ntu90"}, ValueError, "cross_subject: train must be subject numbers or "
         "one of odd, even, ntu60, ntu120, kth_train, kth_val, kth_test, got 'ntu90'"),
        ("cross_subject", {"train": [1, 2], "test": [2, 3]}, ValueError,
         "cross_subject: train and test must share no subject, got [2]"),
        ("cross_view", {"train": [2]}, ValueError,
         "cross_view: train must be among the camera numbers [1], got [2]"),
        ("cross_view", {"train": "even"}, ValueError, "cross_view: train must hold at least one clip, got "
         "none"),
        ("cross_setup", {}, ValueError, "cross_setup: setup must be known for every clip, got 8 without, "
         "first 'clip0'"),
        ("given", {"train": ["clip1", "clip9"]}, ValueError,
         "given: train must name clips of the data set, got 'clip9' (1 unknown of 2)"),
        ("given", {"train": "no.txt"}, ValueError, "given: train must be a split of the data set (it has "
         "none) or a file of names, got 'no.txt'"),
        ("given", {"train": [3]}, TypeError, "given: train must be clip names, got 3"),
        ("given", {"train": ["clip1"], "test": ["clip1"]}, ValueError,
         "given: train and test must share no clip, got 1 in both"),
        ("random", {"train": 0}, ValueError,
         "random: train and val must be shares with train + val <= 1, got 0 and 0.0"),
        ("random", {"train": 0.8, "val": 0.3}, ValueError,
         "random: train and val must be shares with train + val <= 1, got 0.8 and 0.3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gives_one_line(
    protocol: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        split(described(**EIGHT), protocol, **options)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_labels_alone_do_for_random_only() -> None:
    assert_partition(split([0, 0, 1, 1], "random", train=0.5), 4)
    with pytest.raises(TypeError) as raised:
        split([0, 1], "cross_subject", train=[1])
    said = "split: store_or_labels must be a store for protocol 'cross_subject', got list"
    assert str(raised.value) == said
    with pytest.raises(ValueError, match=r"random: labels must be \[clips\], got shape \[1, 2\]"):
        split([[0, 1]], "random")


def test_names_that_occur_twice() -> None:
    with pytest.raises(ValueError) as raised:
        split(described(names=["a", "b", "a"]), "given", train=["b"])
    assert str(raised.value) == "given: clip names must be unique, got 'a' more than once"


LABELS = st.lists(st.integers(-1, 5), min_size=3, max_size=80)


@given(LABELS, st.floats(0.1, 0.6), st.floats(0, 0.4), st.integers(0, 99), st.booleans())
def test_random_parts(labels: list[int], train: float, val: float, seed: int, stratified: bool) -> None:
    options = {"train": train, "val": val, "seed": seed, "stratified": stratified}
    try:
        parts = split(labels, "random", **options)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
        assert_partition(parts, len(labels))
        again = split(labels, "random", **options)
        assert all((parts[name] == again[name]).all() for name in parts)
        groups = sorted(set(labels)) if stratified else [None]
        for group in groups:
            count = len(labels) if group is None else labels.count(group)
            chosen = [i for i in parts["train"] if group is None or labels[i] == group]
            assert len(chosen) == round(train * count)
    assert said in ("", "random: train must hold at least one clip, got none")


def test_random_parts_depend_on_the_seed() -> None:
    labels = np.arange(100) % 4
    a, b = (split(labels, "random", seed=seed)["train"] for seed in (0, 1))
    assert (a != b).any()


@given(LABELS, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 99), st.booleans(), st.data())
def test_random_fractions_are_stratified_and_nested(
    labels: list[int], p: float, q: float, seed: int, stratified: bool, data: st.DataObject
) -> None:
    indices = data.draw(st.sets(st.integers(0, len(labels) - 1), min_size=1).map(sorted))
    small, large = (
        random_fraction(indices, labels, share, seed, stratified=stratified) for share in sorted((p, q))
    )
    assert set(small) <= set(large) <= set(indices)
    np.testing.assert_array_equal(random_fraction(indices, labels, 1.0, seed, stratified=stratified), indices)
    own = [labels[i] for i in indices]
    for group in sorted(set(own)) if stratified else [None]:
        count = len(own) if group is None else own.count(group)
        chosen = [i for i in large if group is None or labels[i] == group]
        assert len(chosen) == max(1, round(max(p, q) * count))


def test_fractions_that_do_not_fit() -> None:
    for p in (0, 1.5, -1):
        with pytest.raises(ValueError) as raised:
            random_fraction([0], [0], p)
        assert str(raised.value) == f"random_fraction: p must be in (0, 1], got {p}"
    with pytest.raises(ValueError) as raised:
        random_fraction([0, 7], [0, 0], 0.5)
    assert str(raised.value) == "random_fraction: indices must be in [0, 2), got 0..7"
    assert random_fraction([], [0], 0.5).shape == (0,)


def test_a_store_can_be_split(tmp_path: Path) -> None:
    keypoints = np.ones((1, 2, 8, 3), np.float32)
    clips = [
        Skeleton(
            keypoints, layout="natops8", name=f"c{i}", subject=i % 4, label=i % 2, splits=("train",)[: i % 2]
        )
        for i in range(8)
    ]
    store = SkeletonStore.build(tmp_path / "store", clips)
    assert split(store, "cross_subject", train="odd")["train"].tolist() == [1, 3, 5, 7]
    assert split(store, "given")["train"].tolist() == [1, 3, 5, 7]
    assert_partition(split(store, "random", val=0.1), 8)
