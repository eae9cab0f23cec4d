"""Outputs of layers during one pass of a network, with the graph behind them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.explain.layers import unwrapped


@dataclass
class Captured:
    """What a pass left behind.

    Attributes:
        scores: ``[N, classes]``.
        features: Outputs of the layers as they came, ``[N * M, C, T, V]`` or ``[N, M, C, T, V]``.
    """

    scores: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


def _eager() -> AbstractContextManager[Any]:
    """Runs compiled code as Python. Where torch's compiler is not loaded there is none."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block of code; behind it every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def capture(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, owner: str, *, gradients: bool = True
) -> Captured:
    """Runs a network in evaluation mode and keeps the outputs of layers.

    Compiled models run their own Python code, where hooks are seen. The first layer's output becomes a leaf:
    nothing before it is recorded.

    Args:
        model: From ``x`` to scores ``[N, classes]``.
        layers: Modules by name, as :func:`stgcn_fast.explain.layers.resolve` gives them.
        x: Input, ``[N, ...]``.
        owner: Name of the calling function, for messages.
        gradients: Whether to record what gradients need.

    Raises:
        ValueError: A layer did not run, or its output is no feature map; the scores have another shape.
    """
    result = _run(model, layers, x, owner, gradients, copied=False)
    if result is None:  # a later module overwrote a kept output
        result = _run(model, layers, x, owner, gradients, copied=True)
    assert result is not None
    return result


def _run(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, owner: str, gradients: bool, copied: bool
) -> Captured | None:
    features: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, (tuple, list)) else output
            if not isinstance(first, Tensor) or first.dim() not in (4, 5):
                found = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
                raise ValueError(f"{owner}: layer {name!r} must give maps [N * M, C, T, V], got {found}")
            if name in features:
                raise ValueError(f"{owner}: layer {name!r} must run once in a pass, got a second time")
            kept = first
            if gradients and (not features or not first.requires_grad):
                first = kept = first.detach().requires_grad_()
            if copied:
                first = kept.clone()
            features[name], versions[name] = kept, kept._version
            if isinstance(output, (tuple, list)):
                return type(output)([first, *output[1:]])
            return first

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        with (
            evaluating(unwrapped(model)),
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),
            _eager(),
        ):
            scores = model(x)
    except RuntimeError as error:
        # Autograd refuses to overwrite a leaf, and what it was to differentiate.
        if not copied and "in-place" in str(error):
            return None
        raise
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(x):
        found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"{owner}: model must give scores [{len(x)}, classes], got {found}")
    missing = [name for name in layers if name not in features]
    if missing:
        raise ValueError(f"{owner}: layers must run when the model does, got {', '.join(missing)}")
    for name, kept in features.items():
        if kept._version != versions[name]:
            return None
    return Captured(scores, features)


def by_person(features: Tensor, samples: int, name: str, owner: str) -> Tensor:
    """Persons out of the batch: ``[N * M, C, T, V]`` -> ``[N, M, C, T, V]``.

    Raises:
        ValueError: The batch is no multiple of the samples.
    """
    if features.dim() == 5:
        if len(features) != samples:
            raise ValueError(
                f"{owner}: layer {name!r} must give [{samples}, M, C, T, V], got {list(features.shape)}"
            )
        return features
    if samples == 0 or len(features) % samples:
        raise ValueError(
            f"{owner}: layer {name!r} must give a multiple of the {samples} samples, "
            f"got {list(features.shape)}"
        )
    return features.reshape(samples, len(features) // samples, *features.shape[1:])
