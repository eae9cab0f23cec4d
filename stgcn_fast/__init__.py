"""Compiled kernels for skeleton graph networks, DTW distance matrices, and the ST-GCN research stack.

Importing the package is quick: rooms (``stgcn_fast.models``, ``stgcn_fast.dtw``, ...) load at first use.
The operators ``torch.ops.stgcn_fast.*`` are registered by ``import stgcn_fast.ops``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stgcn_fast._version import __version__

if TYPE_CHECKING:
    from stgcn_fast import (
        cli,
        data,
        dtw,
        explain,
        geometry,
        graph,
        info,
        models,
        nn,
        ops,
        report,
        swap,
        training,
    )
    from stgcn_fast.models import StreamingSTGCN, load_checkpoint
    from stgcn_fast.swap import accelerate, accelerated, optimize, restore

__all__ = [
    "StreamingSTGCN",
    "__version__",
    "accelerate",
    "accelerated",
    "cli",
    "data",
    "dtw",
    "explain",
    "geometry",
    "graph",
    "info",
    "load_checkpoint",
    "models",
    "nn",
    "ops",
    "optimize",
    "report",
    "restore",
    "swap",
    "training",
]

_ROOMS = frozenset(
    {
        "cli",
        "data",
        "dtw",
        "explain",
        "geometry",
        "graph",
        "info",
        "models",
        "nn",
        "ops",
        "report",
        "swap",
        "training",
    }
)
_FUNCTIONS = {
    "StreamingSTGCN": "stgcn_fast.models",
    "accelerate": "stgcn_fast.swap",
    "accelerated": "stgcn_fast.swap",
    "load_checkpoint": "stgcn_fast.models",
    "optimize": "stgcn_fast.swap",
    "restore": "stgcn_fast.swap",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"stgcn_fast.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'stgcn_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
