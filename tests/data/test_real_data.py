"""Real recordings, checked against what the files themselves say, read here by other means."""

from __future__ import annotations

import json
import pickletools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stgcn_fast.data import (
    Skeleton,
    SkeletonStore,
    detect_format,
    list_formats,
    read,
    read_dataset,
    split,
)
from stgcn_fast.graph import get_layout

FOLDERS = {
    "utd_mhad": "utd_mhad", "nw_ucla": "nw_ucla", "natops": "natops", "ntu_rgbd": "ntu",
    "kinetics_skeleton": "kinetics", "openpose_frames": "openpose", "pyskl": "pyskl",
}  # fmt: skip


@pytest.fixture(scope="session")
def stores(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SkeletonStore]:
    """A store of every data set that holds several clips of one layout."""
    folder = tmp_path_factory.mktemp("stores")
    names = ("utd_mhad", "nw_ucla", "natops", "ntu_rgbd", "pyskl")
    return {name: SkeletonStore.build(folder / name, read_dataset(test_data / name)) for name in names}


@pytest.mark.parametrize(("folder", "format"), FOLDERS.items())
def test_every_folder_is_recognised(test_data: Path, folder: str, format: str) -> None:
    assert detect_format(test_data / folder) == format
    assert format in list_formats()


NTU_FILES = [
    "S001C001P001R001A001", "S001C001P001R001A011", "S001C001P001R002A033", "S001C001P001R002A038",
    "S001C001P001R002A039", "S001C001P001R002A040", "S001C003P008R002A058", "S002C001P003R001A003",
    "S004C002P003R001A017", "three_bodies",
]  # fmt: skip


def ntu_lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", NTU_FILES)
def test_ntu_against_the_lines_of_the_file(test_data: Path, name: str) -> None:
    """Lines of ten values are bodies and lines of twelve are joints: no counting of the reader's kind."""
    path = test_data / "ntu_rgbd" / f"{name}.skeleton"
    lines = ntu_lines(path)
    identities = Counter(line[0] for line in lines if len(line) == 10)
    joints: dict[str, list[list[str]]] = {identity: [] for identity in identities}
    current = ""
    for line in lines:
        if len(line) == 10:
            current = line[0]
        elif len(line) == 12:
            joints[current].append(line[:3])
    clip = read(path, denoise=False, max_persons=None, merge_tracks=False)
    assert clip.frames == int(lines[0][0])
    assert set(clip.body_ids) == set(identities)
    assert clip.num_joints == 25
    for identity, present, keypoints in zip(clip.body_ids, clip.present, clip.keypoints, strict=True):
        assert present.sum() == identities[identity]
        expected = np.array(joints[identity], np.float64).reshape(-1, 25, 3).astype(np.float32)
        np.testing.assert_array_equal(keypoints[present], expected)
    chosen = read(path)
    assert chosen.num_persons == min(2, len(identities))
    match = re.fullmatch(r"S0*(\d+)C0*(\d+)P0*(\d+)R0*(\d+)A0*(\d+)", name)
    expected_fields = tuple(int(group) for group in match.groups()) if match else (None,) * 5
    action = None if chosen.label is None else chosen.label + 1
    fields = (chosen.setup, chosen.camera, chosen.subject, chosen.replication, action)
    assert fields == expected_fields


def test_ntu_three_bodies_leave_out_the_one_that_is_no_person(test_data: Path) -> None:
    """Two stand and one lies: its joints spread wider than high in every frame."""
    path = test_data / "ntu_rgbd" / "three_bodies.skeleton"
    everyone = read(path, denoise=False, max_persons=None)
    extents = np.ptp(everyone.keypoints, axis=2)  # [M, T, C]
    upright = [i for i, extent in enumerate(extents) if (extent[:, 0] <= 0.8 * extent[:, 1]).mean() > 0.5]
    assert len(upright) == 2
    chosen = read(path)
    assert set(chosen.body_ids) == {everyone.body_ids[i] for i in upright}
    assert chosen.present.all()


