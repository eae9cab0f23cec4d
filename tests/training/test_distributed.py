"""Two processes under torchrun share one run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stgcn_fast.training import Config, load_config, train
from stgcn_fast.training.yaml_io import dump_yaml

Make = Callable[..., Config]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_one_network(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    # An odd number of validation clips: one process has one more, and its padding must not be counted.
    split = {"protocol": "given", "options": names_of(store_path)}
    config = tiny(
        store_path,
        tmp_path / "two",
        data={"source": str(store_path), "frames": 12, "split": split},
        training={"epochs": 2, "batch_size": 4},
    )
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml(config.to_dict()), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, "-m", "stgcn_fast", "train", str(file)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test top-1") == 1
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["clips"] == {"train": 12, "val": 5, "test": 7}
    assert metrics["epochs"] == 2
    top1 = metrics["history"][-1]["val_top1"] * 5
    assert top1 == pytest.approx(round(top1))
    # The same clips are in every batch, so before any step has differed the losses are near each other.
    alone = train(load_config(file, [f"output.dir={tmp_path / 'one'}"]), say=lambda line: None)
    assert metrics["history"][0]["train_loss"] == pytest.approx(
        alone.metrics["history"][0]["train_loss"], rel=0.1
    )


def names_of(store_path: Path) -> dict[str, list[str]]:
    from stgcn_fast import data

    names = list(data.SkeletonStore(store_path).names)
    return {"train": names[::2], "val": names[1::2][:5], "test": names[1::2][5:]}
