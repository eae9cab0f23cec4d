"""Tiny synthetic data and a tiny run, trained once for the tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stgcn_fast import data
from stgcn_fast.data.synthetic import generate_kth
from stgcn_fast.training import Config, TrainResult, train

ACTIONS = ("boxing", "handwaving", "walking")


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips: 4 subjects, 3 actions, 2 scenarios."""
    path = tmp_path_factory.mktemp("tiny") / "clips"
    clips = generate_kth(subjects=(1, 2, 3, 4), actions=ACTIONS, scenarios=(1, 4), frames=(20, 30))
    data.SkeletonStore.build(
        path, [clip.with_label(ACTIONS.index(clip.label_name), clip.label_name) for clip in clips]
    )
    return path


def tiny_config(store: Path, directory: Path, **sections: Any) -> Config:
    """A run of a few seconds; keywords replace whole sections."""
    values: dict[str, Any] = {
        "data": {
            "source": str(store),
            "frames": 12,
            "split": {"protocol": "cross_subject", "options": {"train": "odd"}},
        },
        "model": {"options": {"channels": [4, 8], "dropout": 0.2}},
        "optimiser": {"lr": 0.05},
        "training": {"epochs": 3, "batch_size": 4},
        "output": {"dir": str(directory), "tensorboard": False},
    }
    return Config.from_dict(values | sections)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """``tiny(store, directory, **sections)`` makes the configuration of a run of a few seconds."""
    return tiny_config


@pytest.fixture(scope="session")
def trained(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    directory = tmp_path_factory.mktemp("run") / "run"
    return train(tiny_config(store_path, directory), say=lambda line: None)
