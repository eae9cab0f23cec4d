"""The study of a network on clips, its files, its command."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stgcn_fast import explain, training
from stgcn_fast.cli import main
from stgcn_fast.data import FormatError
from stgcn_fast.explain import Explanation, STGGradCAM, explain_clips
from stgcn_fast.graph import get_layout
from stgcn_fast.models import STGCN

NAMES = ("boxing", "walking", "jogging", "waving")


def batches(x: Tensor, labels: Tensor) -> Any:
    return [
        (x[i : i + 4], labels[i : i + 4], torch.arange(i, min(i + 4, len(x)))) for i in range(0, len(x), 4)
    ]


@pytest.fixture(scope="module")
def study(stgcn: STGCN) -> tuple[Tensor, Explanation]:
    x = torch.randn(10, 3, 16, 25, 2, generator=torch.Generator().manual_seed(3))
    x[2, :, 9:] = 0
    with torch.no_grad():
        labels = stgcn(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # one clip the network is wrong about
    return x, explain_clips(
        stgcn,
        batches(x, labels),
        layout=get_layout("ntu25"),
        class_names=NAMES,
        names=[f"clip{i}" for i in range(10)],
        keep=4,
        keypoints=lambda i: x[i].permute(3, 1, 2, 0).numpy(),
    )


def test_it_holds_what_its_parts_give(stgcn: STGCN, study: tuple[Tensor, Explanation]) -> None:
    x, found = study
    result = STGGradCAM(stgcn)(x)
    assert found.layers == list(result.maps)
    assert np.array_equal(found.explained, result.classes)
    assert found.accuracy == 0.9
    assert found.confusion.sum() == 10
    assert np.trace(found.confusion) == 9
    assert found.frames.tolist() == [16, 16, 9] + [16] * 7
    assert not found.counted[0]
    for i, name in enumerate(found.layers):
        importance = explain.node_importance(result.maps[name], found.frames, 16)
        assert np.allclose(found.importance[i], importance, rtol=1e-4, atol=1e-12)
        groups = np.where(found.counted, found.explained, -1)
        expected = explain.joint_time_map(result.maps[name], groups, 4)
        assert np.allclose(found.class_maps[name], expected, rtol=1e-4, atol=1e-12, equal_nan=True)
        kept = result.maps[name].numpy()[found.kept]
        assert np.allclose(found.maps[name], kept, rtol=1e-4, atol=1e-12)
    assert len(found.kept) <= 4
    assert np.array_equal(found.keypoints[0], x[int(found.kept[0])].permute(3, 1, 2, 0))
    faith = found.figures["faithfulness"]["layers"]["block10"]
    assert found.figures["faithfulness"]["fill"] == "mean"
    alone = explain.faithfulness(stgcn, x, found.importance[-1], found.labels, 3)
    assert faith["most"]["accuracy_drop"] == pytest.approx(alone.most.accuracy_drop)
    assert len(found.figures["curves"]["deletion"]["probability"]) == 26


def test_files_come_back(study: tuple[Tensor, Explanation], tmp_path: Path) -> None:
    found = study[1]
    written = explain.save_explanation(found, tmp_path / "out")
    assert all(path.is_file() for path in written)
    again = explain.load_explanation(tmp_path / "out")
    assert again.layout == found.layout
    assert again.figures == json.loads(json.dumps(found.figures))
    for name in ("labels", "probabilities", "importance", "class_importance", "kept", "keypoints", "counted"):
        assert np.array_equal(
            getattr(again, name), getattr(found, name), equal_nan=name == "class_importance"
        )
    assert all(np.array_equal(again.maps[name], found.maps[name]) for name in found.layers)
    with (tmp_path / "out" / "importance.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][:3] == ["layer", "class", get_layout("ntu25").joints[0]]
    assert {row[0] for row in rows[1:]} == set(found.layers)
    (tmp_path / "out" / "explain.json").write_text("{}")
    with pytest.raises(FormatError, match="file must be of format 'stgcn_fast explain', version 1"):
        explain.load_explanation(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="explanation must have this file"):
        explain.load_explanation(tmp_path)


def test_bad_input(stgcn: STGCN, clips: Tensor) -> None:
    layout = get_layout("ntu25")
    unlabelled = batches(clips, torch.tensor([-1, 0, 1]))
    keywords: dict[str, Any] = {"layout": layout, "names": ["a", "b", "c"]}
    with pytest.raises(ValueError, match=r"^explain_clips: target must be predicted or label, got 'true'$"):
        explain_clips(stgcn, [], class_names=NAMES, target="true", **keywords)
    with pytest.raises(ValueError, match=r"^explain_clips: fill must be one of mean, .*, zero, got 'black'$"):
        explain_clips(stgcn, [], class_names=NAMES, fill="black", **keywords)
    with pytest.raises(ValueError, match=r"^explain_clips: batches must hold at least one clip, got none$"):
        explain_clips(stgcn, [], class_names=NAMES, **keywords)
    with pytest.raises(ValueError, match=r"^explain_clips: labels must be there for target 'label'"):
        explain_clips(stgcn, unlabelled, class_names=NAMES, target="label", **keywords)
    with pytest.raises(ValueError, match=r"class_names must be 4 names for this network, got 2$"):
        explain_clips(stgcn, unlabelled, class_names=NAMES[:2], **keywords)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a second on two kinds of motion."""
    directory = tmp_path_factory.mktemp("explained")
    (directory / "clips").mkdir()
    rng = np.random.default_rng(0)
    body = rng.normal(size=(25, 3))
    for i in range(12):
        wave = np.sin(np.arange(14) * (0.4 + 0.8 * (i % 2)))[:, None, None]
        keypoints = body + wave * 0.3 + 0.02 * rng.normal(size=(14, 25, 3))
        np.savez(
            directory / "clips" / f"clip{i:02d}.npz", keypoints=keypoints, label=i % 2, subject=i // 4 + 1
        )
    config = training.Config.from_dict(
        {
            "data": {"source": str(directory / "clips"), "format": "arrays", "frames": 8},
            "model": {"options": {"channels": [4, 4, 8], "strides": [1, 1, 2]}},
            "training": {"epochs": 2, "batch_size": 8},
            "output": {"dir": str(directory / "run"), "tensorboard": False},
        }
    )
    return training.train(config, say=lambda line: None).checkpoint


