"""A mistake of the user gives one line on standard error, status 2, and leaves nothing behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast import data
from stgcn_fast.models import list_models

Run = Callable[..., Any]


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() if file.is_file() else b""
        for file in sorted(directory.rglob("*"))
    }


def refused(outcome: Any, *parts: str) -> None:
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("stgcn-fast"), line
    assert ": error: " in line
    assert "Traceback" not in line
    for part in parts:
        assert part in line, line


class Malicious:
    """Creates a file when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


def nan_clip() -> np.ndarray[Any, Any]:
    return np.full((5, 25, 3), np.nan)


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated": (
        "a01_s01_e00_v01.json",
        lambda f: f.write_text('{"skeletons": [[[0, 1'),
        "must be complete JSON",
    ),
    "empty": ("a.npy", lambda f: f.write_bytes(b""), "got"),
    "nan": ("a.npy", lambda f: np.save(f, nan_clip()), "finite"),
    "misshaped": ("a.npy", lambda f: np.save(f, np.zeros((4, 5))), "got"),
    "wrong joint count": ("a.npy", lambda f: np.save(f, np.zeros((5, 7, 3))), "7"),
    "malicious pickle": (
        "a.pkl",
        lambda f: f.write_bytes(pickle.dumps(Malicious(f.with_name("owned")))),
        "open",
    ),
    "malicious array": (
        "a.npy",
        lambda f: np.save(f, np.array([{}], dtype=object), allow_pickle=True),
        "got",
    ),
    "no skeleton at all": ("a.txt", lambda f: f.write_text("hello"), "must be in one of the formats"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["predict", "prepare", "dtw", "train", "demo"])
def test_bad_files(run: Run, recipe: Path, checkpoint: Path, tmp_path: Path, command: str, kind: str) -> None:
    name, write, rule = FILES[kind]
    directory = tmp_path / "in"
    directory.mkdir()
    file = directory / name
    write(file)
    before = snapshot(tmp_path)
    words = {
        "predict": ("predict", file, "--checkpoint", checkpoint),
        "prepare": ("prepare", directory, tmp_path / "out" / "store"),
        "dtw": ("dtw", directory, tmp_path / "d.npy"),
        "train": (
            "train",
            recipe,
            f"data.source={directory}",
            "data.format=null",
            f"output.dir={tmp_path / 'out'}",
        ),
        "demo": ("demo", "--data", directory, "--output", tmp_path / "out" / "demo"),
    }[command]
    refused(run(*words), str(directory), rule)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("optimiser.rate=1", "optimiser.rate must be a known field"),
        ("training.epochs=many", "training.epochs must be a valid integer, got 'many'"),
        ("data.source=/none/there", "/none/there: data.source must exist"),
        ("data.split.protocol=moon", "protocol must be one of"),
        ("model.name=resnet", "model: build: name must be one of"),
        ("transforms.eval=[Blur]", "transforms.eval[0].name must be one of"),
        ("training.device=mps", "training.device must be a device of this machine, got 'mps'"),
    ],
)
def test_bad_configurations(run: Run, recipe: Path, tmp_path: Path, override: str, rule: str) -> None:
    # A directory of its own for the store, which is whole before the model is looked at.
    refused(
        run("train", recipe, override, f"data.store={tmp_path / 'store'}", f"output.dir={tmp_path / 'run'}"),
        rule,
    )
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("*partial*"))


def test_a_configuration_with_an_unknown_field_names_the_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {lr: 0.1}", encoding="utf-8")
    refused(run("train", file), f"{file}: optimizer must be a known field (did you mean 'optimiser'?)")
    refused(run("train", tmp_path / "none.yaml"), "none.yaml: must be an existing YAML file, got none")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_what_does_not_fit_the_data_names_the_configuration(run: Run, recipe: Path, tmp_path: Path) -> None:
    words = (
        "train",
        recipe,
        "model.name=resnet",
        f"data.store={tmp_path / 'store'}",
        f"output.dir={tmp_path / 'run'}",
    )
    refused(
        run(*words),
        f"error: {recipe}: model: build: name must be one of {', '.join(list_models())}, got 'resnet'",
    )


