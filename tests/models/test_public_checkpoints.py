"""Public checkpoints of every scheme of names: recognised, built, and equal to the plain twins."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast.data import FormatError
from stgcn_fast.models import (
    AAGCN,
    AGCN,
    CTRGCN,
    MSG3D,
    STGCN,
    EfficientGCN,
    STGCNPlusPlus,
    _families,
    build,
    load_checkpoint,
    save_checkpoint,
)
from stgcn_fast.models.registry import name_of
from stgcn_fast.nn._bones import bone_graph
from stgcn_fast.nn._fusion import compiled
from twins import agcn, ctr_gcn, efficient_gcn, pyskl
from twins.common import NTU_BONES, adjacency, lively

CLASSES = 5
WIDTHS = (64, 64, 96)  # strides 1, 1 and 2


def ten_units(unit: Callable[..., nn.Module], channels: int, joints: int, persons: int) -> nn.Module:
    """The frame of the public 2s-AGCN and CTR-GCN around units."""
    model = nn.Module()
    model.data_bn = nn.BatchNorm1d(persons * channels * joints)
    widths = [16] * 4 + [32] * 3 + [64] * 3
    for i, width in enumerate(widths):
        before = widths[i - 1] if i else channels
        setattr(model, f"l{i + 1}", unit(before, width, 2 if i in (4, 7) else 1, i > 0))
    model.fc = nn.Linear(64, CLASSES)
    return model


def forward_ten(model: nn.Module, x: Tensor) -> Tensor:
    n, c, t, v, m = x.shape
    y = model.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
    y = y.view(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
    for i in range(1, 11):
        y = getattr(model, f"l{i}")(y)
    return model.fc(y.view(n, m, y.shape[1], -1).mean(3).mean(1))


def plain_pyskl(plus: bool, joints: int = 17) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model = pyskl.STGCN(adjacency(joints), CLASSES, 2, WIDTHS, plus=plus)
    return model, lambda x: model(x.permute(0, 4, 2, 3, 1))


def plain_agcn() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    A = bone_graph(stgcn_fast.graph.get_layout("ntu25"))  # no key holds it

    def unit(inputs: int, outputs: int, stride: int, residual: bool) -> nn.Module:
        return agcn.TCN_GCN_unit(agcn.unit_gcn(inputs, outputs, A), inputs, outputs, stride, residual)

    model = ten_units(unit, 3, 25, 2)
    return model, lambda x: forward_ten(model, x)


def plain_aagcn() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    def unit(inputs: int, outputs: int, stride: int, residual: bool) -> nn.Module:
        gcn = agcn.unit_aagcn(inputs, outputs, adjacency(20), own=True)
        return agcn.TCN_GCN_unit(gcn, inputs, outputs, stride, residual)

    model = ten_units(unit, 3, 20, 1)
    return model, lambda x: forward_ten(model, x)


def plain_ctr_gcn() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model = ctr_gcn.Model(adjacency(20), CLASSES, 1, 3, 16)
    return model, model


def plain_efficient_gcn(
    kind: str = "sg", ratio: int = 2, frames: int = 2
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    blocks = [(24, 1, 0), (16, 1, 1), (32, frames, 2), (48, 2, 1)]
    model = efficient_gcn.EfficientGCN(adjacency(25), CLASSES, 3, blocks, kind, ratio)
    towards = [20 if joint == 1 else bone for joint, bone in enumerate(NTU_BONES)]
    towards[1], towards[20] = 1, 1  # everything leads to the middle of the spine

    def run(x: Tensor) -> Tensor:
        clips = [efficient_gcn.three_inputs(clip.double().numpy(), towards, 1) for clip in x]
        return model(torch.tensor(np.stack(clips), dtype=x.dtype))

    return model, run


CASES = {
    "ST-GCN (pyskl)": (lambda: plain_pyskl(False), STGCN, (2, 2, 14, 17, 3)),
    "ST-GCN++ (pyskl)": (lambda: plain_pyskl(True), STGCNPlusPlus, (2, 2, 14, 17, 3)),
    "2s-AGCN": (plain_agcn, AGCN, (2, 3, 13, 25, 2)),
    "MS-AAGCN": (plain_aagcn, AAGCN, (2, 3, 13, 20, 1)),
    "CTR-GCN": (plain_ctr_gcn, CTRGCN, (2, 3, 13, 20, 1)),
    "EfficientGCN": (plain_efficient_gcn, EfficientGCN, (2, 3, 13, 25, 2)),
}


def assert_close(found: Tensor, expected: Tensor, limit: float = 1e-5) -> None:
    size = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= limit * size
    assert float(expected.std(0).max()) > 1e-3 * size  # it sees its input


@pytest.mark.parametrize("family", CASES)
def test_equals_the_plain_twin(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, kind, shape = CASES[family]
    plain, run = make()
    lively(plain).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in plain.state_dict().items()}}, tmp_path / "a.pth")
    model, meta = load_checkpoint(tmp_path / "a.pth")
    assert type(model) is kind
    assert meta == {}
    assert not model.training
    x = torch.randn(shape)
    with torch.no_grad():
        expected = run(x)
        assert_close(model(x), expected)
        stgcn_fast.accelerate(model, "inference")
        assert_close(model(x), expected)
    if kind is not STGCN and compiled("graph_conv", "cpu"):
        assert len(stgcn_fast.accelerate(copy.deepcopy(model)).taken) >= 3


@pytest.mark.parametrize("family", [family for family in CASES if family != "ST-GCN (pyskl)"])
def test_keeps_its_own_checkpoints(family: str, tmp_path: Path) -> None:
    make, kind, shape = CASES[family]
    plain, _ = make()
    model = kind.from_state_dict(lively(plain).state_dict()).eval()
    save_checkpoint(tmp_path / "own", model)
    again, _ = load_checkpoint(tmp_path / "own")
    assert type(again) is kind
    assert again.config == model.config
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert type(build(name_of(model), **model.config)) is kind


def test_a_real_checkpoint(test_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "hands.pth"
    shutil.copy(test_data / "checkpoints" / "pyskl_stgcnpp_hagrid.pth", file)
    weights = torch.load(file, map_location="cpu", weights_only=True)
    widths = [weights[f"backbone.gcn.{i}.gcn.bn.weight"].shape[0] for i in range(6)]
    plain = pyskl.STGCN(weights["backbone.gcn.0.gcn.A"], 40, 2, tuple(widths), plus=True).eval()
    plain.load_state_dict(weights)
    model, _ = load_checkpoint(file)
    assert isinstance(model, STGCNPlusPlus)
    assert (model.layout.name, model.num_classes, model.strides) == ("hand21", 40, (1, 1, 1, 1, 1, 2))
    torch.manual_seed(0)
    clips = torch.rand(4, 2, 30, 21, 2) * 2 - 1
    report = stgcn_fast.accelerate(model, "inference")
    layers = {f"backbone.gcn.{i}.gcn" for i in range(6)}
    assert layers <= {row.name for row in report.taken} or not compiled("graph_conv", "cpu")
    with torch.no_grad():
        expected, found = plain(clips.permute(0, 4, 2, 3, 1)), model(clips)
    assert_close(found, expected)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_pyskl_with_a_learnt_adjacency() -> None:
    torch.manual_seed(0)
    plain, run = plain_pyskl(False, 21)
    lively(plain).eval()
    state = plain.state_dict()
    learnt = {k: v for k, v in state.items() if not k.endswith(".PA")}
    for i, block in enumerate(plain.backbone.gcn):
        block.gcn.A.copy_(torch.rand(3, 21, 21) * 0.2)
        block.gcn.PA.data.fill_(1.0)
        learnt[f"backbone.gcn.{i}.gcn.A"] = block.gcn.A.clone()
    x = torch.randn(2, 2, 12, 21, 1)
    model = load_from(learnt)
    assert isinstance(model, STGCN)
    with torch.no_grad():
        assert_close(model(x), run(x))


def load_from(state: dict[str, Tensor]) -> nn.Module:
    return _families.load(state, None).eval()


def test_mmaction() -> None:
    """Its classifier is called ``fc``; version 0.x had the public names under ``backbone.``."""
    plain, run = plain_pyskl(True)
    state = {k.replace("fc_cls", "fc"): v for k, v in lively(plain).eval().state_dict().items()}
    x = torch.randn(2, 2, 14, 17, 1)
    with torch.no_grad():
        assert_close(load_from(state)(x), run(x))
    network = STGCN(CLASSES, layout="openpose18", channels=(8, 8, 16)).eval()
    old = {f"backbone.{k}": v for k, v in network.state_dict().items()}
    old = {k.replace("backbone.fcn.", "cls_head.fc."): v for k, v in old.items()}
    x = torch.randn(2, 3, 14, 18, 2)
    with torch.no_grad():
        torch.testing.assert_close(load_from(old)(x), network(x), rtol=1e-4, atol=1e-5)


def test_ms_g3d() -> None:
    network = MSG3D(CLASSES, width=12, num_gcn_scales=3, num_g3d_scales=2).eval()
    model = load_from({f"module.{k}": v for k, v in network.state_dict().items()})
    assert isinstance(model, MSG3D)
    assert model.config == network.config


@pytest.mark.parametrize(("kind", "ratio"), [("sep", 2), ("sep", 0), ("basic", 1)])
def test_efficient_gcn(kind: str, ratio: int) -> None:
    """Its other temporal layers, gradients, and clips as the public reader makes them."""
    torch.manual_seed(0)
    plain, run = plain_efficient_gcn(kind, ratio, frames=1)
    lively(plain).double()
    model = load_from({f"module.{k}": v for k, v in plain.state_dict().items()}).double()
    expected_blocks = [[24, 1, 0], [16, 1, 1], [32, 1, 2], [48, 2, 1]]
    assert (model.config["blocks"], model.config["layer_type"]) == (expected_blocks, kind)
    x = torch.randn(2, 3, 12, 25, 1, dtype=torch.float64)
    assert torch.equal(model(x), model(model.branches(x)))
    model.train()
    plain.train()
    found, expected = model(x), run(x)
    torch.testing.assert_close(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    other = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, other[name].grad, rtol=1e-6, atol=1e-6, msg=name)
    fixed = {name for name in other if name.endswith("conv.A")}
    assert set(other) - fixed == {name for name, _ in model.named_parameters()}


def test_efficient_gcn_of_other_sizes() -> None:
    model = EfficientGCN(3, layout="hand21", blocks=[(8, 1, 1)], fusion_stage=1, reduction=4)
    x = torch.zeros(1, 3, 1, 21, 1, requires_grad=True)  # absent persons have bones without a direction
    model(x).sum().backward()
    assert x.grad.isfinite().all()
    for wrong, rule in (
        ({"blocks": [(8, 1)]}, "blocks must be"),
        ({"layer_type": "other"}, "layer_type must be one of basic, sep, sg"),
        ({"fusion_stage": 5}, r"fusion_stage must be in \[0, 4\]"),
        ({"ratio": 0}, "ratio must be positive for 'sg'"),
        ({"temporal_kernel": 4}, "temporal_kernel must be odd"),
    ):
        with pytest.raises(ValueError, match=f"EfficientGCN: {rule}"):
            EfficientGCN(3, **wrong)
    state = plain_efficient_gcn()[0].state_dict()
    two = {k: v for k, v in state.items() if not k.startswith("input_branches.2.")}
    with pytest.raises(ValueError, match="state_dict must have 3 input_branches of 2 C channels, got 2 of 6"):
        EfficientGCN.from_state_dict(two)


@pytest.mark.parametrize(
    ("keys", "family", "shown"),
    [
        (["module.input_branches.1.bn.weight"], "PA-ResGCN", "module.input_branches.1.bn.weight"),
        (["l1.gcn1.Linear_weight", "data_bn.weight"], "Shift-GCN", "l1.gcn1.Linear_weight"),
        (["backbone.gcn.0.gcn.pre.0.weight"], "DG-STGCN (pyskl)", "backbone.gcn.0.gcn.pre.0.weight"),
        (["backbone.net.0.gcn1.convs.0.conv1.weight"], "CTR-GCN (pyskl)", "backbone.net.0"),
        (["origin_stream.st_gcn_networks.0.gcn.conv.weight"], "two-stream ST-GCN", "origin_stream"),
    ],
)
def test_a_network_that_cannot_be_built(keys: list[str], family: str, shown: str, tmp_path: Path) -> None:
    torch.save({"model": {key: torch.zeros(2) for key in keys}}, tmp_path / "x.pth")
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert f"x.pth: {family}: network must be one that can be built (" in message
    assert f"got the keys {shown[:20]}" in message
    assert "\n" not in message


@pytest.mark.parametrize("family", CASES)
def test_keys_that_do_not_fit(family: str, tmp_path: Path) -> None:
    make, _, _ = CASES[family]
    state = make()[0].state_dict()
    bias = next(k for k in reversed(state) if k.endswith("running_var"))
    torch.save({k: v for k, v in state.items() if k != bias}, tmp_path / "x.pth")
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert f"x.pth: {family}: state_dict must have all " in message
    assert "\n" not in message
    torch.save({**state, "surprise.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=r"got surprise\.weight"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", [AGCN, AAGCN, CTRGCN, STGCNPlusPlus, EfficientGCN])
def test_bad_arguments(kind: type[nn.Module]) -> None:
    name = kind.__name__
    with pytest.raises(TypeError, match=f"{name}: num_classes must be an integer"):
        kind("3")
    with pytest.raises(ValueError, match=f"{name}: in_channels must be positive"):
        kind(3, 0)
    with pytest.raises(ValueError, match=f"{name}: dropout must be"):
        kind(3, dropout=1.5)
    sizes = {STGCNPlusPlus: {"channels": (12,)}, EfficientGCN: {}}
    small = sizes.get(kind, {"width": 16})
    model = kind(3, layout="hand21", **small)
    with pytest.raises(TypeError, match=f"{name}: x must be a floating point tensor"):
        model(torch.zeros(1, 3, 4, 21, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"{name}: x must be \[N, 3, T, 21, "):
        model(torch.zeros(1, 3, 4, 20, 2))
    with pytest.raises(ValueError, match=f"{name}: x must be"):
        model(torch.zeros(1, 3, 0, 21, 2))
    with pytest.raises(TypeError, match=f"{name}.from_state_dict: state_dict must be a mapping"):
        kind.from_state_dict([])
    with pytest.raises(ValueError, match=f"{name}.from_state_dict: state_dict must have one key"):
        kind.from_state_dict({})
