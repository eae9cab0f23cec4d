"""Faster layers for models of other code bases, in place: :func:`accelerate` and :func:`restore`."""

from stgcn_fast.swap import block, parts
from stgcn_fast.swap.adapter import Adapter, list_adapters, register_adapter, unregister_adapter
from stgcn_fast.swap.core import accelerate, accelerated, restore
from stgcn_fast.swap.folded import Folded
from stgcn_fast.swap.inference import optimize
from stgcn_fast.swap.report import Report, Row

__all__ = [
    "Adapter",
    "Folded",
    "Report",
    "Row",
    "accelerate",
    "accelerated",
    "block",
    "list_adapters",
    "optimize",
    "parts",
    "register_adapter",
    "restore",
    "unregister_adapter",
]
