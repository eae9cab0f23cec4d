"""Sequences of unequal lengths in one array, and the checks every verb makes on its arguments."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._bands import ITAKURA, SAKOE_CHIBA, SLANTED

Array = npt.NDArray[Any]
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _for_kernels(frames: Array) -> Array:
    """A C-contiguous, aligned, read-only view (or copy): the one kind that the kernels take."""
    frames = np.require(frames, requirements=["C", "A"]).view()
    frames.flags.writeable = False
    return frames


@dataclass(frozen=True)
class Sequences:
    """N sequences in packed form: what every collection verb makes of its input, and accepts as input.

    Attributes:
        frames: [sum of lengths, D], float32 or float64, all sequences one behind the other; kept
            as a read-only view.
        offsets: [N + 1] integers, sequence i is `frames[offsets[i]:offsets[i + 1]]`.

    Raises:
        TypeError: frames are not float32 or float64, or offsets are not integers.
        ValueError: the shapes do not fit, or a sequence is empty.

    Examples:
        >>> import numpy as np
        >>> s = Sequences(np.arange(10.0).reshape(5, 2), np.array([0, 2, 5]))
        >>> len(s), s.features, s.lengths.tolist()
        (2, 2, [2, 3])
        >>> s[0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """

    frames: Array
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if not isinstance(self.frames, np.ndarray) or self.frames.dtype not in _FLOATS:
            kind = getattr(self.frames, "dtype", type(self.frames).__name__)
            raise TypeError(f"Sequences: frames must be a float32 or float64 array, got {kind}")
        offsets = np.asarray(self.offsets)
        if offsets.dtype.kind not in "iu":
            raise TypeError(f"Sequences: offsets must be integers, got {offsets.dtype}")
        if self.frames.ndim != 2 or self.frames.shape[1] == 0:
            raise ValueError(f"Sequences: frames must have shape [rows, D], got {list(self.frames.shape)}")
        if offsets.ndim != 1 or len(offsets) < 2:
            raise ValueError(f"Sequences: offsets must have shape [N + 1], N >= 1, got {list(offsets.shape)}")
        if offsets[0] != 0 or offsets[-1] != len(self.frames):
            raise ValueError(
                f"Sequences: offsets must run from 0 to {len(self.frames)} (the rows of frames), "
                f"got {offsets[0]} to {offsets[-1]}"
            )
        if (np.diff(offsets.astype(np.int64)) < 1).any():
            at = int(np.argmax(np.diff(offsets.astype(np.int64)) < 1))
            raise ValueError(
                f"Sequences: sequence {at} must have at least one frame, got offsets {offsets[at : at + 2]}"
            )
        object.__setattr__(self, "frames", _for_kernels(self.frames))
        object.__setattr__(self, "offsets", offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Array:
        """Sequence `index`, [T, D], a view."""
        index = range(len(self))[index]
        return self.frames[self.offsets[index] : self.offsets[index + 1]]

    @property
    def features(self) -> int:
        """D."""
        return int(self.frames.shape[1])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[N], frames of each sequence; not to be changed."""
        return np.diff(self.offsets)

    def select(self, start: int, stop: int) -> Sequences:
        """Sequences start..stop-1, sharing memory."""
        rows = self.offsets[start : stop + 1]
        return Sequences(self.frames[rows[0] : rows[-1]], rows - rows[0])


def _as_array(value: Any, name: str) -> Array:
    """`value` (array, CPU tensor, nested list of numbers) as a NumPy array of real numbers."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, got {value.device}")
        if value.dtype is torch.bfloat16:
            raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
        value = value.detach().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be one array of numbers, got unequal rows") from error
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must hold float32 or float64 numbers, got {array.dtype}")
    return array


def _common(arrays: Sequence[Array], dtype: Any, function: str) -> np.dtype[Any]:
    """The dtype to compute in: the one asked for, else float32 if every array has it, else float64."""
    if dtype is None:
        return _FLOATS[0] if all(a.dtype == _FLOATS[0] for a in arrays) else _FLOATS[1]
    for known in _FLOATS:
        if dtype in (known, known.type, known.name):
            return known
    raise TypeError(f"{function}: dtype must be float32 or float64, got {dtype!r}")


def _finite(frames: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        total = frames.sum()  # one pass without a temporary; an overflow only costs the second look
    return bool(np.isfinite(total)) or bool(np.isfinite(frames).all())


def _check_finite(array: Array, name: str) -> None:
    if not _finite(array):
        frame, feature = np.argwhere(~np.isfinite(array.reshape(len(array), -1)))[0]
        value = array.reshape(len(array), -1)[frame, feature]
        raise ValueError(f"{name} must be finite, got {value} at frame {frame}, feature {feature}")


def _check_sequence(array: Array, name: str) -> Array:
    """[T, D] of a [T, D] or [T] array."""
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must have shape [T, D] or [T], got {list(array.shape)}")
    if array.size == 0:
        raise ValueError(
            f"{name} must have at least one frame and one feature, got shape {list(array.shape)}"
        )
    return array if array.ndim == 2 else array[:, None]


def as_pair(x: Any, y: Any, dtype: Any, function: str) -> tuple[Array, Array]:
    """Two sequences as finite C-contiguous [T, D] arrays of one dtype."""
    arrays = [
        _check_sequence(_as_array(v, f"{function}: {n}"), f"{function}: {n}") for v, n in ((x, "x"), (y, "y"))
    ]
    if arrays[0].shape[1] != arrays[1].shape[1]:
        raise ValueError(
            f"{function}: y must have {arrays[0].shape[1]} features like x, got {arrays[1].shape[1]}"
        )
    common = _common(arrays, dtype, function)
    for array, name in zip(arrays, "xy"):
        _check_finite(array, f"{function}: {name}")
    first, second = (_for_kernels(array.astype(common, copy=False)) for array in arrays)
    return first, second


def _plain(value: Any) -> bool:
    """Whether a list holds what kernels take as it is: [T, D] arrays of one float type and one D."""
    first = value[0] if value else None
    if type(first) is not np.ndarray or first.ndim != 2 or first.dtype not in _FLOATS:
        return False
    kind, width = first.dtype, first.shape[1]
    return all(
        type(v) is np.ndarray and v.dtype == kind and v.ndim == 2 and v.shape[1] == width and v.size
        for v in value
    )


def _view(array: Array) -> Sequences | None:
    """An [N, T, D] or [N, T] array as sequences that share its memory; None where that cannot be."""
    if array.dtype not in _FLOATS or not array.size or not array.flags.c_contiguous:
        return None
    count, length = array.shape[:2]
    return Sequences(array.reshape(count * length, -1), np.arange(count + 1) * length)


def as_collections(
    values: dict[str, Any], dtype: Any, function: str, *, share: bool = False
) -> list[Sequences]:
    """Named collections as finite `Sequences` of one dtype and one D.

    A collection is a list, tuple or object array of [T_i, D] or [T_i] arrays, an [N, T, D] array, an [N, T]
    array (one feature), or `Sequences`; arrays may be torch tensors on the CPU. With `share` the result may
    lie in a caller's array: it must not outlive the call.
    """
    parts: dict[str, tuple[list[Array], Sequences | None]] = {}
    for name, value in values.items():
        if isinstance(value, Sequences):
            parts[name] = ([value.frames], value)
            continue
        if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
            value = list(value)
        if not isinstance(value, (list, tuple)):
            array = _as_array(value, f"{function}: {name}")
            if array.ndim not in (2, 3):
                raise ValueError(
                    f"{function}: {name} must be a list or an array [N, T, D] or [N, T], "
                    f"got shape {list(array.shape)}"
                )
            own = _view(array) if share else None
            if own is not None:
                parts[name] = ([own.frames], own)
                continue
            value = array
        if isinstance(value, (list, tuple)) and _plain(value):
            parts[name] = (list(value), None)
            continue
        items = [
            _check_sequence(_as_array(v, f"{function}: {name}[{i}]"), f"{function}: {name}[{i}]")
            for i, v in enumerate(value)
        ]
        if not items:
            raise ValueError(f"{function}: {name} must hold at least one sequence, got none")
        parts[name] = (items, None)
    first = next(iter(parts))
    features = parts[first][0][0].shape[1]
    for name, (items, _) in parts.items():
        if all(item.shape[1] == features for item in items):
            continue
        for i, item in enumerate(items):
            if item.shape[1] != features:
                raise ValueError(
                    f"{function}: {name}[{i}] must have {features} features like {first}[0], "
                    f"got {item.shape[1]}"
                )
    common = _common([item for items, _ in parts.values() for item in items], dtype, function)
    result = []
    for name, (items, packed) in parts.items():
        if packed is None:
            offsets = np.concatenate([[0], np.cumsum([len(item) for item in items])])
            frames = np.concatenate(items, dtype=common, casting="same_kind")
        else:
            frames, offsets = packed.frames.astype(common, copy=False), packed.offsets
        sequences = Sequences(frames, offsets)
        if not _finite(sequences.frames):
            for i in range(len(sequences)):
                _check_finite(sequences[i], f"{function}: {name}[{i}]")
        result.append(sequences)
    return result


BANDS = ("sakoe_chiba", "slanted", "itakura")
_EVERYWHERE = 1 << 30


class Band(NamedTuple):
    """Which cells of a table take part, for pairs of any lengths; the kernels take it apart in this order.

    Attributes:
        radius: cells each side.
        share: the same as a share of a length, one of the two being zero.
        kind: `SAKOE_CHIBA`, `SLANTED` or `ITAKURA`.
        slope: steepest slope of an Itakura parallelogram.
    """

    radius: int
    share: float
    kind: int = SAKOE_CHIBA
    slope: float = 0.0

    def cells(self, n: npt.ArrayLike, m: npt.ArrayLike) -> Any:
        """Cells of tables n x m that take part, about; for costs."""
        x, y = np.asarray(n, np.float64), np.asarray(m, np.float64)
        shorter, longer = np.minimum(x, y), np.maximum(x, y)
        if self.kind == ITAKURA:
            return shorter * longer * (self.slope - 1) / (self.slope + 1) + shorter + longer
        if self.kind == SLANTED:
            return longer * np.minimum(shorter, 2 * (self.radius + self.share * shorter) + 1)
        reach = 2 * (self.radius + self.share * longer) + 1 + longer - shorter
        return shorter * np.minimum(longer, reach)


def as_band(
    window: Any, longest: int, function: str, band: Any = "sakoe_chiba", max_slope: Any = 2.0
) -> Band:
    """The `Band` that the arguments `window`, `band` and `max_slope` of a verb describe.

    Raises:
        TypeError: a wrong type.
        ValueError: out of range, or a window with a parallelogram, which has none.
    """
    if band not in BANDS:
        raise ValueError(f"{function}: band must be one of {', '.join(BANDS)}, got {band!r}")
    kind = BANDS.index(band)
    if kind == ITAKURA:
        if window is not None:
            raise ValueError(f"{function}: window must be None with band='itakura', got {window!r}")
        return Band(0, 0.0, kind, _slope(max_slope, function))
    if max_slope != 2.0:
        raise ValueError(f"{function}: max_slope must come with band='itakura', got {max_slope!r}")
    if window is None:
        return Band(_EVERYWHERE, 0.0)
    if isinstance(window, (bool, np.bool_)) or not isinstance(window, numbers.Real):
        raise TypeError(f"{function}: window must be None, an int or a float, got {window!r}")
    if isinstance(window, numbers.Integral):
        window = int(window)
        if window < 0 and longest >= _EVERYWHERE:
            raise ValueError(f"{function}: window must be at least 0 cells, got {window}")
        if not 0 <= window <= longest:
            raise ValueError(
                f"{function}: window must be from 0 to {longest} cells (the longest sequence), got {window}"
            )
        return Band(window, 0.0, kind)
    window = float(window)
    if not 0 <= window <= 1:
        raise ValueError(f"{function}: window as a float must be a share from 0.0 to 1.0, got {window}")
    if kind == SLANTED and window == 1:
        return Band(_EVERYWHERE, 0.0)
    return Band(0, window, kind)


def as_normalize(normalize: Any, function: str) -> bool:
    """Whether `normalize` asks for the mean along the path.

    Raises:
        ValueError: it is neither None nor "path".
    """
    if normalize not in (None, "path"):
        raise ValueError(f"{function}: normalize must be None or 'path', got {normalize!r}")
    return normalize is not None


def _slope(max_slope: Any, function: str) -> float:
    if isinstance(max_slope, (bool, np.bool_)) or not isinstance(max_slope, numbers.Real):
        raise TypeError(f"{function}: max_slope must be a number, got {max_slope!r}")
    slope = float(max_slope)
    if not 1 <= slope < math.inf:
        raise ValueError(f"{function}: max_slope must be at least 1, got {slope:g}")
    return slope
