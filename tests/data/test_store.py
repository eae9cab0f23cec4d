"""The store: what is put in comes out, and nothing half-written looks whole."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stgcn_fast.data import FormatError, Skeleton, SkeletonStore

FIELDS = [name for name in Skeleton.__dataclass_fields__ if name not in ("keypoints", "confidence")]


def clip(seed: int, m: int = 1, t: int = 4, scores: bool = False, **fields: Any) -> Skeleton:
    rng = np.random.default_rng(seed)
    return Skeleton(
        rng.normal(size=(m, t, 8, 3)).astype(np.float32),
        layout="natops8",
        confidence=rng.uniform(size=(m, t, 8)).astype(np.float32) if scores else None,
        name=f"clip {seed}",
        **fields,
    )


def assert_same(a: Skeleton, b: Skeleton) -> None:
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert a.keypoints.dtype == np.float32
    assert (a.confidence is None) == (b.confidence is None)
    if a.confidence is not None and b.confidence is not None:
        np.testing.assert_array_equal(a.confidence, b.confidence)
    for field in FIELDS:
        assert getattr(a, field) == getattr(b, field), field


def left_behind(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "store")


CLIPS = st.builds(
    clip,
    seed=st.integers(0, 99),
    m=st.integers(1, 3),
    t=st.integers(1, 5),
    scores=st.booleans(),
    subject=st.none() | st.integers(0, 200),
    camera=st.none() | st.integers(0, 3),
    setup=st.none() | st.integers(0, 32),
    replication=st.none() | st.integers(0, 9),
    splits=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@given(clips=st.lists(CLIPS, min_size=1, max_size=6))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, clips: list[Skeleton]) -> None:
    folder = tmp_path_factory.mktemp("round")
    clips = [c.with_label(i % 3, f"class {i % 3}") if i % 4 else c for i, c in enumerate(clips)]
    store = SkeletonStore.build(folder / "store", (c for c in clips))
    store.verify()
    assert len(store) == len(clips)
    highest = max((c.label for c in clips if c.label is not None), default=-1)
    names = {c.label: c.label_name for c in clips if c.label is not None}
    assert store.class_names == tuple(names.get(i, str(i)) for i in range(highest + 1))
    for a, b in zip(store, clips, strict=True):
        assert_same(a, b)
    assert_same(store[-1], clips[-1])
    assert store.names == tuple(c.name for c in clips)
    assert store.splits == tuple(c.splits for c in clips)
    for column, field in [
        (store.labels, "label"), (store.subjects, "subject"), (store.cameras, "camera"),
        (store.setups, "setup"), (store.replications, "replication"),
    ]:  # fmt: skip
        values = [getattr(c, field) for c in clips]
        assert column.tolist() == [-1 if value is None else value for value in values]
        assert column.dtype == np.int64
    assert store.frames.tolist() == [c.frames for c in clips]
    assert store.persons.tolist() == [c.num_persons for c in clips]
    assert left_behind(folder) == []


def test_a_clip_is_a_copy_of_its_own(tmp_path: Path) -> None:
    store = SkeletonStore.build(tmp_path / "store", [clip(0), clip(1)])
    one = store[0]
    before = one.keypoints.copy()
    one.keypoints[:] = 7
    np.testing.assert_array_equal(store[0].keypoints, before)
    assert SkeletonStore(tmp_path / "store")[np.int64(0)].keypoints.flags.writeable


def test_index_out_of_range(tmp_path: Path) -> None:
    store = SkeletonStore.build(tmp_path / "store", [clip(0), clip(1)])
    for index in (2, -3):
        with pytest.raises(IndexError) as raised:
            store[index]
        assert str(raised.value) == f"SkeletonStore: index must be in [-2, 2), got {index}"


def test_building_holds_one_clip_at_a_time_and_reads_the_source_once(tmp_path: Path) -> None:
    alive: list[int] = []
    peak = 0

    class Tracked(Skeleton):
        def __del__(self) -> None:
            alive.remove(id(self))

    def source() -> Iterator[Skeleton]:
        nonlocal peak
        for seed in range(20):
            one = Tracked(clip(seed).keypoints, layout="natops8")
            alive.append(id(one))
            peak = max(peak, len(alive))
            yield one

    steps: list[tuple[int, int | None]] = []
    store = SkeletonStore.build(tmp_path / "store", source(), progress=lambda *step: steps.append(step))
    assert len(store) == 20
    assert peak <= 2
    assert steps == [(done, None) for done in range(1, 21)]
    SkeletonStore.build(tmp_path / "store", [clip(0), clip(1)], progress=lambda *step: steps.append(step))
    assert steps[-2:] == [(1, 2), (2, 2)]


def test_class_names_can_be_given(tmp_path: Path) -> None:
    clips = [clip(0, label=1, label_name="old")]
    store = SkeletonStore.build(tmp_path / "store", clips, class_names=["a", "b", "c"])
    assert store.class_names == ("a", "b", "c")
    assert store.num_classes == 3
    assert store[0].label_name == "b"
    assert repr(store) == f"SkeletonStore({str(tmp_path / 'store')!r}, 1 clips, 'natops8', 3 classes)"


FLAT = Skeleton(np.ones((1, 2, 8, 2), np.float32), layout="natops8", name="flat")
OTHER = Skeleton(np.ones((1, 2, 17, 2), np.float32), layout="coco17", name="other")


@pytest.mark.parametrize(
    ("clips", "options", "error", "said"),
    [
        ([], {}, ValueError, "skeletons must hold at least one clip, got none"),
        ([3], {}, TypeError, "skeletons must be Skeleton objects, got int"),
        ([clip(0), OTHER], {}, ValueError, "layout of clip 'other' (number 1) must be 'natops8', got "
         "'coco17'"),
        ([clip(0)], {"layout": "utd20"}, ValueError, "layout of clip 'clip 0' (number 0) must be 'utd20', "
         "got 'natops8'"),
        ([clip(0), FLAT], {}, ValueError, "[V, C] of clip 'flat' (number 1) must be [8, 3], got [8, 2]"),
        ([clip(0, label=2)], {"class_names": ["a", "b"]}, ValueError, "label of clip 'clip 0' (number 0) "
         "must be in [0, 2), got 2"),
        ([clip(0, label=0, label_name="a"), clip(1, label=0, label_name="b")], {}, ValueError, "class 0 of "
         "clip 'clip 1' (number 1) must be named 'a', got 'b'"),
        ([clip(0, label=10**9)], {}, ValueError, "label of clip 'clip 0' (number 0) "
         "must be below 100000, got 1000000000"),
        ([clip(0)], {"class_names": "abc"}, TypeError, "class_names must be a sequence of str, got str"),
        ([clip(0, subject=2**40)], {}, ValueError, "subject of clip 'clip 0' (number 0) must fit 32 bits, "
         "got 1099511627776"),
    ],
)  # fmt: skip
def test_a_build_that_fails_leaves_nothing(
    tmp_path: Path, clips: list[Any], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        SkeletonStore.build(tmp_path / "store", clips, **options)
    assert str(raised.value) == f"SkeletonStore.build: {said}"
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_leaves_the_old_store(tmp_path: Path) -> None:
    def source() -> Iterator[Skeleton]:
        yield clip(1)
        raise FormatError("clip.json", "label must be in [1, 10]", 11)

    SkeletonStore.build(tmp_path / "store", [clip(0)])
    with pytest.raises(FormatError, match=r"clip\.json: label must be in \[1, 10\], got 11"):
        SkeletonStore.build(tmp_path / "store", source())
    assert [one.name for one in SkeletonStore(tmp_path / "store")] == ["clip 0"]
    assert left_behind(tmp_path) == []


def test_an_old_store_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    SkeletonStore.build(tmp_path / "store", [clip(0)])
    SkeletonStore.build(tmp_path / "store", [clip(5), clip(6)])
    assert SkeletonStore(tmp_path / "store").names == ("clip 5", "clip 6")
    assert left_behind(tmp_path) == []
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError) as raised:
        SkeletonStore.build(other, [clip(0)])
    said = "must be free or a store to replace, got something else there"
    assert str(raised.value) == f"{other}: {said}"
    assert (other / "chapter.txt").read_text() == "years of work"


KILLED = """
    import sys, time
    import numpy as np
    from stgcn_fast.data import Skeleton, SkeletonStore

    def source():
        for i in range(10**6):
            yield Skeleton(np.ones((1, 4, 8, 3), np.float32), layout="natops8", name=str(i))
            if i == 2000:
                print("half-way", flush=True)
                time.sleep(60)

    SkeletonStore.build(sys.argv[1], source())
