"""A layer computed in channels_last memory whatever it is given: a copy on the way in, one on the way out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_FORMATS = (torch.contiguous_format, torch.channels_last)


class _Reformat(torch.autograd.Function):
    """A copy in another memory format; the gradient is brought back into the first one.

    Without it a gradient would pass on in the format it came in, and every operator that meets a saved tensor
    of the other one would walk both with strides.
    """

    @staticmethod
    def forward(x: Tensor, source: int, target: int) -> Tensor:
        return x.contiguous(memory_format=_FORMATS[target])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.formats = inputs[2], inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Reformat.apply(grads[0], *ctx.formats), None, None  # type: ignore[no-untyped-call]


def format_of(x: Tensor) -> int:
    """What :func:`leave` needs to know of a layer's input."""
    return int(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())


def enter(x: Tensor) -> tuple[Tensor, int]:
    """An activation ``[N, C, T, V]`` in channels_last memory, and what :func:`leave` needs to know."""
    came = format_of(x)
    if came == 1:
        return x, came
    return _copy(x, 0, 1), came


def held(x: Tensor) -> Tensor:
    """A channels_last activation whose gradient is brought into that format, whatever it comes in."""
    if torch.is_grad_enabled() and x.requires_grad and format_of(x) == 1:
        return _copy(x, 1, 1)
    return x


def leave(y: Tensor, came: int) -> Tensor:
    """A result ``[N, O, T, V]`` in the memory format that the layer's input had."""
    if came == 1:
        return y.contiguous(memory_format=torch.channels_last)
    return y if y.is_contiguous() else _copy(y, 1, 0)


def _copy(x: Tensor, source: int, target: int) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        out: Tensor = _Reformat.apply(x, source, target)  # type: ignore[no-untyped-call]
        return out
    return x.contiguous(memory_format=_FORMATS[target])
