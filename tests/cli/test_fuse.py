"""``stgcn-fast fuse`` sums what ``train`` and ``test --scores`` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast.training import fuse, read_scores

Run = Callable[..., Any]


@pytest.fixture
def bone(run: Run, checkpoint: Path, tmp_path: Path) -> Path:
    """Scores of the same network on the bone stream."""
    file = tmp_path / "bone.npz"
    assert run("test", checkpoint, "data.stream=bone", "--scores", file).status == 0
    return file


def test_a_run_and_a_file_are_summed(run: Run, checkpoint: Path, bone: Path, tmp_path: Path) -> None:
    outcome = run("fuse", checkpoint.parent, bone, "--weights", 1, 0.5, "--confusion", tmp_path / "c.png")
    assert outcome.status == 0, outcome.err
    expected = fuse([read_scores(checkpoint.parent), read_scores(bone)], [1, 0.5])
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["scores", "top-1", "top-5"]
    total = next(line for line in lines if line.startswith("sum "))
    assert f"{100 * expected.top1:.2f} %" in total
    classes = [line.split() for line in lines[lines.index("") + 3 :]]
    assert [row[1] for row in classes] == [str(n) for n in expected.confusion.sum(1)]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_json_holds_the_confusion(run: Run, checkpoint: Path, bone: Path) -> None:
    answer = json.loads(run("fuse", bone, checkpoint.parent, "--kind", "probabilities", "--json").out)
    assert np.sum(answer["confusion"]) == answer["clips"]
    assert [part["run"] for part in answer["runs"]] == [str(bone), str(checkpoint.parent)]


def test_mistakes_are_one_line(run: Run, checkpoint: Path, bone: Path, tmp_path: Path) -> None:
    for words, line in (
        ((bone,), "fuse: runs must be at least two, got 1"),
        ((bone, tmp_path / "none"), "must be a file of scores"),
        ((bone, checkpoint.parent, "--weights", 1), "fuse: weights must be one per run, 2, got 1"),
    ):
        outcome = run("fuse", *words)
        assert outcome.status == 2
        assert line in outcome.err
        assert outcome.err.count("\n") == 1
