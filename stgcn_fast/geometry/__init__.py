"""The geometry of a network's layers: NNK graphs of clips, label smoothness, studies of depth and noise."""

from stgcn_fast.geometry.ds_graph import DSGraph, ds_graph, embed_plane, windows_for
from stgcn_fast.geometry.edges import NNKGraph
from stgcn_fast.geometry.nnk import Settings, nnk_graph
from stgcn_fast.geometry.smoothness import Smoothness, label_smoothness

__all__ = [
    "DSGraph",
    "NNKGraph",
    "Settings",
    "Smoothness",
    "ds_graph",
    "embed_plane",
    "label_smoothness",
    "nnk_graph",
    "windows_for",
]
