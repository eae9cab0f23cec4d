"""A table beside the data: labels and subjects of clips that carry none."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.cli import main
from stgcn_fast.data import FormatError, SkeletonStore, read_clip_table, read_dataset


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b", "c"):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=(4, 25, 3)))
    return folder


@given(
    separator=st.sampled_from(",;\t"),
    order=st.permutations(["name", "label", "subject", "split"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, separator: str, order: list[str], newline: str, bom: bool
) -> None:
    rows = [
        {"name": "b", "label": "wave", "subject": "2", "split": "test"},
        {"name": "a", "label": "clap 10", "subject": "", "split": "train"},
        {"name": "c", "label": "clap 9", "subject": "1", "split": ""},
    ]
    text = newline.join(separator.join(row[column] for column in order) for row in rows)
    path = tmp_path_factory.mktemp("table") / "clips.csv"
    content = separator.join(order) + newline + text + newline
    path.write_bytes(content.encode("utf-8-sig" if bom else "utf-8"))
    assert read_clip_table(path) == {
        "b": {"label": 2, "label_name": "wave", "subject": 2, "splits": ("test",)},
        "a": {"label": 1, "label_name": "clap 10", "splits": ("train",)},
        "c": {"label": 0, "label_name": "clap 9", "subject": 1},
    }


def test_numbers_are_classes_as_they_stand(tmp_path: Path) -> None:
    table = read_clip_table(write(tmp_path / "t.csv", "name,label", "a,0", "b,7", "c,"))
    assert table == {"a": {"label": 0}, "b": {"label": 7}, "c": {}}


def test_clips_are_found_by_their_name_and_by_that_of_their_file(clips: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "name,label,camera", "a.npy,x,1", "b,y,2", "deep/c.npy,x,3", "d,z,4")
    read = list(read_dataset(clips, table=table))
    assert [(clip.name, clip.label, clip.label_name, clip.camera) for clip in read] == [
        ("a", 0, "x", 1),
        ("b", 1, "y", 2),
        ("c", 0, "x", 3),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["label", "1"], "columns must be name and any of label, subject, .*, got label"),
        (["name,label,colour", "a,1,2"], "columns must be .*, got name, label, colour"),
        (["name,name", "a,1"], "columns must be .*, got name, name"),
        (["name,label"], "must have at least one row, got none"),
        (["name,label", "a"], "row 2 must have 2 cells, got 1"),
        (["name,label", "a,1", "a,2"], "name in row 3 must be given once, got a"),
        (["name,label", ",1"], "name in row 2 must be given once, got nothing"),
        (["name,subject", "a,one"], "subject in row 2 must be a number from 0, got one"),
        (["name,subject", "a,-1"], "subject in row 2 must be a number from 0, got -1"),
        (["name,camera", "a,9999999999"], "camera in row 2 must be a number from 0, got 9999999999"),
        (["name,label", "a,1", "b,1"], "must have a row for clip 'c', got none among 2"),
    ],
)
def test_a_broken_table_gives_one_line(clips: Path, tmp_path: Path, lines: list[str], said: str) -> None:
    table = write(tmp_path / "t.csv", *lines)
    with pytest.raises(FormatError, match=f"^{re.escape(str(table))}: {said}$"):
        read_dataset(clips, table=table)


def test_bytes_of_any_kind(tmp_path: Path) -> None:
    content = b"name,label,subject\n" + b"".join(b"clip%d,%d,%d\n" % (i, i % 3, i) for i in range(9))
    path = tmp_path / "t.csv"
    for seed in range(200):
        rng = random.Random(seed)
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        sentence = ""
        try:
            read_clip_table(path)
        except FormatError as error:
            sentence = str(error)
        assert "\n" not in sentence


def test_the_command_takes_a_table(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "t.csv", "name,label,subject", "a,x,1", "b,y,2", "c,x,3")
    assert main(["prepare", str(clips), str(tmp_path / "store"), "--table", str(table)]) == 0
    store: Any = SkeletonStore(tmp_path / "store")
    assert list(store.class_names) == ["x", "y"]
    assert list(store.labels) == [0, 1, 0]
    assert list(store.subjects) == [1, 2, 3]
    assert main(["prepare", str(clips), str(tmp_path / "other"), "--table", str(tmp_path / "none.csv")]) != 0
    assert "none.csv" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
