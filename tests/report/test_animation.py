"""A clip with focus as GIF and as video."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stgcn_fast.graph import get_layout
from stgcn_fast.report import animate_focus

LAYOUT = get_layout("ntu25")
POINTS = np.random.default_rng(0).normal(size=(2, 8, 25, 3)).astype(np.float32)
FOCUS = np.zeros((2, 4, 25))
FOCUS[0, 3, 3] = 1.0


def test_a_gif_brightens_where_the_focus_is(tmp_path: Path) -> None:
    still = np.repeat(POINTS[:, :1], 8, axis=1)
    out = animate_focus(still, FOCUS, LAYOUT, tmp_path / "focus.gif", title="wave", fps=10)
    with Image.open(out) as gif:
        assert gif.n_frames in (2, 8)  # equal frames may be joined
        assert gif.size == (360, 360)
        gif.seek(0)
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB")).astype(int)

    def bright(picture: np.ndarray) -> int:
        return int(((picture[..., 0] > 220) & (picture[..., 2] < 80)).sum())

    assert bright(first) == 0
    assert bright(last) > 50


def test_frames_follow_the_layer(tmp_path: Path) -> None:
    out = animate_focus(POINTS, FOCUS, LAYOUT, tmp_path / "a.gif", frames=5, max_frames=3)
    with Image.open(out) as gif:
        assert gif.n_frames == 3


def test_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "focus.mp4"
    if shutil.which("ffmpeg") is not None:
        animate_focus(POINTS, FOCUS, LAYOUT, path)
        assert path.read_bytes()[4:8] == b"ftyp"
        path.unlink()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(OSError, match=r"animate_focus: path must end in \.gif where ffmpeg is not installed"):
        animate_focus(POINTS, FOCUS, LAYOUT, path)
    monkeypatch.setattr(shutil, "which", lambda _: "ffmpeg")
    failed = subprocess.CompletedProcess([], 1, b"", b"first\nUnknown encoder 'libx264'\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match=r"animate_focus: ffmpeg must write 360x360 H\.264, got .*libx264"):
        animate_focus(POINTS, FOCUS, LAYOUT, path)
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "a.gif"
    with pytest.raises(ValueError, match=r"animate_focus: keypoints must have shape \[M, T, 25, 2 or 3\]"):
        animate_focus(POINTS[..., :20, :], FOCUS, LAYOUT, out)
    with pytest.raises(ValueError, match=r"animate_focus: focus must be \[2, T, 25\], got \[1, 4, 25\]"):
        animate_focus(POINTS, FOCUS[:1], LAYOUT, out)
    with pytest.raises(ValueError, match="frames must be from 1 to 8, got 9"):
        animate_focus(POINTS, FOCUS, LAYOUT, out, frames=9)
    with pytest.raises(ValueError, match="size must be even and >= 64, got 101"):
        animate_focus(POINTS, FOCUS, LAYOUT, out, size=101)
    with pytest.raises(ValueError, match=r"fps must be > 0 and max_frames >= 1, got 0 and 200"):
        animate_focus(POINTS, FOCUS, LAYOUT, out, fps=0)
    with pytest.raises(ValueError, match="up must be -y, y or z, got 'x'"):
        animate_focus(POINTS, FOCUS, LAYOUT, out, up="x")
    with pytest.raises(ValueError, match=r"path must end in \.gif or \.mp4"):
        animate_focus(POINTS, FOCUS, LAYOUT, tmp_path / "a.avi")
    assert list(tmp_path.iterdir()) == []
