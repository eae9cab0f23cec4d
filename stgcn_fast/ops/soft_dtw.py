"""Soft-DTW of tensors as an operator with a derivative: the torch face of `stgcn_fast.dtw.soft_dtw`.

    R(i, j) = sum_d (x[i, d] - y[j, d])^2 + softmin(R(i - 1, j - 1), R(i - 1, j), R(i, j - 1)),
    softmin(a) = -gamma log sum_k exp(-a_k / gamma)

and the result is the last R. Collections are packed as in `ops.dtw`: `frames` [rows, D], `offsets` [N + 1].
A compiled graph holds the operator and its derivative as they are. There is no second derivative.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from ._checks import fail_type, fail_value
from ._library import define
from .dtw import _band, _check_alike, _checked_band, _packed, _same, _sequences

_NAME = "soft_dtw"


def _work(x: Any, y: Any, gamma: float, radius: int, share: float, batched: bool) -> Any:
    import numpy as np

    from stgcn_fast.dtw._engine import thread_count
    from stgcn_fast.dtw.soft_dtw import _Work

    _check_alike(_NAME, x, y)
    # Sums of costs divided by gamma, and products with it, must stay within the dtype.
    most = math.sqrt(float(np.finfo(x.frames.dtype).max))
    if not 1 / most <= gamma <= most:
        raise fail_value(_NAME, "gamma", f"from {1 / most:.3g} to {most:.3g} in {x.frames.dtype}", gamma)

    if batched and len(x) != len(y):
        raise fail_value(_NAME, "Y", f"{len(x)} sequences like X if batched", len(y))
    rows = columns = np.arange(len(x))
    if not batched:
        rows, columns = (index.ravel() for index in np.indices((len(x), len(y))))
    return _Work(rows, columns, gamma, _checked_band(_NAME, radius, share), thread_count(None, _NAME))


def _reference(
    x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, gamma: float, radius: int, share: float,
    batched: bool,
) -> Tensor:  # fmt: skip
    from stgcn_fast.dtw.soft_dtw import _values

    a, b = _sequences(_NAME, "X", x, x_offsets), _sequences(_NAME, "Y", y, y_offsets)
    values = torch.from_numpy(_values(a, b, _work(a, b, gamma, radius, share, batched)))
    return (values if batched else values.view(len(a), len(b))).to(x.device)


def _reference_backward(
    grad: Tensor, x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, gamma: float, radius: int,
    share: float, batched: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from stgcn_fast.dtw.soft_dtw import _gradients

    a, b = _sequences(_NAME, "X", x, x_offsets), _sequences(_NAME, "Y", y, y_offsets)
    work = _work(a, b, gamma, radius, share, batched)
    if grad.numel() != len(work.rows):
        raise fail_value(_NAME, "grad", f"of {len(work.rows)} values", grad.numel())
    if grad.dtype != x.dtype:
        raise fail_type(_NAME, "grad", f"of the dtype of X, {x.dtype}", grad.dtype)
    weights = grad.detach().cpu().contiguous().view(-1).numpy()
    grad_x, grad_y = (torch.from_numpy(part).to(x.device) for part in _gradients(a, b, work, weights))
    return grad_x, grad_y


def soft_dtw(
    X: Tensor,
    Y: Tensor,
    x_offsets: Tensor | None = None,
    y_offsets: Tensor | None = None,
    gamma: float = 1.0,
    window: int | float | None = None,
    *,
    batched: bool = False,
) -> Tensor:
    """Soft-DTW of every sequence of one collection with every one of another, or of pairs.

    Args:
        X: [N, T, D], or with `x_offsets` [rows, D]. float16 and bfloat16 are computed in float32.
        Y: [M, T', D], or with `y_offsets` [rows, D].
        x_offsets: [N + 1], int64: sequence i is `X[x_offsets[i]:x_offsets[i + 1]]`; None: all have T frames.
        y_offsets: [M + 1], or None.
        gamma: smoothing, above 0, in the unit of the local cost.
        window: band, see `stgcn_fast.dtw.dtw_distance`.
        batched: pair X[b] with Y[b] instead of all with all.

    Returns:
        [N, M], or [N] if batched; float32 or float64 like X.

    Raises:
        TypeError: an argument is no floating-point tensor, the dtypes differ, gamma is no number.
        ValueError: shapes, devices or offsets do not fit, gamma or window is out of range, a frame is not
            finite.
    """
    smoothing: Any = gamma
    if isinstance(smoothing, bool) or not isinstance(smoothing, numbers.Real):
        raise fail_type(_NAME, "gamma", "a number", repr(smoothing))
    if not 0 < float(smoothing) < float("inf"):
        raise fail_value(_NAME, "gamma", "above 0", smoothing)
    x, x_starts, x_longest = _packed(_NAME, "X", X, "x_offsets", x_offsets)
    y, y_starts, y_longest = _packed(_NAME, "Y", Y, "y_offsets", y_offsets)
    _same(_NAME, "Y", y, "X", x)
    if batched and x_starts.shape[0] != y_starts.shape[0]:
        rule = f"{int(x_starts.shape[0]) - 1} sequences like X if batched"
        raise fail_value(_NAME, "Y", rule, int(y_starts.shape[0]) - 1)
    longest = None if x_longest is None or y_longest is None else max(x_longest, y_longest)
    cells = _band(_NAME, window, longest, "sakoe_chiba", 2.0)
    out: Tensor = _op(x, x_starts, y, y_starts, float(gamma), cells.radius, cells.share, batched)
    return out


def _fake(
    x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, gamma: float, radius: int, share: float,
    batched: bool,
) -> Tensor:  # fmt: skip
    count = x_offsets.shape[0] - 1
    return x.new_empty((count,) if batched else (count, y_offsets.shape[0] - 1))


def _fake_backward(
    grad: Tensor, x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, gamma: float, radius: int,
    share: float, batched: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), y.new_empty(y.shape)


_ARGUMENTS = (
    "Tensor x, Tensor x_offsets, Tensor y, Tensor y_offsets, float gamma, int radius, float share,"
    " bool batched"
)
_op = define(f"soft_dtw({_ARGUMENTS}) -> Tensor", _reference, _fake, plain=False)
_op_backward = define(
    f"soft_dtw_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor)",
    _reference_backward,
    _fake_backward,
    plain=False,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, x_offsets, y, y_offsets, *ctx.options = inputs
    ctx.save_for_backward(x, x_offsets, y, y_offsets)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grad_x, grad_y = _op_backward(grad, *ctx.saved_tensors, *ctx.options)
    return grad_x, None, grad_y, None, None, None, None, None


def _no_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    return


def _no_second(ctx: Any, *grads: Tensor) -> Any:
    raise RuntimeError(f"{_NAME}: has no second derivative")


torch.library.register_autograd(_op, _backward, setup_context=_setup)
torch.library.register_autograd(_op_backward, _no_second, setup_context=_no_setup)