"""


def test_a_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half-way\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "store").exists()
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".store.")
    assert not SkeletonStore.is_store(partial)
    with pytest.raises(FormatError, match=r"must be the directory of a store, with header\.json, got none"):
        SkeletonStore(partial)
    assert len(SkeletonStore.build(tmp_path / "store", [clip(0)])) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_build_leaves_the_work_of_another_alone_and_puts_a_moved_store_back(tmp_path: Path) -> None:
    target = tmp_path / "store"

    def meanwhile() -> Iterator[Skeleton]:
        yield clip(0)
        assert len(SkeletonStore.build(target, [clip(1), clip(2)])) == 2
        yield clip(3)

    assert [one.name for one in SkeletonStore.build(target, meanwhile())] == [clip(0).name, clip(3).name]
    target.rename(tmp_path / ".store.0123abcd.old")  # killed between moving the old one and the new one
    with pytest.raises(TypeError, match="skeletons must be Skeleton objects"):
        SkeletonStore.build(target, [None])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(SkeletonStore(target)) == 2


def built(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    SkeletonStore.build(path, [clip(i, scores=True, label=i) for i in range(3)])
    return path


def line_of(path: Path) -> str:
    with pytest.raises(FormatError) as raised:
        SkeletonStore(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ["keypoints.bin", "confidence.bin", "index.bin", "text.bin"])
def test_truncated_longer_and_missing_files_are_noticed_on_opening(tmp_path: Path, name: str) -> None:
    path = built(tmp_path)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-1])
    said = f"{path / name}: size must be {len(data)} bytes, got"
    assert line_of(path) == f"{said} {len(data) - 1}"
    (path / name).write_bytes(data + b"x")
    assert line_of(path) == f"{said} {len(data) + 1}"
    (path / name).unlink()
    assert line_of(path) == f"{said} no file"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version must be 1, got 2"),
        ({"format": "zip"}, "must be the header of a stgcn_fast skeleton store, got {'format': 'zip', "),
        ({"clips": "3"}, "clips must be of type int, got 3"),
        ({"clips": 4}, "clips must be 3, got 4"),
        ({"class_names": None}, "class_names must be of type list, got None"),
    ],
)
def test_a_broken_header_gives_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = built(tmp_path)
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(
        json.dumps({**change, **{k: header[k] for k in header if k not in change}})
    )
    assert line_of(path).startswith(f"{path / 'header.json'}: {said}")


def test_what_is_no_store(tmp_path: Path) -> None:
    assert line_of(tmp_path) == f"{tmp_path}: must be the directory of a store, with header.json, got none"
    (tmp_path / "header.json").write_text('{"format": "stg')
    assert line_of(tmp_path).startswith(f"{tmp_path / 'header.json'}: must be complete JSON, got ")
    with pytest.raises(FileNotFoundError) as raised:
        SkeletonStore(tmp_path / "x")
    assert str(raised.value) == f"{tmp_path / 'x'}: must be the directory of a store, got nothing there"
    assert not SkeletonStore.is_store(tmp_path / "x")


@pytest.mark.parametrize("name", ["keypoints.bin", "confidence.bin", "index.bin", "text.bin"])
def test_verify_finds_a_changed_byte(tmp_path: Path, name: str) -> None:
    path = built(tmp_path)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    store = SkeletonStore(path)
    with pytest.raises(FormatError, match=f"{name}: checksum must be 0x"):
        store.verify()


def test_an_index_of_garbage_is_one_line(tmp_path: Path) -> None:
    path = built(tmp_path)
    size = (path / "index.bin").stat().st_size
    (path / "index.bin").write_bytes(b"\x7f" * size)
    with pytest.raises(FormatError) as raised:
        SkeletonStore(path)[0]
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{path}{os.sep}")


def test_opening_does_not_read_the_data(tmp_path: Path) -> None:
    """A sparse store larger than memory opens, and its last clip is read, as if it were small."""
    path = built(tmp_path)
    header = json.loads((path / "header.json").read_text())
    size = 256 * 10**9
    with open(path / "keypoints.bin", "r+b") as file:
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("this file system has no sparse files")
    header["sizes"]["keypoints.bin"] = size
    (path / "header.json").write_text(json.dumps(header))
    assert SkeletonStore(path)[2].name == "clip 2"


def test_pickles_reopen_and_notice_another_store(tmp_path: Path) -> None:
    path = built(tmp_path)
    store = SkeletonStore(path)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert_same(pickle.loads(data)[1], store[1])
    SkeletonStore.build(path, [clip(9)])
    with pytest.raises(FormatError) as raised:
        pickle.loads(data)
    assert str(raised.value) == f"{path}: must be the store that was open before, got one built since"


class Sums:
    """A data set over a store, as a worker sees it."""

    def __init__(self, store: SkeletonStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> float:
        return float(self.store[index].keypoints.sum())


def test_workers_of_a_data_loader(tmp_path: Path) -> None:
    store = SkeletonStore(built(tmp_path))
    loader = DataLoader(Sums(store), batch_size=1, num_workers=2)  # type: ignore[arg-type]
    expected = [float(one.keypoints.sum()) for one in store]
    np.testing.assert_allclose([float(batch) for batch in loader], expected, rtol=1e-6)