def test_a_clip_that_shows_nobody_has_no_label(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "clip.npy"
    np.save(file, np.zeros((6, 25, 3)))
    refused(
        run("predict", file, "--checkpoint", checkpoint),
        f"{file}: clip must show at least one joint, got none",
    )


def test_data_of_other_classes(run: Run, checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    read = [data.read(clips / f"clip{i:02d}.npz").with_label(i % 2, "ab"[i % 2]) for i in range(4)]
    data.SkeletonStore.build(tmp_path / "store", read)
    outcome = run("test", checkpoint, "--data", tmp_path / "store", "--part", "all")
    refused(outcome, f"{tmp_path / 'store'}: class 0 must be '0' as in {checkpoint}, got 'a'")


def test_a_checkpoint_of_another_layout(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "clip.npy"
    np.save(file, np.random.default_rng(0).normal(size=(6, 17, 2)))
    rule = f"layout must be 'ntu25' as in {checkpoint}, got 'coco17'"
    refused(run("predict", file, "--checkpoint", checkpoint), str(file), rule)
    refused(run("test", checkpoint, "--data", file, "--format", "arrays"), str(file), rule)


def test_labels_out_of_range(run: Run, checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    read = [data.read(clips / f"clip{i:02d}.npz") for i in range(4)]
    data.SkeletonStore.build(tmp_path / "store", [clip.with_label(i) for i, clip in enumerate(read)])
    outcome = run("test", checkpoint, "--data", tmp_path / "store", "--part", "all")
    refused(outcome, str(tmp_path / "store"), "got")
    negative = tmp_path / "clip.npz"
    np.savez(negative, keypoints=np.ones((4, 25, 3)), label=-3)
    refused(run("prepare", negative, tmp_path / "out"), str(negative), "label", "got -3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "no json", "other json", "pickle"])
def test_damaged_checkpoints(run: Run, checkpoint: Path, clips: Path, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "net.safetensors"
    weights, described = checkpoint.read_bytes(), checkpoint.with_suffix(".json").read_bytes()
    if damage != "missing":
        target.write_bytes(weights[: len(weights) // 2] if damage == "truncated" else weights)
        target.with_suffix(".json").write_bytes(b"{}" if damage == "other json" else described)
    if damage == "no json":
        target.with_suffix(".json").unlink()
    if damage == "pickle":
        target = tmp_path / "net.pt"
        target.write_bytes(pickle.dumps(Malicious(tmp_path / "owned")))
    refused(run("predict", clips / "clip00.npz", "--checkpoint", target), "net.")
    assert not (tmp_path / "owned").exists()


def test_existing_places_are_not_written_over(run: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    refused(run("prepare", clips, tmp_path / "taken"), "taken: store must not exist yet")
    refused(run("dtw", clips, tmp_path / "none" / "d.npy"), "its directory must exist")
    refused(run("dtw", clips, tmp_path / "d.csv"), "OUT must end in .npy, got .csv")
    refused(run("dtw", clips, tmp_path / "d.npy", "--window", -3), "window must be")
    refused(run("dtw", clips, tmp_path / "d.npy", "--frames", 0), "--frames must be at least 1, got 0")
    assert snapshot(tmp_path) == {"taken": b""}


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("train",), "required: CONFIG (see"),
        (("train", "a.yaml", "--fast"), "unrecognized arguments: --fast"),
        (("predict", "a.json"), "required: --checkpoint"),
        (("predict", "a.json", "--checkpoint", "c", "--top", "0"), "must be a number from 1 on, got '0'"),
        (("prepare", "a", "b", "--option", "x"), "--option must look like NAME=VALUE, got 'x'"),
        (("prepare", "a", "b", "--option", "x=[1"), "--option x: text must be valid YAML"),
        (("prepare", "/none/there", "/tmp/never"), "/none/there"),
    ],
)
def test_bad_words(run: Run, words: tuple[str, ...], rule: str) -> None:
    refused(run(*words), rule)


def test_debug_shows_where(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run("train", tmp_path / "none.yaml", "--debug")
