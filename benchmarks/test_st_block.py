"""st_block beside the block's parts as torch runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from stgcn_fast import graph, ops

TAPS = 9


class Layer(NamedTuple):
    """A block of the official ST-GCN on NTU RGB+D."""

    inputs: int
    outputs: int
    frames: int
    stride: int

    def __str__(self) -> str:
        return f"{self.inputs}-{self.outputs}-T{self.frames}-s{self.stride}"


LAYERS = [
    Layer(3, 64, 300, 1),
    Layer(64, 64, 300, 1),
    Layer(64, 128, 300, 2),
    Layer(128, 128, 150, 1),
    Layer(128, 256, 150, 2),
    Layer(256, 256, 75, 1),
]
QUICK_LAYERS = [Layer(64, 64, 300, 1), Layer(64, 128, 300, 2), Layer(256, 256, 75, 1)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def operands(layer: Layer, adjacency: Tensor) -> dict[str, Tensor]:
    inputs, outputs, partitions = layer.inputs, layer.outputs, adjacency.shape[0]
    made = {
        "graph_weight": torch.randn(partitions, outputs, inputs) / inputs**0.5,
        "graph_bias": torch.randn(partitions, outputs),
        "adjacency": adjacency,
        "temporal_weight": torch.randn(outputs, outputs, TAPS, 1) / (outputs * TAPS) ** 0.5,
    }
    for name in ("scale1", "shift1", "temporal_bias", "scale2", "shift2"):
        made[name] = torch.randn(outputs)
    if inputs != 3 and (inputs != outputs or layer.stride != 1):
        made |= {
            "residual_weight": torch.randn(outputs, inputs) / inputs**0.5,
            "residual_shift": torch.randn(outputs),
        }
    return made


def eager(x: Tensor, t: dict[str, Tensor], layer: Layer) -> Tensor:
    """The official code's way: one convolution to all partitions, the sum over joints, BatchNorm folded."""
    partitions, outputs = t["graph_bias"].shape
    mixed = torch.nn.functional.conv2d(
        x, t["graph_weight"].flatten(0, 1)[..., None, None], t["graph_bias"].flatten()
    )
    y = torch.einsum("nkctv,kvw->nctw", mixed.unflatten(1, (partitions, outputs)), t["adjacency"])
    h = (y * t["scale1"][:, None, None] + t["shift1"][:, None, None]).relu_()
    weight = t["temporal_weight"] * t["scale2"][:, None, None, None]
    shift = t["temporal_bias"] * t["scale2"] + t["shift2"]
    z = torch.nn.functional.conv2d(h.contiguous(), weight, shift, (layer.stride, 1), (TAPS // 2, 0))
    if "residual_weight" in t:
        z += torch.nn.functional.conv2d(
            x, t["residual_weight"][..., None, None], t["residual_shift"], (layer.stride, 1)
        )
    elif layer.inputs != 3:
        z += x
    return z.relu_()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_st_block(benchmark: Any, layer: Layer, batch: int, way: str, dtype: torch.dtype) -> None:
    adjacency = graph.Graph("ntu25").adjacency()
    x = torch.randn(batch, layer.inputs, layer.frames, adjacency.shape[1]).to(dtype)
    t = operands(layer, adjacency)
    narrow = {name: tensor.to(dtype) for name, tensor in t.items()}
    last = x.contiguous(memory_format=torch.channels_last)

    def ours() -> Tensor:
        return ops.st_block(last, **t, residual=layer.inputs != 3, stride=layer.stride)  # type: ignore[arg-type]

    def theirs() -> Tensor:
        return eager(x, narrow, layer)

    run: Callable[[], Tensor] = ours if way == "ours" else theirs
    with torch.inference_mode():
        expected = eager(x.float(), t, layer)
        error = (run().float() - expected).abs().max() / expected.abs().max()
        assert error < TOLERANCE[dtype]
        benchmark.group = f"st_block {layer} N{batch} {dtype}"
        benchmark.extra_info["threads"] = torch.get_num_threads()
        benchmark(run)
