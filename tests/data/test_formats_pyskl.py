"""pyskl pickles: what they mean, and that reading one never runs anything."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, SkeletonStore, read, read_dataset
from stgcn_fast.data.formats.safe_pickle import load

FORBIDDEN = "pickle must hold only plain containers and numeric numpy arrays"


def annotation(
    name: str, label: Any = 0, m: int = 1, t: int = 4, v: int = 17, c: int = 2, dtype: Any = np.float16
) -> dict[str, Any]:
    rng = np.random.default_rng(len(name))
    return {
        "frame_dir": name,
        "label": label,
        "img_shape": (1080, 1920),
        "total_frames": t,
        "keypoint": rng.uniform(1, 100, size=(m, t, v, c)).astype(dtype),
        "keypoint_score": rng.uniform(1, 3, size=(m, t, v)).astype(dtype),
    }


def dump(folder: Path, content: Any, protocol: int = 4) -> Path:
    path = folder / "set.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def line_of(path: Path, **options: Any) -> str:
    with pytest.raises(FormatError) as raised:
        read(path, "pyskl", **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@given(
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    dtype=st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i4"]),
    fortran=st.booleans(),
    people=st.integers(1, 2),
)
def test_round_trip_of_every_protocol(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, dtype: str, fortran: bool, people: int
) -> None:
    one = annotation("clip", label=np.int64(3), m=people, dtype=dtype)
    if fortran:
        one["keypoint"] = np.asfortranarray(one["keypoint"])
    path = dump(tmp_path_factory.mktemp("pyskl"), {"split": {}, "annotations": [one]}, protocol)
    clip = read(path)
    np.testing.assert_array_equal(clip.keypoints, one["keypoint"].astype(np.float32))
    np.testing.assert_array_equal(clip.confidence, one["keypoint_score"].astype(np.float32))
    assert type(clip.keypoints) is np.ndarray
    assert (clip.layout, clip.name, clip.label, clip.label_name) == ("coco17", "clip", 0, "3")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_comes_back_as_it_was(tmp_path: Path, protocol: int) -> None:
    content = {
        "list": [1, 2.5, None, True, "text", b"bytes", (1, 2), 10**30],
        "set": {1, 2},
        "frozen": frozenset({3}),
        "ordered": OrderedDict(a=1),
        "scalar": np.float32(1.5),
        "integer": np.int64(-4),
        "text": np.array(["ab", "c"]),
        "flags": np.array([[True], [False]]),
        "nothing": b"",
        "empty": np.zeros((0, 3), np.uint8),
        "big": np.arange(6, dtype=">i2").reshape(2, 3),
    }
    again = load(dump(tmp_path, content, protocol))
    assert again.keys() == content.keys()
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert again[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(again[key], value)
        else:
            assert again[key] == value


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 2], {0: 0, 1: 1, 2: 2}),
        ([0, 5], {0: 0, 5: 5}),
        ([1, 2, 3], {1: 0, 2: 1, 3: 2}),
        ([3, 9, 4, 3], {3: 0, 4: 1, 9: 2}),
    ],
)
def test_labels_become_classes_by_the_written_rule(
    tmp_path: Path, labels: list[int], classes: dict[int, int]
) -> None:
    path = dump(tmp_path, [annotation(f"c{i}", label) for i, label in enumerate(labels)])
    clips = list(read_dataset(path))
    assert [clip.label for clip in clips] == [classes[label] for label in labels]
    assert [clip.label_name for clip in clips] == [str(label) for label in labels]
    store = SkeletonStore.build(tmp_path / "store", clips)
    assert all(store.class_names[index] == str(label) for label, index in classes.items())


def test_splits_and_choice_of_a_clip(tmp_path: Path) -> None:
    content = {
        "split": {"xsub_train": ["a", "b"], "xsub_val": ["c"], "small": ["a", "a"]},
        "annotations": [annotation(name) for name in "abc"],
    }
    path = dump(tmp_path, content)
    splits = {clip.name: clip.splits for clip in read_dataset(path, "pyskl")}
    assert splits == {"a": ("xsub_train", "small"), "b": ("xsub_train",), "c": ("xsub_val",)}
    assert read(path, name="b").name == read(path, index=1).name == "b"
    for options, said in [
        ({}, f"name or index must say which of the 3 clips of {path} to read, got neither"),
        ({"name": "x"}, f"name must be that of one clip in {path}, got 'x' (0 clips)"),
        ({"index": 3}, "index must be in [0, 3), got 3"),
    ]:
        with pytest.raises(ValueError) as raised:
            read(path, **options)
        assert str(raised.value) == f"pyskl.read: {said}"
    with pytest.raises(TypeError) as wrong:
        read(path, index="abc")
    assert str(wrong.value) == "pyskl.read: index must be an int, got 'abc'"


@pytest.mark.parametrize(
    ("v", "c", "layout"),
    [(17, 2, "coco17"), (18, 2, "openpose18"), (21, 2, "hand21"), (25, 3, "ntu25"), (20, 3, "kinect20")],
)
def test_layout_by_number_of_joints(tmp_path: Path, v: int, c: int, layout: str) -> None:
    assert read(dump(tmp_path, [annotation("a", v=v, c=c)])).layout == layout


def test_layout_can_be_named(tmp_path: Path) -> None:
    path = dump(tmp_path, [annotation("a", v=20, c=3)])
    assert read(path, layout="utd20").layout == "utd20"
    rule = "keypoints must be [M, T, 25, C] for layout 'ntu25'"
    assert line_of(path, layout="ntu25") == f"{path}: {rule}, got shape [1, 4, 20, 3]"


def with_(**change: Any) -> list[dict[str, Any]]:
    return [{**annotation("a"), **change}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must not be empty, got 0 bytes"),
        (b"no pickle", "must be a complete pickle, got UnpicklingError: invalid load key, 'n'."),
        (3, "must hold a list 'annotations' of at least one clip, got int"),
        ([], "must hold a list 'annotations' of at least one clip, got list"),
        ({"split": {}}, "must hold a list 'annotations' of at least one clip, got NoneType"),
        ([3], "each annotation must be a dict, got 3"),
        ({"split": [], "annotations": with_()}, "'split' must be a dict of lists of clip names, got list"),
        (
            {"split": {"train": "a"}, "annotations": with_()},
            "split 'train' must be a list of clip names, got str",
        ),
        (
            {"split": {"train": ["a", "z"]}, "annotations": with_()},
            "splits must name only clips of the file, got 'z' (1 in all)",
        ),
        (with_(label=-1), "label must be an integer of at least 0, got -1"),
        (with_(label=1.5), "label must be an integer of at least 0, got 1.5"),
        (with_(label="run"), "label must be an integer of at least 0, got run"),
        (
            [annotation("a"), annotation("b", None)],
            "either all clips or none must have a label, got 1 of 2",
        ),
        (with_(keypoint=[1]), "keypoint of clip 'a' must be an array of numbers, got list"),
        (
            with_(keypoint=np.zeros((4, 17, 2))),
            "keypoint of clip 'a' must be [M, T, V, C] with C = 2 or 3, got shape [4, 17, 2]",
        ),
        (with_(total_frames=9), "keypoint of clip 'a' must have total_frames = 9 frames, got 4"),
        (
            with_(keypoint_score=np.ones((1, 3, 17))),
            "keypoint_score of clip 'a' must be [M, T, V] = [1, 4, 17], got shape [1, 3, 17]",
        ),
        (with_(keypoint_score="x"), "keypoint_score of clip 'a' must be an array of numbers, got str"),
        (
            with_(keypoint=np.zeros((1, 4, 5, 2))[..., :2], keypoint_score=None),
            "number of joints must be 17 (coco17) or 18 (openpose18) or 21 (hand21); name a layout to read "
            "others, got 5",
        ),
        (
            with_(keypoint=np.full((1, 4, 17, 2), np.nan)),
            "must hold at least one joint with finite coordinates, got 68 joints of NaN",
        ),
    ],
)
def test_a_broken_file_gives_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = dump(tmp_path, content)
    assert line_of(path) == f"{path}: {said}"


class Runs:
    """Unpickled by an ordinary loader, this calls a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, os.mkdir, subprocess.getoutput, eval, exec])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int, function: Any) -> None:
    mark = tmp_path / "mark"
    argument = {
        os.system: f"mkdir {mark}", subprocess.getoutput: f"mkdir {mark}",
        eval: f"__import__('os').mkdir({str(mark)!r})", exec: f"__import__('os').mkdir({str(mark)!r})",
    }.get(function, str(mark))  # fmt: skip
    path = dump(tmp_path, {"annotations": with_(evil=Runs(function, argument))}, protocol)
    said = line_of(path)
    assert said.startswith(f"{path}: {FORBIDDEN}, got the name ")
    assert said.endswith(function.__name__)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the same file, read carelessly, does run it
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Counter("ab"), "the name collections.Counter"),
        (np.array([{"a": 1}], dtype=object), "numpy dtype 'O8'"),
        (np.zeros(2, dtype=[("x", "<f4")]), "numpy dtype 'V4'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "numpy dtype 'M8'"),
        (np.ma.array([1.0]), "the name numpy.ma._mareconstruct"),
        (Path("x"), "the name pathlib.PosixPath"),
        (np.add, "the name numpy._core._ufunc_reconstruct"),
        (b"cnumpy\nndarray\n(I1000000000\ntR.", ""),
        (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "codecs.encode to 'rot13'"),
        (b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI63\ntb.", None),
        (b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(I3\nV<\nN(Vx\nt}I-1\nI-1\nI0\ntb.", "a numpy dtype with fields"),
        (
            b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(I3\nVz\nNNNI-1\nI-1\nI0\ntb.",
            "a numpy dtype in an unknown form",
        ),
    ],
)
def test_only_plain_arrays_are_made(tmp_path: Path, content: Any, named: str | None) -> None:
    path = dump(tmp_path, content, 4)
    if named is None:  # the flags of a dtype are ignored, not believed
        assert load(path).dtype.flags == np.dtype("f4").flags
        return
    with pytest.raises(FormatError) as raised:
        load(path)
    if named:
        assert str(raised.value).startswith(f"{path}: {FORBIDDEN}, got {named}"[:150])


# An array of the shape, dtype code and data put in, as an old numpy writes it.
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    b"(I1\n(%stcnumpy\ndtype\n(V%s\nI00\nI01\ntRI00\n%stb."
)


@pytest.mark.parametrize(
    ("shape", "code", "data", "said"),
    [
        (b"I2\n", b"f4", b"C\x04abcd", "must be a complete pickle, got ValueError"),
        (b"I1000000000000\n", b"f4", b"C\x04abcd", "must be a complete pickle, got ValueError"),
        (b"I-1\n", b"f4", b"C\x04abcd", FORBIDDEN),
        (b"Vx\n", b"f4", b"C\x04abcd", FORBIDDEN),
        (b"I1\n", b"f4", b"]", FORBIDDEN),
        (b"I1\n", b"O8", b"]", FORBIDDEN),
    ],
)
def test_array_states_are_checked(tmp_path: Path, shape: bytes, code: bytes, data: bytes, said: str) -> None:
    path = dump(tmp_path, ARRAY % (shape, code, data))
    with pytest.raises(FormatError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: {said}")


def test_a_good_raw_array_is_read(tmp_path: Path) -> None:
    path = dump(tmp_path, ARRAY % (b"I1\nI2\n", b"i2", b"C\x04\x01\x00\x02\x00"))
    assert load(path).tolist() == [[1, 2]]


@given(st.data())
def test_damaged_pickles_give_one_line_or_plain_content(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any byte changed, any end cut off: never another exception, never another type."""
    good = bytearray(pickle.dumps({"annotations": [annotation("a", t=2)]}, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = dump(tmp_path_factory.mktemp("fuzz"), bytes(good[: data.draw(st.integers(1, len(good)))]))
    said, clip = "", None
    try:
        clip = read(path, "pyskl")
    except FormatError as error:
        said = str(error)
    assert "\n" not in said
    assert said.startswith(f"{path}: ") if clip is None else clip.layout == "coco17"
