"""Detection of formats, and data sets as streams: order, counts, errors that are skipped but never silent."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, detect_format, list_formats, read, read_dataset
from stgcn_fast.data.formats import get_format
from stgcn_fast.data.formats.base import natural_key
from stgcn_fast.graph import list_layouts


def save(path: Path, frames: int = 2, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, keypoints=np.ones((frames, 8, 3)), **fields)
    return path


def test_every_format_is_described_in_one_line_and_names_known_layouts() -> None:
    formats = list_formats()
    readers = {"ntu", "kinetics", "openpose", "pyskl", "utd_mhad", "nw_ucla", "natops", "arrays"}
    assert set(formats) == readers | {"video"}
    for name, line in formats.items():
        assert len(line) > 20
        assert "\n" not in line
        assert get_format(name).name == name
        assert set(get_format(name).layouts) <= {"any", *list_layouts()}


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("S001.skeleton", "1\n", "ntu"),
        ("a.mat", "", "utd_mhad"),
        ("a.ts", "", "natops"),
        ("a.pkl", "", "pyskl"),
        ("a.pickle", "", "pyskl"),
        ("a.npy", "", "arrays"),
        ("a.NPZ", "", "arrays"),
        ("a.MP4", "", "video"),
        ("a.json", {"data": [{"frame_index": 1, "skeleton": []}]}, "kinetics"),
        ("a.json", {"version": 1.3, "people": []}, "openpose"),
        ("a.json", {"file_name": "a", "skeletons": [], "label": 1}, "nw_ucla"),
    ],
)
def test_detection_of_a_file_and_of_a_data_set(tmp_path: Path, name: str, content: Any, format: str) -> None:
    path = tmp_path / "deep" / "deeper" / name
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "deep" / "labels.json").write_text('{"x": {"has_skeleton": true}}')
    assert detect_format(path) == format
    assert detect_format(tmp_path) == format


def test_a_video_beside_keypoints_is_not_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    assert detect_format(tmp_path) == "video"
    save(tmp_path / "b.npz")
    assert detect_format(tmp_path) == "arrays"


def test_what_no_format_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    for place in (path, tmp_path):
        with pytest.raises(FormatError) as raised:
            read(place)
        names = ", ".join(list_formats())
        assert str(raised.value) == f"{place}: must be in one of the formats {names}, got none of them"


def test_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.npz"
    for call in (
        lambda: read(path),
        lambda: read(path, "arrays"),
        lambda: read_dataset(path),
        lambda: read_dataset(path, "ntu"),
        lambda: detect_format(path),
    ):
        with pytest.raises(FileNotFoundError) as raised:
            call()
        assert str(raised.value) == f"{path}: must be an existing file or directory, got nothing there"


def test_a_directory_is_no_clip_but_a_directory_of_frames_is(tmp_path: Path) -> None:
    save(tmp_path / "a.npz")
    rule = "must be one clip of format 'arrays'; read_dataset reads directories"
    for format in (None, "arrays"):
        with pytest.raises(FormatError) as raised:
            read(tmp_path, format)
        assert str(raised.value) == f"{tmp_path}: {rule}, got a directory"
    frame = {"people": [{"pose_keypoints_2d": [1.0] * 54}]}
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "0_keypoints.json").write_text(json.dumps(frame))
    assert read(tmp_path / "clip").frames == 1


def test_unknown_names_and_options(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz")
    with pytest.raises(ValueError) as raised:
        read(path, "bvh")
    names = ", ".join(list_formats())
    assert str(raised.value) == f"get_format: format must be one of {names}, got 'bvh'"
    with pytest.raises(ValueError) as raised:
        read(path, scale=2)
    options = "layout, axes, score, default_layout, name, index"
    said = f"read: options of format 'arrays' must be among: {options}, got 'scale'"
    assert str(raised.value) == said
    with pytest.raises(ValueError) as raised:
        read_dataset(path, "utd_mhad", scale=2)
    said = "read_dataset: options of format 'utd_mhad' must be among: none, got 'scale'"
    assert str(raised.value) == said
    with pytest.raises(ValueError, match="'octopus'"):
        read(path, layout="octopus")
    with pytest.raises(ValueError) as raised:
        read_dataset(path, errors="ignore")
    assert str(raised.value) == "read_dataset: errors must be 'raise' or 'skip', got 'ignore'"
    with pytest.raises(ValueError) as raised:
        read_dataset(path, limit=0)
    assert str(raised.value) == "read_dataset: limit must be at least 1 or None, got 0"


def test_a_data_set_comes_in_natural_order_as_often_as_wanted(tmp_path: Path) -> None:
    for name in ("b10", "b9", "a/2", "a/10", "B1"):
        save(tmp_path / f"{name}.npz", name=name)
    clips = read_dataset(tmp_path)
    names = [clip.name for clip in clips]
    assert names == ["B1", "a/2", "a/10", "b9", "b10"]
    assert [clip.name for clip in clips] == names
    assert len(clips) == clips.read_count == 5
    assert [clip.name for clip in read_dataset(tmp_path, limit=2)] == names[:2]


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20))
def test_natural_order_is_numeric_and_total(numbers: list[int]) -> None:
    names = [f"frame_{number}.json" for number in numbers]
    assert sorted(names, key=natural_key) == [f"frame_{number}.json" for number in sorted(numbers)]
    mixed = [*names, "", "frame", "12", "frame_007.json", "frame_7.json"]
    backwards = mixed[::-1]
    assert sorted(mixed, key=natural_key) == sorted(backwards, key=natural_key)


def test_broken_clips_raise_or_are_skipped_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcd":
        save(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "b.npz", keypoints=np.full((2, 8, 3), np.nan))
    np.savez(tmp_path / "d.npz", keypoints=np.ones((2, 7, 3)), layout="natops8")
    said = f"{tmp_path / 'b.npz'}: must hold at least one joint with finite coordinates, got 16 joints of NaN"
    reader = read_dataset(tmp_path)
    with pytest.raises(FormatError) as raised:
        list(reader)
    assert str(raised.value) == said

    with caplog.at_level(logging.WARNING, logger="stgcn_fast.data"):
        reader = read_dataset(tmp_path, errors="skip")
        assert [clip.name for clip in reader] == ["a", "c"]
    assert reader.skipped[0] == ("b", said)
    assert [name for name, _ in reader.skipped] == ["b", "d"]
    assert reader.read_count == 2
    assert caplog.messages == [f"read_dataset: 2 of 4 clips skipped, first: {said}"]


def test_a_data_set_of_nothing_readable(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as raised:
        read_dataset(tmp_path, "arrays")
    said = "directory must hold files named *.npy or *.npz, got none"
    assert str(raised.value) == f"{tmp_path}: {said}"
    np.savez(tmp_path / "b.npz", keypoints=np.full((2, 8, 3), np.nan))
    with pytest.raises(FormatError) as raised:
        list(read_dataset(tmp_path, errors="skip"))
    assert str(raised.value) == f"{tmp_path}: must hold at least one readable clip, got none of 1"


def test_patterns_fill_fields(tmp_path: Path) -> None:
    for name in ("person02_walking_d1", "person10_boxing_d4"):
        save(tmp_path / f"{name}.npz")
    pattern = r"person(?P<subject>\d+)_(?P<label>[a-z]+)_d(?P<setup>\d)"
    clips = list(read_dataset(tmp_path, pattern=pattern))
    assert [(c.subject, c.label, c.label_name, c.setup) for c in clips] == [
        (2, 1, "walking", 1), (10, 0, "boxing", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "pattern must be a regular expression, got '(' (missing ), unterminated subpattern at "
         "position 0)"),
        ("person", "pattern must have named groups among label, subject, camera, setup, replication, got no "
         "named group"),
        (r"(?P<age>\d+)", "pattern must have named groups among label, subject, camera, setup, replication, "
         "got ['age']"),
        (r"x(?P<label>\d+)", "pattern must match the name of every clip, got 'person02'"),
        (r"(?P<subject>[a-z]+)", "group subject must be a number, got 'person' in 'person02'"),
    ],
)  # fmt: skip
def test_broken_patterns(tmp_path: Path, pattern: str, said: str) -> None:
    save(tmp_path / "person02.npz")
    with pytest.raises(ValueError) as raised:
        read_dataset(tmp_path, pattern=pattern)
    assert str(raised.value) == f"read_dataset: {said}"
