"""A network rebuilt for inference: BatchNorm folded, blocks fused, features in a smaller type."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stgcn_fast import ops

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_BUILDERS: dict[type[nn.Module], Callable[[Any, Settings], nn.Module]] = {}

# Largest difference from the network's outputs, relative to their largest value, that an example may show.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True)
class Settings:
    """What :func:`optimize` was asked for.

    Attributes:
        dtype: type of weights and features.
        fast_temporal: whether temporal convolutions may use the fast algorithm; None follows the option.
        reuse: whether features of absent persons and of padded tails are taken from a clip of zeros.
    """

    dtype: torch.dtype
    fast_temporal: bool | None
    reuse: bool


def register_optimizer(model: type[nn.Module]) -> Callable[[Builder], Builder]:
    """Decorator for the function that rebuilds one class of networks for :func:`optimize`.

    The function takes the network and the :class:`Settings` and returns a new module, which shares no memory
    with the network.

    Args:
        model: the class, exactly; subclasses register themselves.
    """

    def add(builder: Builder) -> Builder:
        _BUILDERS[model] = builder
        return builder

    return add


def is_registered(model: nn.Module) -> bool:
    """Whether a function is registered that rebuilds networks of this class."""
    return type(model) in _BUILDERS


def optimize(
    model: nn.Module,
    example: Tensor | None = None,
    dtype: torch.dtype | None = None,
    *,
    fast_temporal: bool | None = None,
    reuse: bool = True,
) -> nn.Module:
    """Rebuilds a network for inference.

    BatchNorm is folded into the convolutions, each block is one operator, and what a batch's absent persons
    (all zeros) and zero frames behind the end of a clip contribute is computed once and kept. The new module
    takes and gives what the network does in evaluation mode; its parameters are its own. The network is left
    as it is.

    Args:
        model: a network of this package, for example :class:`stgcn_fast.models.STGCN`.
        example: an input; if given, it is run once, so that the first call finds packed weights, and outputs
            are compared with the network's.
        dtype: type of weights and features: float32, float64, bfloat16 or float16; None keeps the network's.
            BatchNorm on the input, the averages and the logits stay in float32 (float64 for float64).
        fast_temporal: whether temporal convolutions may use the fast algorithm; None follows
            ``ops.options`` at each call.
        reuse: whether to reuse features of zeros; the results are the same.

    Returns:
        A module in evaluation mode, for inference only.

    Raises:
        TypeError: the network's class cannot be rebuilt, or an argument has the wrong type.
        ValueError: the network was changed beyond what can be folded, its blocks have another order than the
            standard one, its BatchNorm has no running statistics, or the example's outputs differ.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize: model must be a torch.nn.Module, got {type(model).__name__}")
    builder = _BUILDERS.get(type(model))
    if builder is None:
        known = ", ".join(sorted(kind.__name__ for kind in _BUILDERS))
        rule = f"one of {known} or hold layers of a known family"
        raise TypeError(f"optimize: model must be {rule}, got {type(model).__name__}")
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    dtype = own if dtype is None else dtype
    if dtype not in _TOLERANCE or own not in _TOLERANCE:
        raise TypeError(f"optimize: dtype must be a floating point dtype or None, got {dtype}")
    for name, value in (("fast_temporal", fast_temporal), ("reuse", reuse)):
        if not (isinstance(value, bool) or (value is None and name == "fast_temporal")):
            raise TypeError(f"optimize: {name} must be a bool, got {type(value).__name__}")
    # Tensors made in inference mode carry no version, by which edits are seen.
    with torch.inference_mode(False), torch.no_grad():
        built = builder(model, Settings(dtype, fast_temporal, reuse)).eval()
    if example is not None:
        _compare(model, built, example, max(_TOLERANCE[dtype], _TOLERANCE[own]))
    return built


def _compare(model: nn.Module, built: nn.Module, example: Tensor, tolerance: float) -> None:
    """Runs both on an example; raises ValueError if they disagree."""
    if not isinstance(example, Tensor):
        raise TypeError(f"optimize: example must be a tensor, got {type(example).__name__}")
    plain = copy.deepcopy(model).eval()
    with torch.no_grad(), ops.options(fused_blocks=False):
        expected = plain(example)
    with torch.no_grad():
        found = built(example)
    if expected.numel() == 0:
        return
    wide = expected.to(torch.float64)
    error = float((found.to(torch.float64) - wide).abs().max() / wide.abs().max().clamp_min(1e-30))
    if not error <= tolerance:
        raise ValueError(
            f"optimize: outputs must agree with the model's within {tolerance:g} of the largest on example, "
            f"got {error:.3g}"
        )
