"""graph_conv beside the eager composition: 1x1 convolution to K times the channels, then einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.graph import Graph


class Layer(NamedTuple):
    """A layer of a published network."""

    network: str
    form: str
    inputs: int
    outputs: int
    frames: int
    joints: int = 25
    partitions: int = 3
    groups: int = 1

    def __str__(self) -> str:
        return (
            f"{self.network}-{self.form}-{self.inputs}-{self.outputs}"
            f"-T{self.frames}-V{self.joints}-K{self.partitions}"
        )


# "masked": a skeleton's adjacency times a learnable mask; "shared": a dense learnable one.
LAYERS = [
    Layer("ST-GCN", "masked", 3, 64, 300),
    Layer("ST-GCN", "masked", 64, 64, 300),
    Layer("ST-GCN", "masked", 64, 128, 300),
    Layer("ST-GCN", "masked", 128, 128, 150),
    Layer("ST-GCN", "masked", 128, 256, 150),
    Layer("ST-GCN", "masked", 256, 256, 75),
    Layer("ST-GCN pyskl", "masked", 64, 64, 100, 17),
    Layer("ST-GCN pyskl", "masked", 256, 256, 25, 17),
    Layer("ST-GCN pyskl", "masked", 64, 64, 100),
    Layer("ST-GCN pyskl", "masked", 128, 128, 50),
    Layer("ST-GCN pyskl", "masked", 256, 256, 25),
    Layer("ST-GCN++", "shared", 64, 64, 100),
    Layer("ST-GCN++", "shared", 128, 128, 50),
    Layer("ST-GCN++", "shared", 256, 256, 25),
    Layer("AAGCN", "per_sample", 64, 64, 300),
    Layer("AAGCN", "per_sample", 128, 128, 150),
    Layer("AAGCN", "per_sample", 256, 256, 75),
    Layer("AAGCN", "per_sample", 256, 64, 75),
    Layer("CTR-GCN", "per_channel", 64, 64, 64),
    Layer("CTR-GCN", "per_channel", 128, 128, 32),
    Layer("CTR-GCN", "per_channel", 256, 256, 16),
    Layer("MS-G3D", "shared", 3, 96, 300, 25, 13),
    Layer("MS-G3D", "shared", 96, 96, 300, 25, 13),
    Layer("MS-G3D", "shared", 192, 384, 75, 25, 13),
    Layer("MS-G3D", "shared", 96, 96, 100, 75, 6),
    Layer("MS-G3D", "shared", 96, 96, 60, 125, 6),
    Layer("DC-GCN", "per_group", 64, 64, 100, groups=8),
    Layer("DC-GCN", "per_group", 128, 128, 50, groups=16),
    Layer("DC-GCN", "per_group", 256, 256, 25, groups=16),
]
QUICK_LAYERS = [
    layer
    for layer in LAYERS
    if layer[:4] in {("ST-GCN", "masked", c, c) for c in (64, 256)} or layer.inputs == 3 or layer.frames == 16
]
LAYOUTS = {17: "coco17", 25: "ntu25"}
EQUATIONS = {
    "masked": "nkctv,kvw->nctw",
    "shared": "nkctv,kvw->nctw",
    "per_sample": "nkctv,nkvw->nctw",
    "per_channel": "nkctv,nkcvw->nctw",
    "per_group": "nkgctv,kgvw->ngctw",
}
# The same with the joints summed first, where all channels share them: eager's best for narrow inputs.
FIRST_EQUATIONS = {
    "masked": ("nctv,kvw->nkctw", "ko,kvw->ow"),
    "shared": ("nctv,kvw->nkctw", "ko,kvw->ow"),
    "per_sample": ("nctv,nkvw->nkctw", "ko,nkvw->now"),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Operands:
    """One layer's tensors and the two ways to compute it."""

    def __init__(self, layer: Layer, batch: int, memory_format: torch.memory_format) -> None:
        partitions, joints = layer.partitions, layer.joints
        x = torch.randn(batch, layer.inputs, layer.frames, joints)
        # The network's input needs no gradient.
        self.x = x.contiguous(memory_format=memory_format).requires_grad_(layer.inputs != 3)
        self.weight = torch.randn(partitions * layer.outputs, layer.inputs, 1, 1, requires_grad=True)
        self.bias = torch.randn(partitions * layer.outputs, requires_grad=True)
        self.form = layer.form
        self.groups = layer.groups
        shapes = {
            "masked": (partitions, joints, joints),
            "shared": (partitions, joints, joints),
            "per_sample": (batch, partitions, joints, joints),
            "per_channel": (batch, partitions, layer.outputs, joints, joints),
            "per_group": (partitions, layer.groups, joints, joints),
        }
        self.learnt = torch.rand(shapes[layer.form], requires_grad=True)
        self.shape = (partitions, layer.outputs)
        if layer.form == "masked":
            graph = Graph(LAYOUTS[joints], partition="spatial", normalization="column", hop_cap=True)
            self.skeleton = torch.tensor(graph.A, dtype=torch.float32)

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, self.weight, self.bias, self.learnt) if t.requires_grad]

    @property
    def adjacency(self) -> Tensor:
        return self.skeleton * self.learnt if self.form == "masked" else self.learnt

    def eager(self) -> Tensor:
        z = torch.nn.functional.conv2d(self.x, self.weight, self.bias)
        z = z.view(len(z), *self.shape, *z.shape[2:])
        if self.form == "per_group":
            z = z.view(*z.shape[:2], self.groups, -1, *z.shape[3:])
            return torch.einsum(EQUATIONS[self.form], z, self.adjacency).flatten(1, 2)
        return torch.einsum(EQUATIONS[self.form], z, self.adjacency)

    def eager_joints_first(self) -> Tensor:
        joints, inflow = FIRST_EQUATIONS[self.form]
        adjacency, (partitions, outputs) = self.adjacency, self.shape
        sums = torch.einsum(joints, self.x, adjacency).flatten(1, 2)
        weight = self.weight.view(partitions, outputs, -1).transpose(0, 1).reshape(outputs, -1, 1, 1)
        brought = torch.einsum(inflow, self.bias.view(self.shape), adjacency)
        return torch.nn.functional.conv2d(sums, weight) + brought.unsqueeze(-2)

    def ours(self) -> Tensor:
        weight = self.weight.view(*self.shape, -1)
        bias = self.bias.view(self.shape)
        if self.form == "masked":
            return ops.graph_conv(self.x, weight, self.skeleton, bias, self.learnt)
        groups = self.groups if self.form == "per_group" else None
        return ops.graph_conv(self.x, weight, self.learnt, bias, groups=groups)


