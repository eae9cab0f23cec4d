"""Checkpoints: round trips, what a kill leaves behind, public files, and damaged files."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stgcn_fast._version import __version__
from stgcn_fast.data import FormatError
from stgcn_fast.graph import Graph, Layout
from stgcn_fast.models import STGCN, checkpoint, load_checkpoint, save_checkpoint

OWN = Layout("claw", ("palm", "left_tip", "right_tip"), ((1, 0), (2, 0)), 0, (1,), (2,))
META = {"class_names": ["wave", "clap", "über"], "preprocessing": {"frames": 64}, "scores": {"top1": 0.5}}


def model(**options: object) -> STGCN:
    return STGCN(**{"num_classes": 3, "layout": "hand21", "channels": (4, 8), **options})


@pytest.mark.parametrize(
    "network",
    [
        model(),
        model(layout=None, graph=Graph(OWN, "symmetric"), edge_importance=False, dropout=0.5),
        model(layout=None, graph=Graph.from_adjacency(np.random.default_rng(0).random((2, 3, 3)), OWN)),
    ],
    ids=["plain", "own layout", "given adjacency"],
)
@pytest.mark.parametrize("suffix", ["", ".safetensors", ".json"])
def test_round_trip(network: STGCN, suffix: str, tmp_path: Path) -> None:
    target = tmp_path / "run 1" / f"epoch=3.5{suffix}"
    files = save_checkpoint(target, network, META)
    assert sorted(p.name for p in target.parent.iterdir()) == ["epoch=3.5.json", "epoch=3.5.safetensors"]
    assert [str(f) for f in files] == [f"{tmp_path}/run 1/epoch=3.5{s}" for s in (".safetensors", ".json")]
    back, meta = load_checkpoint(target)
    assert meta == META
    assert not back.training
    assert back.config == network.config
    x = torch.randn(2, 3, 9, network.graph.num_joints, 1)
    assert torch.equal(back(x), network.eval()(x))


def test_the_json_says_everything(tmp_path: Path) -> None:
    _, file = save_checkpoint(tmp_path / "best", model(layout=OWN), META)
    description = json.loads(file.read_text(encoding="utf-8"))
    assert description["format"] == "stgcn_fast checkpoint"
    assert description["model"] == "st_gcn"
    assert description["package_version"] == __version__
    assert description["meta"] == META
    assert description["config"]["graph"]["layout"]["joints"] == list(OWN.joints)
    assert "über" in file.read_text(encoding="utf-8")


def test_wrappers_are_looked_through(tmp_path: Path) -> None:
    network = model()
    save_checkpoint(tmp_path / "compiled", torch.compile(network, backend="eager"))
    back, meta = load_checkpoint(tmp_path / "compiled")
    assert meta == {}
    assert list(back.state_dict()) == list(network.state_dict())


def test_saving_over_a_checkpoint_and_a_kill_in_between(tmp_path: Path) -> None:
    first, second = model(), model(channels=(4, 4))
    _, text = save_checkpoint(tmp_path / "last", first, {"epoch": 1})
    old_json = text.read_bytes()
    save_checkpoint(tmp_path / "last", second, {"epoch": 2})
    text.write_bytes(old_json)  # the weights were replaced, the description not yet
    back, meta = load_checkpoint(tmp_path / "last")
    assert meta == {"epoch": 2}
    assert back.config == second.config


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "last", model(), {"epoch": 1})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.os, "fsync" if fails == "write" else "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path / "last", model(), {"epoch": 2})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("meta", "error", "message"),
    [
        ({"class_names": ["a"]}, ValueError, "class_names must be 3 names, got 1"),
        ({"seen": {1, 2}}, TypeError, "meta must be as JSON can hold it, got .*set"),
        ({"loss": float("nan")}, ValueError, "meta must be finite"),
    ],
)
def test_bad_meta_writes_nothing(meta: dict, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / "x", model(), meta)
    assert not list(tmp_path.iterdir())


def test_only_registered_networks_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"model must be one of .*st_gcn.*, got Linear"):
        save_checkpoint(tmp_path / "x", nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())


def one_line(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_checkpoint(tmp_path / "nothing")
    one_line(caught, "nothing.safetensors", "got none")
    weights, text = save_checkpoint(tmp_path / "a", model())
    text.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_checkpoint(weights)
    one_line(caught, "a.json: checkpoint must have this file, got none")
    with pytest.raises(FileNotFoundError, match=r"b.pt: checkpoint must exist"):
        load_checkpoint(tmp_path / "b.pt")


def test_another_layout(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", model())
    assert load_checkpoint(tmp_path / "a", layout="hand21")[0].layout.name == "hand21"
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "a", layout="ntu25")
    one_line(caught, f"{tmp_path}/a: layout must be 'ntu25', got hand21")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "directory"])
def test_damaged_weights(damage: str, tmp_path: Path) -> None:
    weights, _ = save_checkpoint(tmp_path / "a", model())
    content = weights.read_bytes()
    if damage == "directory":
        weights.unlink()
        weights.mkdir()
        with pytest.raises(FileNotFoundError) as caught:
            load_checkpoint(weights)
    else:
        weights.write_bytes(
            {"truncated": content[: len(content) // 2], "empty": b"", "text": b"x" * 99}[damage]
        )
        with pytest.raises(FormatError) as caught:
            load_checkpoint(weights)
        one_line(caught, "file must be in the safetensors format")
    one_line(caught, "a.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("{", "description must be JSON"),
        ("[]", "must have the format 'stgcn_fast checkpoint'"),
        ({"meta": None}, "description must have meta"),
        ({"format_version": 2}, "format_version must be 1, got 2"),
        ({"config": 3}, "config must be an object, got 3"),
        ({"model": "gpt"}, "name must be one of aagcn, agcn, ctr_gcn, efficient_gcn, ms_g3d"),
        ({"config": {"num_classes": 3, "layers": 2}}, "arguments of st_gcn must be among"),
        ({"config": {"num_classes": 3, "layout": "hand"}}, "layout must be one of"),
        ({"config": {"num_classes": 3, "channels": [2**40]}}, "config must have no size above 65536, got"),
    ],
)
def test_damaged_description(change: object, words: str, tmp_path: Path) -> None:
    _, file = save_checkpoint(tmp_path / "a", model())
    if isinstance(change, dict):
        description = {**json.loads(file.read_text()), **change}
        change = json.dumps({k: v for k, v in description.items() if v is not None})
    file.write_text(change)
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "a")
    one_line(caught, "a.json: ", words)


def test_a_description_takes_no_memory(tmp_path: Path) -> None:
    """Weights of 64 GB are promised; what is there is compared before they are made."""
    weights, file = save_checkpoint(tmp_path / "a", model())
    description = json.loads(file.read_text())
    description["config"] |= {"channels": [60_000, 60_000], "temporal_kernel": 5}
    file.write_text(json.dumps(description))
    save_file(load_file(weights), weights)  # without the description in its header
    with pytest.raises(FormatError) as caught:
        load_checkpoint(file)
    one_line(caught, "a.safetensors: tensors must ")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    weights, file = save_checkpoint(tmp_path / "a", model())
    tensors = load_file(weights)
    cases = {
        "tensors must have fcn.bias of shape [3], got [4]": {**tensors, "fcn.bias": torch.zeros(4)},
        "tensors must have only the network's keys, got extra": {**tensors, "extra": torch.zeros(1)},
        "got none for A": {k: v for k, v in tensors.items() if k != "A"},
    }
    for words, changed in cases.items():
        save_file(changed, weights)
        with pytest.raises(FormatError) as caught:
            load_checkpoint(file)
        one_line(caught, "a.safetensors: tensors must have", words)


def test_public_checkpoints(tmp_path: Path) -> None:
    graph = Graph("openpose18", normalization="column", hop_cap=True)
    network = STGCN(3, graph=graph, channels=(4, 8)).eval()
    torch.save(network.state_dict(), tmp_path / "public.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}},
        tmp_path / "b.pth",
    )
    x = torch.randn(2, 3, 9, 18, 1)
    for file in ("public.pt", "b.pth"):
        back, meta = load_checkpoint(tmp_path / file)
        assert torch.equal(back(x), network(x))
        assert back.layout.name == "openpose18"
        assert meta == {}
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "public.pt", layout="coco17")
    file, said = (
        tmp_path / "public.pt",
        "ST-GCN: layout must have the 18 joints of the adjacency, got 'coco17' with 17",
    )
    assert str(caught.value) == f"{file}: {said}"


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_public_files_that_are_something_else(tmp_path: Path) -> None:
    file, prey = tmp_path / "x.pt", tmp_path / "prey"
    torch.save({"A": Malice(prey)}, file)
    with pytest.raises(FormatError) as caught:
        load_checkpoint(file)
    one_line(caught, "x.pt: file must hold nothing but tensors")
    assert str(caught.value).endswith(f"got the name {os.mkdir.__module__}.mkdir")
    assert not prey.exists()
    file.write_bytes(pickle.dumps(Malice(prey), protocol=2))
    with pytest.raises(FormatError) as caught:
        load_checkpoint(file)
    one_line(caught, "x.pt: ")
    assert not prey.exists()
    for content in (b"", b"hello"):
        file.write_bytes(content)
        with pytest.raises(FormatError) as caught:
            load_checkpoint(file)
        one_line(caught, "x.pt: ")
    for value in (torch.zeros(2), {"weight": torch.zeros(2)}, {"state_dict": {}}):
        torch.save(value, file)
        with pytest.raises(FormatError) as caught:
            load_checkpoint(file)
        one_line(caught, "x.pt: state_dict must")


def state(**options: object) -> dict[str, torch.Tensor]:
    graph = Graph("ntu25", normalization="column", hop_cap=True)
    return dict(STGCN(3, graph=graph, channels=(4, 8, 8), **options).state_dict())


def test_from_state_dict_infers_sizes() -> None:
    network = STGCN.from_state_dict(
        state(edge_importance=False, in_channels=2, temporal_kernel=5), dropout=0.25
    )
    config = network.config
    assert (config["num_classes"], config["in_channels"], config["temporal_kernel"]) == (3, 2, 5)
    assert config["channels"] == [4, 8, 8]
    assert config["strides"] == [1, 2, 1]
    assert not config["edge_importance"]
    assert config["dropout"] == 0.25
    strided = STGCN.from_state_dict(state(), strides=(1, 1, 1))
    assert strided.config["strides"] == [1, 1, 1]


def test_from_state_dict_with_an_unknown_adjacency() -> None:
    tensors = state()
    tensors["A"] = torch.rand(3, 25, 25)
    with pytest.raises(ValueError, match=r"layout must be given .*, got none for A of shape \[3, 25, 25\]"):
        STGCN.from_state_dict(tensors)
    network = STGCN.from_state_dict(tensors, layout="body25")
    assert network.layout.name == "body25"
    assert torch.equal(network.A, tensors["A"])
    np.testing.assert_array_equal(STGCN(**network.config).graph.A, tensors["A"].numpy())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: list(s), TypeError, "must be a mapping of names to tensors, got list"),
        (lambda s: {**s, "A": 3}, TypeError, "must map names to tensors, got 'A': int"),
        (lambda s: {k: v for k, v in s.items() if k != "A"}, ValueError, "must have the key A, got "),
        (
            lambda s: {k: v for k, v in s.items() if "data_bn" not in k},
            ValueError,
            "one key data_bn.weight, got ",
        ),
        (lambda s: {**s, "fcn.weight": torch.zeros(3, 8)}, ValueError, r"fcn.weight of 4 axes, got \[3, 8\]"),
        (lambda s: {**s, "A": s["A"][:, :24]}, ValueError, r"A \[K, V, V\]"),
        (
            lambda s: {**s, "A": torch.zeros(5, 25, 25)},
            ValueError,
            "must have K = 5 kernels in each gcn.conv",
        ),
        (
            lambda s: {**s, "head.weight": torch.zeros(1)},
            ValueError,
            "only the network's keys, got head.weight",
        ),
        (
            lambda s: {k: v for k, v in s.items() if ".1.gcn.conv.w" not in k},
            ValueError,
            r"0, 1, 2, ..., got \[0, 2\]",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "edge_importance.1"},
            ValueError,
            "none for edge_importance.1",
        ),
        (lambda s: {f"m.{k}" if "A" in k else k: v for k, v in s.items()}, ValueError, "must have the key A"),
        (
            lambda s: {f"m.{k}" if "A" not in k else k: v for k, v in s.items()},
            ValueError,
            "under the prefix 'm.', got A",
        ),
    ],
)
def test_from_state_dict_of_something_else(change: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        STGCN.from_state_dict(change(state()))
    one_line(caught, "STGCN.from_state_dict: ")
