"""NTU RGB+D text: round trips, body selection, and every way a file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.data import FormatError, read, read_dataset
from stgcn_fast.data.formats import BodyRules

NAME = "S001C002P003R002A013.skeleton"
Body = tuple[str, list[int], np.ndarray]  # identity, frames, joints [frames, 25, 3]


def person(rng: np.random.Generator, frames: int, height: float = 1.6, width: float = 0.5) -> np.ndarray:
    """A plausible body: joints spread over its height, moving a little."""
    base = rng.uniform(-0.5, 0.5, size=(1, 25, 3)) * np.array([width, height, 0.3])
    return base + rng.normal(scale=0.02, size=(frames, 25, 3)) + np.array([0, 0, 3.0])


def file_text(frames: int, bodies: list[Body], state: int = 2, newline: str = "\n") -> str:
    lines = [str(frames)]
    for frame in range(frames):
        here = [(identity, joints[seen.index(frame)]) for identity, seen, joints in bodies if frame in seen]
        lines.append(str(len(here)))
        for identity, joints in here:
            lines += [f"{identity} 0 1 1 1 1 0 0.02 0.05 2", "25"]
            rest = f"1 2 3 4 0 0 0 1 {state}"
            lines += [" ".join([*(repr(float(x)) for x in joint), rest]) for joint in joints]
    return newline.join(lines) + newline


def write(folder: Path, text: str, name: str = NAME) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@given(
    seed=st.integers(0, 1000),
    frames=st.integers(12, 20),
    people=st.integers(1, 2),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, frames: int, people: int, newline: str
) -> None:
    rng = np.random.default_rng(seed)
    bodies = [(f"7205{i}", list(range(frames)), person(rng, frames)) for i in range(people)]
    path = write(tmp_path_factory.mktemp("ntu"), file_text(frames, bodies, newline=newline))
    clip = read(path, denoise=False)
    assert (clip.num_persons, clip.frames, clip.layout) == (people, frames, "ntu25")
    by_identity = {identity: joints for identity, _, joints in bodies}
    for identity, keypoints in zip(clip.body_ids, clip.keypoints, strict=True):
        np.testing.assert_array_equal(keypoints, by_identity[identity].astype(np.float32))
    motions = [keypoints.reshape(-1, 3).var(axis=0).sum() for keypoints in clip.keypoints]
    assert motions == sorted(motions, reverse=True)


def test_the_name_gives_the_metadata(tmp_path: Path) -> None:
    body = ("1", [0], person(np.random.default_rng(0), 1))
    clip = read(write(tmp_path, file_text(1, [body])))
    numbers = (clip.setup, clip.camera, clip.subject, clip.replication, clip.label, clip.label_name)
    assert numbers == (1, 2, 3, 2, 12, "tear up paper")
    other = read(write(tmp_path, file_text(1, [body]), "walk.skeleton"))
    assert (other.setup, other.camera, other.subject, other.label, other.label_name) == (None,) * 5
    assert other.name == "walk"


def test_the_action_of_the_name_must_exist(tmp_path: Path) -> None:
    body = ("1", [0], person(np.random.default_rng(0), 1))
    path = write(tmp_path, file_text(1, [body]), "S001C001P001R001A121.skeleton")
    assert line_of(path) == f"{path}: action number in the name must be in [1, 120], got 121"


def test_identities_stay_on_their_axis_whatever_their_order_in_a_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    first, second = person(rng, 14), person(rng, 14) + np.array([1, 0, 0])
    text = file_text(14, [("a", list(range(14)), first), ("b", list(range(3, 14)), second[3:])])
    lines = text.splitlines()
    start = len(lines) - (1 + 2 * 27)  # last frame: exchange its two bodies
    body_a, body_b = lines[start + 1 : start + 28], lines[start + 28 :]
    path = write(tmp_path, "\n".join([*lines[: start + 1], *body_b, *body_a]))
    clip = read(path, denoise=False)
    joints = dict(zip(clip.body_ids, clip.keypoints, strict=True))
    np.testing.assert_array_equal(joints["a"], first.astype(np.float32))
    np.testing.assert_array_equal(joints["b"][3:], second[3:].astype(np.float32))
    assert not joints["b"][:3].any()
    present = dict(zip(clip.body_ids, clip.present, strict=True))
    assert present["b"].tolist() == [False] * 3 + [True] * 11


def crowd(rng: np.random.Generator) -> list[Body]:
    """A calm person, a lively one, one seen briefly, a chair (wide), a statue (small, still)."""
    everywhere = list(range(20))
    lively = person(rng, 20) + np.linspace(0, 1.5, 20)[:, None, None] * np.array([1, 0, 0])
    return [
        ("calm", everywhere, person(rng, 20)),
        ("lively", everywhere, lively),
        ("brief", list(range(11)), person(rng, 11)),
        ("chair", everywhere, person(rng, 20, height=0.7, width=1.6)),
        ("statue", everywhere, person(rng, 20, height=0.3, width=0.1)),
    ]


def test_noise_is_left_out_and_the_most_active_come_first(tmp_path: Path) -> None:
    path = write(tmp_path, file_text(20, crowd(np.random.default_rng(5))))
    assert read(path).body_ids == ("lively", "calm")
    assert read(path, max_persons=1).body_ids == ("lively",)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (BodyRules(min_frames=11), "brief"),
        (BodyRules(max_wide_share=1.1), "chair"),
        (BodyRules(motion=(0.0, 2.0)), "statue"),
    ],
)
def test_each_rule_alone_leaves_its_body_out(tmp_path: Path, rules: BodyRules, kept: str) -> None:
    path = write(tmp_path, file_text(20, crowd(np.random.default_rng(5))))
    found = read(path, rules=rules, max_persons=None, merge_tracks=False)
    assert set(found.body_ids) == {"calm", "lively", kept}


def test_without_cleaning_all_bodies_come(tmp_path: Path) -> None:
    path = write(tmp_path, file_text(20, crowd(np.random.default_rng(5))))
    assert len(read(path, denoise=False, max_persons=None).body_ids) == 5


def test_the_last_body_is_never_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path, file_text(3, [("a", [0, 1, 2], person(rng, 3, height=0.2, width=0.9))]))
    assert read(path).body_ids == ("a",)


def test_a_person_tracked_anew_fills_the_same_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    joints = person(rng, 30)
    parts: list[Body] = [("a", list(range(15)), joints[:15]), ("b", list(range(15, 30)), joints[15:])]
    path = write(tmp_path, file_text(30, parts))
    merged = read(path)
    assert merged.num_persons == 1
    assert set(merged.body_ids[0].split("+")) == {"a", "b"}
    np.testing.assert_array_equal(merged.keypoints[0], joints.astype(np.float32))
    assert sorted(read(path, merge_tracks=False).body_ids) == ["a", "b"]


def test_tracking_states_as_confidence(tmp_path: Path) -> None:
    body = ("1", [0], person(np.random.default_rng(0), 1))
    inferred = read(write(tmp_path, file_text(1, [body], state=1)), tracking_confidence=True)
    assert inferred.confidence is not None
    assert (inferred.confidence == 0.5).all()
    lines = file_text(1, [body]).splitlines()
    lines[4] = lines[4][:-1] + "0"
    lost = read(write(tmp_path, "\n".join(lines)), tracking_confidence=True)
    assert lost.confidence is not None
    assert lost.confidence[0, 0].tolist() == [0.0] + [1.0] * 24
    assert not lost.keypoints[0, 0, 0].any()
    assert read(write(tmp_path, file_text(1, [body], state=0))).confidence is None


@pytest.mark.parametrize("word", ["nan", "-1.#IND", "1.#QNAN0"])
def test_a_joint_that_is_no_number_is_missing(tmp_path: Path, word: str) -> None:
    joints = person(np.random.default_rng(0), 2)
    lines = file_text(2, [("1", [0, 1], joints)]).splitlines()
    lines[4] = " ".join([word, *lines[4].split()[1:]])
    clip = read(write(tmp_path, "\n".join(lines)))
    assert not clip.valid[0, 0, 0]
    assert clip.valid.sum() == 49


def line_of(path: Path, **options: Any) -> str:
    with pytest.raises(FormatError) as raised:
        read(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


GOOD = file_text(3, [("1", [0, 1, 2], person(np.random.default_rng(0), 3))]).splitlines()


def changed(line: int, text: str) -> str:
    return "\n".join([*GOOD[:line], text, *GOOD[line + 1 :]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must not be empty, got 0 bytes of nothing"),
        ("\n \n", "must not be empty, got 3 bytes of nothing"),
        ("\n".join(GOOD[:-1]), "must not end before joint 25 of frame 3 of 3, got the end at line 84"),
        (
            "\n".join(GOOD)[:-9],
            "must not end before joint 25 of frame 3 of 3 is complete, got the end in line 85",
        ),
        ("\n".join(GOOD[:57]), "must not end before the body count of frame 3 of 3, got the end at line 57"),
        ("\n".join(GOOD[:58]), "must not end before a body of frame 3 of 3, got the end at line 58"),
        ("\n".join([*GOOD, "1"]), "must end after the 3 frames it declares, got 1 further lines"),
        (changed(0, "4"), "must not end before the body count of frame 4 of 4, got the end at line 85"),
        (changed(0, "2"), "must end after the 2 frames it declares, got 28 further lines"),
        (changed(0, "0"), "line 1 must be the frame count, a number in [1, 1000000], got 0"),
        (changed(0, "three"), "line 1 must be the frame count, a number in [1, 1000000], got three"),
        (changed(0, "9" * 11), "line 1 must be the frame count, a number in [1, 1000000], got 99999999999"),
        (changed(1, "-1"), "line 2 must be the body count of frame 1 of 3, a number in [0, 1000], got -1"),
        (changed(2, "1 0 1"), "line 3 must have 10 body values, got 3"),
        (changed(3, "24"), "line 4 must be the joint count 25, got 24"),
        (changed(6, "1 2 3"), "line 7 must have 12 joint values, got 3"),
        (changed(6, "x 2 3 4 5 6 7 8 9 10 11 2"), "line 7 must be numbers, got x 2 3 4 5 6 7 8 9 10 11 2"),
        (changed(6, "1 2 3 4 5 6 7 8 9 10 11 7"), "line 7 must end in the tracking state 0, 1 or 2, got 7"),
        ("2\n0\n0\n", "must hold at least one body, got 0 bodies in 2 frames"),
        ("1\n2\n" + "\n".join(GOOD[2:29] * 2), "line 30 must be a body not yet in frame 1 of 1, got 1"),
    ],
)
def test_a_broken_file_gives_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    assert line_of(path) == f"{path}: {said}"


def test_two_wrong_lines_that_add_up_are_still_wrong(tmp_path: Path) -> None:
    lines = list(GOOD)
    lines[6], lines[7] = lines[6] + " 1 2", " ".join(lines[7].split()[:-2])
    path = write(tmp_path, "\n".join(lines))
    assert line_of(path) == f"{path}: line 7 must have 12 joint values, got 14"


def test_a_file_of_nothing_but_nan(tmp_path: Path) -> None:
    joints = np.full((2, 25, 3), np.nan)
    path = write(tmp_path, file_text(2, [("1", [0, 1], joints)]))
    rule = "must hold at least one joint with finite coordinates"
    assert line_of(path) == f"{path}: {rule}, got 50 joints of NaN"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"3\n\xff\xfe")
    assert line_of(path) == f"{path}: must be ascii text, got byte 0xff"


@given(st.integers(0, len("\n".join(GOOD)) - 2))
def test_any_truncation_is_noticed(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    """Cut inside the last number a file looks whole; anywhere before, it must not."""
    whole = "\n".join(GOOD)
    path = write(tmp_path_factory.mktemp("cut"), whole[: min(size, len(whole) - 2)])
    line_of(path)


def test_the_list_of_missing_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = ("1", [0], person(np.random.default_rng(0), 1))
    for action in (1, 2, 10):
        write(tmp_path, file_text(1, [body]), f"S001C001P001R001A{action:03d}.skeleton")
    listed = tmp_path / "missing.txt"
    listed.write_text("There are 1 samples with missing skeletons.\n\nS001C001P001R001A002\n")
    clips = read_dataset(tmp_path, "ntu", missing=listed)
    assert [clip.label for clip in clips] == [0, 9]
    assert len(clips) == clips.read_count == 2
    assert clips.excluded == [("S001C001P001R001A002", "named in the list of missing clips")]
    assert "1 of 3 clips excluded, first: S001C001P001R001A002: named in the list" in caplog.text
    listed.write_text("nothing\n")
    with pytest.raises(FormatError) as raised:
        read_dataset(tmp_path, "ntu", missing=listed)
    assert str(raised.value) == f"{listed}: must name clips as SsssCcccPpppRrrrAaaa, got no such name"


def test_max_persons_must_be_positive(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(GOOD))
    with pytest.raises(ValueError) as raised:
        read(path, max_persons=0)
    assert str(raised.value) == "ntu.read: max_persons must be at least 1 or None, got 0"
