"""What the package knows about one kind of layer: how to recognise it, and how to compute it faster."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Mode = Literal["train", "inference"]
MODES: tuple[Mode, ...] = ("train", "inference")

Plain = Callable[..., Any]
"""The layer's own forward, unbound: ``plain(module, *inputs)``."""


@dataclass(frozen=True)
class Adapter:
    """One kind of layer.

    Attributes:
        name: unique, ``"family.layer"``; accelerated layers are pickled with it.
        family: of networks, as the report shows it.
        match: says of a module whether it is this layer, by class name, attributes and shapes, without
            importing the network's package: True; a sentence, if it looks like this layer but cannot be
            taken; False for everything else.
        forward: computes the layer: ``forward(module, plain, *inputs)`` with the inputs of the layer's own
            forward. It reads the parameters from the module at every call and keeps nothing, and where an
            input, a hook or a mode does not suit it, it returns ``plain(module, *inputs)``. A function of a
            module, so that ``torch.compile`` and pickle find it.
        example: inputs for a module, small and random, with which the two forwards are compared before the
            layer is taken. None for classes of torch itself, which need no comparison.
        modes: of :func:`stgcn_fast.accelerate`, in which the layer may be taken; none for an adapter that
            only folds.
        anywhere: False for a layer that is taken only in models that have one of a family too.
        fold: makes the layer's form for :func:`stgcn_fast.optimize`: ``fold(module, dtype)`` gives a new
            module that takes and gives what the layer does in evaluation mode, with weights of its own in
            that dtype, BatchNorm folded; or None where it cannot. Without it the layer is accelerated there.
    """

    name: str
    family: str
    match: Callable[[nn.Module], bool | str]
    forward: Callable[..., Any]
    example: Callable[[Any], tuple[Tensor, ...]] | None
    modes: tuple[Mode, ...] = MODES
    anywhere: bool = True
    fold: Callable[[Any, torch.dtype], nn.Module | None] | None = None


_adapters: dict[str, Adapter] = {}
_families_loaded = False


def register_adapter(adapter: Adapter) -> Adapter:
    """Add an adapter; those added last are asked first.

    Args:
        adapter: of a layer of your own, or of the package's. One of the same name is replaced.

    Returns:
        The adapter.

    Raises:
        TypeError: it is not an :class:`Adapter`.
        ValueError: its modes are not among "train" and "inference".
    """
    if not isinstance(adapter, Adapter):
        raise TypeError(f"register_adapter: adapter must be an Adapter, got {type(adapter).__name__}")
    if not (adapter.modes or adapter.fold) or not set(adapter.modes) <= set(MODES):
        raise ValueError(f"register_adapter: adapter.modes must be among {MODES}, got {adapter.modes!r}")
    _adapters.pop(adapter.name, None)
    _adapters[adapter.name] = adapter
    return adapter


def unregister_adapter(name: str) -> None:
    """Forget an adapter; layers that are accelerated with it stay so.

    Raises:
        ValueError: there is none of that name.
    """
    _load_families()
    if _adapters.pop(name, None) is None:
        raise ValueError(f"unregister_adapter: name must be one of {sorted(_adapters)}, got {name!r}")


def list_adapters() -> list[Adapter]:
    """All adapters, in the order in which they are asked."""
    _load_families()
    return list(reversed(_adapters.values()))


def find_adapter(name: str) -> Adapter | None:
    """The adapter of a name, or None."""
    _load_families()
    return _adapters.get(name)


def _load_families() -> None:
    """Import the package's own adapters, once; those that a user added before stay in front."""
    global _families_loaded
    if _families_loaded:
        return
    _families_loaded = True
    mine = dict(_adapters)
    package = importlib.import_module("stgcn_fast.swap.families")
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    for adapter in mine.values():
        register_adapter(adapter)
