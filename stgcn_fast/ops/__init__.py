"""Operators: schema, pure-PyTorch reference, derivatives of any order; compiled where possible."""

from stgcn_fast import _native

from ._library import decompositions
from ._options import Options, get_options, options, set_options
from .attention_gates import attention_gates
from .branch_block import branch_block
from .dtw import dtw_cdist, dtw_distance, dtw_pairwise_distance
from .graph_conv import graph_conv
from .joint_attention import joint_attention
from .joint_relations import joint_relations
from .relation_graph_conv import relation_graph_conv
from .soft_dtw import soft_dtw
from .st_block import st_block, st_block_frames
from .st_block_train import st_block_train
from .st_blocks import st_blocks
from .temporal_conv import temporal_conv
from .window_graph_conv import window_graph_conv

__all__ = [
    "graph_conv",
    "temporal_conv",
    "branch_block",
    "relation_graph_conv",
    "joint_relations",
    "joint_attention",
    "attention_gates",
    "window_graph_conv",
    "st_block",
    "st_block_frames",
    "st_blocks",
    "st_block_train",
    "dtw_distance",
    "dtw_pairwise_distance",
    "dtw_cdist",
    "soft_dtw",
    "decompositions",
    "options",
    "set_options",
    "get_options",
    "Options",
]

# The schemas above come first: the extension adds kernels to them.
_native.load()
