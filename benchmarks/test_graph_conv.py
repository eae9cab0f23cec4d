"""graph_conv beside the eager composition: 1x1 convolution to K times the channels, then einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.graph import Graph

JOINTS, PARTITIONS = 25, 3


class Layer(NamedTuple):
    """A layer of the official ST-GCN on NTU RGB+D."""

    inputs: int
    outputs: int
    frames: int

    def __str__(self) -> str:
        return f"{self.inputs}-{self.outputs}-T{self.frames}"


LAYERS = [
    Layer(3, 64, 300),
    Layer(64, 64, 300),
    Layer(64, 128, 300),
    Layer(128, 128, 150),
    Layer(128, 256, 150),
    Layer(256, 256, 75),
]
QUICK_LAYERS = [Layer(3, 64, 300), Layer(64, 64, 300), Layer(256, 256, 75)]
FORMS = ["masked", "per_sample", "per_channel"]
EQUATIONS = {
    "masked": "nkctv,kvw->nctw",
    "per_sample": "nkctv,nkvw->nctw",
    "per_channel": "nkctv,nkcvw->nctw",
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Operands:
    """One layer's tensors and the two ways to compute it."""

    def __init__(self, layer: Layer, batch: int, form: str, memory_format: torch.memory_format) -> None:
        x = torch.randn(batch, layer.inputs, layer.frames, JOINTS)
        # The network's input needs no gradient.
        self.x = x.contiguous(memory_format=memory_format).requires_grad_(layer.inputs != 3)
        self.weight = torch.randn(PARTITIONS * layer.outputs, layer.inputs, 1, 1, requires_grad=True)
        self.bias = torch.randn(PARTITIONS * layer.outputs, requires_grad=True)
        self.form = form
        graph = Graph("ntu25", partition="spatial", normalization="column", hop_cap=True)
        self.adjacency = torch.tensor(graph.A, dtype=torch.float32)
        shapes = {
            "masked": (PARTITIONS, JOINTS, JOINTS),
            "per_sample": (batch, PARTITIONS, JOINTS, JOINTS),
            "per_channel": (batch, PARTITIONS, layer.outputs, JOINTS, JOINTS),
        }
        self.learnt = torch.rand(shapes[form], requires_grad=True)
        self.shape = (PARTITIONS, layer.outputs)

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, self.weight, self.bias, self.learnt) if t.requires_grad]

    def eager(self) -> Tensor:
        z = torch.nn.functional.conv2d(self.x, self.weight, self.bias)
        z = z.unflatten(1, self.shape)
        adjacency = self.adjacency * self.learnt if self.form == "masked" else self.learnt
        return torch.einsum(EQUATIONS[self.form], z, adjacency)

    def ours(self) -> Tensor:
        weight = self.weight.view(*self.shape, -1)
        bias = self.bias.view(self.shape)
        if self.form == "masked":
            return ops.graph_conv(self.x, weight, self.adjacency, bias, self.learnt)
        return ops.graph_conv(self.x, weight, self.learnt, bias)


def check(operands: Operands) -> Tensor:
    """Assert that both ways agree, in value and gradients; returns an upstream gradient."""
    expected, actual = operands.eager(), operands.ours()
    upstream = torch.randn_like(actual)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    wanted = torch.autograd.grad(expected, operands.leaves, upstream)
    for grad, want in zip(torch.autograd.grad(actual, operands.leaves, upstream), wanted):
        torch.testing.assert_close(grad, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())
    return upstream


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("way", ["ours", "eager"])
@pytest.mark.parametrize("step", ["forward", "training"])
def test_graph_conv(
    benchmark: Any, layer: Layer, batch: int, form: str, memory_format: str, way: str, step: str
) -> None:
    operands = Operands(layer, batch, form, FORMATS[memory_format])
    upstream = check(operands)
    run: Callable[[], Tensor] = operands.ours if way == "ours" else operands.eager

    def forward() -> None:
        with torch.no_grad():
            run()

    def training() -> None:
        torch.autograd.grad(run(), operands.leaves, upstream)

    benchmark.group = f"graph_conv {step} {form} {layer} N{batch}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark(forward if step == "forward" else training)
