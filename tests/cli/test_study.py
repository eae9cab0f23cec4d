"""``stgcn-fast study`` and ``compare`` as their user sees them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast import report
from stgcn_fast.training import compare_classes, load_study, read_scores

Run = Callable[..., Any]


@pytest.fixture
def study(recipe: Path, tmp_path: Path) -> Path:
    file = tmp_path / "grid.yaml"
    file.write_text(
        f"base: {recipe}\n"
        f"output: {tmp_path / 'out'}\n"
        "seeds: [0]\n"
        "set: {training.epochs: 1}\n"
        "axes:\n"
        "  stream:\n"
        "    joint:\n"
        "    bone: {data.stream: bone}\n"
        "fuse: [{axis: stream, values: [joint, bone]}]\n"
        "baseline: {stream: joint}\n",
        encoding="utf-8",
    )
    return file


def test_a_study_from_list_to_table(run: Run, study: Path, tmp_path: Path) -> None:
    listed = run("study", study, "--dry-run")
    assert listed.status == 0, listed.err
    assert listed.out.endswith("2 runs: 2 to run\n")
    assert not (tmp_path / "out").exists()

    assert "| bone | - | - |" in run("study", study, "--only", "stream=joint").out
    outcome = run("study", study)
    assert outcome.status == 0, outcome.err
    assert outcome.out == (tmp_path / "out" / "grid" / "table.md").read_text(encoding="utf-8")
    assert "2 runs, 1 finished before" in outcome.err
    assert [line.split(" | ")[0] for line in outcome.out.splitlines()[-3:]] == [
        "| joint",
        "| bone",
        "| joint + bone",
    ]
    picture = tmp_path / "out" / "grid" / "changes" / "bone.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("study", study, "--dry-run").out.endswith("2 runs: 2 finished\n")

    other = run("study", study, "optimiser.lr=0.01")
    assert (other.status, other.out) == (2, "")
    assert "study must be the one begun there" in other.err
    assert other.err.count("\n") == 1

    plan = load_study(study)
    sides = [run_.directory for run_ in plan.runs]
    compared = run("compare", *sides, "--csv", tmp_path / "c.csv", "--plot", tmp_path / "c.pdf")
    assert compared.status == 0, compared.err
    expected = compare_classes(*([read_scores(side)] for side in sides))
    with (tmp_path / "c.csv").open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [float(row["change"]) for row in rows] == pytest.approx(expected.change.tolist(), abs=1e-6)
    assert rows[0]["sd"] == ""  # one run a side has no spread
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")
    assert compared.out.splitlines()[-1].startswith("all clips")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seeds: [0]", "seeds: []", "seeds must be valid: list should have at least 1 item"),
        ("seeds: [0]", "seeds: [0, 0]", "seeds must be distinct, got [0, 0]"),
        ("seeds: [0]", "seeds: [0]\nseed: 1", "seed must be a known field (did you mean 'seeds'?)"),
        ("base: ", "base: x", "must be an existing YAML file"),
        ("training.epochs: 1", "training.epoch: 1", "training.epoch must be a known field"),
        ("training.epochs: 1", "training..epochs: 1", "field must look like section.field, got"),
        ("bone: {data.stream: bone}", "a=b: null", "axes must have names without , = / \\ |, got 'a=b'"),
        ("base: ", "name: ../x\nbase: ", "name must be the name of a folder of its own, got '../x'"),
        ("base: ", "name: ''\nbase: ", "name must be a name, got an empty text"),
        ("training.epochs: 1", "training.seed: 1", "training.seed must be left to the study, got 1"),
        ("{data.stream: bone}", "{base: 3}", "grid.yaml: base must be a path, got 3"),
        ("values: [joint, bone]", "values: [bone, bone]", "values must be distinct, got ['bone', 'bone']"),
        ("    bone: {data.stream: bone}\n", "", "fuse must name a value of stream, joint, got 'bone'"),
        ("baseline: {stream", "baseline: {model", "baseline must name an axis of stream, got 'model'"),
        ("values: [joint, bone]", "values: [joint, bone], weights: [1]", "weights must be one per value, 2"),
        ("{data.stream: bone}", "{start: {stream: bone}}", "start must lead to a run that starts by itself"),
        ("baseline: {stream: joint}", "skip: [{stream: joint}, {stream: bone}]", "skip must leave cells"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_one_line(run: Run, study: Path, old: str, new: str, line: str) -> None:
    text = study.read_text(encoding="utf-8")
    assert old in text
    study.write_text(text.replace(old, new), encoding="utf-8")
    outcome = run("study", study, "--dry-run")
    assert outcome.status == 2
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_changes_are_drawn_with_gaps_and_many_classes(tmp_path: Path) -> None:
    change = np.linspace(-0.1, 0.2, 60)
    change[3] = np.nan
    names = [f"class {i}" for i in range(60)]
    path = report.plot_class_changes(change, names, tmp_path / "c.svg", spread=np.full(60, 0.01))
    text = path.read_text(encoding="utf-8")
    assert "svg" in text
    for arguments, line in (
        ((change, names[:5], tmp_path / "x.png"), r"change must be \[5\], got shape \[60\]"),
        ((np.full(2, np.nan), ["a", "b"], tmp_path / "x.png"), "must hold at least one number"),
        (([0.1, 0.2], ["a", "b"], tmp_path / "x.txt"), "x.txt"),
    ):
        with pytest.raises(ValueError, match=line):
            report.plot_class_changes(*arguments)
