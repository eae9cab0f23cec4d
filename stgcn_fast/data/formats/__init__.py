"""Readers, one file per format; see ``read``, ``read_dataset`` and ``list_formats``."""

from stgcn_fast.data.formats.base import Clip, Format
from stgcn_fast.data.formats.ntu import BodyRules
from stgcn_fast.data.formats.registry import (
    DatasetReader,
    detect_format,
    get_format,
    list_formats,
    read,
    read_dataset,
)
from stgcn_fast.data.formats.table import read_clip_table

__all__ = [
    "BodyRules",
    "Clip",
    "DatasetReader",
    "Format",
    "detect_format",
    "get_format",
    "list_formats",
    "read",
    "read_clip_table",
    "read_dataset",
]
