"""A checkpoint and small files of one's own for the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from stgcn_fast.cli import main


class Outcome(NamedTuple):
    """What a command returned and printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("predict", file, ...)`` calls the command in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of 16 clips as arrays: 2 classes, 4 subjects, 25 joints in 3-D (layout ntu25)."""
    directory = tmp_path_factory.mktemp("data") / "clips"
    directory.mkdir()
    rng = np.random.default_rng(0)
    body = rng.normal(size=(25, 3))
    for i in range(16):
        wave = np.sin(np.arange(14) * (0.4 + 0.8 * (i % 2)))[:, None, None]
        keypoints = body + wave * 0.3 + 0.02 * rng.normal(size=(14, 25, 3))
        np.savez(directory / f"clip{i:02d}.npz", keypoints=keypoints, label=i % 2, subject=i // 4 + 1)
    return directory


@pytest.fixture(scope="session")
def recipe(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a run of a second."""
    file = tmp_path_factory.mktemp("recipe") / "run.yaml"
    file.write_text(
        f"data: {{source: {clips}, format: arrays, frames: 8}}\n"
        "model: {options: {channels: [4]}}\n"
        "training: {epochs: 2, batch_size: 8}\n"
        "output: {tensorboard: false}\n",
        encoding="utf-8",
    )
    return file


@pytest.fixture(scope="session")
def checkpoint(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights trained by that configuration."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", str(recipe), f"output.dir={directory}"]) == 0
    return directory / "last.safetensors"
