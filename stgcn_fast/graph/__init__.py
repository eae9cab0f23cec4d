"""Skeleton layouts, partitions and normalised adjacencies."""

from stgcn_fast.graph.graph import NORMALIZATIONS, PARTITIONS, Graph
from stgcn_fast.graph.layout import Layout
from stgcn_fast.graph.layouts import (
    carried_definition,
    get_layout,
    list_layouts,
    register_layout,
    restore_layout,
)
from stgcn_fast.graph.mapping import joint_mapping
from stgcn_fast.graph.partition import hop_distances, mean_joint_distances

__all__ = [
    "NORMALIZATIONS",
    "PARTITIONS",
    "Graph",
    "Layout",
    "carried_definition",
    "get_layout",
    "hop_distances",
    "joint_mapping",
    "list_layouts",
    "mean_joint_distances",
    "register_layout",
    "restore_layout",
]
