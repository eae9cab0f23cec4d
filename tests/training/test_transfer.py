"""Training that starts from another run's weights, all of them or the last layers alone learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stgcn_fast import data, models
from stgcn_fast.data.synthetic import generate_kth
from stgcn_fast.graph import joint_mapping, layouts, register_layout
from stgcn_fast.training import Config, ConfigError, TrainResult, predict, train
from stgcn_fast.training.config import InitConfig
from stgcn_fast.training.transfer import initialise, stages_of

Make = Callable[..., Config]


def silent(line: str) -> None:
    """Throw the lines of progress away."""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """12 clips of two other actions whose joints come in another order."""
    path = tmp_path_factory.mktemp("other") / "clips"
    clips = generate_kth(
        subjects=(1, 2, 3), actions=("running", "jogging"), scenarios=(1, 3), frames=(20, 26)
    )
    clips = list(clips)
    body = models.build("st_gcn", num_classes=2, layout=clips[0].layout, channels=[4]).layout
    turned = list(range(body.num_joints))[::-1]
    last = body.num_joints - 1
    edges = [(last - child, last - parent) for child, parent in body.edges]
    register_layout("turned_body", [body.joints[i] for i in turned], edges, centre=last - body.centre)
    labels = {"running": 0, "jogging": 1}
    data.SkeletonStore.build(
        path,
        [
            data.map_joints(clip, "turned_body").with_label(labels[str(clip.label_name)], clip.label_name)
            for clip in clips
        ],
    )
    yield path
    layouts._REGISTER.pop("turned_body")


def tuned(
    tiny: Make, source: Path, directory: Path, checkpoint: Path, freeze: object, epochs: int = 2
) -> Config:
    return tiny(
        source,
        directory,
        data={"source": str(source), "frames": 12, "layout": "body25", "split": {"protocol": "cross_subject"}
        | {"options": {"train": [1, 2]}}},
        init={"checkpoint": str(checkpoint), "freeze": freeze},
        training={"epochs": epochs, "batch_size": 4},
    )  # fmt: skip


def test_only_the_last_layer_learns(trained: TrainResult, other: Path, tmp_path: Path, tiny: Make) -> None:
    config = tuned(tiny, other, tmp_path / "run", trained.checkpoint, "last_layer")
    result = train(config, say=silent)
    before, after = load_file(trained.checkpoint), load_file(result.checkpoint)
    assert after["fcn.weight"].shape[0] == 2
    for name, value in before.items():
        if not name.startswith("fcn."):
            assert torch.equal(after[name], value), name  # running statistics among them
    fresh = train(tuned(tiny, other, tmp_path / "one", trained.checkpoint, "last_layer", 1), say=silent)
    assert not torch.equal(load_file(fresh.checkpoint)["fcn.weight"], after["fcn.weight"])
    # A clip of the data trained on is brought to the network's layout.
    clip = data.SkeletonStore(other)[0]
    np.savez(tmp_path / "clip.npz", keypoints=clip.keypoints, confidence=clip.confidence, layout=clip.layout)
    assert predict(tmp_path / "clip.npz", result.checkpoint).label_name in ("running", "jogging")


def test_the_first_blocks_stay(trained: TrainResult, other: Path, tmp_path: Path, tiny: Make) -> None:
    result = train(tuned(tiny, other, tmp_path / "run", trained.checkpoint, 1), say=silent)
    before, after = load_file(trained.checkpoint), load_file(result.checkpoint)
    still = ("data_bn.", "st_gcn_networks.0.", "edge_importance.0", "A")
    for name, value in before.items():
        if name.startswith(still):
            assert torch.equal(after[name], value), name
        elif name.startswith("st_gcn_networks.1.") and name.endswith("weight"):
            assert not torch.equal(after[name], value), name


def test_a_run_that_is_resumed_keeps_its_weights(
    trained: TrainResult, store_path: Path, tmp_path: Path, tiny: Make
) -> None:
    """The checkpoint to start from counts once, not again at every resumption."""
    init = {"checkpoint": str(trained.checkpoint), "freeze": None}
    config = tiny(store_path, tmp_path / "run", init=init, training={"epochs": 1, "batch_size": 4})
    first = load_file(train(config, say=silent).checkpoint)
    assert not torch.equal(first["fcn.weight"], load_file(trained.checkpoint)["fcn.weight"])
    again = load_file(train(config, resume=True, say=silent).checkpoint)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_same_classes_keep_the_last_layer(trained: TrainResult) -> None:
    names = ["boxing", "handwaving", "walking"]
    model = models.build("st_gcn", num_classes=3, in_channels=2, layout="body25", channels=[4, 8])
    assert isinstance(model, nn.Module)
    assert initialise(model, InitConfig(checkpoint=str(trained.checkpoint)), names) == []
    kept = load_file(trained.checkpoint)
    assert torch.equal(model.state_dict()["fcn.weight"], kept["fcn.weight"])
    initialise(model, InitConfig(checkpoint=str(trained.checkpoint)), ["x", *names[1:]])
    assert torch.equal(model.state_dict()["data_bn.weight"], kept["data_bn.weight"])


def test_stages_of_both_families() -> None:
    windows = models.build("ms_g3d", num_classes=2, layout="kinect20", num_persons=1, width=6)
    parts = stages_of(windows)
    assert len(parts) == 4
    held = {id(p) for stage in parts for part in stage for p in part.parameters()}
    assert held == {id(p) for name, p in windows.named_parameters() if not name.startswith("fc.")}
    blocks = models.build("st_gcn", num_classes=2, layout="kinect20", channels=[4, 8, 8])
    parts = stages_of(blocks)
    assert len(parts) == 4
    held = {id(p) for stage in parts for part in stage for p in part.parameters()}
    assert held == {id(p) for name, p in blocks.named_parameters() if not name.startswith("fcn.")}


@pytest.mark.parametrize(
    ("init", "line"),
    [
        ({"freeze": 3}, "init.freeze must be at most 2, the blocks of the model, got 3"),
        ({"options": {"channels": [4]}}, "init.checkpoint must be of the network of model, got "),
        ({"options": {"channels": [4, 6]}}, r"of shape \[.*\] instead of \["),
        ({"options": {"channels": [4, 8, 8]}}, "got no st_gcn_networks.2"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    trained: TrainResult, store_path: Path, tmp_path: Path, tiny: Make, init: dict[str, object], line: str
) -> None:
    config = tiny(
        store_path,
        tmp_path / "run",
        init={"checkpoint": str(trained.checkpoint), "freeze": init.get("freeze")},
        model={"options": init.get("options", {"channels": [4, 8]})},
    )
    with pytest.raises(ConfigError, match=line):
        train(config, say=silent)
    assert not (tmp_path / "run").exists()


def test_bad_sections_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init\.checkpoint must be given where freeze is"):
        Config.from_dict({"init": {"freeze": "last_layer"}})
    with pytest.raises(ConfigError, match=r"init\.freeze"):
        Config.from_dict({"init": {"checkpoint": "x", "freeze": "first"}})


def test_kinect_layouts_map_onto_each_other() -> None:
    there, back = joint_mapping("kinect20", "utd20"), joint_mapping("utd20", "kinect20")
    assert sorted(there) == list(range(20))
    assert [there[i] for i in back] == list(range(20))
    with pytest.raises(ValueError, match="got 'natops8' without"):
        joint_mapping("natops8", "utd20")


def test_a_layout_the_clips_do_not_have_is_refused(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    config = tiny(store_path, tmp_path / "run", data={"source": str(store_path), "layout": "hand21"})
    with pytest.raises(ConfigError, match=r"data\.layout: joint_mapping: source must have every joint of"):
        train(config, say=silent)
