"""The example runs on a recording, and on a camera that is not there."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pose_stand_in as stand_in
from stgcn_fast import data
from stgcn_fast.models import STGCN, save_checkpoint
from stgcn_fast.training import Predictor

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[list[str], str]]
CLASSES = ["wave", "clap", "bow"]


def write(folder: Path, layout: str, persons: int) -> Path:
    """A checkpoint as training writes it, of a small network far from its initial weights."""
    torch.manual_seed(0)
    model = STGCN(3, 3, layout=layout, channels=(8, 8, 16), temporal_kernel=3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
    crop = {"name": "RandomCrop", "frames": 40, "position": "centre"}
    centre = {"name": "Centre", "joint": "hips", "reference": "first"}
    spec = {"stream": "joint", "frames": 40, "persons": persons, "fit": "zero", "confidence": True}
    meta = {"class_names": CLASSES, "layout": layout, "channels": 3}
    meta["input"] = {**spec, "transforms": [crop, centre]}
    save_checkpoint(folder / layout, model, meta)
    return folder / f"{layout}.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("live"), "coco17", 1)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the example as a command; gives its output and the message it stops with."""

    def call(*words: object) -> tuple[list[str], str]:
        monkeypatch.setattr(sys, "argv", ["webcam.py", *map(str, words)])
        stopped = ""
        try:
            runpy.run_path(str(ROOT / "examples" / "webcam.py"), run_name="__main__")
        except SystemExit as stop:
            stopped = str(stop)
        return capsys.readouterr().out.splitlines(), stopped

    return call


def test_a_recording(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """Frame by frame it says in the end what `stgcn-fast predict` says."""
    rng = np.random.default_rng(3)
    keypoints = (100 + 5 * rng.normal(size=(1, 40, 17, 2)).cumsum(1)).astype(np.float32)
    np.save(tmp_path / "clip.npy", keypoints)
    clip = data.read(tmp_path / "clip.npy", "arrays", default_layout="coco17")
    expected = Predictor(checkpoint)([clip])[0]
    (first, *live, last), stopped = run(checkpoint, "--file", tmp_path / "clip.npy")
    assert stopped == ""
    assert first == "labels come 3 frames late, every 2 frames"
    assert all(re.fullmatch(r"frame \d+: (wave|clap|bow) \(\d+%\)", line) for line in live)
    assert live[0].startswith("frame 4: ")
    assert last.startswith("40 frames, ")
    assert last.endswith(f"as a whole: {expected.label_name} ({expected.probability:.0%})")


def test_a_real_recording(run: Run, checkpoint: Path, tmp_path: Path, test_data: Path) -> None:
    clip = sorted((test_data / "kinetics_skeleton").glob("clip_*.json"))[0]
    _, stopped = run(checkpoint, "--file", clip)
    assert "layout must be 'coco17' as in the checkpoint, got 'openpose18'" in stopped
    lines, stopped = run(write(tmp_path, "openpose18", 2), "--file", clip)
    assert stopped == ""
    assert re.fullmatch(r"\d+ frames, .* ms each in the network; as a whole: \w+ \(\d+%\)", lines[-1])


def test_a_camera(run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path)
    monkeypatch.setattr(stand_in.VideoCapture, "FILM", stand_in.film(25, begin=4))
    lines, stopped = run(checkpoint, "--no-picture", "--window", 8)
    assert stopped == ""
    # Nobody is there in the first four pictures.
    assert lines[-1].startswith("21 frames, ")
    _, stopped = run(checkpoint, "--camera", 3)
    assert stopped == "--camera: number must be that of a camera, got 3"


def test_no_pose_network(run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, networks=False)
    _, stopped = run(checkpoint)
    assert "or be fetched with download (on the command line --download), got neither" in stopped
    _, stopped = run(checkpoint, "--download")
    assert "must be within reach, got <urlopen error no network>" in stopped
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    _, stopped = run(checkpoint)
    assert 'pip install "stgcn_fast[pose]"' in stopped
