"""Reads one numeric array from a MATLAB file of version 5 to 7 ("Level 5 MAT-file format", MathWorks).

A file is a header of 128 bytes and data elements: type, size, bytes, padded to eight. An array is an element
that holds elements: flags, dimensions, name, values. From version 7 on, elements are compressed. Every size
is checked before it is believed, because a file may be damaged.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import require_exists

HEADER_SIZE = 128
MAX_SIZE = 1 << 30  # unpacked bytes of one element: far above any clip, far below memory
MATRIX, COMPRESSED = 14, 15
COMPLEX_FLAG = 0x0800
# Element types and array classes, by their numbers in the format.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"}


def read_variable(path: Path, name: str) -> NDArray[Any]:
    """Reads the numeric array ``name``.

    Args:
        path: ``.mat`` file.
        name: Name of the variable.

    Returns:
        The array, in MATLAB's (column-major) order of elements and the dtype of its MATLAB class.

    Raises:
        FormatError: If the file is no complete MATLAB file of version 5 to 7, has no such variable, or it is
            not a real numeric array.
    """
    require_exists(path)
    data = path.read_bytes()
    if not data:
        raise FormatError(path, "must not be empty", "0 bytes")
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise FormatError(path, "must be a MATLAB file of version 5 to 7", "version 7.3 (HDF5)")
    if len(data) < HEADER_SIZE or data[126:128] not in (b"IM", b"MI"):
        raise FormatError(path, "must start with the header of a MATLAB file", repr(data[:16]))
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for kind, body in _elements(data[HEADER_SIZE:], order):
            if kind == COMPRESSED:
                kind, body = next(_elements(_unpacked(body), order), (0, b""))
            if kind == MATRIX:
                found = _array(path, body, order, name)
                if found is not None:
                    return found
    except (ValueError, struct.error, zlib.error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, "must be a complete MATLAB file", str(error)) from None
    raise FormatError(path, f"must hold the variable {name}", "no such variable")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Types and bytes of the elements that follow each other in ``data``."""
    at = 0
    while at < len(data):
        first, size = struct.unpack_from(order + "II", data, at)
        if first >> 16:  # a small element: size and type share the first word, the bytes follow at once
            kind, size, start, end = first & 0xFFFF, first >> 16, at + 4, at + 8
        else:
            kind, start = first, at + 8
            end = start + size if kind == COMPRESSED else start + size + -size % 8
        # The padding of the last element may be missing.
        if start + size > min(end, len(data)):
            raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]
        at = end


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, MAX_SIZE)
    if not unpacker.eof:
        raise ValueError(f"a compressed element that does not end within {len(unpacked)} bytes")
    return unpacked


def _array(path: Path, body: bytes, order: str, name: str) -> NDArray[Any] | None:
    """The array in a matrix element if it has that name; None if it has another."""
    elements = _elements(body, order)
    parts = [next(elements, None) for _ in range(3)]
    flags, shape, title = (part for part in parts if part is not None) if None not in parts else (None,) * 3
    if flags is None or shape is None or title is None or len(flags[1]) < 4 or len(shape[1]) % 4:
        raise ValueError("an array without flags, dimensions and name")
    if title[1] != name.encode():
        return None
    (word,) = struct.unpack_from(order + "I", flags[1])
    number = word & 0xFF
    if number not in CLASSES or word & COMPLEX_FLAG:
        what = "complex numbers" if number in CLASSES else OTHER_CLASSES.get(number, f"class {number}")
        raise FormatError(path, f"{name} must be real numbers", what)
    kind, values = next(elements, (0, b""))
    if kind not in TYPES:
        raise ValueError(f"values of the unknown type {kind}")
    extents = [int(extent) for extent in np.frombuffer(shape[1], order + "i4")]
    stored = np.dtype(order + TYPES[kind])
    if min(extents, default=-1) < 0 or math.prod(extents) * stored.itemsize != len(values):
        raise ValueError(f"{len(values)} bytes for an array of shape {extents}")
    return np.frombuffer(values, stored).astype(CLASSES[number]).reshape(extents, order="F")
