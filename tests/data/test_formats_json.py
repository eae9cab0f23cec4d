"""The JSON formats: Kinetics-Skeleton, OpenPose frames, NW-UCLA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, read, read_dataset


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def line_of(path: Path, format: str | None = None, **options: Any) -> str:
    with pytest.raises(FormatError) as raised:
        read(path, format, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def person(score: float, joints: int = 18) -> dict[str, list[float]]:
    """Someone at (score, 1 - score), every joint of that score."""
    return {"pose": [score, 1 - score] * joints, "score": [score] * joints}


def kinetics(frames: list[list[Any]], **fields: Any) -> dict[str, Any]:
    entries = [{"frame_index": t + 1, "skeleton": people} for t, people in enumerate(frames)]
    return {"data": entries, "label": "", "label_index": "", **fields}


@given(
    st.lists(st.lists(st.floats(0.015625, 1, width=32), max_size=4), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_kinetics_round_trip(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[float]], most: int
) -> None:
    content = kinetics([[person(score) for score in people] for people in frames])
    path = dump(tmp_path_factory.mktemp("kinetics") / "clip.json", content)
    clip = read(path, "kinetics", max_persons=most)
    assert clip.frames == len(frames)
    assert clip.num_persons == max(1, min(most, max(len(people) for people in frames)))
    for t, people in enumerate(frames):
        best = sorted(people, reverse=True)[:most] + [0.0] * most
        for m in range(clip.num_persons):
            assert clip.confidence is not None
            np.testing.assert_array_equal(clip.confidence[m, t], np.float32(best[m]))
            expected = (best[m], 1 - best[m]) if best[m] else (0, 0)
            np.testing.assert_array_equal(clip.keypoints[m, t], np.tile(np.float32(expected), (18, 1)))


def test_kinetics_frames_that_are_not_listed_are_empty(tmp_path: Path) -> None:
    content = {
        "data": [
            {"frame_index": 5, "skeleton": [person(0.5)]},
            {"frame_index": 2, "skeleton": [person(0.25)]},
        ]
    }
    clip = read(dump(tmp_path / "clip.json", content))
    assert clip.present[0].tolist() == [False, True, False, False, True]
    assert clip.keypoints[0, 1, 0, 0] == 0.25


def test_kinetics_joints_of_score_zero_are_zero(tmp_path: Path) -> None:
    one = person(0.5)
    one["score"][3] = 0
    clip = read(dump(tmp_path / "clip.json", kinetics([[one]])))
    assert not clip.keypoints[0, 0, 3].any()
    assert clip.valid.sum() == 17


def test_kinetics_clip_whose_scores_are_all_zero_has_none(tmp_path: Path) -> None:
    people = [{"pose": [x, 1 - x] * 18, "score": [0.0] * 18} for x in (0.25, 0.5, 0.75)]
    people[0]["pose"][:2] = [0, 0]
    clip = read(dump(tmp_path / "clip.json", kinetics([people, []])))
    assert clip.confidence is None
    assert clip.keypoints[:, 0, 1, 0].tolist() == [0.25, 0.5]
    assert clip.valid.sum(axis=-1).tolist() == [[17, 0], [18, 0]]


def test_kinetics_clip_without_anybody(tmp_path: Path) -> None:
    clip = read(dump(tmp_path / "clip.json", kinetics([[], []])), "kinetics")
    assert (clip.num_persons, clip.frames) == (1, 2)
    assert not clip.valid.any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must not be empty, got 0 bytes of nothing"),
        ('{"data": [', "must be complete JSON, got Expecting value at character 10 of 10"),
        ("[1]", "must be a JSON object with a list 'data', got list"),
        ({"data": 3}, "must be a JSON object with a list 'data', got dict"),
        ({"data": []}, "list 'data' must hold at least one frame, got 0 frames"),
        (
            {"data": [{"frame_index": 1}]},
            "entry 1 of 'data' must have a list 'skeleton', got {'frame_index': 1}",
        ),
        (
            {"data": [{"frame_index": 0, "skeleton": []}]},
            "frame_index must be an integer in [1, 1000000], got 0",
        ),
        (
            {"data": [{"frame_index": 1, "skeleton": []}] * 2},
            "frame_index must not occur twice, got 1",
        ),
        (kinetics([[3]]), "a person of frame 1 must have lists 'pose' and 'score', got 3"),
        (
            kinetics([[], [person(0.5, joints=17)]]),
            "a person of frame 2 must have 36 pose values and 18 scores, got 34 and 17",
        ),
        (
            kinetics([[{"pose": ["a"] * 36, "score": [1] * 18}]]),
            "pose and score of frame 1 must be numbers, got values such as 'a'",
        ),
        (
            kinetics([[{"pose": [None] * 36, "score": [1] * 18}]]),
            "pose and score of frame 1 must be numbers, got values such as None",
        ),
        (
            kinetics([[{"pose": [float("nan")] * 36, "score": [1] * 18}]]),
            "must hold at least one joint with finite coordinates, got 18 joints of NaN",
        ),
        (kinetics([[]], label_index=-2), "label_index must be an integer of at least 0, got -2"),
        (kinetics([[]], label=5), "label must be text, got 5"),
    ],
)
def test_a_broken_kinetics_file_gives_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = dump(tmp_path / "clip.json", content)
    assert line_of(path, "kinetics") == f"{path}: {said}"


def test_kinetics_label_file(tmp_path: Path) -> None:
    for name in ("b", "a", "empty"):
        dump(tmp_path / "clips" / f"{name}.json", kinetics([[person(0.5)]]))
    table = {
        "a": {"has_skeleton": True, "label": "running", "label_index": 7},
        "b": {"has_skeleton": True, "label": "rowing", "label_index": 3},
        "empty": {"has_skeleton": False, "label": "rowing", "label_index": 3},
    }
    labels = dump(tmp_path / "clips" / "labels.json", table)
    clips = read_dataset(tmp_path / "clips", "kinetics", labels=labels)
    assert [(clip.name, clip.label, clip.label_name) for clip in clips] == [
        ("a", 7, "running"), ("b", 3, "rowing"),
    ]  # fmt: skip
    assert clips.excluded == [("empty", "has_skeleton is false in the label file")]
    assert [clip.label for clip in read_dataset(tmp_path / "clips", "kinetics")] == [None] * 3

    dump(labels, {"a": table["a"]})
    with pytest.raises(FormatError) as raised:
        list(read_dataset(tmp_path / "clips", "kinetics", labels=labels))
    assert str(raised.value) == f"{tmp_path / 'clips' / 'b.json'}: must be named in {labels}, got b"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "must be a JSON object with one entry per clip, got list"),
        (
            {"a": {"label": "x"}},
            "entry 'a' must have has_skeleton, label and label_index, got {'label': 'x'}",
        ),
        (
            {"a": {"has_skeleton": True, "label": "x", "label_index": "3"}},
            "label_index of 'a' must be an integer of at least 0, got 3",
        ),
        (
            {c: {"has_skeleton": True, "label": c, "label_index": 3} for c in "ab"},
            "label_index 3 must have one name ('a'), got b",
        ),
    ],
)
def test_a_broken_label_file_gives_one_line(tmp_path: Path, table: Any, said: str) -> None:
    dump(tmp_path / "clips" / "a.json", kinetics([[]]))
    labels = dump(tmp_path / "labels.json", table)
    with pytest.raises(FormatError) as raised:
        read_dataset(tmp_path / "clips", "kinetics", labels=labels)
    assert str(raised.value) == f"{labels}: {said}"


def frame(people: list[list[float]], key: str = "pose_keypoints_2d") -> dict[str, Any]:
    return {"version": 1.3, "people": [{"person_id": [-1], key: values} for values in people]}


@given(
    joints=st.sampled_from([18, 25]),
    key=st.sampled_from(["pose_keypoints", "pose_keypoints_2d"]),
    numbers=st.lists(st.integers(0, 2000), min_size=1, max_size=6, unique=True),
    digits=st.sampled_from([1, 12]),
    seed=st.integers(0, 99),
)
def test_openpose_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    joints: int,
    key: str,
    numbers: list[int],
    digits: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("openpose")
    rng = np.random.default_rng(seed)
    tables = {number: rng.uniform(0.1, 100, size=(joints, 3)).astype(np.float32) for number in numbers}
    for number, table in tables.items():
        name = f"cam2_{number:0{digits}d}_keypoints.json"
        dump(folder / name, frame([table.astype(float).reshape(-1).tolist()], key))
    clip = read(folder)
    assert (clip.layout, clip.frames, clip.num_persons) == (
        {18: "openpose18", 25: "body25"}[joints],
        len(numbers),
        1,
    )
    expected = np.stack([tables[number] for number in sorted(numbers)])
    np.testing.assert_array_equal(clip.keypoints[0], expected[..., :2])
    np.testing.assert_array_equal(clip.confidence, expected[None, ..., 2])
    filled = read(folder, fill_gaps=True)
    assert filled.frames == max(numbers) - min(numbers) + 1
    assert np.flatnonzero(filled.present[0]).tolist() == [number - min(numbers) for number in sorted(numbers)]


def test_openpose_people_are_ranked_in_every_frame_and_missing_ones_leave_it_empty(tmp_path: Path) -> None:
    low, high, best = ([x, x, x] * 18 for x in (0.25, 0.5, 0.75))
    for t, people in enumerate([[low, high], [], [high, best, low]]):
        dump(tmp_path / f"{t}_keypoints.json", frame(people))
    clip = read(tmp_path)
    assert clip.keypoints[:, :, 0, 0].tolist() == [[0.5, 0, 0.75], [0.25, 0, 0.5]]
    assert read(tmp_path, max_persons=None).num_persons == 3
    assert read(tmp_path, max_persons=1).num_persons == 1


def test_openpose_single_file_and_empty_person(tmp_path: Path) -> None:
    path = dump(tmp_path / "a_7_keypoints.json", frame([[], [1.0, 2.0, 0.5] * 25]))
    clip = read(path)
    assert (clip.frames, clip.num_persons, clip.name, clip.layout) == (1, 1, "a_7", "body25")


def test_openpose_nobody_at_all(tmp_path: Path) -> None:
    dump(tmp_path / "0_keypoints.json", frame([]))
    rule = "must hold a person in at least one frame, or be read with layout="
    assert line_of(tmp_path) == f"{tmp_path}: {rule}, got no person"
    clip = read(tmp_path, layout="body25")
    assert clip.keypoints.shape == (1, 1, 25, 2)
    assert not clip.valid.any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must not be empty, got 0 bytes of nothing"),
        (
            '{"people": [{"pose',
            "must be complete JSON, got Unterminated string starting at at character 13 of 18",
        ),
        ({"people": 1}, "must be a JSON object with a list 'people', got dict"),
        (
            {"people": [{"x": 1}]},
            "a person must have a list pose_keypoints_2d or pose_keypoints, got {'x': 1}",
        ),
        (frame([[1, 2]]), "keypoints must be x, y, score per joint, got 2 values"),
        (frame([["a"] * 54]), "keypoints must be numbers, got values such as 'a'"),
        (frame([[1.0] * 51]), "number of joints must be 18 or 25; name a layout to read others, got 17"),
    ],
)
def test_a_broken_openpose_frame_gives_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = dump(tmp_path / "clip" / "x_3_keypoints.json", content)
    assert line_of(path.parent, "openpose") == f"{path}: {said}"


def test_openpose_frames_must_agree_and_be_numbered(tmp_path: Path) -> None:
    dump(tmp_path / "a" / "0.json", frame([[1.0] * 54]))
    other = dump(tmp_path / "a" / "1.json", frame([[1.0] * 75]))
    assert line_of(tmp_path / "a") == f"{other}: number of joints must be 18 as in the other frames, got 25"
    twice = [dump(tmp_path / "b" / name, frame([[1.0] * 54])) for name in ("x_01.json", "x_1.json")]
    assert line_of(tmp_path / "b") == f"{twice[1]}: frame number must differ from that of x_01.json, got 1"
    bare = dump(tmp_path / "c" / "x_keypoints.json", frame([[1.0] * 54]))
    assert line_of(tmp_path / "c") == f"{bare}: file name must hold the frame number, got x_keypoints.json"


def test_openpose_dataset_labels_by_folder_and_by_pattern(tmp_path: Path) -> None:
    for clip in ("walk/p2_d10", "walk/p10_d1", "box/p1_d1"):
        dump(tmp_path / clip / "0_keypoints.json", frame([[1.0] * 54]))
    clips = list(read_dataset(tmp_path, "openpose", labels="folder"))
    assert [(clip.name, clip.label, clip.label_name) for clip in clips] == [
        ("box/p1_d1", 0, "box"), ("walk/p2_d10", 1, "walk"), ("walk/p10_d1", 1, "walk"),
    ]  # fmt: skip
    pattern = r"(?P<label>[a-z]+)/p(?P<subject>\d+)_d(?P<setup>\d+)"
    clips = list(read_dataset(tmp_path, "openpose", pattern=pattern))
    assert [(c.label, c.label_name, c.subject, c.setup) for c in clips] == [
        (0, "box", 1, 1), (1, "walk", 2, 10), (1, "walk", 10, 1),
    ]  # fmt: skip


KTH_NAME = r"person(?P<subject>\d+)_(?P<label>[a-z]+)_d(?P<setup>\d)"


def test_openpose_clips_of_one_directory_are_told_apart_by_name(tmp_path: Path) -> None:
    frames = {"person02_walking_d1_uncomp": (0, 2, 10), "person11_walking_d4_uncomp": (5,)}
    for clip, numbers in frames.items():
        for t in numbers:
            dump(tmp_path / "walking" / f"{clip}_{t:03d}_keypoints.json", frame([[t + 1.0] * 75]))
    dump(tmp_path / "boxing" / "person02_boxing_d3_uncomp_7_keypoints.json", frame([[2.0] * 75]))
    reader = read_dataset(tmp_path, "openpose", clip_by="name", pattern=KTH_NAME, max_persons=1)
    found = [(c.name, c.label, c.label_name, c.subject, c.setup, c.frames, c.layout) for c in reader]
    assert found == [
        ("boxing/person02_boxing_d3_uncomp", 0, "boxing", 2, 3, 1, "body25"),
        ("walking/person02_walking_d1_uncomp", 1, "walking", 2, 1, 3, "body25"),
        ("walking/person11_walking_d4_uncomp", 1, "walking", 11, 4, 1, "body25"),
    ]
    walk = list(reader)[1]
    assert walk.keypoints[0, :, 0, 0].tolist() == [1.0, 3.0, 11.0]  # by number, not by text
    folders = read_dataset(tmp_path, "openpose", clip_by="name", labels="folder")
    assert [c.label_name for c in folders] == ["boxing", "walking", "walking"]

    one = read(tmp_path / "walking", "openpose", name="person02_walking_d1_uncomp")
    assert one.name == "person02_walking_d1_uncomp"
    assert (one.keypoints == walk.keypoints).all()
    filled = read(tmp_path / "walking", "openpose", name="person02_walking_d1_uncomp", fill_gaps=True)
    assert filled.frames == 11
    with pytest.raises(ValueError, match=r"^openpose.read: name must be a clip of .*_uncomp, got 'person3'$"):
        read(tmp_path / "walking", "openpose", name="person3")
    with pytest.raises(ValueError, match=r"^openpose.clips: clip_by must be 'folder' or 'name', got 'file'$"):
        list(read_dataset(tmp_path, "openpose", clip_by="file"))
    dump(tmp_path / "walking" / "notes.json", {})
    with pytest.raises(FormatError, match="file name must hold the frame number"):
        list(read_dataset(tmp_path, "openpose", clip_by="name"))


def test_openpose_directories_named_as_kth_clips(tmp_path: Path) -> None:
    for clip in ("person01_walking_d1", "person25_handwaving_d4"):
        for t in (9, 10):
            dump(tmp_path / clip / f"{clip}_{t}_keypoints.json", frame([[t + 1.0] * 75]))
    for clip_by in ("folder", "name"):
        clips = list(read_dataset(tmp_path, "openpose", clip_by=clip_by, pattern=KTH_NAME))
        fields = [(c.label_name, c.subject, c.setup, c.frames) for c in clips]
        assert fields == [("walking", 1, 1, 2), ("handwaving", 25, 4, 2)]
        assert clips[0].keypoints[0, :, 0, 0].tolist() == [10.0, 11.0]


def nw_ucla(frames: int, label: Any = 1, seed: int = 0) -> dict[str, Any]:
    table = np.random.default_rng(seed).normal(size=(frames, 20, 3)).round(6)
    return {"file_name": "a01_s02_e03_v01", "skeletons": table.tolist(), "label": label}


@given(st.integers(1, 5), st.integers(1, 10), st.integers(0, 99))
def test_nw_ucla_round_trip(
    tmp_path_factory: pytest.TempPathFactory, frames: int, label: int, seed: int
) -> None:
    content = nw_ucla(frames, label, seed)
    clip = read(dump(tmp_path_factory.mktemp("ucla") / "a01_s02_e03_v01.json", content))
    np.testing.assert_array_equal(clip.keypoints, np.float32(content["skeletons"])[None])
    assert (clip.label, clip.subject, clip.replication, clip.camera) == (label - 1, 2, 3, 1)
    assert (clip.layout, clip.confidence, clip.name) == ("kinect20", None, "a01_s02_e03_v01")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 0}, "label must be an integer in [1, 10], got 0"),
        ({"label": 11}, "label must be an integer in [1, 10], got 11"),
        ({"label": "1"}, "label must be an integer in [1, 10], got 1"),
        ({"label": True}, "label must be an integer in [1, 10], got True"),
        ({"skeletons": []}, "skeletons must be [T][20][3] numbers, got shape [0]"),
        ({"skeletons": [[[0, 0, 0]] * 19]}, "skeletons must be [T][20][3] numbers, got shape [1, 19, 3]"),
        (
            {"skeletons": [[[0, 0, 0]] * 20, [[0, 0, 0]] * 19]},
            "skeletons must be [T][20][3] numbers, got lists of different lengths",
        ),
        ({"skeletons": [[[0, 0, "0"]] * 20]}, "skeletons must be [T][20][3] numbers, got values such as '0'"),
        ({"skeletons": "x"}, "must be a JSON object with a list 'skeletons', got dict"),
        (
            {"skeletons": [[[float("nan")] * 3] * 20]},
            "must hold at least one joint with finite coordinates, got 20 joints of NaN",
        ),
    ],
)
def test_a_broken_nw_ucla_file_gives_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = dump(tmp_path / "a01_s02_e03_v01.json", {**nw_ucla(2), **change})
    assert line_of(path, "nw_ucla") == f"{path}: {said}"


@given(st.integers(0, len(json.dumps(nw_ucla(1))) - 1))
def test_any_truncated_json_is_noticed(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = dump(tmp_path_factory.mktemp("cut") / "a.json", json.dumps(nw_ucla(1))[:size])
    line_of(path, "nw_ucla")


def test_very_deep_json_is_one_line(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.json", "[" * 200_000)
    assert line_of(path, "nw_ucla").startswith(f"{path}: must be ")


def test_a_nw_ucla_clip_to_predict_needs_no_label(tmp_path: Path) -> None:
    content = nw_ucla(2)
    del content["label"]
    clip = read(dump(tmp_path / "a01_s02_e03_v01.json", content), "nw_ucla")
    assert (clip.label, clip.label_name, clip.subject) == (None, None, 2)
