"""Charts are files of the right kind, and say what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stgcn_fast import report
from stgcn_fast.graph import get_layout

STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("ending", STARTS)
def test_files_are_written(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.random((3, 25))
    table[1] = np.nan
    layout = get_layout("ntu25")
    places, edges = rng.random((6, 2)), np.array([[0, 1], [1, 0], [2, 3], [3, 2]])
    keypoints = rng.normal(size=(2, 9, 25, 3))
    keypoints[1] = 0  # nobody
    written = [
        report.plot_heatmap(table, list("abc"), layout.joints, tmp_path / f"table{ending}", title="t"),
        report.plot_lines({"a": [1, 2, np.nan], "b": [0, 1, 0]}, tmp_path / f"lines{ending}", x=list("xyz")),
        report.plot_graphs(
            {"one": (places, edges), "two": (places, edges[:0])}, [0, 1, 0, 1, -1, 0], ["p", "q"],
            tmp_path / f"graphs{ending}",
        ),
        report.plot_focus(
            keypoints, {"block1": rng.random((2, 9, 25)), "block2": rng.random((2, 3, 25))}, layout,
            tmp_path / f"focus{ending}", frames=5,
        ),
    ]  # fmt: skip
    for path in written:
        assert path.read_bytes().startswith(STARTS[ending])


def test_bad_input(tmp_path: Path) -> None:
    layout, path = get_layout("ntu25"), tmp_path / "x.png"
    with pytest.raises(ValueError, match=r"^plot_heatmap: rows must be 2 names, got 1$"):
        report.plot_heatmap(np.ones((2, 3)), ["a"], None, path)
    with pytest.raises(ValueError, match=r"^plot_heatmap: table must have shape \[R, C\], got \[3\]$"):
        report.plot_heatmap(np.ones(3), None, None, path)
    with pytest.raises(ValueError, match=r"^plot_lines: 'b' must have shape \[2\], got \[3\]$"):
        report.plot_lines({"a": [1, 2], "b": [1, 2, 3]}, path)
    with pytest.raises(ValueError, match=r"^plot_lines: series must hold at least one curve, got none$"):
        report.plot_lines({}, path)
    with pytest.raises(ValueError, match=r"^plot_graphs: 'g' must be \[3, 2\], got \[2, 2\]$"):
        report.plot_graphs({"g": (np.ones((2, 2)), np.zeros((0, 2)))}, [0, 1, 0], ["a", "b"], path)
    with pytest.raises(ValueError, match=r"^plot_focus: 'block1' must be \[1, T, 25\], got \[2, 4, 25\]$"):
        report.plot_focus(np.ones((1, 4, 25, 3)), {"block1": np.ones((2, 4, 25))}, layout, path)
    with pytest.raises(ValueError, match=r"^plot_focus: frames must be from 1 to 4, got 5$"):
        report.plot_focus(np.ones((1, 4, 25, 3)), {"a": np.ones((1, 4, 25))}, layout, path, frames=5)
    with pytest.raises(ValueError, match=r"path must end in \.png or \.pdf or \.svg"):
        report.plot_lines({"a": [1, 2]}, tmp_path / "x.bmp")
    assert list(tmp_path.iterdir()) == []