def test_the_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stgcn_fast.report.html.page.plotting_library", lambda: "")
    out = tmp_path / "new" / "report"
    assert main(["explain", str(checkpoint), "--part", "all", "--out", str(out), "--pdf"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("12 clips, accuracy ")
    assert {line.split()[0] for line in printed.splitlines() if line.startswith("block")} == {
        "block1", "block2", "block3",
    }  # fmt: skip
    for name in ("importance", "layers", "joint_time", "faithfulness", "curves", "focus"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    found = explain.load_explanation(out)
    assert found.maps["block3"].shape == (12, 1, 4, 25)
    assert found.keypoints.shape == (12, 1, 8, 25, 3)
    assert (out / "focus.gif").read_bytes().startswith(b"GIF89a")
    assert printed.splitlines()[-1] == str(out / "report.html")
    text = (out / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert f"<h1>{checkpoint.parent.name}</h1>" in text


def test_a_video_needs_ffmpeg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert main(["explain", "some.safetensors", "--mp4", "--out", str(tmp_path / "out")]) == 2
    assert "--mp4 must be given where ffmpeg is installed, got none on PATH" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_plotly_the_page_is_left_out(
    study: tuple[Tensor, Explanation],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stgcn_fast.cli.explain import write_page

    def missing() -> str:
        raise ImportError("plotly is needed for this")

    explain.save_explanation(study[1], tmp_path)
    monkeypatch.setattr("stgcn_fast.report.html.page.plotting_library", missing)
    assert write_page(tmp_path, "last.safetensors") == []
    assert capsys.readouterr().err == "stgcn-fast: no report.html: plotly is needed for this\n"
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("words", [["explain"], ["geometry"], ["geometry", "noise"]])
@pytest.mark.parametrize("closed", ["file above", "read only"])
def test_a_directory_that_cannot_be_written_is_one_line(
    words: list[str], closed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the checkpoint is even looked for."""
    if closed == "file above":
        (tmp_path / "file").write_bytes(b"")
        out, message = tmp_path / "file" / "out", "not a directory"
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        out, message = tmp_path / "out", "permission denied"
        out.mkdir(mode=0o500)
    assert main([*words, "some.safetensors", "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert str(out) in printed
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "block9"], "layers must be among block1, block2, block3"),
        (["--joints", "25"], "--joints must be below the 25 joints, got 25"),
        (["--keep", "-1"], "--keep must be at least 0, got -1"),
        (["--joints", "-2"], "--joints must be at least 0, got -2"),
        (["--limit", "1"], "--limit must be at least 2, got 1"),
        (["--out"], "--out must be a directory, got a file"),
        (["nowhere"], "data.source must exist"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    out = str(tmp_path / "out")
    if words[0] == "--out":
        out = str(tmp_path / "file")
        words = []
    assert main(["explain", str(checkpoint), *words, "--out", out]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