def test_ntu_interaction_keeps_both_people(test_data: Path) -> None:
    clip = read(test_data / "ntu_rgbd" / "S001C003P008R002A058.skeleton")
    assert (clip.num_persons, clip.label_name) == (2, "shaking hands")
    assert clip.present.all()


@pytest.mark.parametrize("name", ["clip_a", "clip_b_two_people"])
def test_kinetics_against_the_text_of_the_file(test_data: Path, name: str) -> None:
    path = test_data / "kinetics_skeleton" / f"{name}.json"
    pieces = path.read_text().split('"skeleton"')[1:]
    people = [piece.count('"pose"') for piece in pieces]
    clip = read(path)
    assert (clip.layout, clip.frames) == ("openpose18", len(pieces))
    assert clip.present.sum(axis=0).tolist() == [min(2, count) for count in people]
    assert read(path, max_persons=None).num_persons == max(people)
    assert 0 in people or max(people) > 2  # the recordings were chosen for this
    busiest = int(np.argmax(people))
    texts = re.findall(r'"score": \[([^]]*)\]', pieces[busiest])
    scores = sorted((np.array(text.split(","), np.float64) for text in texts), key=np.sum, reverse=True)
    if name == "clip_b_two_people":  # every score of this file is zero, so it has none
        assert not np.any(scores)
        assert clip.confidence is None
        poses = re.findall(r'"pose": \[([^]]*)\]', pieces[busiest])
        table = np.array([pose.split(",") for pose in poses[:2]], np.float64).reshape(-1, 18, 2)
        np.testing.assert_array_equal(clip.keypoints[:, busiest], table.astype(np.float32))
    else:
        assert clip.confidence is not None
        for m, score in enumerate(scores[:2]):
            np.testing.assert_array_equal(clip.confidence[m, busiest], score.astype(np.float32))


def test_kinetics_label_file(test_data: Path) -> None:
    """The clips are not in the list of labels, which is noticed; the list itself reads as a list should."""
    from stgcn_fast.data.formats.kinetics import read_labels

    path = test_data / "kinetics_skeleton" / "kinetics_val_label.json"
    table = read_labels(path)
    text = path.read_text()
    assert len(table) == text.count('"has_skeleton"') == 19_906
    assert sum(not present for present, _, _ in table.values()) == text.count('"has_skeleton": false') == 110
    assert {index for _, index, _ in table.values()} == set(range(400))


@pytest.mark.parametrize("name", ["clip_3", "clip_39"])
def test_openpose_against_the_text_of_the_files(test_data: Path, name: str) -> None:
    folder = test_data / "openpose_frames" / name
    clip = read(folder)
    assert (clip.layout, clip.frames, clip.name) == ("openpose18", 80, name)
    files = {int(re.findall(r"\d+", file.stem)[-1]): file for file in folder.iterdir()}
    for t, number in enumerate(sorted(files)):
        lists = re.findall(r'"pose_keypoints_2d":\[([^]]*)\]', files[number].read_text())
        assert clip.present[:, t].sum() == len(lists)
        table = np.array(lists[0].split(","), np.float64).reshape(18, 3).astype(np.float32)
        seen = table[:, 2] > 0
        np.testing.assert_array_equal(clip.keypoints[0, t][seen], table[seen, :2])
        np.testing.assert_array_equal(clip.valid[0, t], seen)
    single = read(files[7])
    np.testing.assert_array_equal(single.keypoints[:, 0], clip.keypoints[:, 7])


