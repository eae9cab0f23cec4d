"""Studies: what a file stands for, what its runs leave, and that nothing is repeated or mixed."""

from __future__ import annotations

import csv
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stgcn_fast.training import Config, ConfigError, fuse, load_study, read_scores, run_study, tabulate, train
from stgcn_fast.training import run as run_module
from stgcn_fast.training.study import Plan
from stgcn_fast.training.study_runner import finished, select, state_of
from stgcn_fast.training.study_table import class_changes
from stgcn_fast.training.yaml_io import dump_yaml

Make = Callable[..., Config]

STUDY: dict[str, Any] = {
    "base": "base.yaml",
    "seeds": [0, 1],
    "set": {"optimiser.label_smoothing": 0.1},
    "axes": {
        "model": {"small": None, "large": {"model.options.channels": [6, 8]}},
        "stream": {"joint": None, "bone": {"data.stream": "bone"}, "late": None},
    },
    "skip": [{"model": "large", "stream": "late"}],
    "fuse": [{"axis": "stream", "values": ["joint", "bone"], "weights": [1.0, 0.5]}],
    "baseline": {"model": "small"},
}
STUDY["axes"]["stream"]["late"] = {"start": {"stream": "joint"}, "init.freeze": "last_layer"}


def silent(line: str) -> None:
    """Throw the lines of progress away."""


