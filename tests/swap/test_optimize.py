"""optimize: networks of other code bases, folded for inference, against themselves."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast import swap
from stgcn_fast.models import MSG3D
from stgcn_fast.swap import Folded
from twins import agcn, block_gcn, ctr_gcn, dc_gcn, hd_gcn, ms_g3d, partitioned, pyskl, pyskl_ctr_gcn, st_gcn
from twins.common import adjacency, lively

A = adjacency(7)
WIDTHS = (16, 16, 32)
Make = Callable[[], nn.Module]


def bones() -> Tensor:
    near = (A.sum(0) + A.sum(0).T > 0).float()
    return near - torch.eye(len(near))


def clip(*shape: int) -> Tensor:
    return torch.randn(shape)


LAST, FIRST = (2, 2, 13, 7, 3), (2, 3, 13, 7, 2)  # [N, M, T, V, C] and [N, C, T, V, M]
NETWORKS: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "pyskl ST-GCN": (lambda: pyskl.STGCN(A, 5, widths=WIDTHS), LAST, "WholeBlock"),
    "ST-GCN++": (lambda: pyskl.STGCN(A, 5, widths=WIDTHS, plus=True), LAST, "Unit"),
    "ST-GCN": (lambda: st_gcn.Model(3, classes=4, joints=7, widths=WIDTHS, taps=5), FIRST, "WholeBlock"),
    "2s-AGCN": (lambda: agcn.Model(A, agcn.unit_gcn, 5, width=8), FIRST, "Unit"),
    "MS-AAGCN": (lambda: agcn.Model(A, agcn.unit_aagcn, 5, width=8), FIRST, "Unit"),
    "CTR-GCN": (lambda: ctr_gcn.Model(A, 5, width=16), FIRST, "Unit"),
    "MS-G3D": (lambda: ms_g3d.Model(bones(), 5, width=12), FIRST, "WindowsOfScales"),
}
LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "pyskl unit_gcn": (lambda: pyskl.unit_gcn(8, 12, A, with_res=True), (2, 8, 9, 7)),
    "pyskl unit_gcn, post": (lambda: pyskl.unit_gcn(8, 12, A, conv_pos="post"), (2, 8, 9, 7)),
    "pyskl mstcn": (lambda: pyskl.mstcn(16, 24, stride=2), (2, 16, 9, 7)),
    "pyskl CTRGCNBlock": (lambda: pyskl_ctr_gcn.CTRGCNBlock(16, 32, A, 2), (2, 16, 9, 7)),
    "aagcn without attention": (lambda: agcn.unit_aagcn(4, 8, A, attention=False), (2, 4, 9, 7)),
    "aagcn, fixed": (lambda: agcn.unit_aagcn(8, 8, A, adaptive=False), (2, 8, 9, 7)),
    "aagcn, 18 joints": (lambda: agcn.unit_aagcn(4, 8, adjacency(18), own=True), (2, 4, 9, 18)),
    "GCN-NAS": (lambda: agcn.unit_gtcn_12(16, 8, A), (2, 16, 9, 7)),
    "UNIK": (lambda: agcn.S_LSU(4, 8, 7), (2, 4, 9, 7)),
    "PST-GCN": (lambda: partitioned.GraphConvolution(4, 8, A), (2, 4, 9, 7)),
    "EfficientGCN": (lambda: partitioned.SpatialGraphConv(4, 6, 2, A, bias=True, edge=True), (2, 4, 9, 7)),
    "MS-TCN": (lambda: ms_g3d.MS_TCN(12, 12), (2, 12, 9, 7)),
    "MS-TCN, strided": (lambda: ms_g3d.MS_TCN(12, 24, stride=2), (2, 12, 9, 7)),
    "DC-GCN": (lambda: dc_gcn.unit_gcn(8, 16, A + 1, 4), (2, 8, 9, 7)),
    "BlockGCN": (lambda: block_gcn.TCN_GCN_unit(16, 16, A, 1), (2, 16, 9, 7)),
    "HD-GCN": (lambda: hd_gcn.TCN_GCN_unit(16, 16, hd_gcn.hierarchy(), 1, True, True), (2, 16, 9, 25)),
}


def as_it_is(model: nn.Module, x: Tensor) -> Tensor:
    """The model's own outputs; 2s-AGCN sends a loose tensor to the device of its input by number."""
    with torch.no_grad():
        return swap.inference.portable(model)(x)