def test_pyskl_against_its_pickle_codes(test_data: Path, stores: dict[str, SkeletonStore]) -> None:
    path = test_data / "pyskl" / "coco17_486clips.pkl"
    texts, labels, expect = [], [], ""
    for code, argument, _ in pickletools.genops(path.read_bytes()):
        if code.name == "SHORT_BINUNICODE":
            texts.append(argument)
            expect = argument
        elif code.name == "BININT1" and expect == "label":
            labels.append(argument)
            expect = ""
    store = stores["pyskl"]
    assert len(store) == 486
    assert set(store.names) <= set(texts)
    assert len(set(store.names)) == 486
    assert store.layout == "coco17"
    assert store.class_names == tuple(str(label) for label in range(1, 17))
    first = [int(store.class_names[label]) for label in store.labels]
    assert first[0] == labels[0]
    assert set(first) == set(range(1, 17))
    assert Counter(store.splits) == {("xsub_train",): 388, ("xsub_test",): 98}
    parts = split(store, "given")
    assert [len(part) for part in parts.values()] == [388, 0, 98]


def test_utd_mhad_counts_protocol_and_values(test_data: Path, stores: dict[str, SkeletonStore]) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    store = stores["utd_mhad"]
    assert (len(store), store.num_classes, store.layout) == (861, 27, "utd20")
    assert (store.frames.min(), store.frames.max()) == (41, 125)
    parts = split(store, "utd_mhad")
    assert (len(parts["train"]), len(parts["test"])) == (431, 430)
    for index in range(0, 861, 53):
        clip = store[index]
        table = scipy_io.loadmat(test_data / "utd_mhad" / "Skeleton" / f"{clip.name}_skeleton.mat")["d_skel"]
        expected = np.moveaxis(table, -1, 0).astype(np.float32)
        np.testing.assert_array_equal(clip.keypoints[0], expected)
        match = re.fullmatch(r"a(\d+)_s(\d+)_t(\d+)", clip.name)
        assert match is not None
        assert clip.label is not None
        assert [clip.label + 1, clip.subject, clip.replication] == [int(group) for group in match.groups()]


def test_utd_mhad_joint_order_is_that_of_its_text_file(test_data: Path) -> None:
    text = (test_data / "utd_mhad" / "Skeleton" / "Skeleton_joint_order.txt").read_text()
    names = tuple(name.replace("center", "centre") for name in re.findall(r"\d+\. (\w+)", text))
    assert get_layout("utd20").joints == names


def test_nw_ucla_counts_protocol_and_values(test_data: Path, stores: dict[str, SkeletonStore]) -> None:
    store = stores["nw_ucla"]
    files = list((test_data / "nw_ucla" / "all_sqe").iterdir())
    assert len(store) == len(files) == 1_484
    assert (store.num_classes, store.layout) == (10, "kinect20")
    assert (store.frames.min(), store.frames.max()) == (1, 201)
    assert (store.frames < 5).sum() == 2
    parts = split(store, "nw_ucla")
    assert (len(parts["train"]), len(parts["test"])) == (1_020, 464)
    assert set(store.subjects) == set(range(1, 11))
    for index in range(0, 1_484, 97):
        clip = store[index]
        text = (test_data / "nw_ucla" / "all_sqe" / f"{clip.name}.json").read_text()
        values = re.search(r'"skeletons": \[(.*)\], "label": (\d+)', text)
        assert values is not None
        flat = np.array(values[1].replace("[", "").replace("]", "").split(","), np.float64)
        np.testing.assert_array_equal(clip.keypoints.reshape(-1), flat.astype(np.float32))
        assert clip.label == int(values[2]) - 1


