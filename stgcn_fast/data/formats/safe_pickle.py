"""Reads pickles that hold plain containers and numeric numpy arrays, and nothing else.

A pickle is a program. This unpickler resolves exactly the few names that numpy writes for arrays and scalars,
and to functions of this module rather than to numpy's, so that a file can make arrays and nothing else.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import require_exists

# Booleans, integers, floats, bytes and text. Never objects: their elements are arbitrary.
PLAIN_DTYPE = re.compile(r"[<>|=]?[biufSU]\d{1,6}")


def load(path: Path) -> Any:
    """Loads a pickle of dicts, lists, tuples, sets, text, numbers and numeric numpy arrays.

    Raises:
        FormatError: If the pickle is damaged, or asks for any other name; nothing of it has been executed
            then.
    """
    require_exists(path)
    if path.stat().st_size == 0:
        raise FormatError(path, "must not be empty", "0 bytes")
    with open(path, "rb") as file:
        try:
            return _Unpickler(file).load()
        except _ForbiddenError as error:
            rule = "pickle must hold only plain containers and numeric numpy arrays"
            raise FormatError(path, rule, error) from None
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise FormatError(path, "must be a complete pickle", f"{type(error).__name__}: {error}") from None


class _ForbiddenError(Exception):
    """A name, dtype or call that is not on the list."""

    def __repr__(self) -> str:
        return str(self)


class _ArrayType:
    """Stands for ``numpy.ndarray``, which a pickle may name but not call."""


class _Dtype:
    """Stands for a dtype while the pickle builds it.

    ``numpy.dtype.__setstate__`` believes any flags it is given, such as "elements are object pointers"; only
    the byte order is taken from the state here.
    """

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 8 or state[1] not in ("<", ">", "|", "="):
            raise _ForbiddenError("a numpy dtype in an unknown form")
        if any(part is not None for part in state[2:5]):
            raise _ForbiddenError("a numpy dtype with fields")
        self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray(np.ndarray[Any, Any]):
    """A numpy array whose state from a pickle is checked before numpy sees it."""

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise _ForbiddenError("a numpy array in an unknown form")
        _, shape, code, fortran, data = state
        buffer, dtype = _check_buffer(data, code, shape)
        checked: Any = (1, shape, dtype, bool(fortran), buffer)
        super().__setstate__(checked)


def _check_buffer(data: object, dtype: object, shape: object) -> tuple[bytes, np.dtype[Any]]:
    """The bytes and their real dtype; raises unless they are exactly an array of that shape."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise _ForbiddenError("a numpy array that is not bytes of a plain dtype")
    if not isinstance(shape, tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise _ForbiddenError(f"a numpy array of shape {shape!r}")
    expected = math.prod(shape) * dtype.dtype.itemsize
    if expected != len(data):
        raise ValueError(f"numpy array of shape {shape} needs {expected} bytes, file has {len(data)}")
    return bytes(data), dtype.dtype


def _make_array(kind: object, shape: object, code: object) -> PlainArray:
    """The empty array whose contents the pickle then sets."""
    if kind is not _ARRAY_TYPE:
        raise _ForbiddenError("an array of another type than numpy.ndarray")
    return PlainArray(0, dtype=np.int8)


def _make_dtype(code: object, align: object = False, copy: object = False) -> _Dtype:
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code):
        raise _ForbiddenError(f"numpy dtype {code!r}")
    return _Dtype(code)


def _make_scalar(dtype: object, data: object) -> Any:
    return np.frombuffer(*_check_buffer(data, dtype, ()))[0]


def _make_from_buffer(data: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    flat = np.frombuffer(*_check_buffer(data, dtype, shape))
    return flat.reshape(cast("tuple[int, ...]", shape), order="F" if order == "F" else "C")


def _make_bytes(text: object, encoding: object) -> bytes:
    """``codecs.encode`` as Python 3 writes it for bytes in old protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _ForbiddenError(f"codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _make_empty_bytes() -> bytes:
    """``bytes()``, which is how protocol 2 writes empty ones; with an argument it could fill the memory."""
    return b""


_ARRAY_TYPE = _ArrayType()
_PLAIN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _make_bytes,
    ("collections", "OrderedDict"): OrderedDict,
}
for _builtins in ("builtins", "__builtin__"):  # protocols up to 2 use the name of Python 2
    _PLAIN[_builtins, "set"] = set
    _PLAIN[_builtins, "frozenset"] = frozenset
    _PLAIN[_builtins, "bytes"] = _make_empty_bytes
_MAKERS: dict[str, Callable[..., Any]] = {"_reconstruct": _make_array, "scalar": _make_scalar}
for _core in ("numpy.core", "numpy._core"):  # the name changed in numpy 2
    _PLAIN.update({(f"{_core}.multiarray", name): maker for name, maker in _MAKERS.items()})
    _PLAIN[f"{_core}.numeric", "_frombuffer"] = _make_from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise _ForbiddenError(f"the name {module}.{name}")
        return _PLAIN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("a persistent identity")
