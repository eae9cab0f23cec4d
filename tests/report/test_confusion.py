"""Confusion matrices as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stgcn_fast.report import plot_confusion_matrix

pytest.importorskip("matplotlib")
MATRIX = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
NAMES = ["walking", "jogging", "running"]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_each_kind_of_file_is_what_its_name_says(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = plot_confusion_matrix(torch.tensor(MATRIX), NAMES, tmp_path / "deep" / f"matrix{suffix}")
    assert path.read_bytes().startswith(start)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_names_counts_and_shares_are_in_the_picture(tmp_path: Path) -> None:
    text = plot_confusion_matrix(MATRIX, NAMES, tmp_path / "m.svg").read_text()
    for comment in (*NAMES, "80%", "20%", "50%", "accuracy 65.0% of 20 clips"):
        assert f"<!-- {comment} -->" in text
    titled = plot_confusion_matrix(MATRIX, None, tmp_path / "m.svg", title="second run").read_text()
    assert "<!-- second run -->" in titled
    assert "<!-- accuracy" not in titled
    assert "walking" not in titled


def test_the_shade_is_the_share_of_the_row(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    equal = plot_confusion_matrix(np.array([[9, 1], [90, 10]]), ["a", "b"], tmp_path / "m.png")
    pixels = np.asarray(images.open(equal).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels[pixels.sum(axis=1) < 3 * 250], axis=0, return_counts=True)
    # Two rows of one shade: the two largest areas of colour are the two columns.
    largest = colours[np.argsort(counts)[-2:]]
    assert np.abs(largest[0].astype(int) - largest[1].astype(int)).max() > 60


@pytest.mark.parametrize("size", [1, 13, 31])
def test_any_number_of_classes(tmp_path: Path, size: int) -> None:
    matrix = np.eye(size, dtype=int) * 3
    text = plot_confusion_matrix(matrix, [f"class {i}" for i in range(size)], tmp_path / "m.svg").read_text()
    assert ("<!-- 3 -->" in text or "100%" in text) == (size <= 30)
    assert f"class {size - 1}" in text


def test_nothing_global_changes(tmp_path: Path) -> None:
    helpers = pytest.importorskip("matplotlib._pylab_helpers")
    matplotlib = pytest.importorskip("matplotlib")
    # The backend entry is left out: reading it would choose one.
    before = {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if not key.startswith("backend")}
    backend = matplotlib.get_backend(auto_select=False)
    plot_confusion_matrix(np.eye(2), None, tmp_path / "m.png")
    assert {key: matplotlib.rcParams[key] for key in before} == before
    assert matplotlib.get_backend(auto_select=False) == backend
    assert helpers.Gcf.get_all_fig_managers() == []


@pytest.mark.parametrize(
    ("matrix", "names", "file", "message"),
    [
        (np.ones((2, 3)), None, "m.png", r"matrix must be \[K, K\], got shape \[2, 3\]"),
        (np.zeros((0, 0)), None, "m.png", r"matrix must be \[K, K\], got shape \[0, 0\]"),
        (
            np.array([[1, -2], [0, 1]]),
            None,
            "m.png",
            r"matrix must be finite and at least 0, got -2 as smallest",
        ),
        (np.eye(2), ["a"], "m.png", r"class_names must have 2 names, got 1"),
        (np.eye(2), None, "m.gif", r"path must end in \.png or \.pdf or \.svg, got '.*m\.gif'"),
    ],
)
def test_errors(tmp_path: Path, matrix: np.ndarray, names: list[str] | None, file: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^plot_confusion_matrix: {message}$"):
        plot_confusion_matrix(matrix, names, tmp_path / file)
    assert not list(tmp_path.iterdir())
