"""Arrays and values as text that may stand inside a page."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

# The highest step of what is rounded to so many bits.
_STEPS = {8: np.iinfo(np.uint8).max, 16: np.iinfo(np.uint16).max}


def pack(values: Any) -> dict[str, Any]:
    """An array as little-endian float32 in base64; NaN stays NaN.

    Args:
        values: Numbers of any shape.

    Returns:
        ``type``, ``shape`` and ``data``.
    """
    array = np.ascontiguousarray(values, dtype="<f4")
    return _packed(array, "float32")


def pack_indices(values: Any) -> dict[str, Any]:
    """Whole numbers from 0 to 2**32 - 1 in base64, as uint16 where they fit and uint32 where not."""
    array = np.asarray(values)
    small = array.size == 0 or int(array.max()) <= _STEPS[16]
    if small:
        return _packed(np.ascontiguousarray(array, dtype="<u2"), "uint16")
    return _packed(np.ascontiguousarray(array, dtype="<u4"), "uint32")


def pack_rounded(values: Any, bits: int) -> dict[str, Any]:
    """An array rounded to 8 or 16 bits between its smallest and its largest value; NaN becomes the smallest.

    A value is ``low + step * (high - low) / (2**bits - 1)``, and off by half a step at most.

    Args:
        values: Numbers of any shape.
        bits: 8 or 16.

    Returns:
        ``type``, ``shape``, ``low``, ``high`` and ``data``.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale = _STEPS[bits] / (high - low) if high > low else 0.0
    steps = np.rint((np.where(np.isfinite(array), array, low) - low) * scale)
    packed = _packed(np.ascontiguousarray(steps, dtype="<u2" if bits == 16 else "u1"), f"uint{bits}")
    return packed | {"low": low, "high": high}


def _packed(array: Any, kind: str) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"type": kind, "shape": list(array.shape), "data": data}


def size_of(packed: dict[str, Any]) -> int:
    """Bytes that a packed array takes in the page."""
    return len(packed["data"])


def script_json(value: Any) -> str:
    """JSON that can stand in a ``script`` element: nothing in it ends the element or begins a comment.

    Numbers that are not finite become null.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
