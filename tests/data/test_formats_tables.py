"""The table formats: UTD-MHAD .mat, NATOPS .ts, numpy arrays."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, read, read_dataset

scipy_io = pytest.importorskip("scipy.io")


def line_of(path: Path, **options: Any) -> str:
    with pytest.raises(FormatError) as raised:
        read(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def rng_table(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def mat(
    folder: Path,
    table: Any,
    name: str = "a3_s5_t2_skeleton.mat",
    variable: str = "d_skel",
    compressed: bool = False,
) -> Path:
    path = folder / name
    content = {"other": np.ones((2, 2)), variable: table, "text": "abc", "cell": np.array([{}], dtype=object)}
    scipy_io.savemat(path, content, do_compression=compressed)
    return path


@given(
    frames=st.integers(2, 6),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["f8", "f4", "i1", "i2", "u4", "i8"]),
    compressed=st.booleans(),
)
def test_utd_round_trip(
    tmp_path_factory: pytest.TempPathFactory, frames: int, seed: int, dtype: str, compressed: bool
) -> None:
    table = (1 + 10 * np.abs(rng_table(20, 3, frames, seed=seed))).astype(dtype)
    clip = read(mat(tmp_path_factory.mktemp("utd"), table, compressed=compressed))
    assert clip.keypoints.shape == (1, frames, 20, 3)
    for t in range(frames):
        np.testing.assert_array_equal(clip.keypoints[0, t], table[:, :, t].astype(np.float32))
    assert (clip.layout, clip.name) == ("utd20", "a3_s5_t2")
    numbers = (clip.label, clip.label_name, clip.subject, clip.replication)
    assert numbers == (2, "wave", 5, 2)


@pytest.mark.parametrize(
    ("table", "name", "variable", "said"),
    [
        (rng_table(19, 3, 4), None, "d_skel", "d_skel must be [20, 3, T], got shape [19, 3, 4]"),
        (rng_table(20, 3), None, "d_skel", "d_skel must be [20, 3, T], got shape [20, 3]"),
        (rng_table(20, 3, 4), None, "skel", "must hold the variable d_skel, got no such variable"),
        ("text", None, "d_skel", "d_skel must be real numbers, got char"),
        ({"a": 1}, None, "d_skel", "d_skel must be real numbers, got struct"),
        (rng_table(20, 3, 4) * 1j, None, "d_skel", "d_skel must be real numbers, got complex numbers"),
        (
            np.full((20, 3, 2), np.nan),
            None,
            "d_skel",
            "must hold at least one joint with finite coordinates, got 40 joints of NaN",
        ),
        (
            rng_table(20, 3, 4),
            "a28_s1_t1_skeleton.mat",
            "d_skel",
            "action number in the name must be in [1, 27], got 28",
        ),
    ],
)
def test_a_broken_utd_file_gives_one_line(
    tmp_path: Path, table: Any, name: str | None, variable: str, said: str
) -> None:
    path = mat(tmp_path, table, name or "a3_s5_t2_skeleton.mat", variable)
    assert line_of(path) == f"{path}: {said}"


@given(data=st.data(), compressed=st.booleans())
def test_a_truncated_or_damaged_utd_file_gives_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, compressed: bool
) -> None:
    path = mat(tmp_path_factory.mktemp("utd"), rng_table(20, 3, 2), compressed=compressed)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) // 3))])
    assert line_of(path).startswith(f"{path}: must ")
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    said, joints = "", 20
    try:
        joints = read(path).num_joints
    except FormatError as error:
        said = str(error)
    assert "\n" not in said
    assert joints == 20


def test_other_matlab_versions_and_no_matlab_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(200))
    assert line_of(path) == f"{path}: must be a MATLAB file of version 5 to 7, got version 7.3 (HDF5)"
    path.write_bytes(b"hello")
    assert line_of(path) == f"{path}: must start with the header of a MATLAB file, got b'hello'"
    path.write_bytes(b"")
    assert line_of(path) == f"{path}: must not be empty, got 0 bytes"


def test_a_big_endian_matlab_file(tmp_path: Path) -> None:
    table = rng_table(20, 3, 2)
    title = b"d_skel\x00\x00"
    parts = [
        struct.pack(">IIII", 6, 8, 6, 0),
        struct.pack(">IIiiii", 5, 12, 20, 3, 2, 0),
        struct.pack(">II", 1, 6),
    ]
    body = b"".join(parts) + title + struct.pack(">II", 9, 960) + table.astype(">f8").tobytes("F")
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(bytes(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    np.testing.assert_array_equal(read(path).keypoints[0], table.transpose(2, 0, 1).astype(np.float32))


HEADER = """#A comment with an accent: \xe9
@problemName NATOPS
@timeStamps false
@missing false
@univariate false
@dimensions 24
@equalLength true
@seriesLength 3
@classLabel true 1.0 2.0 3.0 4.0 5.0 6.0
@data
"""


def gesture(table: np.ndarray, label: str = "2.0") -> str:
    """One line of a .ts file from [24, T]."""
    return ":".join([*(",".join(repr(float(x)) for x in row) for row in table), label])


def ts(folder: Path, lines: list[str], header: str = HEADER, name: str = "NATOPS_TRAIN.ts") -> Path:
    path = folder / name
    path.write_text(header + "\n".join(lines) + "\n", encoding="latin-1")
    return path


@given(count=st.integers(1, 4), seed=st.integers(0, 99))
def test_natops_round_trip(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    tables = rng_table(count, 24, 3, seed=seed)
    labels = [f"{1 + (seed + i) % 6}.0" for i in range(count)]
    path = ts(
        tmp_path_factory.mktemp("natops"), [gesture(*pair) for pair in zip(tables, labels, strict=True)]
    )
    clips = list(read_dataset(path))
    assert [clip.name for clip in clips] == [f"NATOPS_TRAIN_{i:04d}" for i in range(count)]
    for clip, table, label in zip(clips, tables, labels, strict=True):
        for joint in range(8):
            for axis in range(3):
                expected = table[3 * joint + axis].astype(np.float32)
                np.testing.assert_array_equal(clip.keypoints[0, :, joint, axis], expected)
        assert clip.label == int(label[0]) - 1
        assert (clip.layout, clip.splits) == ("natops8", ("train",))
    assert read(path, index=0).name == read(path, name="NATOPS_TRAIN_0000").name


def test_natops_training_file_comes_first_and_question_marks_are_missing(tmp_path: Path) -> None:
    line = gesture(rng_table(24, 3)).split(",", 1)
    ts(tmp_path, [gesture(rng_table(24, 3))], name="NATOPS_TEST.ts")
    ts(tmp_path, [",".join(["?", line[1]])])
    train, test = read_dataset(tmp_path, "natops")
    assert (train.splits, test.splits) == (("train",), ("test",))
    assert not train.valid[0, 0, 0]
    assert train.valid.sum() == 23
    assert test.valid.all()


LINE = gesture(rng_table(24, 3))


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        ("", "", "must not be empty, got 1 bytes of nothing"),
        (HEADER.replace("@data\n", ""), "", "must have a line @data, got none"),
        (HEADER.replace("@data\n", ""), LINE, "line 10 must be a header line or follow @data, got "),
        (HEADER, "", "must have at least one gesture after @data, got none"),
        (HEADER.replace("24", "21"), LINE, "@dimensions must be 24, got 21"),
        (HEADER.replace("Length 3", "Length x"), LINE, "@seriesLength must be a number of at least 1, got x"),
        (HEADER.replace("Stamps false", "Stamps true"), LINE, "@timeStamps must be false, got true"),
        (
            HEADER.replace("@classLabel true", "@classLabel false"),
            LINE,
            "@classLabel must be 'true' and the class labels, got false 1.0 2.0 3.0 4.0 5.0 6.0",
        ),
        (HEADER, LINE.split(":", 1)[1], "line 11 must have 24 dimensions and a class, got 23"),
        (
            HEADER,
            LINE.replace(":2.0", ":7.0"),
            "line 11 must end in one of the classes 1.0 2.0 3.0 4.0 5.0 6.0, got 7.0",
        ),
        (HEADER, LINE.split(",", 1)[1], "dimension 1 of line 11 must have 3 values, got 2"),
        (HEADER, "x" + LINE, "line 11 must be numbers, got could not convert string to float: 'x"),
    ],
)
def test_a_broken_natops_file_gives_one_line(tmp_path: Path, header: str, line: str, said: str) -> None:
    path = ts(tmp_path, [line], header)
    assert line_of(path, index=0).startswith(f"{path}: {said}")


@given(
    order=st.permutations("NMTVC"),
    drop=st.sampled_from(["", "N", "M", "NM"]),
    score=st.booleans(),
    seed=st.integers(0, 99),
)
def test_array_axes_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], drop: str, score: bool, seed: int
) -> None:
    full = rng_table(2, 2, 3, 8, 4 if score else 3, seed=seed)  # [N, M, T, V, C]
    if score:
        full[..., 3] = np.abs(full[..., 3]) + 0.1
    kept = [letter for letter in order if letter not in drop]
    part = full[tuple(0 if letter in drop else slice(None) for letter in "NMTVC")]
    now = [letter for letter in "NMTVC" if letter not in drop]
    path = tmp_path_factory.mktemp("arrays") / "set.npy"
    np.save(path, part.transpose([now.index(letter) for letter in kept]))
    options = {"axes": "".join(kept), "layout": "natops8", "score": score}
    clips = list(read_dataset(path, "arrays", **options))
    assert len(clips) == (1 if "N" in drop else 2)
    for n, clip in enumerate(clips):
        expected = full[n, :1] if "M" in drop else full[n]
        np.testing.assert_array_equal(clip.keypoints, expected[..., :3].astype(np.float32))
        if score:
            np.testing.assert_array_equal(clip.confidence, expected[..., 3].astype(np.float32))
        else:
            assert clip.confidence is None


@pytest.mark.parametrize(
    ("v", "c", "layout"),
    [(25, 3, "ntu25"), (25, 2, "body25"), (17, 2, "coco17"), (18, 2, "openpose18"), (8, 3, "natops8")],
)
def test_default_axes_and_layouts_of_arrays(tmp_path: Path, v: int, c: int, layout: str) -> None:
    for shape, clips in [((4, v, c), 1), ((2, 4, v, c), 1), ((3, 2, 4, v, c), 3)]:
        path = tmp_path / "set.npy"
        np.save(path, rng_table(*shape))
        found = list(read_dataset(path))
        assert len(found) == clips
        assert found[0].layout == layout
        assert found[0].keypoints.shape == (2 if len(shape) > 3 else 1, 4, v, c)


GOOD = {"keypoints": rng_table(4, 8, 3)}


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


def test_npz_keys(tmp_path: Path) -> None:
    path = npz(
        tmp_path,
        keypoints=rng_table(3, 4, 8, 3),
        confidence=np.full((3, 4, 8), 0.5),
        axes="NTVC",
        layout="natops8",
        labels=[2, 0, 1],
        names=["x", "y", "z"],
        subjects=np.array([7, 8, 9], np.uint8),
        camera=[1, 1, 2],
    )
    clips = list(read_dataset(path))
    assert [(c.name, c.label, c.subject, c.camera) for c in clips] == [
        ("x", 2, 7, 1), ("y", 0, 8, 1), ("z", 1, 9, 2),
    ]  # fmt: skip
    assert clips[0].confidence is not None
    assert clips[0].confidence.shape == (1, 4, 8)
    assert read(path, name="y").label == 0
    single = npz(tmp_path, keypoints=rng_table(4, 8, 3), label=5, name="one", setup=3)
    assert (read(single).name, read(single).label, read(single).setup) == ("one", 5, 3)


@pytest.mark.parametrize(("labels", "warned"), [([1, 2, 2], True), ([0, 2, 2], False), ([3, 3, 3], False)])
def test_array_labels_that_count_from_one_are_warned_of(
    tmp_path: Path, labels: list[int], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = npz(tmp_path, keypoints=rng_table(3, 4, 8, 3), axes="NTVC", labels=labels)
    assert [c.label for c in read_dataset(path)] == labels
    said = f"{path}: labels must count from 0, got 1 as the smallest: class 0 stays empty"
    assert [record.getMessage() for record in caplog.records] == [said] * warned


def test_nan_joints_of_arrays_are_missing(tmp_path: Path) -> None:
    keypoints = rng_table(4, 8, 3)
    keypoints[1, 2, 0] = np.nan
    keypoints[3, 4, 2] = np.inf
    confidence = np.ones((4, 8))
    confidence[0, 0] = np.nan
    clip = read(npz(tmp_path, keypoints=keypoints, confidence=confidence))
    assert np.argwhere(~clip.valid[0]).tolist() == [[0, 0], [1, 2], [3, 4]]
    assert not clip.keypoints[~clip.valid].any()


def test_array_folders_are_classes(tmp_path: Path) -> None:
    for name in ("walk/1", "walk/2", "box/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", rng_table(4, 8, 3))
    clips = list(read_dataset(tmp_path, "arrays", labels="folder"))
    assert [(c.label, c.label_name) for c in clips] == [(0, "box"), (1, "walk"), (1, "walk")]


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"keypoints": rng_table(8, 3)}, {}, "keypoints must be [T, V, C], [M, T, V, C] or [N, M, T, V, C], "
         "or have axes named, got shape [8, 3]"),
        (GOOD, {"axes": "TVX"}, "axes must be T, V, C and perhaps N, M, each once, "
         "got TVX"),
        (GOOD, {"axes": "MTVC"}, "keypoints must have the axes MTVC, got shape "
         "[4, 8, 3]"),
        ({"keypoints": rng_table(4, 20, 3)}, {}, "layout must be given for a joint count that does not "
         "decide it, got 20 joints, 3 coordinates"),
        (GOOD, {"layout": "ntu25"}, "keypoints must be [M, T, 25, C] for layout "
         "'ntu25', got shape [1, 4, 8, 3]"),
        ({"points": rng_table(4, 8, 3)}, {}, "keys must be keypoints and any of axes, camera, cameras, "
         "confidence, label, labels, layout, name, names, replication, replications, setup, setups, subject, "
         "subjects, got points"),
        ({"keypoints": np.array(["a"])}, {}, "keypoints must be numbers, got dtype <U1"),
        ({**GOOD, "layout": 3}, {}, "layout must be one text, got dtype int64"),
        ({**GOOD, "confidence": np.ones(4)}, {}, "confidence must have the axes TV, got "
         "shape [4]"),
        ({**GOOD, "confidence": np.ones((4, 7))}, {}, "confidence must be [M, T, V] = "
         "[1, 4, 8], got shape [1, 4, 7]"),
        ({**GOOD, "labels": [1, 2]}, {}, "labels must be 1 integers, got 2 of dtype "
         "int64"),
        ({**GOOD, "label": 0.5}, {}, "labels must be 1 integers, got 1 of dtype float64"),
        ({**GOOD, "label": -3}, {}, "label must be at least 0 or None, got -3"),
        ({**GOOD, "names": ["a", "b"]}, {}, "names must be 1 texts, got 2 of dtype <U1"),
        ({"keypoints": rng_table(0, 4, 8, 3)}, {"axes": "NTVC"}, "must hold at least one clip, got shape "
         "[0, 4, 8, 3]"),
        ({"keypoints": np.full((4, 8, 3), np.nan)}, {}, "must hold at least one joint with finite "
         "coordinates, got 32 joints of NaN"),
        ({"keypoints": np.array([{}], dtype=object)}, {}, "must be a complete numpy file without objects, "
         "got ValueError: Object arrays cannot be loaded when allow_pickle=False"),
    ],
)  # fmt: skip
def test_a_broken_array_gives_one_line(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    path = npz(tmp_path, **arrays)
    assert line_of(path, **options) == f"{path}: {said}"


def test_damaged_array_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rng_table(4, 8, 3))
    whole = buffer.getvalue()
    path = tmp_path / "a.npy"
    path.write_bytes(b"")
    assert line_of(path) == f"{path}: must not be empty, got 0 bytes"
    for size in (3, 60, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert line_of(path).startswith(f"{path}: must be a complete numpy file without objects, got ")
    zipped = tmp_path / "a.npz"
    zipped.write_bytes(npz(tmp_path, keypoints=rng_table(4, 8, 3)).read_bytes()[:-30])
    assert line_of(zipped) == f"{zipped}: must be an .npz archive, got no complete zip file"
    zipped.write_bytes(whole)
    assert line_of(zipped) == f"{zipped}: must be an .npz archive, got no complete zip file"
