"""The loss of a run by name, its parts in the history, its memory in the checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from stgcn_fast.training import Config, ConfigError, train
from stgcn_fast.training import criterion as criteria
from stgcn_fast.training.criterion import build_criterion, list_criteria
from stgcn_fast.training.yaml_io import load_yaml

Make = Callable[..., Config]


class Counting(nn.Module):
    """Cross entropy that counts its steps in a buffer and names a part in every second of them."""

    steps: Tensor

    def __init__(self, *, label_smoothing: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.smoothing = scale, label_smoothing
        self.register_buffer("steps", torch.zeros(()))

    def check(self, model: nn.Module) -> None:
        if self.scale < 0:
            raise ValueError(
                f"Counting: scale must be at least 0, got {self.scale} for {type(model).__name__}"
            )

    def step(
        self, model: nn.Module, x: Tensor, labels: Tensor, epoch: int, iteration: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = model(x)
        loss = self.scale * nn.functional.cross_entropy(logits, labels)
        self.steps += 1
        parts = {"steps": self.steps.clone()}
        if iteration % 2:
            parts["odd"] = torch.tensor(10.0 * epoch + iteration)
        return loss, logits, parts


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("criterion_of_a_test")
    module.Counting = Counting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(criteria._HOMES, "counting", (module.__name__, "Counting"))


def test_cross_entropy_is_torchs() -> None:
    criterion = build_criterion("cross_entropy", label_smoothing=0.2)
    x, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    loss, logits, parts = criterion.step(nn.Identity(), x, labels, 0, 0)  # type: ignore[operator]
    assert torch.equal(logits, x)
    assert loss == nn.functional.cross_entropy(x, labels, label_smoothing=0.2)
    assert parts == {}
    assert "cross_entropy" in list_criteria()


def test_parts_are_recorded_and_memory_is_kept(
    counting: None, store_path: Path, tmp_path: Path, tiny: Make
) -> None:
    loss = {"name": "counting", "options": {"scale": 2.0}}
    config = tiny(store_path, tmp_path / "run", loss=loss, training={"epochs": 2, "batch_size": 4})
    history = train(config, say=lambda line: None).metrics["history"]  # three steps an epoch
    assert [record["loss_steps"] for record in history] == [2.0, 5.0]
    assert [record["loss_odd"] for record in history] == [1.0, 11.0]
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert kept["criterion.steps"] == 6
    assert load_yaml(tmp_path / "run" / "config.yaml")["loss"] == loss


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        ({"name": "hinge"}, "loss: build_criterion: name must be one of .*, got 'hinge'"),
        ({"options": {"power": 2}}, "loss: build_criterion: options of cross_entropy must .*, got power"),
        ({"name": "counting", "options": {"scale": -1}}, "loss: Counting: scale must .*, got -1 for STGCN"),
    ],
)  # fmt: skip
def test_a_wrong_loss_is_refused(
    counting: None, store_path: Path, tmp_path: Path, tiny: Make, loss: dict[str, object], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        train(tiny(store_path, tmp_path / "run", loss=loss), say=lambda line: None)
    assert not (tmp_path / "run").exists()