def close(found: Tensor, expected: Tensor, limit: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, str]:
    make, shape, layer = NETWORKS[request.param]
    return lively(make()).eval(), clip(*shape), layer


def test_networks(network: tuple[nn.Module, Tensor, str]) -> None:
    model, x, layer = network
    before = copy.deepcopy(model.state_dict())
    classes = [type(part) for part in model.modules()]
    expected = as_it_is(model, x)
    for example in (None, x):
        fast = stgcn_fast.optimize(model, example)
        assert layer in {type(part).__name__ for part in fast.modules()}
        assert not any(p.requires_grad for p in fast.parameters())
        with torch.no_grad():
            close(fast(x), expected)
            close(fast(x[:1]), as_it_is(model, x[:1]))
    assert {type(part).__name__ for part in fast.modules()} & {"Unit", "WholeBlock", "WindowsOfScales"}
    assert [type(part) for part in model.modules()] == classes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in fast.parameters()}
    assert not shared
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        close(fast(x), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = lively(make()).eval(), clip(*shape)
    expected = as_it_is(layer, x)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        fast = stgcn_fast.optimize(layer, given)
        with torch.no_grad():
            close(fast(given), expected)


def test_our_own_msg3d() -> None:
    model = lively(
        MSG3D(num_classes=5, layout="natops8", width=12, num_gcn_scales=3, num_g3d_scales=2)
    ).eval()
    x = clip(1, 3, 9, 8, 2)
    fast = stgcn_fast.optimize(model, x)
    assert any(isinstance(part, Folded) for part in fast.modules())
    with torch.no_grad():
        close(fast(x), model(x))


def test_float64() -> None:
    model, x = lively(ctr_gcn.Model(A, 5, width=16)).eval(), clip(*FIRST)
    expected = as_it_is(copy.deepcopy(model).double(), x.double())
    fast = stgcn_fast.optimize(model, x, torch.float64)
    with torch.no_grad():
        close(fast(x.double()), expected, 1e-12)


class Unpacking(nn.Module):
    """Code around a unit that only works on contiguous features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = pyskl.STGCNBlock(8, 8, A)
        self.second = pyskl.STGCNBlock(8, 8, A)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y.view(y.shape[0], -1, *y.shape[3:]).view(y.shape))


def test_formats_follow_what_the_models_own_code_takes() -> None:
    model, x = lively(Unpacking()).eval(), clip(2, 8, 9, 7)
    for example in (None, x):
        fast = stgcn_fast.optimize(model, example)
        assert not fast.first.packed
        with torch.no_grad():
            close(fast(x), model(x))
    chain = lively(pyskl.STGCN(A, 5, widths=WIDTHS)).eval()
    fast = stgcn_fast.optimize(chain, clip(*LAST))
    assert all(part.packed for part in fast.modules() if isinstance(part, Folded))


def test_copies_pickles_and_compiled_graphs() -> None:
    model, x = lively(pyskl.STGCN(A, 5, widths=(16, 16), plus=True)).eval(), clip(*LAST)
    fast = stgcn_fast.optimize(model, x)
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    with torch.no_grad():
        expected = fast(x)
        for again in (copy.deepcopy(fast), torch.load(buffer, weights_only=False)):
            assert torch.equal(again(x), expected)
        torch._dynamo.reset()
        close(torch.compile(fast, fullgraph=True, backend="aot_eager")(x), expected)
        close(torch.export.export(fast, (x,)).module()(x), expected)
    fast.load_state_dict({name: torch.zeros_like(value) for name, value in fast.state_dict().items()})
    with torch.no_grad():
        assert not fast(x).any()


def test_gradients_by_the_input() -> None:
    model, x = lively(pyskl.STGCN(A, 5, widths=(16, 16), plus=True)).eval(), clip(*LAST)
    fast = stgcn_fast.optimize(model, x)
    wanted, found = (
        torch.autograd.grad(m(y).sum(), y)[0] for m, y in ((model, x.requires_grad_()), (fast, x))
    )
    close(found, wanted, 1e-3)


def test_a_watched_layer_is_left_alone() -> None:
    model, x = lively(pyskl.STGCN(A, 5, widths=WIDTHS, plus=True)).eval(), clip(*LAST)
    seen: list[Any] = []
    model.backbone.gcn[1].gcn.register_forward_hook(lambda *arguments: seen.append(arguments[1]))
    fast = stgcn_fast.optimize(model, x)
    assert not isinstance(fast.backbone.gcn[1], Folded)
    seen.clear()
    with torch.no_grad():
        close(fast(x), model(x))
    assert len(seen) == 2


def test_another_forward_is_left_alone() -> None:
    class STGCNBlock(pyskl.STGCNBlock):
        def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
            return 2 * super().forward(x, A)

    layer, x = lively(STGCNBlock(8, 8, A, plus=True)).eval(), clip(2, 8, 9, 7)
    fast = stgcn_fast.optimize(layer, x)
    assert type(fast).__name__ == "STGCNBlock"
    with torch.no_grad():
        close(fast(x), layer(x))


class Mine(nn.Module):
    """A layer of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)
        self.bn = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


