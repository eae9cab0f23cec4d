"""The emulated CUDA kernels of the temporal convolution beside the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stgcn_fast.ops.temporal_conv import output_frames

Draw = Callable[..., torch.Tensor]

# N, C, T, V, O, kernel, stride, padding, dilation. Channels around 16 bytes, around a tile and beyond it;
# joints that do and do not divide a tile; windows of all taps, of some, and none; tall tiles.
SHAPES = [
    (2, 3, 9, 5, 4, 3, 1, 1, 1),
    (1, 8, 12, 25, 64, 9, 1, 4, 1),
    (2, 64, 10, 25, 70, 9, 2, 4, 1),
    (1, 70, 40, 7, 33, 3, 3, 2, 2),
    (1, 16, 9, 128, 8, 5, 1, 2, 3),
    (2, 5, 11, 1, 3, 1, 1, 0, 1),
    (1, 9, 30, 3, 9, 4, 5, 3, 1),
    (1, 130, 6, 18, 8, 9, 1, 4, 1),
    (1, 8, 50, 25, 8, 3, 11, 0, 4),
    (1, 8, 43, 25, 8, 9, 1, 4, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_three_agree_with_the_reference(
    emulated: Any, kind: str, draw: Draw, shape: tuple[int, ...]
) -> None:
    n, c, t, v, o, kernel, *geometry = shape
    x, weight, bias = draw(n, c, t, v, channels_last=n == 2), draw(o, c, kernel, 1), draw(o)
    emulated.check("temporal_conv", kind, x, weight, bias, *geometry, False)
    frames = output_frames(t, kernel, *geometry)
    grad = draw(n, o, frames, v, channels_last=n == 2)
    emulated.check("temporal_conv_grad_input", kind, grad, weight, t, *geometry, False)
    emulated.check("temporal_conv_grad_weight", kind, x, grad, kernel, *geometry, False)


def test_without_bias_and_with_any_strides(emulated: Any, kind: str, draw: Draw) -> None:
    weight = draw(12, 3, 16, 1).transpose(0, 2)  # [16, 3, 12, 1], taps outermost in memory
    x = draw(2, 3, 34, 6)[:, :, ::2].flip(0)
    emulated.check("temporal_conv", kind, x, weight, None, 1, 5, 1, False)


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 4, 0, 3), (2, 4, 5, 0)], ids=str)
def test_nothing_gives_nothing(emulated: Any, shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape), torch.randn(6, 4, 3, 1)
    (out,) = emulated("temporal_conv", x, weight, None, 1, 1, 1, False)
    assert out.shape == (shape[0], 6, *shape[2:])
    (by_weight,) = emulated("temporal_conv_grad_weight", x, out, 3, 1, 1, 1, False)
    assert by_weight.shape == weight.shape
    assert not by_weight.any()


def test_a_clip_without_overlap_is_the_bias(emulated: Any) -> None:
    """A padding wider than the clip reaches frames that no tap can see."""
    x, weight, bias = torch.randn(1, 2, 1, 3), torch.randn(4, 2, 1, 1), torch.randn(4)
    (out,) = emulated("temporal_conv", x, weight, bias, 1, 2, 1, False)
    assert torch.equal(out[0, :, 0], bias[:, None].expand(4, 3))
    (by_x,) = emulated(
        "temporal_conv_grad_input", torch.randn(1, 4, 2, 3), torch.randn(4, 2, 1, 1), 4, 3, 0, 1, False
    )
    assert not by_x[0, :, 1:3].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 4, 5, 129)}, "x must be [N, C, T, V] with V <= 128 on CUDA"),
        ({"x": torch.randn(2, 4, 5)}, "x must be [N, C, T, V], got [2, 4, 5]"),
        ({"weight": torch.randn(6, 5, 3, 1)}, "weight must be [O, C, Γ, 1] with C = 4, got [6, 5, 3, 1]"),
        ({"weight": torch.randn(6, 4, 3, 1).double()}, "weight must be of x's dtype Float, got Double"),
        ({"bias": torch.randn(5)}, "bias must be [O] with O = 6, got [5]"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"dilation": 1 << 31}, "dilation must be at most 2147483647, got 2147483648"),
        ({"dilation": 9}, "x must be at least 17 frames long for this kernel, padding and dilation, got 5"),
        (
            {"x": torch.zeros(2, 4, 5, 3, dtype=torch.int32)},
            "x must be float32, float64, bfloat16 or float16",
        ),
    ],
)
def test_bad_input_is_said(emulation: ctypes.CDLL, change: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.randn(2, 4, 5, 3), "weight": torch.randn(6, 4, 3, 1), "bias": None}
    arguments |= {"stride": 1, "padding": 1, "dilation": 1, "fast": False} | change
    with pytest.raises(RuntimeError) as raised:
        torch.ops.stgcn_fast_emulated.temporal_conv(**arguments)
    assert f"temporal_conv: {message}" in str(raised.value)
