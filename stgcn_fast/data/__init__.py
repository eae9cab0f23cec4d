"""Motion data: readers of many formats, one clip type, a memory-mapped store, splits, streams, transforms."""

from stgcn_fast.data.dataset import SkeletonDataset
from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats import (
    DatasetReader,
    detect_format,
    list_formats,
    read,
    read_clip_table,
    read_dataset,
)
from stgcn_fast.data.relayout import LayoutView, map_joints
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.splits import list_protocols, random_fraction, split
from stgcn_fast.data.store import SkeletonStore
from stgcn_fast.data.streams import list_streams, to_stream
from stgcn_fast.data.transforms import build_transform, list_transforms

__all__ = [
    "SkeletonDataset",
    "build_transform",
    "list_streams",
    "list_transforms",
    "to_stream",
    "DatasetReader",
    "FormatError",
    "LayoutView",
    "Skeleton",
    "SkeletonStore",
    "detect_format",
    "list_formats",
    "list_protocols",
    "map_joints",
    "random_fraction",
    "read",
    "read_clip_table",
    "read_dataset",
    "split",
]