def write_study(directory: Path, base: Config, **changes: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "base.yaml").write_text(dump_yaml(base.to_dict()), encoding="utf-8")
    file = directory / "grid.yaml"
    study = {"output": str(directory / "out")} | STUDY | changes
    file.write_text(dump_yaml(study), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(store_path: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Make) -> Path:
    directory = tmp_path_factory.mktemp("study")
    return write_study(directory, tiny(store_path, directory, training={"epochs": 2, "batch_size": 6}))


@pytest.fixture(scope="module")
def plan(file: Path) -> Plan:
    """The study, run to its end: ten runs of less than a second."""
    plan = load_study(file)
    assert run_study(plan, plan.runs, say=silent, changed=lambda: tabulate(plan).write()) == {}
    return plan


def test_a_file_stands_for_its_grid(file: Path) -> None:
    plan = load_study(file)
    cells = [(*run.cell.values(), run.seed) for run in plan.runs]
    grid = [("small", "joint"), ("small", "bone"), ("large", "joint"), ("large", "bone")]
    assert cells == [
        *((*cell, seed) for seed in (0, 1) for cell in grid),
        ("small", "late", 0),  # after what they start from
        ("small", "late", 1),
    ]
    first, late = plan.runs[0], plan.runs[-2]
    assert first.config.optimiser.label_smoothing == 0.1
    assert late.start == first.digest
    assert late.config.init.checkpoint == str(first.directory / "last.safetensors")
    assert plan.runs[2].config.model.options["channels"] == [6, 8]
    assert len({run.digest for run in plan.runs}) == 10
    assert {run.cell_digest for run in plan.runs} == {run.cell_digest for run in plan.runs if run.seed == 1}


def test_hashes_follow_what_is_learnt_alone(file: Path, tmp_path: Path) -> None:
    plan = load_study(file)
    elsewhere = load_study(file, ["training.threads=1", "training.workers=1"], tmp_path)
    assert [run.digest for run in elsewhere.runs] == [run.digest for run in plan.runs]
    assert elsewhere.digest == plan.digest
    assert elsewhere.directory == tmp_path / "grid"
    other = load_study(file, ["optimiser.lr=0.01"])
    assert not {run.digest for run in other.runs} & {run.digest for run in plan.runs}
    assert other.digest != plan.digest


def test_the_table_says_what_the_runs_say(plan: Plan) -> None:
    table = tabulate(plan)
    assert len(table.rows) == 5 + 2
    by_cell = {tuple(row.cell.values()): row for row in table.rows}
    runs = {(*run.cell.values(), run.seed): run for run in plan.runs}
    for (*cell, seed), run in runs.items():
        metrics = finished(run)
        assert metrics is not None
        assert by_cell[tuple(cell)].top1[seed] == metrics["test"]["top1"]
        assert by_cell[tuple(cell)].seconds[seed] == metrics["seconds"]
    row = by_cell["large", "bone"]
    assert row.mean == statistics.fmean(row.top1.values())
    assert row.spread == pytest.approx(abs(row.top1[0] - row.top1[1]) / 2**0.5)
    both = by_cell["small", "joint + bone"]
    parts = [read_scores(runs["small", stream, 1].directory) for stream in ("joint", "bone")]
    assert both.top1[1] == fuse(parts, [1.0, 0.5]).top1

    with (plan.directory / "table.csv").open(encoding="utf-8") as text:
        lines = list(csv.DictReader(text))
    assert [line["stream"] for line in lines] == [row.cell["stream"] for row in table.rows]
    assert float(lines[3]["top1_mean"]) == pytest.approx(row.mean, abs=1e-6)
    with (plan.directory / "runs.csv").open(encoding="utf-8") as text:
        assert {line["config"] for line in csv.DictReader(text)} == {run.digest for run in plan.runs}
    markdown = (plan.directory / "table.md").read_text(encoding="utf-8")
    assert "10 of 10 runs finished" in markdown
    assert (
        f"| large | bone | {100 * row.top1[0]:.2f} | {100 * row.top1[1]:.2f} | {100 * row.mean:.2f}"
        in markdown
    )
    assert not list(plan.output.rglob("*partial*"))


def test_the_last_layer_learns_on_what_the_other_run_left(plan: Plan) -> None:
    joint, late = plan.runs[0], plan.runs[-2]
    before, after = (load_file(run.directory / "last.safetensors") for run in (joint, late))
    assert torch.equal(before["data_bn.running_mean"], after["data_bn.running_mean"])
    assert not torch.equal(before["fcn.weight"], after["fcn.weight"])


def test_changes_are_measured_from_the_baseline(plan: Plan) -> None:
    changes = class_changes(tabulate(plan))
    assert set(changes) == {("large", "joint"), ("large", "bone")}
    found = changes["large", "joint"]
    runs = {(*run.cell.values(), run.seed): run for run in plan.runs}
    means = []
    for model in ("small", "large"):
        metrics = [finished(runs[model, "joint", seed]) for seed in (0, 1)]
        means.append(np.mean([list(m["test"]["per_class"].values()) for m in metrics if m], axis=0))
    np.testing.assert_allclose(found.change, means[1] - means[0], atol=1e-12)
    assert found.clips.tolist() == [4, 4, 4]


def test_nothing_is_repeated(plan: Plan, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished run was begun again")

    monkeypatch.setattr(run_module, "train", never)
    assert run_study(plan, plan.runs, say=silent) == {}
    # Nor by another study that holds the same runs.
    study = STUDY | {"axes": STUDY["axes"] | {"model": {"small": None}}, "skip": [], "seeds": [1]}
    other = file.parent / "other.yaml"
    other.write_text(dump_yaml(study | {"output": str(plan.output)}), encoding="utf-8")
    again = load_study(other)
    assert {run.digest for run in again.runs} <= {run.digest for run in plan.runs}
    assert {state_of(run) for run in again.runs} == {"finished"}
    assert run_study(again, again.runs, say=silent) == {}


def test_another_content_is_refused(plan: Plan, file: Path) -> None:
    other = load_study(file, ["training.epochs=1"])
    with pytest.raises(ConfigError, match=f"must be the one begun there, {plan.digest}, got another content"):
        run_study(other, other.runs, say=silent)
    assert not any(run.directory.exists() for run in other.runs)


def test_two_studies_at_once_are_refused(plan: Plan) -> None:
    def inside() -> None:
        with pytest.raises(ConfigError, match="output must be free, got a study that runs there now"):
            run_study(plan, plan.runs, say=silent)

    run_study(plan, plan.runs, say=silent, changed=inside)


def test_a_run_that_was_tampered_with_is_refused(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    base = tiny(store_path, tmp_path, training={"epochs": 1, "batch_size": 12})
    plan = load_study(write_study(tmp_path / "s", base, axes={}, skip=[], fuse=[], baseline=None, seeds=[3]))
    run_study(plan, plan.runs, say=silent)
    saved = plan.runs[0].directory / "config.yaml"
    saved.write_text(saved.read_text(encoding="utf-8").replace("epochs: 1", "epochs: 2"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml: must be the configuration of seed=3, got another"):
        tabulate(plan)


def test_only_leaves_what_it_names_and_what_that_starts_from(file: Path) -> None:
    plan = load_study(file)
    chosen = select(plan, ["stream=late", "seed=1"])
    assert [run.title for run in chosen] == [
        "model=small, stream=joint, seed=1",
        "model=small, stream=late, seed=1",
    ]
    assert len(select(plan, ["stream=joint,bone", "model=large"])) == 4
    assert select(plan, []) == list(plan.runs)
    for word, line in (
        ("stream", "--only must look like axis=value of model, stream, seed, got 'stream'"),
        ("stream=x", "--only stream must be one of bone, joint, late, got 'x'"),
        ("seed=7", "--only seed must be one of 0, 1, got '7'"),
    ):
        with pytest.raises(ConfigError, match=line):
            select(plan, [word])


def test_a_mistake_in_the_last_run_is_told_before_the_first(
    store_path: Path, tmp_path: Path, tiny: Make
) -> None:
    axes = {"model": {"good": None, "bad": {"model.options.channels": [0]}}}
    base = tiny(store_path, tmp_path)
    plan = load_study(write_study(tmp_path / "s", base, axes=axes, skip=[], fuse=[], baseline=None))
    with pytest.raises(ConfigError, match="model=bad, seed=0: model: STGCN: channels must be positive"):
        run_study(plan, plan.runs, say=silent)
    assert not (tmp_path / "s" / "out" / "runs").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_takes_only_what_hangs_on_it(
    store_path: Path, tmp_path: Path, tiny: Make, jobs: int
) -> None:
    axes = {
        "weights": {"lost": {"init.checkpoint": str(tmp_path / "none.safetensors")}, "good": None},
        "step": {"first": None, "then": {"start": {"step": "first"}}},
    }
    skip = [{"weights": "good", "step": "then"}]
    base = tiny(store_path, tmp_path, training={"epochs": 1, "batch_size": 12})
    study = write_study(tmp_path / "s", base, axes=axes, skip=skip, fuse=[], baseline=None, seeds=[0])
    plan = load_study(study)
    failed = run_study(plan, plan.runs, jobs=jobs, say=silent)
    assert set(failed) == {"weights=lost, step=first, seed=0", "weights=lost, step=then, seed=0"}
    assert "none.safetensors" in failed["weights=lost, step=first, seed=0"]
    assert failed["weights=lost, step=then, seed=0"] == "the run it starts from failed"
    assert [state_of(run) for run in plan.runs if run.cell["weights"] == "good"] == ["finished"]
    table = tabulate(plan)
    assert [row.mean is None for row in table.rows] == [True, True, False]
    assert "| lost | first | - | - | - | - | - | - |" in table.markdown()


def test_killed_side_by_side_and_begun_again(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    """The runs of a killed study end with it, and what they learn in two halves is what one run learns."""
    base = tiny(store_path, tmp_path, training={"epochs": 25, "batch_size": 2})
    axes = {"stream": {"joint": None, "bone": {"data.stream": "bone"}}}
    study = write_study(tmp_path / "s", base, axes=axes, skip=[], fuse=[], baseline=None, seeds=[0])
    plan = load_study(study)
    states = [run.directory / "last.ckpt" for run in plan.runs]
    command = [sys.executable, "-m", "stgcn_fast", "study", str(study), "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "lines").open("w") as lines:
        child = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment)
        until = time.monotonic() + 200
        while not all(state.exists() for state in states) and child.poll() is None:
            assert time.monotonic() < until, (tmp_path / "lines").read_text()
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    time.sleep(0.5)
    marks = [state.stat().st_mtime_ns for state in states]
    cut = [run for run in plan.runs if finished(run) is None]
    assert cut, "the runs ended before they could be killed"
    time.sleep(1.0)
    assert [state.stat().st_mtime_ns for state in states] == marks, "a run went on by itself"

    assert run_study(plan, plan.runs, say=silent) == {}
    whole = cut[0].config.model_copy(deep=True)
    whole.output.dir = str(tmp_path / "whole")
    result = train(whole, say=silent)
    a, b = (load_file(folder / "last.safetensors") for folder in (result.directory, cut[0].directory))
    assert all(torch.equal(a[name], b[name]) for name in a)
    metrics = finished(cut[0])
    assert metrics is not None
    assert metrics["test"] == result.metrics["test"]
