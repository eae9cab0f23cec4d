"""``optimize``: any network that holds layers of a known family, rebuilt for inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stgcn_fast.models import optimize as networks
from stgcn_fast.swap import parts
from stgcn_fast.swap._compare import on_any_device
from stgcn_fast.swap.adapter import Adapter, list_adapters
from stgcn_fast.swap.core import accelerate, recognise, restore
from stgcn_fast.swap.folded import Folded

_DTYPES = (torch.float32, torch.float64)
_TOLERANCE = 1e-4
"""Largest difference, relative to the largest value, between a layer and its folded form."""
_SEED = 20_112


def optimize(
    model: nn.Module,
    example: Tensor | None = None,
    dtype: torch.dtype | None = None,
    *,
    fast_temporal: bool | None = None,
    reuse: bool = True,
) -> nn.Module:
    """Rebuilds a network for inference.

    BatchNorm is folded into the convolutions, and what stands between them is computed along with them. A
    network of this package is rebuilt whole (:func:`stgcn_fast.models.optimize.optimize`); of any other model
    that holds layers of a known family (``docs/accelerate.md``) a copy is made, in which each such layer is
    replaced by its folded form after both were found to agree, and what has none is accelerated. The
    parameters are the new module's own; the model is left as it is.

    Args:
        model: a network; one that is not of this package in evaluation mode.
        example: an input. If given, it is run once, so that the first call finds packed weights, outputs are
            compared with the model's, and features stay channels_last between layers where the model's own
            code allows it, which is faster.
        dtype: of weights and features, or None for the model's. Networks that are not of this package can be
            float32 or float64.
        fast_temporal: whether temporal convolutions may use the fast algorithm; None follows
            ``ops.options`` at each call.
        reuse: whether to reuse features of zeros, for networks of this package; the results are the same.

    Returns:
        A module in evaluation mode, for inference only; of the model's class, unless it was rebuilt whole.

    Raises:
        TypeError: the model is not one that can be rebuilt, or an argument has the wrong type.
        ValueError: the model is in training mode or was changed beyond what can be folded, or the example's
            outputs differ.
    """
    if not isinstance(model, nn.Module) or networks.is_registered(model):
        return networks.optimize(model, example, dtype, fast_temporal=fast_temporal, reuse=reuse)
    plan = _plan(model)
    if not plan:
        return networks.optimize(model, example, dtype, fast_temporal=fast_temporal, reuse=reuse)
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    dtype = own if dtype is None else dtype
    _check(model, example, dtype, fast_temporal)
    # Tensors made in inference mode carry no version, by which edits are seen.
    with torch.inference_mode(False), torch.no_grad():
        built = _rebuilt(model, dtype, fast_temporal)
        if example is not None:
            _settle(model, built, example.to(dtype))
    return built


def _plan(model: nn.Module) -> dict[str, list[Adapter]]:
    """Names of the outermost modules that adapters know, with those adapters."""
    adapters = [a for a in list_adapters() if a.anywhere]
    found: dict[str, list[Adapter]] = {}
    for name, module in model.named_modules():
        known = [adapter for adapter in adapters if recognise(adapter, module) is True]
        if known:
            found[name] = known
    return found


def _check(model: nn.Module, example: Any, dtype: Any, fast_temporal: Any) -> None:
    if model.training:
        raise ValueError("optimize: model must be in evaluation mode, got one in training mode")
    if dtype not in _DTYPES:
        rule = f"None, torch.float32 or torch.float64 for {type(model).__name__}"
        raise TypeError(f"optimize: dtype must be {rule}, got {dtype}")
    if example is not None and not isinstance(example, Tensor):
        raise TypeError(f"optimize: example must be a tensor, got {type(example).__name__}")
    if fast_temporal is not None and not isinstance(fast_temporal, bool):
        raise TypeError(f"optimize: fast_temporal must be a bool, got {type(fast_temporal).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"optimize: model must hold its tensors, got {name} on the meta device")


def portable(model: nn.Module) -> nn.Module:
    """A copy with plain layers, whose loose tensors stay where they are when old code sends them away."""
    plain = copy.deepcopy(model)
    restore(plain)
    for part in plain.modules():
        for name, value in part.__dict__.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                part.__dict__[name] = on_any_device(value.clone())
    return plain


def _rebuilt(model: nn.Module, dtype: torch.dtype, fast_temporal: bool | None) -> nn.Module:
    """The copy, with the outermost layers that can be folded replaced."""
    made = copy.deepcopy(model)
    restore(made)
    made.to(dtype)
    adapters = [a for a in list_adapters() if a.fold is not None]
    replaced: dict[int, nn.Module] = {}
    inside: set[int] = set()
    for module in made.modules():
        if id(module) in inside:
            continue
        built = _fold(module, adapters, dtype)
        if built is not None:
            replaced[id(module)] = built
            inside.update(id(part) for part in module.modules())
    made = replaced.get(id(made), made)
    for parent in list(made.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in replaced:
                parent._modules[name] = replaced[id(child)]
    for part in made.modules():
        if hasattr(part, "fast_temporal"):
            setattr(part, "fast_temporal", fast_temporal)  # noqa: B010
    made.eval()
    accelerate(made, "inference")
    return made.requires_grad_(False)


def _fold(module: nn.Module, adapters: list[Adapter], dtype: torch.dtype) -> nn.Module | None:
    """The folded form of a layer that nobody watches and that surely computes the same."""
    if not all(parts.is_quiet(part) for part in module.modules()):
        return None
    for adapter in adapters:
        if adapter.fold is None or recognise(adapter, module) is not True:
            continue
        built = adapter.fold(module, dtype)
        if built is not None and _agrees(module, built, adapter, dtype):
            return built
    return None


def _agrees(module: nn.Module, built: nn.Module, adapter: Adapter, dtype: torch.dtype) -> bool:
    """Whether both give the same for the adapter's example."""
    if adapter.example is None:
        return False
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), torch.autocast(device.type, enabled=False):
        torch.manual_seed(_SEED)
        inputs = [x.to(device, dtype) for x in adapter.example(module)]
        try:
            expected = portable(module)(*(x.clone() for x in inputs))
        except Exception:
            return False
        found = built(*(x.clone() for x in inputs))
    return _difference(found, expected) <= _TOLERANCE


def _difference(found: Any, expected: Any) -> float:
    """Largest difference relative to the largest value; infinite between things of other shapes."""
    ours, theirs = ([t for t in tree_leaves(r) if isinstance(t, Tensor)] for r in (found, expected))
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs)):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs):
        if b.numel():
            wide = b.double()
            worst = max(worst, float((a.double() - wide).abs().max() / wide.abs().max().clamp_min(1e-30)))
    return worst


def _settle(model: nn.Module, built: nn.Module, example: Tensor) -> None:
    """Lets layers hand over channels_last where the model's own code takes it, and compares the outputs.

    Raises:
        ValueError: the outputs differ.
    """
    layers = [part for part in built.modules() if isinstance(part, Folded)]
    expected = portable(model).to(example.dtype)(example.clone())
    for packed in (True, False):
        for layer in layers:
            layer.packed = packed
        try:
            found = built(example.clone())
            break
        except RuntimeError:  # `view` on what only `reshape` can do
            if not packed:
                raise
    error = _difference(found, expected)
    if not error <= _TOLERANCE:
        raise ValueError(
            f"optimize: outputs must agree with the model's within {_TOLERANCE:g} of the largest on example, "
            f"got {error:.3g}"
        )