@pytest.mark.parametrize("folds", [True, False, None])
def test_adapters_of_users(folds: bool | None) -> None:
    def run(module: Any, plain: Any, x: Tensor) -> Any:
        return plain(module, x)

    def fold(module: Any, dtype: torch.dtype) -> nn.Module | None:
        if folds is None:
            return None
        fused = torch.nn.utils.fuse_conv_bn_eval(module.conv, module.bn)
        if not folds:  # a mistake
            fused.bias.data.add_(1)
        return fused.to(dtype)

    def match(module: nn.Module) -> bool:
        return type(module) is Mine

    def example(module: Any) -> tuple[Tensor, ...]:
        return (clip(2, 16, 5, 3),)

    swap.register_adapter(swap.Adapter("mine.layer", "Mine", match, run, example, fold=fold))
    try:
        model, x = lively(nn.Sequential(Mine(), nn.ReLU())).eval(), clip(2, 16, 5, 3)
        fast = stgcn_fast.optimize(model, x)
        with torch.no_grad():
            close(fast(x), model(x))
        assert (type(fast[0]) is nn.Conv2d) == bool(folds)
        swap.unregister_adapter("mine.layer")
        only = swap.Adapter("mine.layer", "Mine", match, run, example, (), fold=fold)
        swap.register_adapter(only)
        assert not swap.accelerate(model).rows
    finally:
        swap.unregister_adapter("mine.layer")


def test_bad_input() -> None:
    model = lively(pyskl.STGCN(A, 5, widths=(16,))).eval()
    x = clip(*LAST)
    for arguments, kind, message in (
        (
            (nn.Linear(2, 2),),
            TypeError,
            "model must be one of STGCN or hold layers of a known family, got Linear",
        ),
        (
            (copy.deepcopy(model).train(),),
            ValueError,
            "model must be in evaluation mode, got one in training mode",
        ),
        (
            (copy.deepcopy(model).to("meta"),),
            ValueError,
            "model must hold its tensors, got .* on the meta device",
        ),
        ((model, [1.0]), TypeError, "example must be a tensor, got list"),
        (
            (model, None, torch.bfloat16),
            TypeError,
            "dtype must be None, torch.float32 or torch.float64 for STGCN",
        ),
    ):
        with pytest.raises(kind, match=f"optimize: {message}"):
            stgcn_fast.optimize(*arguments)
    with pytest.raises(TypeError, match="optimize: fast_temporal must be a bool, got int"):
        stgcn_fast.optimize(model, fast_temporal=1)
    with pytest.raises(RuntimeError, match="optimize: mode must be evaluation"):
        stgcn_fast.optimize(model, x).train()
    with pytest.raises(ValueError, match=r"adapter.modes must be among"):
        swap.register_adapter(swap.Adapter("none", "none", lambda m: False, lambda m, p: p, None, ()))
