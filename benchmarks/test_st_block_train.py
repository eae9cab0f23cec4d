"""A training step of st_block_train beside the block's parts as torch runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import graph, ops

TAPS = 9
EPS = 1e-5


class Layer(NamedTuple):
    """A block of the official ST-GCN on NTU RGB+D."""

    inputs: int
    outputs: int
    frames: int
    stride: int

    def __str__(self) -> str:
        return f"{self.inputs}-{self.outputs}-T{self.frames}-s{self.stride}"


LAYERS = [
    Layer(64, 64, 300, 1),
    Layer(64, 128, 300, 2),
    Layer(128, 128, 150, 1),
    Layer(128, 256, 150, 2),
    Layer(256, 256, 75, 1),
]
QUICK_LAYERS = [Layer(64, 64, 300, 1), Layer(64, 128, 300, 2), Layer(256, 256, 75, 1)]


def operands(layer: Layer, adjacency: Tensor) -> dict[str, Tensor]:
    inputs, outputs, partitions = layer.inputs, layer.outputs, adjacency.shape[0]
    made = {
        "graph_weight": torch.randn(partitions, outputs, inputs) / inputs**0.5,
        "graph_bias": torch.randn(partitions, outputs),
        "mask": torch.ones(adjacency.shape),
        "temporal_weight": torch.randn(outputs, outputs, TAPS, 1) / (outputs * TAPS) ** 0.5,
        "temporal_bias": torch.randn(outputs),
    }
    normalised = ["1", "2"]
    if inputs != outputs or layer.stride != 1:
        made["residual_weight"] = torch.randn(outputs, inputs) / inputs**0.5
        made["residual_bias"] = torch.randn(outputs)
        normalised.append("_r")
    for name in normalised:
        made[f"weight{name}"] = torch.rand(outputs) + 0.5
        made[f"bias{name}"] = torch.randn(outputs)
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def eager(x: Tensor, t: dict[str, Tensor], adjacency: Tensor, layer: Layer, dropout: float) -> Tensor:
    """The official code's way."""

    def normalised(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, None, None, t[f"weight{name}"], t[f"bias{name}"], True, eps=EPS)

    mixed = F.conv2d(x, t["graph_weight"].flatten(0, 1)[..., None, None], t["graph_bias"].flatten())
    mixed = mixed.unflatten(1, t["graph_bias"].shape)
    y = torch.einsum("nkctv,kvw->nctw", mixed, adjacency * t["mask"]).contiguous()
    padding = (TAPS // 2, 0)
    z = F.conv2d(
        normalised(y, "1").relu_(), t["temporal_weight"], t["temporal_bias"], (layer.stride, 1), padding
    )
    out = F.dropout(normalised(z, "2"), dropout, True, inplace=True)
    if "residual_weight" in t:
        kernel = t["residual_weight"][..., None, None]
        out += normalised(F.conv2d(x, kernel, t["residual_bias"], (layer.stride, 1)), "_r")
    else:
        out += x
    return out.relu_()


def fused(x: Tensor, t: dict[str, Tensor], adjacency: Tensor, layer: Layer, dropout: float) -> Tensor:
    others: dict[str, Any] = {name: tensor for name, tensor in t.items() if name != "mask"}
    others |= {"eps1": EPS, "eps2": EPS, "stride": layer.stride, "dropout": dropout}
    return ops.st_block_train(x, adjacency=adjacency * t["mask"], support=adjacency, **others)[0]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("way", ["ours", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_st_block_train(
    benchmark: Any, layer: Layer, batch: int, way: str, dropout: float, dtype: torch.dtype
) -> None:
    adjacency = graph.Graph("ntu25").adjacency()
    t = operands(layer, adjacency)
    x = torch.randn(batch, layer.inputs, layer.frames, adjacency.shape[1], requires_grad=True)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()

    expected, actual = eager(x, t, adjacency, layer, 0.0), fused(last, t, adjacency, layer, 0.0)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    # Along a direction in which nothing cancels.
    upstream = expected.detach()
    wanted = torch.autograd.grad(expected, [x, *t.values()], upstream)
    for name, grad, want in zip(
        ["x", *t], torch.autograd.grad(actual, [last, *t.values()], upstream), wanted
    ):
        if name not in ("temporal_bias", "residual_bias"):
            error = (grad - want).norm() / want.norm()
            assert error < 1e-2, f"{name}: {error}"

    run: Callable[..., Tensor] = fused if way == "ours" else eager
    source = last if way == "ours" else x

    def step() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            out = run(source, t, adjacency, layer, dropout)
        torch.autograd.grad(out, [source, *t.values()], torch.ones_like(out))

    benchmark.group = f"st_block_train {layer} N{batch} dropout {dropout} {dtype}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark(step)
