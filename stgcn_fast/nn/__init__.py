"""Layers on the package's operators, with the field's parameter names."""

from stgcn_fast.nn.block import STGCNBlock
from stgcn_fast.nn.graph_conv import GraphConv
from stgcn_fast.nn.init import init_as_public
from stgcn_fast.nn.temporal_conv import TemporalConv

__all__ = ["GraphConv", "STGCNBlock", "TemporalConv", "init_as_public"]
