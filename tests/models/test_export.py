"""Networks for other programs: torch.export, ONNX Runtime, AOTInductor."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast.models import (
    AGCN,
    CTRGCN,
    MSG3D,
    STF,
    STGCN,
    EfficientGCN,
    STGCNPlusPlus,
    export,
)
from stgcn_fast.nn._fusion import compiled
from twins.common import lively

# Raised by torch itself while it compiles and exports.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
SHAPES = [(1, 3), (1, 7), (4, 16), (3, 33)]
JOINTS = 21
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def clip(n: int, t: int) -> Tensor:
    return torch.randn(n, 3, t, JOINTS, 2)


def plain() -> nn.Module:
    model = STGCN(4, layout="hand21", channels=(8, 16), temporal_kernel=3)
    return lively(model).eval()


def optimized() -> nn.Module:
    return stgcn_fast.optimize(plain())


def accelerated() -> nn.Module:
    model = lively(STGCNPlusPlus(4, layout="hand21", channels=(24,))).eval()
    report = stgcn_fast.accelerate(model, "inference")
    assert report.taken or not compiled("graph_conv", "cpu")
    return model


class Several(nn.Module):
    """Networks side by side, exported and compiled once."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([network(x) for network in self.networks], 1)


def first_units(model: nn.Module, width: int, units: int = 1) -> nn.Module:
    """A network of ten units without all but the first, to be exported sooner."""
    for i in range(units + 1, 11):
        setattr(model, f"l{i}", nn.Identity())
    model.fc = nn.Linear(width, 4)
    return model


def ms_g3d() -> nn.Module:
    return MSG3D(4, layout="hand21", width=6, num_gcn_scales=3, num_g3d_scales=2)


def stf(backbone: str) -> nn.Module:
    small = {"ms_g3d": {"width": 6, "num_gcn_scales": 3, "num_g3d_scales": 2}, "st_gcn": {"width": 0.125}}
    return STF(4, layout="hand21", backbone=backbone, backbone_options=small[backbone])


OTHERS = {
    "AGCN": lambda: first_units(AGCN(4, layout="hand21", width=16), 16, 2),
    "CTRGCN": lambda: first_units(CTRGCN(4, layout="hand21", width=16), 16, 2),
    "MSG3D": ms_g3d,
    "STF on MS-G3D": lambda: stf("ms_g3d"),
    "STF on ST-GCN": lambda: stf("st_gcn"),
    "EfficientGCN": lambda: EfficientGCN(4, layout="hand21", blocks=[(16, 1, 1), (16, 2, 1)], fusion_stage=1),
}


@torch.no_grad()
@pytest.mark.parametrize("make", [optimized, accelerated])
def test_program(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    program = export.export_program(model, clip(1, 20))
    assert any("stgcn_fast" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "a.pt2")
    loaded = torch.export.load(tmp_path / "a.pt2")
    apart = export.export_program(model, clip(2, 3), plain=True)
    assert not any("stgcn_fast" in str(node.target) for node in apart.graph.nodes)
    for n, t in SHAPES:
        x = clip(n, t)
        expected = model(x)
        torch.testing.assert_close(loaded.module()(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(apart.module()(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript and onnxruntime are not installed")
def test_onnx(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    model = Several(plain(), accelerated()).eval()
    path = export.export_onnx(model, tmp_path / "a.onnx", clip(2, 9))
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [x.name for x in (*session.get_inputs(), *session.get_outputs())] == ["clips", "logits"]
    for n, t in SHAPES:
        x = clip(n, t)
        found = session.run(None, {"clips": x.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_ahead_of_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Several(optimized(), accelerated()).eval()
    path = export.export_package(model, tmp_path / "a.pt2", clip(2, 9))
    run = torch._inductor.aoti_load_package(str(path))
    for n, t in SHAPES:
        x = clip(n, t)
        torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name: str) -> None:
    """One program for any N and T, of what optimize makes of it, if it does."""
    torch.manual_seed(0)
    model = lively(OTHERS[name]()).eval()
    example = clip(1, 20)
    fast = model if name == "STF on ST-GCN" else stgcn_fast.optimize(model, example)
    program = export.export_program(fast, example).module()
    for n, t in SHAPES[1:]:
        x = clip(n, t)
        expected = model(x)
        scale = float(expected.abs().max().clamp_min(1))
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5 * scale)


@torch.no_grad()
@pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript and onnxruntime are not installed")
def test_other_networks_as_onnx(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    unit = first_units(CTRGCN(4, layout="hand21", width=8), 8)
    model = MSG3D(4, layout="hand21", width=6, num_gcn_scales=2, num_g3d_scales=2, window_sizes=(3,))
    for i in (2, 3):  # its first block is enough
        for part in ("sgcn", "gcn3d", "tcn"):
            setattr(model, f"{part}{i}", nn.Identity())
    model.fc = nn.Linear(6, 4)
    both = lively(Several(unit, model)).eval()
    path = export.export_onnx(both, tmp_path / "a.onnx", clip(2, 9))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for n, t in SHAPES[1:]:
        x = clip(n, t)
        expected = both(x)
        found = torch.from_numpy(session.run(None, {"clips": x.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


class Fixed(nn.Module):
    """Makes a number of its batch size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3, 4)) + torch.ones(int(x.shape[0]))


def test_a_network_of_fixed_sizes() -> None:
    model, x = Fixed().eval(), clip(3, 8)
    with pytest.raises(ValueError, match=r"dynamic must be False .*, got True for Fixed"):
        export.export_program(model, x)
    program = export.export_program(model, x, dynamic=False)
    torch.testing.assert_close(program.module()(x), model(x))


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain()
    x = clip(1, 4)
    for call, name in (
        (lambda *a: export.export_program(*a), "export_program"),
        (lambda m, e: export.export_onnx(m, tmp_path / "a.onnx", e), "export_onnx"),
        (lambda m, e: export.export_package(m, tmp_path / "a.pt2", e), "export_package"),
    ):
        with pytest.raises(TypeError, match=f"{name}: model must be a torch.nn.Module, got str"):
            call("model", x)
        with pytest.raises(ValueError, match=f"{name}: model must be in evaluation mode, got training mode"):
            call(plain().train(), x)
        with pytest.raises(TypeError, match=rf"{name}: example must be a floating point tensor, got"):
            call(model, x.long())
        for shape in ((3, 4, 21, 2), (0, 3, 4, 21, 2)):
            with pytest.raises(ValueError, match=rf"{name}: example must be \[N, C, T, V, M\] and not empty"):
                call(model, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"export_package: path must end in \.pt2, got 'a\.so'"):
        export.export_package(model, tmp_path / "a.so", x)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'onnx must be installed: pip install "stgcn_fast\[export\]"'):
        export.export_onnx(model, tmp_path / "a.onnx", x)
    assert not list(tmp_path.iterdir())
