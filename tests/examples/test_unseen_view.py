"""The example runs on Northwestern-UCLA, and placing clips pays."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_turned_clips_are_found_again(
    test_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["unseen_view.py", str(test_data / "nw_ucla" / "all_sqe")])
    runpy.run_path(str(ROOT / "examples" / "unseen_view.py"), run_name="__main__")
    rows = [re.findall(r"(\d+\.\d) %", line) for line in capsys.readouterr().out.splitlines()]
    (joint, bone), (turned, turned_bone), (boxed, boxed_bone) = [[float(n) for n in row] for row in rows]
    assert 55 < joint < turned - 10 < boxed - 10
    assert 55 < bone < turned_bone - 10
    assert boxed_bone > turned_bone - 3
