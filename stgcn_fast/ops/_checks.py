"""Argument checks with one wording: `<op>: <argument> must be <rule>, got <value>`."""

from __future__ import annotations

import torch
from torch import Tensor


def fail_type(op: str, argument: str, rule: str, value: object) -> TypeError:
    """Build the error for an argument of the wrong type or dtype."""
    return TypeError(f"{op}: {argument} must be {rule}, got {value}")


def fail_value(op: str, argument: str, rule: str, value: object) -> ValueError:
    """Build the error for an argument of the wrong shape or value."""
    return ValueError(f"{op}: {argument} must be {rule}, got {value}")


def shape_text(x: Tensor) -> str:
    """Shape of a tensor as it stands in an error, for example `[2, 3, 300, 25]`."""
    return str([int(size) for size in x.shape])


def check_floating(op: str, argument: str, x: object) -> None:
    """Raise TypeError unless `x` is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise fail_type(op, argument, "a torch.Tensor", type(x).__name__)
    if not x.is_floating_point():
        raise fail_type(op, argument, "a floating-point tensor", x.dtype)


def check_alike(op: str, argument: str, x: Tensor, like: Tensor, like_name: str) -> None:
    """Raise unless `x` has the device of `like` and, outside autocast, its dtype."""
    if x.device != like.device:
        raise fail_value(op, argument, f"on the device of {like_name}, {like.device}", x.device)
    if x.dtype != like.dtype and not torch.is_autocast_enabled(like.device.type):
        raise fail_type(op, argument, f"of the dtype of {like_name}, {like.dtype}", x.dtype)


LARGEST = 2**31 - 1
"""Largest stride, padding or dilation: sums and products of two stay within 64 bits."""


def check_int(op: str, argument: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise unless `value` is an integer not below `minimum` nor above `maximum`."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise fail_type(op, argument, "an int", type(value).__name__)
    if value < minimum:
        raise fail_value(op, argument, f"at least {minimum}", int(value))
    if maximum is not None and value > maximum:
        raise fail_value(op, argument, f"at most {maximum}", int(value))