WAYS: dict[str, Callable[[Operands], Tensor]] = {
    "ours": Operands.ours,
    "eager": Operands.eager,
    "eager_joints_first": Operands.eager_joints_first,
}


def check(operands: Operands, run: Callable[[Operands], Tensor]) -> Tensor:
    """Assert that a way agrees with eager, in value and gradients; returns an upstream gradient."""
    expected, actual = operands.eager(), run(operands)
    upstream = torch.randn_like(actual)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    wanted = torch.autograd.grad(expected, operands.leaves, upstream)
    for grad, want in zip(torch.autograd.grad(actual, operands.leaves, upstream), wanted):
        torch.testing.assert_close(grad, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())
    return upstream


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["forward", "training"])
def test_graph_conv(
    benchmark: Any, layer: Layer, batch: int, memory_format: str, way: str, step: str
) -> None:
    if way == "eager_joints_first" and layer.form not in FIRST_EQUATIONS:
        pytest.skip("channels do not share the sum over joints")
    operands = Operands(layer, batch, FORMATS[memory_format])
    run = WAYS[way]
    upstream = check(operands, run)

    def forward() -> None:
        with torch.no_grad():
            run(operands)

    def training() -> None:
        torch.autograd.grad(run(operands), operands.leaves, upstream)

    benchmark.group = f"graph_conv {step} {layer} N{batch}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark(forward if step == "forward" else training)
