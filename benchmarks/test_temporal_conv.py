"""temporal_conv beside torch's own convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

JOINTS, TAPS, PADDING = 25, 9, 4


class Layer(NamedTuple):
    """A temporal layer of the official ST-GCN on NTU RGB+D."""

    channels: int
    frames: int
    stride: int

    def __str__(self) -> str:
        return f"{self.channels}-T{self.frames}-s{self.stride}"


LAYERS = [Layer(64, 300, 1), Layer(128, 300, 2), Layer(128, 150, 1), Layer(256, 150, 2), Layer(256, 75, 1)]
QUICK_LAYERS = [Layer(64, 300, 1), Layer(128, 300, 2), Layer(256, 75, 1)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("way", ["ours", "eager"])
@pytest.mark.parametrize("step", ["forward", "training"])
def test_temporal_conv(
    benchmark: Any, layer: Layer, batch: int, memory_format: str, way: str, step: str
) -> None:
    x = torch.randn(batch, layer.channels, layer.frames, JOINTS)
    x = x.contiguous(memory_format=FORMATS[memory_format]).requires_grad_()
    weight = torch.randn(layer.channels, layer.channels, TAPS, 1, requires_grad=True)
    bias = torch.randn(layer.channels, requires_grad=True)
    leaves = [x, weight, bias]

    def eager() -> Tensor:
        return torch.nn.functional.conv2d(x, weight, bias, (layer.stride, 1), (PADDING, 0))

    def ours() -> Tensor:
        return ops.temporal_conv(x, weight, bias, layer.stride, PADDING)

    expected, actual = eager(), ours()
    upstream = torch.randn_like(actual)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    wanted = torch.autograd.grad(expected, leaves, upstream)
    for grad, want in zip(torch.autograd.grad(actual, leaves, upstream), wanted):
        torch.testing.assert_close(grad, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())

    run: Callable[[], Tensor] = ours if way == "ours" else eager

    def forward() -> None:
        with torch.no_grad():
            run()

    def training() -> None:
        torch.autograd.grad(run(), leaves, upstream)

    benchmark.group = f"temporal_conv {step} {layer} N{batch}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark(forward if step == "forward" else training)
