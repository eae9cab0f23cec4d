"""A run that is killed within an epoch and resumed ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stgcn_fast.training import Config, load_config, train
from stgcn_fast.training.module import SkeletonModule
from stgcn_fast.training.yaml_io import dump_yaml

Make = Callable[..., Config]

EPOCHS = 3


def test_killed_and_resumed_equals_uninterrupted(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    config = tiny(
        store_path,
        tmp_path / "cut",
        optimiser={"lr": 0.05, "ema": 0.9},
        training={"epochs": EPOCHS, "batch_size": 2},
    )
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml(config.to_dict()), encoding="utf-8")
    # The child stops for good in the middle of its second epoch and waits there to be killed.
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from stgcn_fast.training import load_config, train\n"
        "from stgcn_fast.training.module import SkeletonModule\n"
        "step = SkeletonModule.training_step\n"
        "def waiting(self, batch, batch_idx):\n"
        "    if self.current_epoch == 1 and batch_idx == 3:\n"
        "        Path(sys.argv[2]).touch()\n"
        "        time.sleep(600)\n"
        "    return step(self, batch, batch_idx)\n"
        "SkeletonModule.training_step = waiting\n"
        "train(load_config(sys.argv[1]))\n"
    )
    marker = tmp_path / "in_the_middle"
    child = subprocess.Popen([sys.executable, "-c", program, str(file), str(marker)], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 200
        while not marker.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if not marker.exists():
            child.kill()
            pytest.fail(f"the run never got to its second epoch: {child.communicate()[1].decode()}")
    finally:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.communicate()

    left = [tmp_path / "cut" / name for name in (".last.json.0a1b2c3d.tmp", "last.ckpt.partial")]
    for half in left:  # what a kill in the middle of writing leaves
        half.write_bytes(b"{")
    lines: list[str] = []
    resumed = train(load_config(file), resume=True, say=lines.append)
    assert not any(half.exists() for half in left)
    assert any(line.startswith("resuming from") for line in lines)
    assert [record["epoch"] for record in resumed.metrics["history"]] == [1, 2, 3]
    whole = train(load_config(file, [f"output.dir={tmp_path / 'whole'}"]), say=lines.append)
    a, b = (load_file(result.directory / "last.safetensors") for result in (resumed, whole))
    assert all(torch.equal(a[key], b[key]) for key in a)
    for left, right in zip(resumed.metrics["history"], whole.metrics["history"]):
        assert {**left, "seconds": 0} == {**right, "seconds": 0}
    assert resumed.metrics["test"] == whole.metrics["test"]
    assert not list(tmp_path.glob("cut/*partial*"))


def test_a_run_that_is_told_to_end_does_not_look_finished(
    store_path: Path, tmp_path: Path, tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(store_path, tmp_path / "run", training={"epochs": 2, "batch_size": 6})
    step = SkeletonModule.training_step

    def told_to_end(self: SkeletonModule, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SkeletonModule, "training_step", told_to_end)
    with pytest.raises(KeyboardInterrupt):
        train(config, say=lambda line: None)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert train(config, resume=True, say=lambda line: None).metrics["epochs"] == 2


def test_resume_without_an_earlier_run_starts_one(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    lines: list[str] = []
    config = tiny(store_path, tmp_path / "run", training={"epochs": 1, "batch_size": 12})
    result = train(config, resume=True, say=lines.append)
    assert result.metrics["epochs"] == 1
    assert any("is not there yet: starting from the beginning" in line for line in lines)
