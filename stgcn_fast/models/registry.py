"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Model = TypeVar("Model", bound=type[nn.Module])

_MODELS: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[Model], Model]:
    """Class decorator that gives a network a name for :func:`build` and for checkpoints.

    The class needs a ``config`` property: a dictionary that JSON can hold, with the keyword arguments that
    build the network again.

    Args:
        name: the new name.

    Raises:
        ValueError: the name stands for another class already.
    """

    def add(model: Model) -> Model:
        known = _MODELS.get(name)
        if known is not None and known.__qualname__ != model.__qualname__:
            raise ValueError(f"register: name must be new, got {name!r}, which is {known.__qualname__}")
        _MODELS[name] = model
        return model

    return add


def list_models() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(_MODELS)


def build(name: str, **config: Any) -> nn.Module:
    """Builds a network from its name and keyword arguments.

    Args:
        name: one of :func:`list_models`.
        config: arguments of the network's constructor.

    Raises:
        TypeError: an argument is missing or has the wrong type.
        ValueError: an unknown name or argument, or a value that the network refuses.

    Examples:
        >>> build("st_gcn", num_classes=5, layout="hand21", width=0.25).num_classes
        5
    """
    if name not in _MODELS:
        raise ValueError(f"build: name must be one of {', '.join(list_models())}, got {name!r}")
    parameters = inspect.signature(_MODELS[name]).parameters
    unknown = sorted(set(config) - set(parameters))
    if unknown:
        raise ValueError(
            f"build: arguments of {name} must be among {', '.join(parameters)}, got {', '.join(unknown)}"
        )
    missing = [p for p, v in parameters.items() if v.default is inspect.Parameter.empty and p not in config]
    if missing:
        raise TypeError(
            f"build: {name} must be given {', '.join(missing)}, got {', '.join(config) or 'nothing'}"
        )
    return _MODELS[name](**config)


def name_of(model: nn.Module) -> str | None:
    """The name under which the class of a network is registered, or None."""
    for name, known in _MODELS.items():
        if type(model) is known:
            return name
    return None
