"""Single layers through the ops, at the shapes of several networks."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from side_by_side import floor, peers
from side_by_side.blocks import LAYOUTS
from side_by_side.measure import Contender, Context, compare, no_grad, within
from stgcn_fast import ops
from stgcn_fast.cli.timing import difference, eager_graph_conv, gradient, gradient_difference
from stgcn_fast.graph import Graph

AGREEMENT = 1e-4


@dataclass(frozen=True)
class GraphShape:
    """A graph convolution: C, O, T, V, K and the form of its adjacency.

    `masked` is a skeleton's sparse adjacency times a learnt mask, `dense` a learnt one, `per_group` a learnt
    one of each of the groups of channels, [K, G, V, V]; `per_sample` [N, K, V, V] and `per_channel`
    [N, K, O, V, V] are computed from the features.
    """

    c: int
    o: int
    frames: int
    joints: int
    partitions: int = 3
    form: str = "masked"
    groups: int = 1

    def __str__(self) -> str:
        more = f" G{self.groups}" * (self.groups > 1)
        return f"graph {self.form} {self.c}-{self.o} T{self.frames} V{self.joints} K{self.partitions}{more}"


@dataclass(frozen=True)
class TemporalShape:
    """A temporal convolution: C, T, V, Γ, stride, dilation, and O where it is not C."""

    c: int
    frames: int
    joints: int
    taps: int = 9
    stride: int = 1
    dilation: int = 1
    outputs: int | None = None

    @property
    def o(self) -> int:
        """O."""
        return self.outputs or self.c

    def __str__(self) -> str:
        more = f" s{self.stride}" * (self.stride > 1) + f" d{self.dilation}" * (self.dilation > 1)
        channels = f"{self.c}-{self.outputs}" if self.outputs else f"{self.c}"
        return f"temporal {channels} T{self.frames} V{self.joints} Γ{self.taps}{more}"


SHAPES: dict[str, list[GraphShape | TemporalShape]] = {
    "ST-GCN": [
        GraphShape(3, 64, 300, 25),
        GraphShape(64, 64, 300, 25),
        GraphShape(64, 128, 300, 25),
        GraphShape(128, 128, 150, 25),
        GraphShape(128, 256, 150, 25),
        GraphShape(256, 256, 75, 25),
        TemporalShape(64, 300, 25),
        TemporalShape(128, 300, 25, stride=2),
        TemporalShape(128, 150, 25),
        TemporalShape(256, 150, 25, stride=2),
        TemporalShape(256, 75, 25),
    ],
    "pyskl ST-GCN": [
        *(GraphShape(c, c, t, 17) for c, t in ((64, 100), (128, 50), (256, 25))),
        *(TemporalShape(c, t, 17) for c, t in ((64, 100), (128, 50), (256, 25))),
        TemporalShape(128, 100, 17, stride=2),
    ],
    "ST-GCN++": [
        *(GraphShape(c, c, t, 17, form="dense") for c, t in ((64, 100), (128, 50), (256, 25))),
        TemporalShape(14, 100, 17, 3),
        TemporalShape(10, 100, 17, 3, dilation=4),
        TemporalShape(21, 50, 17, 3, dilation=2),
        TemporalShape(42, 25, 17, 3, dilation=3),
    ],
    "AAGCN": [
        GraphShape(3, 64, 300, 25, form="per_sample"),
        *(GraphShape(c, c, t, 25, form="per_sample") for c, t in ((64, 100), (128, 50), (256, 25))),
        *(TemporalShape(c, t, 25) for c, t in ((64, 100), (128, 50), (256, 25))),
    ],
    "CTR-GCN": [
        GraphShape(3, 64, 64, 25, form="per_channel"),
        *(GraphShape(c, c, t, 25, form="per_channel") for c, t in ((64, 64), (128, 32), (256, 16))),
        TemporalShape(64, 64, 25, 1, outputs=16),
        TemporalShape(16, 64, 25, 5),
        TemporalShape(32, 32, 25, 5, dilation=2),
        TemporalShape(64, 16, 25, 5, dilation=2),
    ],
    "DC-GCN": [
        GraphShape(64, 64, 100, 25, form="per_group", groups=8),
        *(GraphShape(c, c, t, 25, form="per_group", groups=16) for c, t in ((128, 50), (256, 25))),
    ],
    "MS-G3D": [
        GraphShape(3, 96, 300, 25, 13, "dense"),
        GraphShape(96, 192, 150, 25, 13, "dense"),
        GraphShape(192, 384, 75, 25, 13, "dense"),
        GraphShape(96, 96, 300, 75, 6, "dense"),
        GraphShape(192, 192, 75, 125, 6, "dense"),
        TemporalShape(16, 300, 25, 3),
        TemporalShape(16, 300, 25, 3, dilation=4),
        TemporalShape(32, 300, 25, 3, stride=2),
        TemporalShape(32, 150, 25, 3, dilation=3),
        TemporalShape(64, 75, 25, 3, dilation=2),
        TemporalShape(96, 300, 25, 1, outputs=16),
        TemporalShape(96, 300, 25, 1, stride=2, outputs=16),
        TemporalShape(192, 150, 25, 1, stride=2, outputs=32),
    ],
}


class GraphLayer(nn.Module):
    """A graph convolution as the public codes compose it, on the same parameters as ours.

    Args:
        shape: Sizes.
        way: "product" (1x1 convolution to K * O channels, then einsum), "aggregation" (einsum to K * C
            channels, then a 1x1 convolution) or "ours".
    """

    def __init__(self, shape: GraphShape, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        k, v = shape.partitions, shape.joints
        self.shape, self.way = shape, way
        self.weight = nn.Parameter(torch.randn(k, shape.o, shape.c) / (k * shape.c) ** 0.5)
        self.bias = nn.Parameter(0.1 * torch.randn(k, shape.o))
        self.mask = None
        if shape.form == "masked":
            graph = Graph(LAYOUTS[v], partition="spatial", normalization="column", hop_cap=True)
            self.register_buffer("adjacency", graph.adjacency())
            self.mask = nn.Parameter(torch.rand(k, v, v) + 0.5)
        elif shape.form in ("dense", "per_group"):
            groups = (shape.groups,) * (shape.form == "per_group")
            self.adjacency = nn.Parameter(torch.randn(k, *groups, v, v) / v**0.5)

    def forward(self, x: Tensor, *learnt: Tensor) -> Tensor:
        """[N, C, T, V] (and the adjacency, where it is computed from features) -> [N, O, T, V]."""
        adjacency = learnt[0] if learnt else self.adjacency
        groups = self.shape.groups if self.shape.form == "per_group" else None
        if self.way == "ours":
            return ops.graph_conv(x, self.weight, adjacency, self.bias, self.mask, groups=groups)
        if self.mask is not None:
            adjacency = adjacency * self.mask
        k, o, c = self.weight.shape
        sample = "n" * (adjacency.dim() > 3)
        if self.way == "product":
            weight, bias = self.weight.reshape(k * o, c, 1, 1), self.bias.reshape(-1)
            if adjacency.dim() == 3:
                return eager_graph_conv(x, weight, bias, adjacency)
            z = functional.conv2d(x, weight, bias).unflatten(1, (k, o))
            if groups:
                z = z.unflatten(2, (groups, o // groups))
                return torch.einsum("nkgctv,kgvw->ngctw", z, adjacency).flatten(1, 2)
            channel = "c" * (adjacency.dim() > 4)
            return torch.einsum(f"nkctv,{sample}k{channel}vw->nctw", z, adjacency)
        z = torch.einsum(f"nctv,{sample}kvw->nkctw", x, adjacency).flatten(1, 2)
        y = functional.conv2d(z, self.weight.permute(1, 0, 2).reshape(o, k * c, 1, 1))
        inflow = torch.einsum(f"ko,{sample}kvw->{sample}ow", self.bias, adjacency)
        return y + (inflow if sample else inflow[None])[:, :, None]


class TemporalLayer(nn.Module):
    """A temporal convolution by torch, or by ours on the same parameters."""

    def __init__(self, shape: TemporalShape, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shape, self.way = shape, way
        self.weight = nn.Parameter(
            torch.randn(shape.o, shape.c, shape.taps, 1) / (shape.c * shape.taps) ** 0.5
        )
        self.bias = nn.Parameter(0.1 * torch.randn(shape.o))
        self.padding = shape.dilation * (shape.taps - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, T, V] -> [N, C, T_out, V]."""
        step, apart = self.shape.stride, self.shape.dilation
        if self.way == "ours":
            return ops.temporal_conv(x, self.weight, self.bias, step, self.padding, apart)
        return functional.conv2d(x, self.weight, self.bias, (step, 1), (self.padding, 0), (apart, 1))


