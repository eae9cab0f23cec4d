"""Orders of normalisation, activation and convolutions within a block of ST-GCN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

STANDARD = ("graph", "norm", "relu", "temporal", "norm", "dropout", "sum", "relu")
"""The public ST-GCN's order, which the fused operators compute."""

ORDERS: dict[str, tuple[str, ...]] = {
    "standard": STANDARD,
    "pre_activation": ("norm", "relu", "graph", "norm", "relu", "temporal", "dropout", "sum"),
    "norm_ends": ("norm", "graph", "temporal", "norm", "sum", "relu", "dropout"),
    "norm_start": ("norm", "graph", "temporal", "sum", "relu", "dropout"),
    "norm_last": ("norm", "graph", "temporal", "sum", "relu", "norm", "dropout"),
    "no_norm": ("graph", "temporal", "sum", "relu", "dropout"),
}
"""Orders by name; ``sum`` is where the residual is added."""

_ONCE = ("graph", "temporal", "sum")
_WORDS = (*_ONCE, "norm", "relu", "dropout")


def resolve(order: Any, owner: str) -> tuple[str, ...]:
    """The layers of an order, one after another.

    Args:
        order: a name of ``ORDERS``, or the layers: ``graph``, ``temporal`` and ``sum`` once each and in this
            order, and ``norm``, ``relu``, ``dropout`` anywhere.
        owner: name of the caller, for messages.

    Raises:
        TypeError: it is neither a name nor a list of names.
        ValueError: an unknown name or layer, or convolutions that are missing or in another order.
    """
    if isinstance(order, str):
        if order not in ORDERS:
            raise ValueError(
                f"{owner}: order must be one of {', '.join(ORDERS)}, or a list of layers, got {order!r}"
            )
        return ORDERS[order]
    if not isinstance(order, Sequence) or not all(isinstance(word, str) for word in order):
        raise TypeError(f"{owner}: order must be a name or a list of names of layers, got {order!r}")
    words = tuple(order)
    unknown = [word for word in words if word not in _WORDS]
    if unknown:
        raise ValueError(f"{owner}: layers of order must be among {', '.join(_WORDS)}, got {unknown[0]!r}")
    if tuple(word for word in words if word in _ONCE) != _ONCE:
        raise ValueError(
            f"{owner}: order must have graph, temporal and sum once each, in this order, got {list(words)}"
        )
    return words


def described(order: tuple[str, ...]) -> str | list[str]:
    """An order as a configuration writes it: by name, if it has one, else its layers."""
    return next((name for name, words in ORDERS.items() if words == order), list(order))


def split(order: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The layers before the graph convolution, those between it and the sum, and those behind the sum."""
    graph, total = order.index("graph"), order.index("sum")
    return order[:graph], order[graph + 1 : total], order[total + 1 :]


def build(words: Iterable[str], channels: int, dropout: float, temporal: nn.Module | None) -> nn.Sequential:
    """The layers of a part of a block.

    Args:
        words: names of layers, without ``graph`` and ``sum``.
        channels: of the features that ``norm`` gets.
        dropout: probability of zeroing a feature.
        temporal: what ``temporal`` stands for.
    """
    layers: list[nn.Module] = []
    for word in words:
        if word == "norm":
            layers.append(nn.BatchNorm2d(channels))
        elif word == "relu":
            # BatchNorm's output is its own, and its derivative does not need it.
            layers.append(nn.ReLU(inplace=bool(layers) and isinstance(layers[-1], nn.BatchNorm2d)))
        elif word == "dropout":
            layers.append(nn.Dropout(dropout))
        elif temporal is not None:
            layers.append(temporal)
    return nn.Sequential(*layers)
