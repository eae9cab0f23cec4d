"""The emulated CUDA kernels of the graph convolution beside the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

Draw = Callable[..., torch.Tensor]

# N, C, O, T, V, W, K, form of the adjacency, groups, whether they split the inputs. The forms take either
# order of summing over joints and multiplying; joints fill a tile, a 32 x 32 square of joints, or neither;
# tiles reach over samples, or not.
CASES = [
    (2, 3, 9, 7, 25, 25, 3, "sparse", 1, False),
    (1, 70, 66, 11, 25, 25, 3, "sparse", 1, False),
    (3, 8, 8, 5, 7, 7, 4, "sample", 1, False),
    (2, 12, 8, 5, 5, 6, 2, "group", 4, False),
    (2, 8, 12, 5, 5, 6, 2, "group", 4, True),
    (2, 8, 12, 9, 17, 17, 2, "channel", 12, False),
    (2, 6, 12, 9, 17, 17, 2, "channel", 6, True),
    (1, 200, 16, 3, 40, 33, 1, "sparse", 1, False),
    (1, 8, 8, 3, 128, 128, 2, "sparse", 1, False),
    (2, 4, 4, 3, 1, 1, 16, "sparse", 1, True),
    (1, 5, 3, 90, 9, 9, 4, "dense", 1, False),
    (40, 6, 5, 1, 11, 9, 2, "sample", 1, False),
    (3, 140, 4, 5, 6, 6, 1, "sample", 1, False),
    (5, 4, 6, 3, 11, 9, 2, "channel", 6, False),
]


def operands(draw: Draw, case: tuple[Any, ...]) -> tuple[Any, ...]:
    n, c, o, t, v, w, k, form, groups, group_inputs = case
    x, weight = draw(n, c, t, v, channels_last=n == 2), draw(k, o, c)
    bias = None if group_inputs and groups > 1 else draw(k, o)
    adjacency = draw(n if form in ("sample", "channel") else 1, k, groups, v, w)
    support = None
    if form == "sparse":
        kept = torch.rand(adjacency.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        adjacency = adjacency * kept
        support = adjacency
    return x, weight, adjacency, bias, group_inputs, support


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_agrees_with_the_reference(
    emulated: Any, kind: str, draw: Draw, case: tuple[Any, ...]
) -> None:
    emulated.check("graph_conv", kind, *operands(draw, case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_agree_with_the_reference(
    emulated: Any, kind: str, draw: Draw, case: tuple[Any, ...]
) -> None:
    n, _, o, t, _, w, *_ = case
    x, weight, adjacency, bias, group_inputs, support = operands(draw, case)
    grad = draw(n, o, t, w, channels_last=n == 2)
    wanted = (True, True, True, bias is not None)
    emulated.check(
        "graph_conv_backward", kind, x, grad, weight, adjacency, bias, group_inputs, support, *wanted
    )


@pytest.mark.parametrize("only", range(4))
def test_only_what_is_wanted_is_returned(emulated: Any, only: int) -> None:
    x, grad, weight = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 7), torch.randn(2, 3, 4)
    adjacency, bias = torch.randn(1, 2, 1, 6, 7), torch.randn(2, 3)
    wanted = tuple(i == only for i in range(4))
    out = emulated("graph_conv_backward", x, grad, weight, adjacency, bias, False, None, *wanted)
    expected = emulated.reference(
        "graph_conv_backward", x, grad, weight, adjacency, bias, False, None, *wanted
    )
    for i in range(4):
        assert out[i].shape == expected[i].shape
    torch.testing.assert_close(out[only].double(), expected[only], rtol=1e-5, atol=1e-5)


def test_transposed_views_are_read_where_they_lie(emulated: Any, kind: str, draw: Draw) -> None:
    x, weight = draw(2, 6, 4, 9), draw(3, 6, 5).transpose(1, 2)
    adjacency = draw(2, 3, 1, 8, 9).transpose(3, 4)
    emulated.check("graph_conv", kind, x, weight, adjacency, draw(3, 5), False, None)


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 4, 0, 3)], ids=str)
def test_nothing_gives_nothing(emulated: Any, shape: tuple[int, ...]) -> None:
    x, weight, adjacency = torch.randn(shape), torch.randn(2, 6, 4), torch.randn(1, 2, 1, 3, 3)
    (out,) = emulated("graph_conv", x, weight, adjacency, None, False, None)
    assert out.shape == (shape[0], 6, *shape[2:])
    bias = torch.randn(2, 6)
    grads = emulated("graph_conv_backward", x, out, weight, adjacency, bias, False, None, *[True] * 4)
    assert grads[0].shape == x.shape
    assert not any(bool(grad.any()) for grad in grads)


def test_zeros_of_the_adjacency_let_nothing_through(emulated: Any) -> None:
    """As on the CPU: a NaN reaches the joints that an edge leads to, and no others."""
    x, weight = torch.randn(1, 4, 3, 5), torch.randn(1, 4, 4)
    x[:, :, 1, 2] = float("nan")
    adjacency = torch.eye(5)[None, None, None]
    (out,) = emulated("graph_conv", x, weight, adjacency, None, False, None)
    touched = torch.isnan(out[0].sum(0))
    assert touched[1, 2]
    assert int(touched.sum()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 4, 5, 200)}, "x must be [N, C, T, V] with V <= 128 on CUDA"),
        ({"weight": torch.randn(2, 6, 5)}, "weight must be [K, O, C] with C = 4, got [2, 6, 5]"),
        (
            {"adjacency": torch.randn(3, 2, 1, 3, 3)},
            "adjacency must be [N or 1, K, G, V, W] with N = 2, K = 2, V = 3",
        ),
        ({"adjacency": torch.randn(1, 2, 4, 3, 3)}, "groups must be a divisor of 6, got 4"),
        (
            {"adjacency": torch.randn(1, 2, 1, 3, 130)},
            "adjacency must be [N or 1, K, G, V, W] with W <= 128 on CUDA",
        ),
        ({"bias": torch.randn(2, 5)}, "bias must be [K, O] with K = 2, O = 6, got [2, 5]"),
        ({"bias": torch.randn(2, 6).half()}, "bias must be of x's dtype Float, got Half"),
    ],
)
def test_bad_input_is_said(emulation: ctypes.CDLL, change: dict[str, Any], message: str) -> None:
    arguments = {
        "x": torch.randn(2, 4, 5, 3),
        "weight": torch.randn(2, 6, 4),
        "adjacency": torch.randn(1, 2, 1, 3, 3),
    }
    arguments |= {"bias": None, "group_inputs": False, "support": None} | change
    with pytest.raises(RuntimeError) as raised:
        torch.ops.stgcn_fast_emulated.graph_conv(**arguments)
    assert f"graph_conv: {message}" in str(raised.value)
