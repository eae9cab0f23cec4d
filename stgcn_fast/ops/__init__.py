"""Operators: schema, pure-PyTorch reference, derivatives of any order; compiled where possible."""

from stgcn_fast import _native

from ._library import decompositions
from .graph_conv import graph_conv
from .temporal_conv import temporal_conv

__all__ = ["graph_conv", "temporal_conv", "decompositions"]

# The schemas above come first: the extension adds kernels to them.
_native.load()
