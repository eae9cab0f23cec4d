"""Videos become clips by way of a pose network; a stand-in of it finds grey blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import pose_stand_in as stand_in
from stgcn_fast.data import FormatError, read, read_dataset
from stgcn_fast.data.pose import PATIENCE, PoseNetwork, Tracks, in_layout
from stgcn_fast.graph import get_layout


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return stand_in.install(monkeypatch, tmp_path / "cache")


@pytest.fixture
def video(networks: Path, tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    with path.open("wb") as file:
        np.save(file, stand_in.film(12, begin=2))
    return path


def test_people_keep_their_places(video: Path) -> None:
    """Detections come in another order in every frame; the clip's persons do not."""
    clip = read(video)
    assert (clip.name, clip.layout, clip.keypoints.shape) == ("walk", "coco17", (2, 12, 17, 2))
    assert clip.confidence is not None
    np.testing.assert_array_equal(
        clip.valid.any(-1), [[t >= 2 for t in range(12)], [t >= 5 for t in range(12)]]
    )
    np.testing.assert_allclose(clip.keypoints[0, 2:, 0, 0], 8 + np.arange(2, 12))
    np.testing.assert_allclose(clip.keypoints[1, 5:, 0], [[96, 30]] * 7)
    np.testing.assert_allclose(clip.confidence[0, 2], np.linspace(0.5, 0.9, 17), rtol=1e-6)
    assert read(video, max_persons=1).num_persons == 1


@pytest.mark.parametrize("layout", ["openpose18", "body25"])
def test_other_layouts(video: Path, layout: str) -> None:
    coco, clip = read(video), read(video, layout=layout)
    have, joints = get_layout("coco17").joints, get_layout(layout).joints
    assert clip.keypoints.shape[2] == len(joints)
    for v, joint in enumerate(joints):
        if joint in have:
            np.testing.assert_array_equal(clip.keypoints[:, :, v], coco.keypoints[:, :, have.index(joint)])
    shoulders = [have.index("left_shoulder"), have.index("right_shoulder")]
    neck = joints.index("neck")
    np.testing.assert_allclose(clip.keypoints[:, :, neck], coco.keypoints[:, :, shoulders].mean(2), rtol=1e-6)
    assert clip.confidence is not None
    assert coco.confidence is not None
    np.testing.assert_array_equal(clip.confidence[:, :, neck], coco.confidence[:, :, shoulders].min(2))
    if layout == "body25":
        assert not clip.confidence[:, :, 19:].any()
    with pytest.raises(ValueError, match="layout must be one of coco17, openpose18, body25, got 'ntu25'"):
        in_layout(coco.keypoints, coco.confidence, "ntu25")


def test_a_data_set_of_videos_loads_the_networks_once(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (video.parent / "run.mp4").write_bytes(video.read_bytes())
    loaded = []
    plain = stand_in.Tool.__init__
    monkeypatch.setattr(stand_in.Tool, "__init__", lambda self, *a: loaded.append(a) or plain(self, *a))
    clips = list(read_dataset(video.parent, pattern=r"(?P<label>\w+)"))
    assert [clip.label_name for clip in clips] == ["run", "walk"]
    assert len(loaded) == 2  # detector and estimator
    assert capsys.readouterr().out == ""


def test_what_is_no_video(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"x")
    with pytest.raises(FormatError, match="must be a video that OpenCV can read, got no picture"):
        read(path)
    for options in ({"layout": "ntu25"}, {"max_persons": 0}, {"mode": "best"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} .*must be"):
            read(path, **options)


def test_nobody_is_a_clip_without_joints(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    with path.open("wb") as file:
        np.save(file, stand_in.film(3, begin=3))
    clip = read(path)
    assert clip.keypoints.shape == (1, 3, 17, 2)
    assert not clip.valid.any()


def test_networks_are_fetched_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stand_in.install(monkeypatch, tmp_path / "cache", networks=False)
    with pytest.raises(OSError, match=r"must lie in .*, or be fetched with download") as raised:
        PoseNetwork()
    assert "yolox_lightweight-1a2b.onnx and rtmpose_lightweight-1a2b.onnx" in str(raised.value)
    with pytest.raises(OSError, match="must be within reach, got <urlopen error no network>"):
        PoseNetwork(download=True)
    monkeypatch.setattr(stand_in.Tool, "reachable", True)
    PoseNetwork(download=True)
    said = capsys.readouterr()
    assert said.err.count("Downloading") == 2
    assert said.out == ""
    folder.mkdir(parents=True)
    for name in ("yolox", "rtmpose"):
        (folder / f"{name}_lightweight-1a2b.onnx").write_text("cut off")
    with pytest.raises(OSError, match="must be networks of rtmlib, got Protobuf parsing failed"):
        PoseNetwork()


def test_without_rtmlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in.install(monkeypatch, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ImportError, match=r'pip install "stgcn_fast\[pose\]"'):
        read(tmp_path / "a.mp4")


def test_places_are_kept_for_a_while() -> None:
    body = np.array([[0, 0], [10, 60]], np.float32)
    tracks = Tracks()
    assert tracks([body, body + 200]) == [0, 1]
    assert tracks([body + 201, body + 1]) == [1, 0]
    assert tracks([body + 202]) == [1]
    assert tracks([body + 202, body + 900]) == [1, 2]  # too far off to be the first one
    assert tracks([body + 3]) == [0]
    for _ in range(PATIENCE + 1):
        assert tracks([]) == []
    assert tracks([body + 202, body]) == [0, 1]  # all are forgotten


def test_a_film_of_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    stand_in.install(monkeypatch, tmp_path / "cache", opencv=False)
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (128, 96))
    for picture in stand_in.film(8):
        writer.write(picture)
    writer.release()
    clip = read(path)
    assert clip.keypoints.shape == (2, 8, 17, 2)
    np.testing.assert_allclose(clip.keypoints[0, :, 0, 0], 8 + np.arange(8), atol=3)
