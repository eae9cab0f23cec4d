"""`stgcn-fast predict` labels a video; a stand-in finds the people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pose_stand_in as stand_in
from stgcn_fast.models import STGCN, save_checkpoint

Run = Callable[..., Any]
CLASSES = ["wave", "clap"]


def write(folder: Path, layout: str, channels: int = 3) -> Path:
    """A checkpoint as training writes it."""
    model = STGCN(2, channels, layout=layout, channels=(4,), temporal_kernel=3)
    meta: dict[str, Any] = {"class_names": CLASSES, "layout": layout, "channels": channels}
    meta["input"] = {"frames": 16, "persons": 2, "confidence": channels == 3, "transforms": []}
    save_checkpoint(folder / layout, model, meta)
    return folder / f"{layout}.safetensors"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    with path.open("wb") as file:
        np.save(file, stand_in.film(12))
    return path


@pytest.mark.parametrize("layout", ["coco17", "openpose18", "body25"])
def test_in_the_layout_of_the_checkpoint(
    run: Run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    stand_in.install(monkeypatch, tmp_path / "cache")
    outcome = run("predict", video, "--checkpoint", write(tmp_path, layout), "--json", "--top", 2)
    assert (outcome.status, outcome.err) == (0, "")
    answer = json.loads(outcome.out)  # and not a word of rtmlib's beside it
    assert answer["label_name"] in CLASSES
    assert sum(entry["probability"] for entry in answer["top"]) == pytest.approx(1, abs=1e-5)


def test_what_is_in_the_way_is_one_line(
    run: Run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(checkpoint: Path, *words: object) -> str:
        outcome = run("predict", video, "--checkpoint", checkpoint, *words)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1
        return str(outcome.err)

    stand_in.install(monkeypatch, tmp_path / "cache", networks=False)
    coco = write(tmp_path, "coco17")
    assert "--download" in said(coco)
    assert "must be within reach, got <urlopen error no network>" in said(coco, "--download")
    assert "layout of a video must be one of coco17, openpose18, body25, got 'ntu25'" in said(
        write(tmp_path, "ntu25", channels=2)
    )
    stand_in.install(monkeypatch, tmp_path / "other")
    with video.open("wb") as file:
        np.save(file, stand_in.film(5, begin=5))
    assert "clip must show at least one joint, got none" in said(coco)
