"""Scores as files and their sum over runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stgcn_fast import training
from stgcn_fast.training import ConfigError, Scores, TrainResult, fuse, read_scores, write_scores
from stgcn_fast.training.evaluation import Evaluation, figures

CLASSES = ("a", "b", "c")


def scores_of(logits: list[list[float]], labels: list[int], names: tuple[str, ...] | None = None) -> Scores:
    values = np.asarray(logits, dtype=np.float32)
    shares = torch.from_numpy(values).softmax(1).numpy()
    names = names or tuple(f"clip{i}" for i in range(len(labels)))
    return Scores(Path("here.npz"), names, np.asarray(labels), CLASSES, values, shares)


JOINT = scores_of([[3, 2, 0], [0, 1, 2], [5, 0, 3], [0, 2, 1]], [1, 1, 0, 1])
BONE = scores_of([[0, 2, 0], [0, 4, 2], [0, 0, 3], [0, 2, 1]], [1, 1, 0, 1])


def test_a_sum_decides_between_the_streams() -> None:
    assert JOINT.evaluation().top1 == 0.5
    assert BONE.evaluation().top1 == 0.75
    both = fuse([JOINT, BONE])
    assert both.logits.argmax(1).tolist() == [1, 1, 2, 1]
    assert both.top1 == 0.75
    np.testing.assert_array_equal(both.confusion, [[0, 0, 1], [0, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(both.probabilities.sum(1), 1, rtol=1e-6)
    # One weight of nought leaves the other run, and the scale of the weights does not matter.
    alone = fuse([JOINT, BONE], [0, 2])
    np.testing.assert_array_equal(alone.confusion, BONE.evaluation().confusion)
    assert fuse([JOINT, BONE], [1, 0.6]).top1 == 1.0


def test_probabilities_are_averaged() -> None:
    both = fuse([JOINT, BONE], [3, 1], kind="probabilities")
    expected = 0.75 * JOINT.probabilities + 0.25 * BONE.probabilities
    np.testing.assert_allclose(both.probabilities, expected, rtol=1e-5)


def test_clips_are_matched_by_name() -> None:
    order = [2, 0, 3, 1]
    turned = scores_of(
        BONE.logits[order].tolist(), BONE.labels[order].tolist(), tuple(BONE.names[i] for i in order)
    )
    np.testing.assert_array_equal(fuse([JOINT, turned]).logits, fuse([JOINT, BONE]).logits)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (replace(BONE, class_names=("a", "b", "d")), "classes must be those of here.npz"),
        (replace(BONE, labels=np.array([1, 1, 2, 1])), "labels must be those of here.npz, got another for"),
        (replace(BONE, names=("clip0", "clip1", "clip2", "x")), "got none called 'clip3'"),
        (replace(BONE, names=BONE.names[:3]), "got 3 of them, not 4"),
    ],
)
def test_runs_over_other_clips_are_refused(other: Scores, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        fuse([JOINT, other])


@pytest.mark.parametrize("weights", [[1], [-1, 1], [0, 0], [1, float("nan")]])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="fuse: weights must be"):
        fuse([JOINT, BONE], weights)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    evaluation: Evaluation = figures(
        logits.softmax(1), logits, torch.tensor([2, 0, 1]), torch.tensor([4, 1, 2])
    )
    path = write_scores(tmp_path / "new" / "s.npz", evaluation, list("vwxyz"), CLASSES)
    back = read_scores(path)
    assert back.names == ("z", "w", "x")
    assert back.class_names == CLASSES
    np.testing.assert_array_equal(back.logits, logits.numpy())
    np.testing.assert_array_equal(back.evaluation().confusion, evaluation.confusion)
    with pytest.raises(ValueError, match=r"path must end in \.npz"):
        write_scores(tmp_path / "s.txt", evaluation, list("vwxyz"), CLASSES)


def test_what_is_no_file_of_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scores\.npz: must be a file of scores"):
        read_scores(tmp_path)
    text = tmp_path / "text.npz"
    text.write_text("no scores", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.npz: must be a file of scores"):
        read_scores(text)
    other = tmp_path / "other.npz"
    np.savez(other, names=np.array(["a"]))
    with pytest.raises(ConfigError, match="got no labels"):
        read_scores(other)
    full = {
        "names": np.array(["x"]),
        "labels": np.array([0]),
        "class_names": np.array(CLASSES),
        "logits": np.zeros((1, 3)),
        "probabilities": np.zeros((1, 3)),
    }
    for field, value, line in (
        ("labels", np.array([3]), r"labels must be in \[0, 3\)"),
        ("logits", np.zeros((2, 3)), r"logits must be of shape \[1, 3\], got \[2, 3\]"),
        ("logits", np.full((1, 3), np.nan), "scores must be finite"),
    ):
        np.savez(other, **(full | {field: value}))
        with pytest.raises(ConfigError, match=line):
            read_scores(other)


def test_training_and_testing_write_the_same_scores(trained: TrainResult, tmp_path: Path) -> None:
    assert trained.evaluation is not None
    first = read_scores(trained.directory)
    assert first.evaluation().top1 == trained.metrics["test"]["top1"]
    training.test(trained.checkpoint, scores=tmp_path / "again.npz")
    again = read_scores(tmp_path / "again.npz")
    assert again.names == first.names
    np.testing.assert_array_equal(again.logits, first.logits)
