"""Layers of the families that `stgcn_fast.swap` knows, at the sizes of their papers."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from side_by_side.measure import within
from stgcn_fast import swap
from stgcn_fast.cli.timing import difference

_TWINS = Path(__file__).resolve().parents[2] / "tests" / "compat"
SAMPLES = 2
"""Two persons of one clip."""
OUTPUT_LIMIT, EXACT_LIMIT = 1e-4, 1e-9


class Case(NamedTuple):
    """One layer: `make(twins)` builds it, `inputs()` its random inputs."""

    family: str
    layer: str
    module: str
    make: Callable[[Any, Tensor], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]

    def __str__(self) -> str:
        return f"{self.family} {self.layer}"

    def build(self) -> nn.Module:
        """The layer with weights of trained size."""
        common = twins("common")
        torch.manual_seed(0)
        module: nn.Module = common.lively(self.make(twins(self.module), common.adjacency()))
        for name, tensor in module.named_parameters():
            if name.endswith("DecoupleA"):
                tensor.data.abs_()  # columns are divided by their sums
        return module


def twins(name: str) -> Any:
    """A module of `tests/compat/twins`."""
    if str(_TWINS) not in sys.path:
        sys.path.append(str(_TWINS))
    return import_module(f"twins.{name}")


def _clip(channels: int, frames: int, samples: int = SAMPLES) -> tuple[Tensor, ...]:
    return (torch.randn(samples, channels, frames, 25),)


def _clip_and_graph(channels: int, frames: int, partitions: int = 3) -> tuple[Tensor, ...]:
    return (*_clip(channels, frames), twins("common").adjacency(25, partitions))


def _joints_first(channels: int, frames: int) -> tuple[Tensor, ...]:
    return torch.randn(8, channels, 25, frames), torch.rand(8, frames, 25, 25)


def _sized(
    family: str,
    module: str,
    make: Callable[[Any, Tensor, int, int], nn.Module],
    sizes: list[tuple[int, int, int]],
    inputs: Callable[..., tuple[Tensor, ...]] = _clip,
    note: str = "",
) -> list[Case]:
    """Cases of one layer for (C, O, T)."""

    def made(inputs_: int, outputs: int, t: Any, A: Tensor) -> nn.Module:
        return make(t, A, inputs_, outputs)

    return [
        Case(family, f"{note}{c} to {o}, T {t}", module, partial(made, c, o), partial(inputs, c, t))
        for c, o, t in sizes
    ]


_NTU = [(3, 64, 300), (64, 64, 300), (64, 128, 300), (128, 128, 150), (256, 256, 75)]
_PYSKL = [(3, 64, 100), (64, 64, 100), (64, 128, 100), (128, 128, 50), (256, 256, 25)]
_WIDE = [(64, 64, 300), (256, 256, 75)]
_INFO = [(64, 64, 64), (128, 128, 32), (256, 256, 16)]


def _step(inputs: int, outputs: int) -> int:
    return 2 if 3 < inputs < outputs else 1


def _around(t: Any, gcn: nn.Module, c: int, o: int) -> nn.Module:
    block: nn.Module = t.TCN_GCN_unit(gcn, c, o, _step(c, o), c > 3)
    return block


def _clips(joints_last: bool) -> tuple[Tensor, ...]:
    """Two clips of two persons and 100 frames, ``[N, C, T, V, M]`` or ``[N, M, T, V, C]``."""
    x = torch.randn(2, 3, 100, 25, 2)
    return (x.permute(0, 4, 2, 3, 1).contiguous(),) if joints_last else (x,)


def _bones(A: Tensor) -> Tensor:
    """Bones both ways, ``[V, V]``, without self-loops."""
    near = (A.sum(0) + A.sum(0).T > 0).float()
    return near - torch.eye(len(near))


def _filters(A: Tensor) -> Tensor:
    """Eight random maps, as DG-STGCN begins with."""
    return torch.randn(8, 25, 25) * 0.02 + 0.04


_CTR = [(3, 64, 64), (64, 64, 64), (64, 128, 64), (128, 128, 32), (256, 256, 16)]
_G3D = [(3, 96, 300), (96, 192, 300), (192, 384, 150)]


CASES: list[Case] = [
    Case("ST-GCN", "network", "st_gcn", lambda t, A: t.Model(), partial(_clips, False)),
    Case("ST-GCN (pyskl)", "network", "pyskl", lambda t, A: t.STGCN(A, 60), partial(_clips, True)),
    Case("ST-GCN++", "network", "pyskl", lambda t, A: t.STGCN(A, 60, plus=True), partial(_clips, True)),
    *_sized(
        "ST-GCN",
        "st_gcn",
        lambda t, A, c, o: t.st_gcn(c, o, (9, 3), _step(c, o), residual=c > 3),
        _NTU,
        _clip_and_graph,
    ),
    *_sized("ST-GCN (pyskl)", "pyskl", lambda t, A, c, o: t.STGCNBlock(c, o, A, _step(c, o), c > 3), _PYSKL),
    *_sized(
        "ST-GCN++", "pyskl", lambda t, A, c, o: t.STGCNBlock(c, o, A, _step(c, o), c > 3, plus=True), _PYSKL
    ),
    *_sized("2s-AGCN", "agcn", lambda t, A, c, o: _around(t, t.unit_gcn(c, o, A), c, o), _NTU),
    *_sized("MS-AAGCN", "agcn", lambda t, A, c, o: _around(t, t.unit_aagcn(c, o, A), c, o), _PYSKL),
    *_sized(
        "GCN-NAS",
        "agcn",
        lambda t, A, c, o: _around(t, t.unit_gtcn_12(c, o, A), c, o),
        [(3, 64, 300), (64, 64, 300), (256, 256, 75)],
    ),
    *_sized("UNIK", "agcn", lambda t, A, c, o: _around(t, t.S_LSU(c, o, 25), c, o), _NTU[:2] + _NTU[3:]),
    *_sized("UNIK", "agcn", lambda t, A, c, o: t.S_LSU(c, o, 25, 3), [(64, 64, 100)], note="tau 3, "),
    *_sized(
        "KTH",
        "partitioned",
        lambda t, A, c, o: t.SpatialTemporalConv(c, o, A, 9, _step(c, o)),
        [(2, 64, 300), (64, 64, 300), (256, 256, 75)],
    ),
    *_sized(
        "PST-GCN",
        "partitioned",
        lambda t, A, c, o: t.GraphConvolution(c, o, A),
        [(3, 64, 300), (20, 40, 300), (64, 64, 300)],
    ),
    *_sized(
        "PA-ResGCN",
        "partitioned",
        lambda t, A, c, o: t.Spatial_Bottleneck_Block(c, o, 2, True),
        [(64, 64, 300), (128, 128, 150), (256, 256, 75)],
        _clip_and_graph,
    ),
    *_sized(
        "EfficientGCN",
        "partitioned",
        lambda t, A, c, o: t.Spatial_Graph_Layer(c, o, 2, A),
        [(6, 64, 288), (48, 64, 144), (128, 128, 72)],
    ),
    *_sized("InfoGCN", "attention", lambda t, A, c, o: t.SA_GC(c, o, A), _INFO),
    *_sized(
        "AdaSGN",
        "attention",
        lambda t, A, c, o: t.gcn_spa(c, o),
        [(64, 128, 20), (128, 256, 20)],
        _joints_first,
    ),
    *[
        Case(
            "DSTA-Net",
            f"{c} to {c}, T {frames}",
            "attention",
            lambda t, A, c=c, frames=frames: t.STAttentionBlock(c, c, c // 4, 3, 25, frames, 5),
            partial(_clip, c, frames),
        )
        for c, frames in ((64, 128), (128, 64), (256, 32))
    ],
    *_sized("Shift-GCN", "shift_gcn", lambda t, A, c, o: t.Shift_gcn(c, o), _WIDE, note="joints, "),
    *_sized("Shift-GCN", "shift_gcn", lambda t, A, c, o: t.Shift_tcn(c, o), _WIDE, note="frames, "),
    *_sized("CTR-GCN", "ctr_gcn", lambda t, A, c, o: t.TCN_GCN_unit(c, o, A, _step(c, o), c > 3), _CTR),
    *_sized(
        "CTR-GCN (pyskl)",
        "pyskl_ctr_gcn",
        lambda t, A, c, o: t.CTRGCNBlock(c, o, A, _step(c, o), c > 3),
        _PYSKL,
    ),
    *_sized(
        "MS-G3D",
        "ms_g3d",
        lambda t, A, c, o: t.MultiScale_GraphConv(13, c, o, _bones(A)),
        [(3, 96, 300), (96, 96, 300), (192, 192, 150)],
        note="scales, ",
    ),
    *_sized(
        "MS-G3D",
        "ms_g3d",
        lambda t, A, c, o: t.MS_G3D(c, o, _bones(A), 6, 3, _step(c, o)),
        _G3D,
        note="tau 3, ",
    ),
    *_sized(
        "MS-G3D",
        "ms_g3d",
        lambda t, A, c, o: t.MS_G3D(c, o, _bones(A), 6, 5, _step(c, o)),
        _G3D,
        note="tau 5, ",
    ),
    *_sized(
        "MS-G3D",
        "ms_tcn",
        lambda t, A, c, o: t.MultiScale_TemporalConv(c, o, stride=_step(c, o)),
        [(96, 96, 300), (96, 192, 300), (384, 384, 75)],
        note="frames, ",
    ),
    *_sized(
        "DC-GCN",
        "dc_gcn",
        lambda t, A, c, o: t.unit_gcn(c, o, A + 1, 8),
        [(3, 64, 150), (64, 64, 150), (128, 128, 75), (256, 256, 38)],
    ),
    *_sized(
        "DG-STGCN",
        "dg_st_gcn",
        lambda t, A, c, o: t.DGBlock(c, o, _filters(A), _step(c, o), c > 3, gcn={"ratio": 0.125}),
        _PYSKL,
    ),
    *_sized(
        "BlockGCN",
        "block_gcn",
        lambda t, A, c, o: t.TCN_GCN_unit(c, o, A, _step(c, o)),
        [(128, 128, 64), (128, 256, 64), (256, 256, 16)],
    ),
    *_sized(
        "HD-GCN",
        "hd_gcn",
        lambda t, A, c, o: t.TCN_GCN_unit(c, o, t.hierarchy(), _step(c, o), c > 3, c > 3),
        _CTR,
    ),
]


def _persons(*shape: int) -> tuple[Tensor, ...]:
    """One clip of random numbers."""
    return (torch.randn(shape),)


NETWORKS: list[Case] = [
    Case("ST-GCN", "T 300", "st_gcn", lambda t, A: t.Model(), partial(_persons, 1, 3, 300, 25, 2)),
    Case(
        "ST-GCN (pyskl)", "T 100", "pyskl", lambda t, A: t.STGCN(A, 60), partial(_persons, 1, 2, 100, 25, 3)
    ),
    Case(
        "ST-GCN++",
        "T 100",
        "pyskl",
        lambda t, A: t.STGCN(A, 60, plus=True),
        partial(_persons, 1, 2, 100, 25, 3),
    ),
    Case(
        "2s-AGCN", "T 100", "agcn", lambda t, A: t.Model(A, t.unit_gcn), partial(_persons, 1, 3, 100, 25, 2)
    ),
    Case("MS-AAGCN", "T 100", "agcn", lambda t, A: t.Model(A), partial(_persons, 1, 3, 100, 25, 2)),
    Case("CTR-GCN", "T 64", "ctr_gcn", lambda t, A: t.Model(A), partial(_persons, 1, 3, 64, 25, 2)),
    Case("MS-G3D", "T 300", "ms_g3d", lambda t, A: t.Model(_bones(A)), partial(_persons, 1, 3, 300, 25, 2)),
]
"""Whole networks, one clip of two bodies, at the lengths of their papers or of pyskl."""


def optimised(case: Case) -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
    """A network that runs anywhere, what `optimize` makes of it, and an input.

    Raises:
        Disagreement: their outputs differ.
    """
    plain = swap.inference.portable(case.build().eval())
    inputs = case.inputs()
    fast = swap.optimize(plain, inputs[0])
    with torch.no_grad():
        expected = exact(plain)(*(x.double() for x in inputs))
        within(f"{case}, optimize", difference(fast(*inputs).double(), expected), OUTPUT_LIMIT)
    return plain, fast, inputs


class Pair(NamedTuple):
    """A layer, itself accelerated, and what the report says."""

    plain: nn.Module
    fast: nn.Module
    inputs: tuple[Tensor, ...]
    taken: tuple[str, ...]


def pair(case: Case) -> Pair:
    """Builds both."""
    plain = case.build()
    fast = copy.deepcopy(plain)
    report = swap.accelerate(fast)
    adapters = dict.fromkeys(row.reason for row in report.taken if row.family != "any")
    return Pair(plain, fast, case.inputs(), tuple(adapters))


def infer(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """One call in evaluation mode."""
    with torch.no_grad():
        out = module(*inputs)
    return out[0] if isinstance(out, tuple) else out


def train(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """One call in training mode, and the gradients of a sum of it."""
    leaf = inputs[0].detach().requires_grad_()
    wanted = [leaf, *(p for p in module.parameters() if p.requires_grad)]
    out = module(leaf, *inputs[1:])
    out = out[0] if isinstance(out, tuple) else out
    found = torch.autograd.grad(out.square().mean(), wanted, allow_unused=True)
    return [out.detach(), *(g if g is not None else torch.zeros(()) for g in found)]


def exact(module: nn.Module) -> nn.Module:
    """A copy in float64, with the tensors that are neither parameters nor buffers."""
    wide = copy.deepcopy(module).double()
    for part in wide.modules():
        for name, value in part.__dict__.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                part.__dict__[name] = value.double()
    return wide


def exact_difference(case: Case) -> float:
    """Difference of all gradients, accelerated and plain, both in float64, relative to their norm."""
    plain = exact(case.build()).train()
    fast = copy.deepcopy(plain)
    swap.accelerate(fast)
    inputs = tuple(x.double() for x in case.inputs())
    truth, found = train(plain, inputs)[1:], train(fast, inputs)[1:]
    error = sum(float((a - b).square().sum()) for a, b in zip(found, truth))
    return (error / sum(float(g.square().sum()) for g in truth)) ** 0.5


def output_difference(both: Pair) -> float:
    """Largest error of the accelerated layer's outputs against float64, relative to values above one."""
    wide, inputs = exact(both.plain), tuple(x.double() for x in both.inputs)
    expected, found = infer(wide.eval(), inputs), infer(both.fast.eval(), both.inputs)
    return float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def differences(both: Pair) -> tuple[float, float, float]:
    """Largest errors against the plain layer in float64.

    Of the accelerated layer's outputs; of its gradients and of the plain layer's in float32, the norm of all
    relative to theirs: a value that rounding moves over the zero of a rectifier changes a few entries, of
    either.
    """
    output = output_difference(both)
    wide, inputs = exact(both.plain), tuple(x.double() for x in both.inputs)
    truth = train(wide.train(), inputs)[1:]
    size = sum(float(g.square().sum()) for g in truth)
    errors = []
    for module in (both.fast, both.plain):
        found_all = train(module.train(), both.inputs)[1:]
        error = sum(float((a - b).square().sum()) for a, b in zip(found_all, truth))
        errors.append((error / size) ** 0.5)
    return output, errors[0], errors[1]
