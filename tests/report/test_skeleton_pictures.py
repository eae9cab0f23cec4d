"""Animations and rows of frames as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.synthetic import generate_kth
from stgcn_fast.graph import get_layout, list_layouts
from stgcn_fast.report import animate_skeleton, plot_skeleton
from stgcn_fast.report.files import optional, write_whole

images = pytest.importorskip("PIL.Image")

BLUE, ORANGE, GREEN, RED = (0, 114, 178), (213, 94, 0), (0, 120, 70), (190, 30, 45)


def clip(
    frames: int = 4, seed: int = 0, layout: str = "ntu25", persons: int = 1, dimensions: int = 3
) -> Skeleton:
    shape = (persons, frames, len(get_layout(layout).joints), dimensions)
    keypoints = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Skeleton(keypoints, layout, name="somebody", label=0, label_name="walking")


def colours(picture: object, part: tuple[int, int, int, int] | None = None) -> set[tuple[int, int, int]]:
    rgb = picture.convert("RGB")  # type: ignore[attr-defined]
    pixels = np.asarray(rgb.crop(part) if part else rgb).reshape(-1, 3)
    return {tuple(int(c) for c in pixel) for pixel in np.unique(pixels, axis=0)}


def near(found: set[tuple[int, int, int]], colour: tuple[int, int, int]) -> bool:
    return any(max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 12 for pixel in found)


def test_an_animation_has_the_frames_size_and_speed_asked_for(tmp_path: Path) -> None:
    path = animate_skeleton(clip(7), tmp_path / "a.gif", fps=10, size=128)
    with images.open(path) as picture:
        assert picture.format == "GIF"
        assert picture.size == (128, 128)
        assert picture.n_frames == 7
        assert picture.info["duration"] == 100
        assert picture.info["loop"] == 0
        found = colours(picture)
    assert near(found, BLUE)
    assert near(found, ORANGE)
    assert near(found, (255, 255, 255))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(("predicted", "colour"), [("walking", GREEN), ("running", RED)])
def test_right_is_green_and_wrong_is_red(
    tmp_path: Path, predicted: str, colour: tuple[int, int, int]
) -> None:
    path = animate_skeleton(clip(2), tmp_path / "a.gif", predictions=(predicted, 0.87))
    with images.open(path) as picture:
        title = colours(picture, (0, 0, 320, 18))
    assert near(title, colour)
    assert not near(title, RED if colour is GREEN else GREEN)


def test_several_clips_share_a_picture(tmp_path: Path) -> None:
    clips = [clip(3), clip(5, 1), clip(4, 2, "coco17", dimensions=2), clip(2, 3, persons=2)]
    said = [("walking", 0.5), ("running", 0.4), ("walking", 1.0), ("boxing", 0.0)]
    path = animate_skeleton(clips, tmp_path / "a.gif", predictions=said, columns=3, size=100)
    with images.open(path) as picture:
        assert picture.size == (300, 200)
        assert picture.n_frames == 5
    limited = animate_skeleton(clips, tmp_path / "b.gif", size=100, max_frames=2)
    with images.open(limited) as picture:
        assert picture.n_frames == 2


@pytest.mark.parametrize("layout", list_layouts())
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_layout_can_be_drawn(tmp_path: Path, layout: str, dimensions: int) -> None:
    path = plot_skeleton(clip(3, 0, layout, 1, dimensions), tmp_path / "a.png", frames=3, size=96)
    with images.open(path) as picture:
        assert picture.size == (288, 96)
        assert len(colours(picture, (4, 20, 92, 92))) > 5


def test_up_is_up(tmp_path: Path) -> None:
    keypoints = np.zeros((1, 1, 20, 3), np.float32)
    head = get_layout("kinect20").joints.index("head")
    keypoints[0, 0, :, 2] = 1e-3
    places = {}
    for up, axis, sign in (("y", 1, 1), ("z", 2, 1), ("-y", 1, -1)):
        high = keypoints.copy()
        high[0, 0, head, axis] = sign * 2.0
        single = Skeleton(high, "kinect20")
        path = plot_skeleton(single, tmp_path / "a.png", frames=1, size=200, up=up)
        with images.open(path) as picture:
            dark = np.asarray(picture.convert("L"))[40:196, 4:196] < 200
        places[up] = np.flatnonzero(dark.any(axis=1))
        assert len(places[up]) > 100
    # The shoulders' end of the line is crowded with joints, the head's is not: the crowd lies below.
    assert places["y"][0] < 60


def test_a_body_that_faces_the_camera_has_its_left_on_the_right(tmp_path: Path) -> None:
    keypoints = np.zeros((1, 1, 20, 3), np.float32)
    joints = get_layout("kinect20").joints
    for side, x in (("left", -1.0), ("right", 1.0)):
        # Kinect: x to the sensor's left, so the right hand of one who faces it has the larger x.
        keypoints[0, 0, joints.index(f"{side}_hand"), 0] = x
    keypoints[..., 2] = 2.0
    with images.open(plot_skeleton(Skeleton(keypoints, "kinect20"), tmp_path / "a.png", frames=1)) as picture:
        assert near(colours(picture, (4, 20, 90, 196)), ORANGE)
        assert near(colours(picture, (110, 20, 196, 196)), BLUE)
        assert not near(colours(picture, (4, 20, 90, 196)), BLUE)


def test_missing_joints_are_not_drawn_and_an_empty_clip_is_blank(tmp_path: Path) -> None:
    full = clip(1)
    left = list(get_layout("ntu25").left)
    keypoints, confidence = full.keypoints.copy(), np.ones((1, 1, 25), np.float32)
    confidence[..., left] = 0
    keypoints[:, :, left] = 0
    hidden = Skeleton(keypoints, "ntu25", confidence)
    with images.open(plot_skeleton(hidden, tmp_path / "a.png", frames=1)) as picture:
        found = colours(picture, (0, 20, 200, 200))
    assert near(found, ORANGE)
    assert not near(found, BLUE)
    empty = Skeleton(np.zeros((1, 2, 25, 3), np.float32), "ntu25")
    with images.open(animate_skeleton(empty, tmp_path / "a.gif")) as picture:
        assert colours(picture) == {(255, 255, 255)}


def test_a_synthetic_clip_with_its_name(tmp_path: Path) -> None:
    kth = next(generate_kth(actions=["boxing"], frames=(5, 5)))
    with images.open(animate_skeleton(kth, tmp_path / "a.gif")) as picture:
        assert picture.n_frames == 5
        assert len(colours(picture, (0, 0, 120, 18))) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 0}, r"fps must be > 0, got 0"),
        ({"max_frames": 0}, r"max_frames must be >= 1, got 0"),
        ({"size": 10}, r"size must be >= 64, got 10"),
        ({"columns": 0}, r"columns must be >= 1, got 0"),
        ({"up": "x"}, r"up must be -y, y or z, got 'x'"),
        ({"path": "a.png"}, r"path must end in \.gif, got '.*a\.png'"),
        ({"skeletons": []}, r"skeletons must be at least one clip, got none"),
        ({"skeletons": [clip()], "predictions": []}, r"predictions must be one per clip \(1\), got 0"),
        ({"skeletons": clip(dimensions=2), "up": "z"}, r"up must be -y or y for a 2-D clip, got 'z'"),
    ],
)
def test_errors_leave_nothing_behind(tmp_path: Path, arguments: dict, message: str) -> None:
    given = {"skeletons": clip(1), "path": "a.gif", **arguments}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=f"^animate_skeleton: {message}$"):
        animate_skeleton(**given)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"^plot_skeleton: frames must be >= 1, got 0$"):
        plot_skeleton(clip(), tmp_path / "a.png", frames=0)


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_whole(path, fail, "test", (".png",))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_library_is_named_with_its_cure() -> None:
    with pytest.raises(ImportError, match=r'^nowhere is needed for this: pip install "stgcn_fast\[train\]"$'):
        optional("nowhere.at_all")
