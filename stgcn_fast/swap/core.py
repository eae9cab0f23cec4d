"""Known layers of somebody's own model, computed by this package's operators: in place, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stgcn_fast.nn import _fusion
from stgcn_fast.swap._classes import adapter_of, original_class, swap, unswap
from stgcn_fast.swap._compare import disagreement
from stgcn_fast.swap.adapter import MODES, Adapter, Mode, list_adapters
from stgcn_fast.swap.report import Report, Row

_KERNEL = "graph_conv"  # the operator that every family uses: where it is not compiled, nothing gains


def accelerate(model: nn.Module, mode: Mode = "train", verbose: bool = False) -> Report:
    """Lets this package compute the layers of a model that it knows, in place.

    Parameters and buffers stay the very same objects, with their names: optimisers, moving averages,
    ``state_dict`` and wrappers go on as before. A layer is known by its class name, attributes and shapes,
    and is taken only after its own forward and the fast one agree on a copy with random weights, in
    evaluation and in training mode. Everything else is left alone, and the report says why. A layer whose
    parts are watched by hooks when it runs runs plain.

    Args:
        model: any module; wrappers such as ``DistributedDataParallel`` are looked into.
        mode: "train" takes what is faster with gradients and without; "inference", for a model in evaluation
            mode, takes also what is faster without gradients only (with gradients it runs plain).
        verbose: whether to print the report.

    Returns:
        A row for each layer that looks like a known one.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the mode is unknown, the model is in training mode for "inference", or it has tensors on
            the meta device. Nothing is changed then.
    """
    _check(model, mode)
    rows, swaps = _plan(model, mode)
    done: list[tuple[nn.Module, Adapter | None]] = []
    try:
        for module, adapter in swaps:
            done.append((module, adapter_of(module)))
            swap(module, adapter)
    except BaseException:
        _put_back(done)
        raise
    report = Report(mode, tuple(rows), original_class(model).__name__)
    if verbose:
        print(report)
    return report


def restore(model: nn.Module) -> int:
    """Gives accelerated layers their own forward back.

    Args:
        model: any module, accelerated or not.

    Returns:
        How many layers were accelerated.

    Raises:
        TypeError: it is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"restore: model must be a torch.nn.Module, got {type(model).__name__}")
    swapped = [module for module in model.modules() if adapter_of(module) is not None]
    for module in swapped:
        unswap(module)
    return len(swapped)


@contextmanager
def accelerated(model: nn.Module, mode: Mode = "train", verbose: bool = False) -> Iterator[Report]:
    """Accelerates a model for a block of code; behind it every layer is as it was before.

    Args:
        model: as for :func:`accelerate`.
        mode: as for :func:`accelerate`.
        verbose: as for :func:`accelerate`.

    Raises:
        TypeError: as :func:`accelerate`.
        ValueError: as :func:`accelerate`.
    """
    _check(model, mode)
    before = [(module, adapter_of(module)) for module in model.modules()]
    try:
        yield accelerate(model, mode, verbose)
    finally:
        _put_back(before)


def _put_back(states: list[tuple[nn.Module, Adapter | None]]) -> None:
    for module, adapter in states:
        if adapter is None:
            unswap(module)
        else:
            swap(module, adapter)


def _check(model: nn.Module, mode: Mode) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module, got {type(model).__name__}")
    if mode not in MODES:
        raise ValueError(f"accelerate: mode must be 'train' or 'inference', got {mode!r}")
    if mode == "inference" and model.training:
        raise ValueError(
            "accelerate: model must be in evaluation mode for mode='inference', got one in training mode"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"accelerate: model must hold its tensors, got {name} on the meta device")


def _plan(model: nn.Module, mode: Mode) -> tuple[list[Row], list[tuple[nn.Module, Adapter]]]:
    """What to do with each module, without doing it."""
    known = [adapter for adapter in list_adapters() if adapter.modes]
    decided = [
        (_decide(module, [a for a in known if a.anywhere], name, mode), name, module)
        for name, module in model.named_modules()
    ]
    if any(found is not None for found, _, _ in decided):
        others = [a for a in known if not a.anywhere]
        decided = [
            (found or _decide(module, others, name, mode), name, module) for found, name, module in decided
        ]
    rows = [found[0] for found, _, _ in decided if found is not None]
    swaps = [(module, found[1]) for found, _, module in decided if found is not None and found[1] is not None]
    return rows, swaps


def _decide(
    module: nn.Module, adapters: list[Adapter], name: str, mode: Mode
) -> tuple[Row, Adapter | None] | None:
    """A module's row and the adapter that it gets; None if it looks like no known layer."""
    layer = original_class(module).__name__
    current = adapter_of(module)
    if current is not None and mode in current.modes:
        return Row(name, layer, current.family, True, f"{current.name}, before"), None
    if isinstance(module, torch.jit.ScriptModule):
        return None
    first: Row | None = None
    for adapter in adapters:
        verdict = recognise(adapter, module)
        if verdict is False:
            continue
        reason = verdict if isinstance(verdict, str) else _obstacle(adapter, module, mode)
        if reason is None:
            return Row(name, layer, adapter.family, True, adapter.name), adapter
        first = first or Row(name, layer, adapter.family, False, reason)
    return None if first is None else (first, None)


def recognise(adapter: Adapter, module: nn.Module) -> bool | str:
    """What an adapter says of a module; classes of the same name may lack what it looks at."""
    try:
        return adapter.match(module)
    except Exception as error:
        return f"it is not built as the known one: {type(error).__name__}: {error}"


def _obstacle(adapter: Adapter, module: nn.Module, mode: Mode) -> str | None:
    """Why a known layer cannot be taken; None if it can."""
    if mode not in adapter.modes:
        return f"gains nothing in mode {mode!r}"
    if "forward" in module.__dict__:
        return "its forward was replaced"
    devices = {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        return f"its tensors are on several devices: {', '.join(sorted(devices))}"
    for device in devices:
        if not _fusion.compiled(_KERNEL, device):
            return f"there is no compiled kernel for {device}"
    return disagreement(adapter, module)
