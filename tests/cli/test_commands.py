"""Each command does its work and says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast import data, dtw
from stgcn_fast.cli.dtw import leave_one_out_accuracy
from stgcn_fast.cli.main import COMMANDS
from stgcn_fast.training.yaml_io import load_yaml

Run = Callable[..., Any]


def test_importing_the_package_and_asking_for_help_is_light() -> None:
    program = (
        "import sys, stgcn_fast\n"
        "from stgcn_fast.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'lightning', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import os\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "info"])
def test_every_command_explains_itself(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert outcome.out.startswith(f"usage: stgcn-fast {command}")


def test_prepare_lists_the_formats_it_reads(run: Run) -> None:
    out = run("prepare", "--help").out
    assert all(f"  {name} " in out for name in data.list_formats())


def test_info_is_the_report_of_the_package(run: Run) -> None:
    outcome = run("info")
    assert outcome.status == 0
    assert "graph_conv" in outcome.out
    assert "temporal_conv" in outcome.out


def test_prepare_makes_a_store(run: Run, clips: Path, tmp_path: Path) -> None:
    outcome = run("prepare", clips, tmp_path / "new" / "store", "--format", "arrays")
    assert outcome.status == 0, outcome.err
    store = data.SkeletonStore(tmp_path / "new" / "store")
    assert len(store) == 16
    assert "clips          16" in outcome.out
    assert "classes        2 (8 to 8 clips)" in outcome.out
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["store"]


def test_prepare_leaves_out_what_is_broken_when_asked(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "clips"
    directory.mkdir()
    for i in range(2):
        frames = np.random.default_rng(i).normal(size=(4, 20, 3)).tolist()
        name = f"a01_s0{i + 1}_e00_v01"
        text = json.dumps({"file_name": name, "skeletons": frames, "label": 1})
        (directory / f"{name}.json").write_text(text, encoding="utf-8")
    (directory / "a01_s03_e00_v01.json").write_text(text[:50], encoding="utf-8")
    assert run("prepare", directory, tmp_path / "a", "--format", "nw_ucla").status == 2
    outcome = run("prepare", directory, tmp_path / "b", "--format", "nw_ucla", "--skip-bad")
    assert outcome.status == 0, outcome.err
    assert "clips          2\n" in outcome.out
    assert "left out       1\n" in outcome.out
    assert f"left out: {directory / 'a01_s03_e00_v01.json'}: must be complete JSON" in outcome.out


def test_prepare_names_what_the_data_set_leaves_out(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "clips"
    directory.mkdir()
    data_of = {"frame_index": 1, "skeleton": [{"pose": [0.5] * 36, "score": [1.0] * 18}]}
    for name in ("a", "b"):
        (directory / f"{name}.json").write_text(json.dumps({"data": [data_of]}), encoding="utf-8")
    table = {name: {"has_skeleton": name == "a", "label": "x", "label_index": 0} for name in ("a", "b")}
    (tmp_path / "labels.json").write_text(json.dumps(table), encoding="utf-8")
    outcome = run("prepare", directory, tmp_path / "s", "--option", f"labels={tmp_path / 'labels.json'}")
    assert outcome.status == 0, outcome.err
    assert "left out: b: has_skeleton is false in the label file" in outcome.out


def test_prepare_makes_synthetic_clips(run: Run, tmp_path: Path) -> None:
    words = ("--option", "subjects=[3]", "--option", "scenarios=[1]", "--option", "frames=[10, 12]")
    assert run("prepare", "synthetic-kth", tmp_path / "kth", *words).status == 0
    assert len(data.SkeletonStore(tmp_path / "kth")) == 6


def test_train_writes_a_run_and_prints_a_table(checkpoint: Path) -> None:
    names = {file.name for file in checkpoint.parent.iterdir()}
    assert {
        "last.safetensors",
        "last.json",
        "last.ckpt",
        "metrics.json",
        "config.yaml",
        "confusion.png",
    } <= names
    assert load_yaml(checkpoint.parent / "config.yaml")["training"]["epochs"] == 2


def test_overrides_may_stand_behind_options(run: Run, recipe: Path, tmp_path: Path) -> None:
    outcome = run(
        "train", "--debug", recipe, "--overwrite", f"output.dir={tmp_path / 'run'}", "training.epochs=1"
    )
    assert outcome.status == 0, outcome.err
    assert "epochs      1" in outcome.out
    assert "epoch 1/1" in outcome.err


def test_test_gives_the_figures_of_the_run(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("test", checkpoint, "--json", "--confusion", tmp_path / "c.png")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)
    metrics = json.loads((checkpoint.parent / "metrics.json").read_text(encoding="utf-8"))
    assert figures["confusion"] == metrics["test"]["confusion"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert f"top-1  {100 * figures['top1']:.2f} %" in run("test", checkpoint).out


def test_test_takes_other_data(run: Run, checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    assert run("prepare", clips, tmp_path / "store").status == 0
    outcome = run("test", checkpoint, "--data", tmp_path / "store", "--part", "all", "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["clips"] == 16


def test_test_detects_the_format_of_other_data(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """The checkpoint was trained on arrays."""
    rng = np.random.default_rng(0)
    lines = ["2"]
    for _ in range(2):
        lines += ["1", "7 " + "0 " * 9, "25"]
        lines += [" ".join([*map(str, rng.normal(size=3)), *"00000000", "2"]) for _ in range(25)]
    for action in (1, 2):
        (tmp_path / f"S001C001P001R001A00{action}.skeleton").write_text("\n".join(lines), encoding="ascii")
    outcome = run("test", checkpoint, "--data", tmp_path, "--part", "all", "--json")
    assert outcome.status == 2
    assert "class 0 must be '0'" in outcome.err  # read as NTU, whose classes have names


def test_predict_prints_label_and_probability(run: Run, checkpoint: Path, clips: Path) -> None:
    outcome = run("predict", clips / "clip00.npz", "--checkpoint", checkpoint)
    assert outcome.status == 0, outcome.err
    name, probability = outcome.out.split()
    assert name in ("0", "1")
    assert 0.5 <= float(probability) <= 1.0
    answer = json.loads(
        run("predict", clips / "clip00.npz", "--checkpoint", checkpoint, "--json", "--top", 2).out
    )
    assert answer["label_name"] == name
    assert answer["probability"] == pytest.approx(float(probability), abs=1e-4)
    assert sum(entry["probability"] for entry in answer["top"]) == pytest.approx(1.0)


def test_predict_takes_the_layout_of_the_checkpoint(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        np.savez(tmp_path / f"clip{i}.npz", keypoints=rng.normal(size=(9, 20, 3)), label=i % 2)
    options = {"layout": "utd20"}
    outcome = run("train", write_recipe(tmp_path, tmp_path, options), f"output.dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err
    checkpoint = tmp_path / "run" / "last.safetensors"
    outcome = run("predict", tmp_path / "clip0.npz", "--checkpoint", checkpoint)
    assert outcome.status == 0, outcome.err
    outcome = run("predict", tmp_path / "clip0.npz", "--checkpoint", checkpoint, "--layout", "kinect20")
    assert outcome.status == 2
    assert "layout must be 'utd20'" in outcome.err
    np.savez(tmp_path / "named.npz", keypoints=rng.normal(size=(9, 20, 3)), layout="kinect20")
    assert "got 'kinect20'" in run("predict", tmp_path / "named.npz", "--checkpoint", checkpoint).err
    np.save(tmp_path / "hand.npy", rng.normal(size=(9, 21, 3)))  # another joint count decides for itself
    assert "got 'hand21'" in run("predict", tmp_path / "hand.npy", "--checkpoint", checkpoint).err


def write_recipe(folder: Path, source: Path, options: dict[str, str]) -> Path:
    file = folder / "run.yaml"
    file.write_text(
        f"data: {{source: {source}, format: arrays, options: {json.dumps(options)}, frames: 8}}\n"
        "model: {options: {channels: [4]}}\n"
        "training: {epochs: 1, batch_size: 4}\n"
        "output: {tensorboard: false}\n",
        encoding="utf-8",
    )
    return file


def test_dtw_writes_the_matrix_it_describes(run: Run, clips: Path, tmp_path: Path) -> None:
    target = tmp_path / "d.npy"
    outcome = run("dtw", clips, target, "--format", "arrays", "--window", 3, "--raw", "--limit", 6)
    assert outcome.status == 0, outcome.err
    matrix = np.load(target)
    sequences = [
        np.load(clips / f"clip{i:02d}.npz")["keypoints"].reshape(14, 75).astype(np.float32) for i in range(6)
    ]
    np.testing.assert_allclose(matrix, dtw.dtw_pairwise_distance(sequences, window=3), rtol=1e-5)
    assert (tmp_path / "d.txt").read_text(encoding="utf-8").split() == [f"clip{i:02d}" for i in range(6)]
    accuracy = leave_one_out_accuracy(matrix, np.arange(6) % 2)
    assert f"1-NN, leave one out  {100 * accuracy:.2f} %" in outcome.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.npy", "d.txt"]


def test_leave_one_out_never_asks_the_clip_itself() -> None:
    distances = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 2.0], [5.0, 2.0, 0.0]])
    assert leave_one_out_accuracy(distances, np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert leave_one_out_accuracy(distances, np.array([0, -1, 0])) == 1.0


def test_the_demo_goes_all_the_way(run: Run, tmp_path: Path) -> None:
    outcome = run("demo", "--quick", "--output", tmp_path / "demo")
    assert outcome.status == 0, outcome.err
    names = {file.name for file in (tmp_path / "demo").iterdir()}
    for name in (
        "last.safetensors",
        "last.json",
        "confusion.png",
        "predictions.gif",
        "dtw_test.npy",
        "summary.md",
    ):
        assert name in names
        assert str(tmp_path / "demo" / name) in outcome.out
    assert (tmp_path / "demo" / "predictions.gif").read_bytes().startswith(b"GIF8")
    summary = (tmp_path / "demo" / "summary.md").read_text(encoding="utf-8")
    assert "The data are synthetic" in summary
    assert "training step" in summary
    assert np.load(tmp_path / "demo" / "dtw_test.npy").shape == (24, 24)


def test_the_demo_takes_own_data(run: Run, clips: Path, tmp_path: Path) -> None:
    outcome = run("demo", "--quick", "--data", clips, "--format", "arrays", "--output", tmp_path / "demo")
    assert outcome.status == 0, outcome.err
    assert "16 clips, 2 classes, layout ntu25" in outcome.out
    assert "synthetic" not in (tmp_path / "demo" / "summary.md").read_text(encoding="utf-8")