def test_natops_counts_protocol_and_values(test_data: Path, stores: dict[str, SkeletonStore]) -> None:
    store = stores["natops"]
    assert (len(store), store.num_classes, store.layout) == (360, 6, "natops8")
    assert set(store.frames) == {51}
    parts = split(store, "natops")
    assert (len(parts["train"]), len(parts["test"])) == (180, 180)
    lines = (test_data / "natops" / "NATOPS_TEST.ts").read_text("latin-1").splitlines()
    lines = lines[lines.index("@data") + 1 :]
    for position, line in enumerate(lines):
        clip = store[int(parts["test"][position])]
        *dimensions, label = line.split(":")
        assert clip.label == float(label) - 1
        wrist = dimensions[3 * get_layout("natops8").joints.index("left_wrist") + 1]  # its y
        np.testing.assert_array_equal(
            clip.keypoints[0, :, get_layout("natops8").joints.index("left_wrist"), 1],
            np.array(wrist.split(","), np.float64).astype(np.float32),
        )
    header = (test_data / "natops" / "NATOPS_TEST.ts").read_text("latin-1")
    order = re.findall(r"#\d+\. (\w[\w ]*) (left|right), X", header)
    names = tuple(f"{side}_{joint.lower().replace(' ', '_')}" for joint, side in order)
    assert get_layout("natops8").joints == names


def height_of(clip: Skeleton, joint: str, axis_sign: float) -> float:
    index = get_layout(clip.layout).joints.index(joint)
    valid = clip.valid[0, :, index]
    return axis_sign * float(np.median(clip.keypoints[0, valid, index, 1])) if valid.any() else float("nan")


@pytest.mark.parametrize("name", ["utd_mhad", "nw_ucla", "ntu_rgbd", "pyskl"])
def test_joints_lie_where_their_names_say(stores: dict[str, SkeletonStore], name: str) -> None:
    """In nearly all clips of people who stand, the head is above the hips and these above the feet."""
    store = stores[name]
    sign = -1.0 if store.num_coordinates == 2 else 1.0  # images count rows from the top
    head = "nose" if store.layout == "coco17" else "head"
    step = max(1, len(store) // 60)
    ordered = []
    for index in range(0, len(store), step):
        heights = [height_of(store[index], joint, sign) for joint in (head, "left_hip", "left_ankle")]
        if np.isfinite(heights).all():
            ordered.append(heights[0] > heights[1] > heights[2])
    assert len(ordered) >= min(10, len(store) // 2)
    assert np.mean(ordered) > 0.85


def test_stores_of_real_data_hold_what_the_readers_gave(
    test_data: Path, stores: dict[str, SkeletonStore]
) -> None:
    for name in ("ntu_rgbd", "natops"):
        stores[name].verify()
        for clip, again in zip(read_dataset(test_data / name), stores[name], strict=True):
            np.testing.assert_array_equal(clip.keypoints, again.keypoints)
            fields = ("name", "label", "label_name", "subject", "camera", "setup", "body_ids", "splits")
            assert [getattr(clip, f) for f in fields] == [getattr(again, f) for f in fields]


def test_truncated_copies_of_real_files_give_one_line(test_data: Path, tmp_path: Path) -> None:
    sources = [
        "ntu_rgbd/S001C001P001R001A001.skeleton", "kinetics_skeleton/clip_a.json",
        "openpose_frames/clip_3/3_000000000000_keypoints.json", "nw_ucla/all_sqe/a01_s01_e00_v01.json",
        "utd_mhad/Skeleton/a1_s1_t1_skeleton.mat", "pyskl/coco17_486clips.pkl", "natops/NATOPS_TEST.ts",
    ]  # fmt: skip
    for source in sources:
        data = (test_data / source).read_bytes()
        path = tmp_path / Path(source).name
        path.write_bytes(data[: len(data) * 2 // 3])
        options = {"index": 179} if source.endswith(".ts") else {}
        with pytest.raises(ValueError) as raised:
            read(path, detect_format(test_data / source), **options)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value) or "index must be in" in str(raised.value)


def test_json_of_the_label_file_is_not_a_clip(test_data: Path) -> None:
    names = [clip.name for clip in read_dataset(test_data / "kinetics_skeleton")]
    assert names == ["clip_a", "clip_b_two_people"]
    label = json.loads((test_data / "kinetics_skeleton" / "clip_b_two_people.json").read_text())
    assert read(test_data / "kinetics_skeleton" / "clip_b_two_people.json").label == label["label_index"]
