"""STGCN: configuration, shapes, features, persons, input checks, and what a module must stay able to do."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from stgcn_fast import _native
from stgcn_fast.graph import Graph, Layout
from stgcn_fast.models import STGCN, build, list_models, load_checkpoint, register, save_checkpoint

SMALL = {"num_classes": 4, "layout": "hand21", "channels": (8, 8, 16), "temporal_kernel": 5}
PAIR = Layout("two", ("a", "b"), ((1, 0),), 0)


def small(**options: object) -> STGCN:
    model = STGCN(**{**SMALL, **options})
    for module in model.modules():  # far from the initial weights, whose outputs hardly depend on the input
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
    return model


def clip(n: int = 2, t: int = 13, m: int = 2, c: int = 3) -> torch.Tensor:
    return torch.randn(n, c, t, 21, m)


@pytest.mark.parametrize(
    ("options", "channels", "strides"),
    [
        ({}, [64] * 4 + [128] * 3 + [256] * 3, [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]),
        ({"depth": 7}, [64] * 3 + [128] * 2 + [256] * 2, [1, 1, 1, 2, 1, 2, 1]),
        ({"depth": 12, "width": 0.25}, [16] * 4 + [32] * 4 + [64] * 4, [1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]),
        ({"channels": (8, 16), "strides": (2, 1)}, [8, 16], [2, 1]),
    ],
)
def test_depth_width_channels_and_strides(options: dict, channels: list[int], strides: list[int]) -> None:
    model = STGCN(3, layout=PAIR, **options)
    assert model.config["channels"] == channels
    assert model.config["strides"] == strides
    assert model(torch.randn(2, 3, 9, 2, 1)).shape == (2, 3)


@pytest.mark.parametrize(
    "model",
    [
        small(),
        small(edge_importance=False, dropout=0.3, person_pooling="present", in_channels=2),
        STGCN(2, layout=PAIR, channels=(4,), partition="distance", normalization="column"),
        STGCN(2, graph=Graph("natops8", "symmetric", 2, alpha=0.1), channels=(4,)),
        STGCN(2, graph={"layout": "coco17", "joint_distances": [1.0] * 17}, channels=(4,)),
    ],
    ids=lambda model: model.layout.name,
)
def test_config_rebuilds_the_network(model: STGCN) -> None:
    config = json.loads(json.dumps(model.config))
    other = STGCN(**config)
    assert other.config == model.config
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, model.in_channels, 7, model.graph.num_joints, 2)
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert build("st_gcn", **config).graph == model.graph


def test_features_are_the_blocks_outputs() -> None:
    model, x = small().eval(), clip()
    caught = []
    for block in model.st_gcn_networks:
        block.register_forward_hook(lambda m, args, out: caught.append(out))
    logits = model(x)
    features = model.extract_features(x, "all")
    assert list(features) == ["block1", "block2", "block3"] == model.layer_names[1:]
    for value, out, frames in zip(features.values(), caught, (13, 13, 7)):
        assert value.shape == (2, 2, out.shape[1], frames, 21)
        assert torch.equal(value.flatten(0, 1), out)
        assert (value >= 0).all()
    pooled = features["block3"].mean((3, 4)).mean(1)
    torch.testing.assert_close(model.fcn(pooled[:, :, None, None]).flatten(1), logits)


def test_a_hook_sees_the_classifier() -> None:
    model, x = small().eval(), clip()
    expected, seen = model(x), []
    model.fcn.register_forward_hook(lambda m, args, out: seen.append(out))
    torch.testing.assert_close(model(x), expected)
    assert seen[0].shape == (2, 4, 1, 1)


@pytest.mark.skipif(not _native.load().loaded, reason="the compiled kernels are not built")
def test_a_training_step_does_not_depend_on_threads() -> None:
    model, x = small(dropout=0.3), clip(n=4, t=40)
    threads = torch.get_num_threads()
    steps = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            twin = copy.deepcopy(model)
            torch.manual_seed(1)
            twin(x).square().sum().backward()
            steps.append([*(p.grad for p in twin.parameters()), *twin.buffers()])
    finally:
        torch.set_num_threads(threads)
    for step in steps[1:]:
        assert all(torch.equal(a, b) for a, b in zip(step, steps[0]))


def test_features_by_name_stop_early_and_carry_gradients() -> None:
    model, x = small().eval(), clip().requires_grad_()
    runs = []
    model.st_gcn_networks[2].register_forward_hook(lambda m, args, out: runs.append(1))
    features = model.extract_features(x, ["block2", "data_bn"])
    assert list(features) == ["data_bn", "block2"]
    assert not runs
    normalised = features["data_bn"]
    expected = torch.stack([model.data_bn(x[..., m].permute(0, 3, 1, 2).flatten(1, 2)) for m in range(2)], 1)
    torch.testing.assert_close(normalised, expected.view(2, 2, 21, 3, 13).permute(0, 1, 3, 4, 2))
    features["block2"].sum().backward()
    assert x.grad.any()
    assert list(model.extract_features(x, "block1")) == ["block1"]
    for wrong in ("block4", ["block1", "gcn"], []):
        with pytest.raises(ValueError, match="extract_features: layers must be among data_bn, block1"):
            model.extract_features(x, wrong)


def test_layers_run_channels_last() -> None:
    model = small().eval()
    seen = []
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Sequential)):
            module.register_forward_hook(lambda m, args, out: seen.append(out))
    model(clip())
    assert len(seen) == 11
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


def test_absent_persons() -> None:
    x = clip(n=3)
    x[0, ..., 1] = 0
    x[2] = 0
    everyone, present = small(person_pooling="all").eval(), small(person_pooling="present").eval()
    present.load_state_dict(everyone.state_dict())
    alone = x[:1, ..., :1]
    torch.testing.assert_close(present(x)[:1], everyone(alone))
    assert not torch.allclose(everyone(x)[:1], everyone(alone), atol=1e-4)
    torch.testing.assert_close(present(x)[1:], everyone(x)[1:])


def test_persons_can_be_swapped_and_samples_are_independent() -> None:
    model, x = small().eval(), clip(n=3)
    torch.testing.assert_close(model(x.flip(-1)), model(x))
    torch.testing.assert_close(model(x[1:2]), model(x)[1:2])


@pytest.mark.parametrize("mode", [True, False])
def test_empty_batch(mode: bool) -> None:
    model = small().train(mode)
    out = model(clip(n=0).requires_grad_())
    assert out.shape == (0, 4)
    out.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


@pytest.mark.parametrize("frames", [1, 2, 3, 301])
def test_any_number_of_frames(frames: int) -> None:
    assert small().eval()(clip(t=frames)).shape == (2, 4)


def test_strided_and_expanded_inputs() -> None:
    model, x = small().eval(), clip()
    expected = model(x)
    stored = x.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)  # from a [N, M, T, V, C] store
    assert not stored.is_contiguous()
    torch.testing.assert_close(model(stored), expected)
    wide = torch.randn(2, 3, 26, 21, 2)
    wide[:, :, ::2] = x
    torch.testing.assert_close(model(wide[:, :, ::2]), expected)
    still = x[:, :, :1].expand(-1, -1, 13, -1, -1)
    torch.testing.assert_close(model(still), model(still.contiguous()))


def test_pickle_deepcopy_and_state_dict() -> None:
    model, x = small(dropout=0.2).eval(), clip()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(x), model(x))
        assert other.config == model.config
    blank = small(dropout=0.2).eval()
    blank.load_state_dict(model.state_dict())
    assert torch.equal(blank(x), model(x))
    assert "A" in model.state_dict()
    assert "A" not in dict(model.named_parameters())


def test_train_leaves_parameters_and_structure_alone() -> None:
    model, x = small(), clip()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modules = [type(m) for m in model.modules()]
    ids = [id(p) for p in model.parameters()]
    with torch.no_grad():
        model.eval()(x)
    model.train()
    model.eval()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modules == [type(m) for m in model.modules()]
    assert ids == [id(p) for p in model.parameters()]


def test_every_parameter_gets_a_gradient() -> None:
    model = small()
    model(clip()).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.any()
        for name, p in model.named_parameters()
        if "tcn.2.bias" not in name and "residual.0.bias" not in name  # BatchNorm takes them out again
    )
    assert all(p.grad is not None for p in model.parameters())


def test_deterministic_mode() -> None:
    model, x = small(), clip()
    twin = copy.deepcopy(model)
    torch.use_deterministic_algorithms(True)
    try:
        for network in (model, twin):
            network(x).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters()))


def test_distributed_data_parallel(tmp_path: Path) -> None:
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = small()
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):  # a parameter that took no part in the first step makes the second one fail
            parallel(clip()).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        save_checkpoint(tmp_path / "parallel", parallel)
    finally:
        dist.destroy_process_group()
    assert load_checkpoint(tmp_path / "parallel")[0].config == model.config


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(dtype: torch.dtype) -> None:
    model, x = small().eval(), clip()
    expected = model(x)
    out = copy.deepcopy(model).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), expected, rtol=0.05, atol=0.05 if dtype == torch.bfloat16 else 1e-5
    )


def test_autocast() -> None:
    model, x = small(), clip()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(2, 3, 9, 25, 2),
            ValueError,
            r"\[N, 3, T, 21, M\] for layout 'hand21', got \[2, 3, 9, 25, 2\]",
        ),
        (torch.zeros(2, 2, 9, 21, 2), ValueError, r"\[N, 3, T, 21, M\] .*got \[2, 2, 9, 21, 2\]"),
        (torch.zeros(2, 3, 9, 21), ValueError, r"got \[2, 3, 9, 21\]"),
        (torch.zeros(2, 3, 0, 21, 2), ValueError, "at least one frame and person"),
        (torch.zeros(2, 3, 9, 21, 0), ValueError, "at least one frame and person"),
        (torch.zeros(2, 3, 9, 21, 2, dtype=torch.int64), TypeError, "floating point type, got torch.int64"),
        ([[0.0]], TypeError, "x must be a tensor, got list"),
    ],
)
def test_bad_input(x: object, error: type[Exception], message: str) -> None:
    model = small()
    for function in (model, model.extract_features):
        with pytest.raises(error, match=message) as caught:
            function(x)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes must be positive, got 0"),
        ({"num_classes": "4"}, TypeError, "num_classes must be an integer, got '4'"),
        ({"in_channels": True}, TypeError, "in_channels must be an integer"),
        ({"layout": "hand"}, ValueError, "layout must be one of"),
        ({"layout": None, "graph": 3}, TypeError, "graph must be a Graph or the config of one, got int"),
        ({"graph": Graph("ntu25")}, ValueError, "layout must be None where graph is given, got 'hand21'"),
        ({"channels": ()}, ValueError, "channels must be positive integers"),
        ({"channels": 8}, TypeError, "channels must be a list of integers, got 8"),
        ({"strides": 2}, TypeError, "strides must be a list of integers, got 2"),
        ({"channels": (8, 0)}, ValueError, r"channels must be positive integers, got \[8, 0\]"),
        ({"depth": 7}, ValueError, "channels must be None where depth or width is given"),
        ({"channels": None, "depth": 2}, ValueError, "depth must be at least 3, got 2"),
        ({"channels": None, "width": 0.001}, ValueError, "width must leave at least one channel, got 0.001"),
        ({"strides": (1, 2)}, ValueError, "strides must have one value for each of 3 blocks"),
        ({"strides": (1, 2, 0)}, ValueError, "stride must be positive, got 0"),
        ({"temporal_kernel": 4}, ValueError, "kernel_size must be odd, got 4"),
        ({"dropout": -0.1}, ValueError, "dropout must be in"),
        ({"person_pooling": "first"}, ValueError, "person_pooling must be 'all' or 'present', got 'first'"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        STGCN(**{**SMALL, **options})


def test_registry() -> None:
    assert "st_gcn" in list_models()
    assert isinstance(build("st_gcn", num_classes=2, layout="hand21", channels=[4]), STGCN)
    with pytest.raises(ValueError, match=r"name must be one of aagcn, agcn, .*ms_g3d, st_gcn.*, got 'stgcn'"):
        build("stgcn")
    with pytest.raises(
        ValueError, match=r"arguments of st_gcn must be among num_classes, .*, got classes, drop"
    ):
        build("st_gcn", classes=3, drop=1)
    with pytest.raises(TypeError, match="st_gcn must be given num_classes, got dropout"):
        build("st_gcn", dropout=0.1)
    with pytest.raises(ValueError, match="name must be new, got 'st_gcn', which is STGCN"):
        register("st_gcn")(nn.Linear)
