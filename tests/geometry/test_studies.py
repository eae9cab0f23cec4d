"""Studies of depth, noise and transfer: the library, the files, the commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stgcn_fast import geometry, report, training
from stgcn_fast.cli import main
from stgcn_fast.dtw import WindowedDTW, layer_sequences
from stgcn_fast.geometry.files import save_depth
from stgcn_fast.models import MSG3D, STGCN


@pytest.fixture(scope="module")
def model() -> STGCN:
    torch.manual_seed(0)
    return STGCN(num_classes=3, layout="ntu25", channels=[4, 4, 8], strides=[1, 1, 2]).eval()


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """24 clips of three kinds of motion, two persons, some of them padded."""
    rng = np.random.default_rng(0)
    labels = torch.arange(24) % 3
    time = np.arange(16)[:, None, None]
    x = np.stack(
        [
            np.sin(time * (0.3 + 0.4 * int(label)) + rng.normal()) * rng.normal(1, 0.1, (25, 2))
            + np.zeros((3, 16, 25, 2))
            + 0.05 * rng.normal(size=(3, 16, 25, 2))
            for label in labels
        ]
    ).astype(np.float32)
    x[5, :, 9:] = 0
    clips = torch.from_numpy(x)
    return list(zip(clips.split(10), labels.split(10), torch.arange(24).split(10)))


def whole(batches: Any) -> tuple[Tensor, Tensor]:
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_features_are_those_of_the_network(model: STGCN, batches: Any, budget: int) -> None:
    x, labels = whole(batches)
    expected = model.extract_features(x)
    told: list[geometry.Predicted] = []
    frames = np.full(24, 16)
    frames[5] = 9
    names = []
    for found in geometry.layer_features(model, batches, budget=budget, done=told.append):
        names.append(found.layer)
        maps = expected[found.layer][:, 0]
        rows = layer_sequences(maps, frames, 16)
        assert found.frames == maps.shape[2]
        assert found.input_frames == 16
        assert found.sequences.lengths.tolist() == [len(row) for row in rows]
        assert np.allclose(found.sequences.frames, np.concatenate(rows), atol=1e-5)
    assert names == ["block1", "block2", "block3"]
    assert np.array_equal(told[0].labels, labels)
    with torch.no_grad():
        assert np.array_equal(told[0].predictions, model(x).argmax(1))
    both = next(iter(geometry.layer_features(model, batches, "block1", person=None)))
    assert both.sequences.features == 2 * 4 * 25


def test_depth_equals_its_parts(model: STGCN, batches: Any) -> None:
    x, labels = whole(batches)
    study = geometry.smoothness_by_depth(model, batches, ["block2", "block3"], 5, dtw=WindowedDTW(4, 2))
    frames = np.full(24, 16)
    frames[5] = 9
    for i, (name, length) in enumerate((("block2", 16), ("block3", 8))):
        maps = model.extract_features(x, name)[name][:, 0]
        dtw = WindowedDTW(4, 2).for_layer(length, 16)
        table = dtw.pairwise(layer_sequences(maps, frames, 16))
        for kind in geometry.KINDS:
            rule: Any = "none" if kind in ("rw", "rmse") else "reference"
            graph = geometry.nnk_graph(table, 5, symmetrize=rule)
            expected = geometry.label_smoothness(graph, labels.numpy(), kind)
            assert study.smoothness[i][kind].value == pytest.approx(expected.value, abs=1e-5)
        assert study.graphs[i].embedding is not None
    assert study.curve().shape == (2,)
    assert 0 <= study.predicted.accuracy <= 1
    assert set(study.seconds) == {"features", "dtw", "nnk"}


def test_spearman() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
        assert geometry.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert geometry.spearman([1, 2, 3], [9, 5, 1]) == -1
    assert np.isnan(geometry.spearman([1, 2], [1, 1]))


def test_noise(model: STGCN, batches: Any) -> None:
    seen = []

    def noisy(level: float, repeat: int) -> Any:
        seen.append((level, repeat))
        generator = torch.Generator().manual_seed(repeat)
        if np.isinf(level):
            return batches
        return [
            (x + torch.randn(x.shape, generator=generator) * 10 ** (-level / 20), *rest)
            for x, *rest in batches
        ]

    study = geometry.noise_study(model, noisy, [np.inf, 60.0, -20.0], 2, k=5, layers=["block3"])
    assert seen == [(np.inf, 0), (60.0, 0), (60.0, 1), (-20.0, 0), (-20.0, 1)]
    assert study.smoothness.shape == (3, 2, 1)
    assert study.change[0] == 0
    assert abs(study.change[1]) < 0.05
    assert study.change[2] > 0.2  # labels cannot be seen in noise
    with pytest.raises(ValueError, match=r"^noise_study: repeats must be at least 1, got 0$"):
        geometry.noise_study(model, noisy, repeats=0)


def test_new_classes_keep_everything_but_the_classifier(model: STGCN) -> None:
    for count in (3, 7):
        copied = geometry.with_classes(model, count, seed=1).eval()
        assert copied(torch.zeros(1, 3, 8, 25, 1)).shape == (1, count)
        for name, value in model.state_dict().items():
            if name != "fcn.bias":  # which starts at zero everywhere
                assert torch.equal(copied.state_dict()[name], value) == (name != "fcn.weight"), name
    with pytest.raises(TypeError, match=r"^with_classes: model must be of a registered class, got Linear$"):
        geometry.with_classes(nn.Linear(2, 2), 3)


def test_stages_cover_a_network(model: STGCN) -> None:
    msg3d = MSG3D(num_classes=3, width=6, num_gcn_scales=2, num_g3d_scales=2)
    for network, blocks, head in ((model, 3, "fcn"), (msg3d, 3, "fc")):
        parts = geometry.stages(network)
        assert len(parts) == blocks + 1
        left = geometry.freeze(network, blocks)
        assert {id(p) for p in left} == {id(p) for p in network.get_submodule(head).parameters()}
        assert len(geometry.freeze(network, 0)) == len(list(network.parameters()))
    with pytest.raises(ValueError, match=r"^freeze: depth must be from 0 to 3 \(blocks\), got 4$"):
        geometry.freeze(model, 4)
    with pytest.raises(TypeError, match=r"^stages: model must be an STGCN, MSG3D or STF, got Linear$"):
        geometry.stages(nn.Linear(2, 2))


def test_transfer_leaves_frozen_blocks_alone(model: STGCN, batches: Any, monkeypatch: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made: list[nn.Module] = []
    original = geometry.with_classes
    from stgcn_fast.geometry import transfer

    monkeypatch.setattr(transfer, "with_classes", lambda *a: made.append(original(*a)) or made[-1])
    recipe = geometry.Recipe(epochs=10, lr=0.05)
    lines: list[str] = []
    study = geometry.transfer_study(
        model, lambda epoch: batches, batches, 3, [0, 2, 3], recipe=recipe, say=lines.append
    )
    assert study.depths == [0, 2, 3]
    assert len(lines) == 3
    assert study.trained[0] > study.trained[1] > study.trained[2] == 3 * 8 + 3
    assert study.accuracy[0] > 0.8  # three kinds of motion are easily told apart
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        whole, some, head = (network.state_dict()[name] for network in made)
        block = int(name.split(".")[1]) if name.startswith(("st_gcn_networks", "edge_importance")) else None
        frozen = block is not None or name.startswith("data_bn") or name == "A"
        if frozen:
            assert torch.equal(head, value), name
        if frozen and block != 2:
            assert torch.equal(some, value), name
        if name.endswith("running_mean"):
            assert not torch.equal(whole, value), name
    again = geometry.transfer_study(model, lambda epoch: batches, batches, 3, [2], recipe=recipe)
    assert again.accuracy == study.accuracy[1:2]


@pytest.mark.usefixtures("_small_pages")
def test_one_layer_has_no_trend(model: STGCN, batches: Any, tmp_path: Path) -> None:
    study = geometry.smoothness_by_depth(model, batches, "block3", k=4)
    assert np.isnan(study.trend())
    save_depth(study, tmp_path, class_names=["a", "b", "c"], names=[f"clip{i}" for i in range(24)])

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads((tmp_path / "geometry.json").read_text(), parse_constant=refuse)
    assert found["smoothness"]["rw"]["spearman"] is None
    out = report.write_report(tmp_path)
    assert out.stat().st_size > 0


def test_bad_input(model: STGCN, batches: Any) -> None:
    one = [(x, labels * 0, positions) for x, labels, positions in batches]
    with pytest.raises(
        ValueError, match=r"^smoothness_by_depth: labels must hold at least two classes, got one$"
    ):
        geometry.smoothness_by_depth(model, one)
    unknown = [(x, labels - 1, positions) for x, labels, positions in batches]
    with pytest.raises(ValueError, match=r"labels must be known for every clip, got 8 without$"):
        geometry.smoothness_by_depth(model, unknown)
    with pytest.raises(ValueError, match=r"^ds_graph: k must be from 1 to 23 for 24 nodes, got 24$"):
        geometry.smoothness_by_depth(model, batches, k=24)
    with pytest.raises(ValueError, match=r"^layer_features: layers must be among block1, block2, block3"):
        geometry.smoothness_by_depth(model, batches, "conv9")
    with pytest.raises(ValueError, match=r"^layer_features: batches must hold at least one clip, got none$"):
        geometry.smoothness_by_depth(model, [])
    with pytest.raises(ValueError, match=r"^layer_features: person must be in \[0, 2\), got 2$"):
        geometry.smoothness_by_depth(model, batches, person=2)
    with pytest.raises(ValueError, match=r"^transfer_study: labels must be in \[0, 2\), got 0 to 2$"):
        geometry.transfer_study(model, lambda epoch: batches, batches, 2, [3])
    with pytest.raises(ValueError, match=r"^transfer_study: depths must be from 0 to 3, got 4$"):
        geometry.transfer_study(model, lambda epoch: batches, batches, 3, [4])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a second on three kinds of motion."""
    directory = tmp_path_factory.mktemp("geometry")
    (directory / "clips").mkdir()
    rng = np.random.default_rng(0)
    body = rng.normal(size=(25, 3))
    for i in range(24):
        wave = np.sin(np.arange(14) * (0.3 + 0.5 * (i % 3)))[:, None, None]
        keypoints = body + wave * 0.3 + 0.02 * rng.normal(size=(14, 25, 3))
        np.savez(
            directory / "clips" / f"clip{i:02d}.npz", keypoints=keypoints, label=i % 3, subject=i // 6 + 1
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


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without the plotting library."""
    monkeypatch.setattr("stgcn_fast.report.html.page.plotting_library", lambda: "")


@pytest.mark.usefixtures("_small_pages")
def test_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "geometry"
    assert main(["geometry", str(checkpoint), "--part", "all", "-k", "4", "--pdf", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("24 clips, accuracy ")
    assert "Spearman" in printed
    for name in ("smoothness", "smoothness_by_class", "graphs", "confusion"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    found = json.loads((out / "geometry.json").read_text())
    assert (found["format"], found["version"]) == ("stgcn_fast geometry", 1)
    assert found["layers"] == ["block1", "block2", "block3"]
    assert len(found["clips"]) == len(found["labels"]) == 24
    assert np.sum(found["confusion"]) == 24
    for name in found["layers"]:
        graph = found["graphs"][name]
        assert len(graph["embedding"]) == 24
        assert len(graph["edges"]) == len(graph["weights"])
        assert all(a < b for a, b in graph["edges"])
    assert set(found["smoothness"]) == set(geometry.KINDS)
    with (out / "smoothness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rw"]) for row in rows] == pytest.approx(found["smoothness"]["rw"]["values"], abs=1e-5)
    bodies = report.load_bodies(out)
    assert bodies is not None
    assert bodies.nodes.tolist() == list(range(24))
    assert bodies.keypoints.shape[:2] + bodies.keypoints.shape[3:] == (24, 1, 25, 3)
    assert printed.splitlines()[-1] == str(out / "report.html")
    assert (out / "report.html").is_file()


@pytest.mark.usefixtures("_small_pages")
def test_the_command_for_noise(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["geometry", "noise", str(checkpoint), "--part", "all", "--limit", "18", "--out", str(tmp_path)]
    assert main([*words, "-k", "4", "--snr", "30", "0", "--repeats", "2", "--layers", "block3"]) == 0
    found = json.loads((tmp_path / "noise.json").read_text())
    assert found["snr_db"] == [None, 30, 0]
    assert np.shape(found["smoothness"]) == (3, 2, 1)
    assert found["smoothness"][2][0] != found["smoothness"][2][1]
    assert "30 dB" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "noise.json", "noise.csv", "noise.png", "noise_accuracy.png", "report.html",
    }  # fmt: skip


@pytest.mark.usefixtures("_small_pages")
def test_the_command_for_transfer(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["geometry", "transfer", str(checkpoint), "--out", str(tmp_path), "-k", "3"]
    assert main([*words, "--classes", "0,2", "--freeze", "0-1", "--epochs", "2"]) == 0
    found = json.loads((tmp_path / "transfer.json").read_text())
    assert found["frozen"] == [0, 1]
    assert len(found["class_names"]) == 2
    assert len(found["smoothness"]) == 3
    assert (tmp_path / "transfer.png").is_file()
    assert (tmp_path / "report.html").is_file()
    assert "blocks frozen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["geometry"], "ds_graph: k must be from 1 to"),
        (["geometry", "transfer"], "--classes must be at least two from 0 to 2, got 1,9"),
        (["geometry", "noise"], "--window must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {
        "geometry": ["-k", "99"], "transfer": ["--classes", "1,9"], "noise": ["--window", "0"],
    }[words[-1]]  # fmt: skip
    assert main([*words, str(checkpoint), "--out", str(tmp_path / "out"), *extra]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
