"""Bad arguments of the public functions: one line that names the argument, the rule and the value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import zeros

from stgcn_fast import ops

GRAPH_CONV: dict[str, Any] = {
    "x": zeros(2, 3, 4, 5),
    "weight": zeros(2, 6, 3),
    "adjacency": zeros(2, 5, 5),
    "bias": zeros(2, 6),
    "mask": zeros(2, 5, 5),
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, r"x must be a torch.Tensor, got list"),
        (
            {"x": zeros(2, 3, 4, 5, dtype=torch.int64)},
            TypeError,
            r"x must be a floating-point tensor, got torch.int64",
        ),
        ({"x": zeros(3, 4, 5)}, ValueError, r"x must be \[N, C, T, V\] with V >= 1, got \[3, 4, 5\]"),
        ({"x": zeros(2, 3, 4, 0)}, ValueError, r"x must be \[N, C, T, V\] with V >= 1, got \[2, 3, 4, 0\]"),
        ({"weight": zeros(2, 6, 4)}, ValueError, r"weight must be \[K, O, C\] with C = 3, got \[2, 6, 4\]"),
        ({"weight": zeros(6, 3)}, ValueError, r"weight must be \[K, O, C\] with C = 3, got \[6, 3\]"),
        (
            {"weight": zeros(2, 6, 3).double()},
            TypeError,
            r"weight must be of the dtype of x, torch.float32, got torch.float64",
        ),
        (
            {"adjacency": zeros(3, 5, 5)},
            ValueError,
            r"adjacency must be .* with N = 2, K = 2, V = 5, O = 6, got \[3, 5, 5\]",
        ),
        ({"adjacency": zeros(3, 2, 5, 5)}, ValueError, r"adjacency must be .*, got \[3, 2, 5, 5\]"),
        ({"adjacency": zeros(2, 2, 4, 5, 5)}, ValueError, r"adjacency must be .*, got \[2, 2, 4, 5, 5\]"),
        ({"adjacency": zeros(5, 5)}, ValueError, r"adjacency must be .*, got \[5, 5\]"),
        (
            {"adjacency": zeros(2, 3, 5, 5), "groups": 2, "mask": None},
            ValueError,
            r"adjacency must be .* G = 2, got",
        ),
        ({"groups": 4}, ValueError, r"groups must be a divisor of O = 6, got 4"),
        ({"groups": 0}, ValueError, r"groups must be at least 1, got 0"),
        ({"groups": 2.0}, TypeError, r"groups must be an int, got float"),
        ({"bias": zeros(6)}, ValueError, r"bias must be \[K, O\] = \[2, 6\], got \[6\]"),
        ({"bias": zeros(2, 6).double()}, TypeError, r"bias must be of the dtype of x"),
        (
            {"mask": zeros(2, 5)},
            ValueError,
            r"mask must be of the adjacency's shape \[2, 5, 5\] or \[K, V, W\], got \[2, 5\]",
        ),
        (
            {"weight": zeros(2, 6, 3, device="meta")},
            ValueError,
            r"weight must be on the device of x, cpu, got meta",
        ),
    ],
)
def test_graph_conv_says_what_is_wrong_in_one_line(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^graph_conv: {message}") as raised:
        ops.graph_conv(**(GRAPH_CONV | changes))
    assert "\n" not in str(raised.value)


TEMPORAL_CONV: dict[str, Any] = {
    "x": zeros(2, 3, 8, 5),
    "weight": zeros(6, 3, 9, 1),
    "bias": zeros(6),
    "padding": 4,
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": None}, TypeError, r"x must be a torch.Tensor, got NoneType"),
        (
            {"x": zeros(2, 3, 8, 5, dtype=torch.int32)},
            TypeError,
            r"x must be a floating-point tensor, got torch.int32",
        ),
        ({"x": zeros(3, 8, 5)}, ValueError, r"x must be \[N, C, T, V\], got \[3, 8, 5\]"),
        (
            {"weight": zeros(6, 4, 9, 1)},
            ValueError,
            r"weight must be \[O, C, Γ, 1\] with C = 3, got \[6, 4, 9, 1\]",
        ),
        (
            {"weight": zeros(6, 3, 3, 3)},
            ValueError,
            r"weight must be \[O, C, Γ, 1\] with C = 3, got \[6, 3, 3, 3\]",
        ),
        (
            {"weight": zeros(6, 3, 0, 1)},
            ValueError,
            r"weight must be \[O, C, Γ, 1\] with C = 3, got \[6, 3, 0, 1\]",
        ),
        (
            {"weight": zeros(6, 3, 9, 1).double()},
            TypeError,
            r"weight must be of the dtype of x, torch.float32, got torch.float64",
        ),
        ({"bias": zeros(5)}, ValueError, r"bias must be \[O\] with O = 6, got \[5\]"),
        ({"stride": 0}, ValueError, r"stride must be at least 1, got 0"),
        ({"stride": (1, 1)}, TypeError, r"stride must be an int, got tuple"),
        ({"padding": -1}, ValueError, r"padding must be at least 0, got -1"),
        ({"padding": True}, TypeError, r"padding must be an int, got bool"),
        ({"dilation": 0}, ValueError, r"dilation must be at least 1, got 0"),
        ({"padding": 2**62}, ValueError, rf"padding must be at most 2147483647, got {2**62}"),
        ({"stride": 2**31}, ValueError, rf"stride must be at most 2147483647, got {2**31}"),
        (
            {"padding": 0},
            ValueError,
            r"x must be at least 9 frames long for this kernel, padding and dilation, got 8",
        ),
    ],
)
def test_temporal_conv_says_what_is_wrong_in_one_line(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^temporal_conv: {message}") as raised:
        ops.temporal_conv(**(TEMPORAL_CONV | changes))
    assert "\n" not in str(raised.value)


X, KERNEL, GRAD = zeros(2, 3, 8, 5), zeros(6, 3, 3, 1), zeros(2, 6, 8, 5)
WEIGHT, ADJACENCY = zeros(2, 6, 3), zeros(1, 2, 1, 5, 5)
REST = (None, False, None, True, True, True, False)


@pytest.mark.parametrize(
    ("name", "arguments", "argument"),
    [
        ("temporal_conv", (X[0], KERNEL, None, 1, 1, 1, True), "x"),
        ("temporal_conv", (X, KERNEL[:, :2], None, 1, 1, 1, True), "weight"),
        ("temporal_conv", (X, KERNEL, zeros(5), 1, 1, 1, True), "bias"),
        ("temporal_conv", (X, KERNEL.double(), None, 1, 1, 1, True), "weight"),
        ("temporal_conv", (X, KERNEL, None, 0, 1, 1, True), "stride"),
        ("temporal_conv", (X, KERNEL, None, 1, 2**62, 1, True), "padding"),
        ("temporal_conv", (X, KERNEL, None, 1, 1, 2**62, True), "dilation"),
        ("temporal_conv", (X, KERNEL, None, 1, 1, 7, True), "x"),
        ("temporal_conv_grad_input", (GRAD, KERNEL[:5], 8, 1, 1, 1, True), "weight"),
        ("temporal_conv_grad_input", (GRAD, KERNEL, 9, 1, 1, 1, True), "frames"),
        ("temporal_conv_grad_input", (GRAD, KERNEL, 2**63 - 1, 1, 1, 1, True), "frames"),
        ("temporal_conv_grad_weight", (X, GRAD[:, :, 1:], 3, 1, 1, 1, True), "grad"),
        ("temporal_conv_grad_weight", (X, GRAD[:1], 3, 1, 1, 1, True), "grad"),
        ("temporal_conv_grad_weight", (X, GRAD, 2**62, 1, 1, 1, True), "kernel_size"),
        ("graph_conv", (X, WEIGHT[:, :, :2], ADJACENCY, None, False, None), "weight"),
        ("graph_conv", (X, WEIGHT, ADJACENCY[:, :, :, 1:], None, False, None), "adjacency"),
        ("graph_conv", (X, WEIGHT, ADJACENCY[0], None, False, None), "adjacency"),
        ("graph_conv", (X, WEIGHT, zeros(1, 2, 4, 5, 5), None, False, None), "groups"),
        ("graph_conv", (X, WEIGHT, ADJACENCY, zeros(2, 5), False, None), "bias"),
        ("graph_conv_backward", (X, GRAD[..., 1:], WEIGHT, ADJACENCY, *REST), "adjacency"),
        ("graph_conv_backward", (X, GRAD[:, :, 1:], WEIGHT, ADJACENCY, *REST), "grad"),
        ("graph_conv_backward", (X, GRAD[:1], WEIGHT, ADJACENCY, *REST), "grad"),
        ("graph_conv_backward", (X, GRAD, WEIGHT[:, 1:], ADJACENCY, *REST), "weight"),
        ("graph_conv_backward", (X, GRAD, WEIGHT, ADJACENCY[:, :, :, 1:], *REST), "adjacency"),
        ("graph_conv_backward", (X, GRAD, WEIGHT, ADJACENCY, zeros(2, 5), *REST[1:]), "bias"),
        ("graph_conv_backward", (X, GRAD, WEIGHT, ADJACENCY, *REST[:-1], True), "by_bias"),
        (
            "graph_conv_backward",
            (X, GRAD, WEIGHT, ADJACENCY, None, False, ADJACENCY[:, :1], *REST[3:]),
            "support",
        ),
    ],
)
def test_kernels_check_what_reaches_them_directly(
    on_backend: Any, name: str, arguments: tuple[Any, ...], argument: str
) -> None:
    with on_backend("native"), pytest.raises(RuntimeError, match=f"^{name}: {argument} must be .*, got .*"):
        getattr(torch.ops.stgcn_fast, name)(*arguments)
