"""The swap itself: a layer's class is replaced by a subclass whose forward is the adapter's.

Nothing is stored on the module, so ``state_dict``, parameters, buffers, hooks, ``deepcopy``, replication and
``isinstance`` are what they were. A forward bound to the instance would be shared by replicas, and would
not follow a copy. The subclass has the class's own name; pickles hold the class and the adapter's name.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakValueDictionary

from torch import nn

from stgcn_fast.swap.adapter import Adapter, find_adapter

_MARK = "_stgcn_fast_swap"
_classes: WeakValueDictionary[tuple[type[nn.Module], str, Callable[..., Any]], type[nn.Module]] = (
    WeakValueDictionary()
)


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before it was accelerated; its class if it was not."""
    mark = type(module).__dict__.get(_MARK)
    return type(module) if mark is None else cast("type[nn.Module]", mark[0])


def adapter_of(module: nn.Module) -> Adapter | None:
    """The adapter that computes a module, or None."""
    mark = type(module).__dict__.get(_MARK)
    return None if mark is None else cast(Adapter, mark[1])


def swap(module: nn.Module, adapter: Adapter) -> None:
    """Let an adapter compute a module from now on."""
    module.__class__ = _swapped(original_class(module), adapter)


def unswap(module: nn.Module) -> None:
    """Give a module its own class back."""
    module.__class__ = original_class(module)


def swapped_class(original: type[nn.Module], adapter: Adapter) -> type[nn.Module]:
    """The class that modules of a class get from an adapter; one for each pair."""
    return _swapped(original, adapter)


def _swapped(original: type[nn.Module], adapter: Adapter) -> type[nn.Module]:
    key = (original, adapter.name, adapter.forward)
    known = _classes.get(key)
    if known is not None:
        return known
    compute, plain = adapter.forward, original.forward

    names = tuple(inspect.signature(plain).parameters)[1:]

    @functools.wraps(plain)  # export and ONNX read the names of the inputs
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if kwargs:  # adapters take inputs by position
            given = names[len(args) : len(args) + len(kwargs)]
            if len(given) != len(kwargs) or not all(name in kwargs for name in given):
                return plain(self, *args, **kwargs)
            args = (*args, *(kwargs[name] for name in given))
        return compute(self, plain, *args)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:
        reduced: Any = super(made, self).__reduce_ex__(protocol)
        function, arguments, *rest = reduced
        arguments = tuple(original if value is made else value for value in arguments)
        return (_rebuild, (adapter.name, function, arguments), *rest)

    members: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__reduce_ex__": __reduce_ex__,
        "forward": forward,
        _MARK: (original, adapter),
    }
    metaclass: Any = type(original)
    made: type[nn.Module] = metaclass(original.__name__, (original,), members)
    _classes[key] = made
    return made


def _rebuild(name: str, function: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    """A module from a pickle or for a copy, accelerated as the one that was pickled."""
    module = function(*arguments)
    adapter = find_adapter(name)
    if adapter is None:
        warnings.warn(f"no adapter {name!r} is registered: its layers run plain", stacklevel=2)
    else:
        swap(module, adapter)
    return module