class Layer:
    """One layer in all its ways and both memory formats."""

    def __init__(self, shape: GraphShape | TemporalShape, batch: int) -> None:
        torch.manual_seed(1)
        x = torch.randn(batch, shape.c, shape.frames, shape.joints)
        learnt: list[Tensor] = []
        rows = batch * shape.frames
        self.modules: dict[str, nn.Module]
        if isinstance(shape, GraphShape):
            k, v = shape.partitions, shape.joints
            if shape.form == "per_sample":
                learnt = [torch.randn(batch, k, v, v) / v**0.5]
            elif shape.form == "per_channel":
                learnt = [torch.randn(batch, k, shape.o, v, v) / v**0.5]
            own = shape.form in ("per_channel", "per_group")  # channels do not share their adjacency
            ways = ["product"] if own else ["product", "aggregation"]
            self.modules = {way: GraphLayer(shape, way) for way in (*ways, "ours")}
            # Exporters get what the public codes do: MS-G3D aggregates first, the others multiply first.
            self.usual = "aggregation" if k > 3 else "product"
            there = torch.ones(k, v, v) if shape.form != "masked" else self.modules["ours"].adjacency
            self.flop = floor.graph_conv_flop(there, shape.c, shape.o, rows, own)
        else:
            self.modules = {way: TemporalLayer(shape, way) for way in ("torch", "ours")}
            self.usual = "torch"
            rows = batch * (-(-shape.frames // shape.stride)) * shape.joints
            self.flop = floor.temporal_conv_flop(shape.c, shape.o, shape.taps, rows)
        # The network's input needs no gradient.
        self.differentiable = shape.c != 3
        self.inputs = {
            form: [x.clone(memory_format=memory), *(a.clone() for a in learnt)]
            for form, memory in peers.FORMATS.items()
        }
        self.name = str(shape)

    def contenders(self, make: Any) -> list[Contender]:
        """Eager in every way and format, and ours in both formats; `make(module, form)` gives the call."""
        found = []
        for form in self.inputs:
            for way, module in self.modules.items():
                if way == "ours":
                    title = "ours" if form == "channels_last" else "ours contiguous"
                    found.append(Contender(title, make(module, form)))
                else:
                    found.append(Contender(peers.COLUMNS[form], make(module, form), f"{way} first"))
        if not isinstance(self.modules["ours"], GraphLayer):
            found = [Contender(c.name, c.call) for c in found]
        return found


def inference(context: Context, *, shape: GraphShape | TemporalShape, batch: int) -> dict[str, Any]:
    """A layer, forward only."""
    layer = Layer(shape, batch)

    def make(module: nn.Module, form: str) -> Any:
        return no_grad(lambda: module(*layer.inputs[form]))

    with torch.no_grad():
        usual = copy.deepcopy(layer.modules[layer.usual]).double()
        reference = usual(*(x.double() for x in layer.inputs["contiguous"]))
    others = Context(
        context.threads, context.seconds, tuple(p for p in context.peers if p != "eager"), context.peak
    )
    plain = {"contiguous": (layer.modules[layer.usual], layer.inputs["contiguous"])}
    with tempfile.TemporaryDirectory() as folder:
        found = [c for c in layer.contenders(make) if c.ours or "eager" in context.peers]
        found += peers.inference(plain, "float32", others, Path(folder), thorough=False)
        return compare(layer.name, found, context, reference=reference, limit=AGREEMENT, flop=layer.flop)


def training(context: Context, *, shape: GraphShape | TemporalShape, batch: int) -> dict[str, Any]:
    """A layer, forward and backward for input, parameters and adjacency."""
    layer = Layer(shape, batch)
    for inputs in layer.inputs.values():
        inputs[0].requires_grad_(layer.differentiable)
        for learnt in inputs[1:]:
            learnt.requires_grad_()
    with torch.no_grad():
        y = layer.modules["ours"](*layer.inputs["contiguous"])
    torch.manual_seed(2)
    upstream = {form: torch.randn_like(y).contiguous(memory_format=m) for form, m in peers.FORMATS.items()}
    upstream["channels_last"].copy_(upstream["contiguous"])

    def leaves(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        return [x for x in (*inputs, *module.parameters()) if x.requires_grad]

    def make(module: nn.Module, form: str) -> Any:
        inputs, incoming = layer.inputs[form], upstream[form]
        wanted = leaves(module, inputs)
        return lambda: torch.autograd.grad(module(*inputs), wanted, incoming)

    errors: dict[str, float] = {}
    inputs = layer.inputs["contiguous"]
    eager, ours = layer.modules[layer.usual], layer.modules["ours"]
    with torch.no_grad():
        within(f"{layer.name}, output", difference(y, eager(*inputs)), AGREEMENT)
    wanted = gradient(lambda: eager(*inputs), leaves(eager, inputs), upstream["contiguous"])
    for form, own in layer.inputs.items():
        got = gradient(lambda own=own: ours(*own), leaves(ours, own), upstream[form])
        title = f"{layer.name}, gradients, {form}"
        errors[form] = within(title, gradient_difference(got, wanted), AGREEMENT)
    found = [c for c in layer.contenders(make) if c.ours or "eager" in context.peers]
    if "compile" in context.peers:
        module = peers.compiled(copy.deepcopy(layer.modules[layer.usual]))
        found.append(Contender("torch.compile", make(module, "contiguous")))
    flop = layer.flop * (3 if layer.differentiable else 2)
    return compare(layer.name, found, context, errors={"ours": max(errors.values())}, flop=flop)
