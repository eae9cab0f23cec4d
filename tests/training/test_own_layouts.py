"""Layouts of one's own travel in stores and checkpoints, into processes that never heard of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast.data import FormatError, Skeleton, SkeletonStore
from stgcn_fast.graph import Graph, Layout, get_layout, layouts, list_layouts, register_layout
from stgcn_fast.models import STGCN, load_checkpoint, save_checkpoint

ARMS: dict[str, Any] = {
    "joints": ["neck", "left_elbow", "left_wrist", "right_elbow", "right_wrist"],
    "edges": [(1, 0), (2, 1), (3, 0), (4, 3)],
    "centre": 0,
    "left": [1, 2],
    "right": [3, 4],
}
OTHER = ARMS | {"centre": 1}


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_REGISTER", dict(layouts._REGISTER))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Eight clips of the layout ``arms5``, which is forgotten again."""
    register_layout("arms5", **ARMS)
    SkeletonStore.build(tmp_path / "arms", arms())
    del layouts._REGISTER["arms5"]
    return tmp_path / "arms"


def arms() -> Iterator[Skeleton]:
    rng = np.random.default_rng(0)
    for i in range(8):
        keypoints = rng.normal(size=(1, 9, 5, 2)).astype(np.float32)
        yield Skeleton(keypoints, "arms5", name=f"clip{i}", label=i % 2, subject=1 + i // 4)


def command(*words: object) -> str:
    """Standard output of ``stgcn-fast`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "stgcn_fast", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fresh_processes_train_test_and_predict(store: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        f"data: {{source: {store}, frames: 8}}\n"
        "model: {options: {channels: [4]}}\n"
        "transforms: {train: [Centre], eval: [Centre]}\n"
        "training: {epochs: 1, batch_size: 4, threads: 1}\n"
        "output: {tensorboard: false}\n",
        encoding="utf-8",
    )
    command("train", recipe, f"output.dir={tmp_path / 'run'}")
    checkpoint = tmp_path / "run" / "last.safetensors"
    np.savez(tmp_path / "clip.npz", keypoints=np.random.default_rng(1).normal(size=(12, 5, 2)))
    answer = json.loads(command("predict", tmp_path / "clip.npz", "--checkpoint", checkpoint, "--json"))
    assert answer["label_name"] in ("0", "1")
    figures = json.loads(command("test", checkpoint, "--part", "all", "--json"))
    assert figures["clips"] == 8


def test_a_store_registers_its_layout(store: Path) -> None:
    assert "arms5" not in list_layouts()
    opened = SkeletonStore(store)
    assert get_layout("arms5") == Layout(name="arms5", **ARMS)
    assert opened[0].keypoints.shape == (1, 9, 5, 2)
    assert SkeletonStore(store).layout == "arms5"


def test_a_store_without_the_definition_still_opens(store: Path) -> None:
    header = json.loads((store / "header.json").read_text(encoding="utf-8"))
    assert header["version"] == 1
    del header["layout_definition"]
    (store / "header.json").write_text(json.dumps(header), encoding="utf-8")
    assert len(SkeletonStore(store)) == 8
    assert "arms5" not in list_layouts()


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("arms5", "layout_definition must be of type dict, got arms5"),
        ({"name": "legs5"}, "layout_definition must be of 'arms5', got legs5"),
        (
            {"name": "arms5"},
            "layout_definition: Layout: config must have centre, edges, joints, got ['name']",
        ),
    ],
)
def test_a_damaged_definition_gives_one_line(store: Path, definition: Any, said: str) -> None:
    file = store / "header.json"
    header = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(header | {"layout_definition": definition}), encoding="utf-8")
    with pytest.raises(FormatError) as caught:
        SkeletonStore(store)
    assert str(caught.value) == f"{file}: {said}"


def test_a_name_that_is_taken_is_refused_in_one_line(store: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", STGCN(2, 2, graph=Graph(Layout(name="arms5", **ARMS)), channels=[4]))
    register_layout("arms5", **OTHER)
    rule = "definition of 'arms5' must be the one registered under that name, got another"
    with pytest.raises(FormatError) as caught:
        SkeletonStore(store)
    assert str(caught.value) == f"{store / 'header.json'}: layout_definition: {rule}"
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "a")
    assert str(caught.value) == f"{tmp_path / 'a.json'}: layout: {rule}"


@pytest.mark.parametrize("graph_alone", [False, True])
def test_a_checkpoint_registers_its_layout(graph_alone: bool, tmp_path: Path) -> None:
    _, file = save_checkpoint(
        tmp_path / "a", STGCN(2, 2, graph=Graph(Layout(name="arms5", **ARMS)), channels=[4])
    )
    if graph_alone:  # holds the definition
        description = json.loads(file.read_text(encoding="utf-8"))
        del description["layout"]
        file.write_text(json.dumps(description), encoding="utf-8")
    assert "arms5" not in list_layouts()
    load_checkpoint(tmp_path / "a")
    assert get_layout("arms5") == Layout(name="arms5", **ARMS)


def test_a_checkpoint_of_another_network_knows_the_layout_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    from stgcn_fast.models import register, registry

    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @register("flat")
    class Flat(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.config = {"num_classes": num_classes}
            self.head = nn.Linear(2, num_classes)

    register_layout("arms5", **ARMS)
    save_checkpoint(tmp_path / "a", Flat(2), {"layout": "arms5"})
    del layouts._REGISTER["arms5"]
    load_checkpoint(tmp_path / "a")
    assert get_layout("arms5") == Layout(name="arms5", **ARMS)
