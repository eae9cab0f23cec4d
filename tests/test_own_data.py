"""The page on one's own data works from its first block to its last."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from stgcn_fast.cli import main
from stgcn_fast.data import SkeletonStore
from stgcn_fast.graph import layouts

PAGE = Path(__file__).resolve().parent.parent / "docs" / "own-data.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_block_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layouts, "_REGISTER", dict(layouts._REGISTER))
    namespace: dict[str, Any] = {"__name__": "docs"}
    printed = []
    for language, text in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), namespace)
        elif language == "yaml":
            name = re.match(r"# (\w+\.yaml)\n", text)
            assert name, text
            Path(name[1]).write_text(text, encoding="utf-8")
        elif language == "text":
            assert Path("clips.csv").read_text().splitlines()[0] == text.splitlines()[0]
        else:
            assert language == "bash"
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "stgcn-fast"
                assert main(words[1:]) == 0, line
                printed.append(capsys.readouterr().out)
    store = SkeletonStore("store")
    assert (len(store), store.layout, list(store.class_names)) == (32, "arms", ["clap", "wave"])
    assert "fast" in namespace
    assert printed[3].split()[0] == "wave"
    assert Path("why", "explain.npz").exists()
    assert Path("distances.npy").exists()
    layouts._REGISTER.pop("arms")
    assert main(["test", "runs/mine/last.safetensors"]) == 0  # the store and the weights know the layout
    accuracy = re.search(r"([\d.]+) %", capsys.readouterr().out)
    assert accuracy
    assert float(accuracy[1]) > 90


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("centre: a", "centre: z"), "centre must be among the joints, got 'z'"),
        (("[b, a]", "[b]"), r"bones must be a list of \[child, parent\], got \[\['b'\]\]"),
        (("[b, a]", "[b, 1]"), "bones must be among the joints, got 1"),
        (("name: l", "nome: l"), "keys must be name, joints, bones, centre and perhaps left, right, got"),
        (("joints: [a, b]", "joints: a"), "joints must be a list of names, got 'a'"),
        (("joints: [a, b]", "joints: [a, b, a]"), "joint"),
        (("name: l", "name: ntu25"), "name must be new, got 'ntu25'"),
        (("left: []", "left: 1"), "left must be a list of joints, got 1"),
    ],
)
def test_a_broken_layout_file_gives_one_line(
    tmp_path: Path, change: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "layout.yaml"
    text = "name: l\njoints: [a, b]\nbones: [[b, a]]\ncentre: a\nleft: []\n"
    assert change[0] in text
    file.write_text(text.replace(*change), encoding="utf-8")
    clip = tmp_path / "clip.npy"
    clip.write_bytes(b"")
    assert main(["prepare", str(clip), str(tmp_path / "store"), "--layout", str(file)]) != 0
    errors = capsys.readouterr().err.strip()
    assert "\n" not in errors
    assert re.search(f"{re.escape(str(file))}: .*{said}", errors), errors
