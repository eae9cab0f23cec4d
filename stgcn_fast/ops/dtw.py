"""Dynamic time warping distances of tensors, as operators: the torch face of `stgcn_fast.dtw`.

    g(i, j) = sum_d (x[i, d] - y[j, d])^2 + min(g(i - 1, j - 1), g(i - 1, j), g(i, j - 1))

and the result is the root of the last g, as `stgcn_fast.dtw.dtw_distance` states it with all its options.
Collections are packed: `frames` [rows, D], all sequences one behind the other, and `offsets` [N + 1], where
each one starts. A compiled graph holds these operators as they are; what depends on the numbers (finite
frames, offsets that fit, a window within the sequences) is checked when they run.

Tensors of every device are taken; without a kernel for the device the processor computes. The CUDA kernel
never waits for the device: there a sequence that is not finite has distances NaN, and offsets that do not fit
give NaN everywhere. The minimum has no derivative that is of use everywhere: `stgcn_fast.dtw.soft_dtw` is the
differentiable one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._checks import fail_type, fail_value, shape_text
from ._library import define

if TYPE_CHECKING:
    from stgcn_fast.dtw import Sequences
    from stgcn_fast.dtw.sequences import Band

_WIDE = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)
_WIDEST = 1 << 30  # a radius that leaves no cell out


def _sequences(name: str, argument: str, frames: Tensor, offsets: Tensor) -> Sequences:
    from stgcn_fast.dtw.sequences import Sequences, as_collections

    try:
        packed = Sequences(frames.detach().cpu().numpy(), offsets.detach().cpu().numpy())
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("Sequences", f"{name}: {argument}", 1)) from None
    return as_collections({argument: packed}, None, name)[0]


def _checked_band(name: str, radius: int, share: float, kind: int = 0, slope: float = 0.0) -> Band:
    """The band of an operator's numbers, which past the public functions can be any."""
    from stgcn_fast.dtw.sequences import BANDS, Band

    if not 0 <= radius <= _WIDEST:
        raise fail_value(name, "radius", f"from 0 to {_WIDEST}", radius)
    if not 0 <= share <= 1:
        raise fail_value(name, "share", "from 0.0 to 1.0", share)
    if not 0 <= kind < len(BANDS):
        raise fail_value(name, "band", f"from 0 to {len(BANDS) - 1}", kind)
    if BANDS[kind] == "itakura" and not 1 <= slope < math.inf:
        raise fail_value(name, "slope", "at least 1", slope)
    return Band(radius, share, kind, slope)


def _check_alike(name: str, x: Sequences, y: Sequences) -> None:
    if x.frames.dtype != y.frames.dtype:
        raise fail_type(name, "Y", f"of the dtype of X, {x.frames.dtype}", y.frames.dtype)
    if x.frames.shape[1] != y.frames.shape[1]:
        raise fail_value(name, "Y", f"of D = {x.frames.shape[1]} features like X", y.frames.shape[1])


def _matrix(
    name: str,
    x: Sequences,
    y: Sequences | None,
    band: tuple[int, float, int, float],
    mean: bool,
    squared: bool,
) -> Tensor:
    import numpy as np

    from stgcn_fast.dtw._engine import distances, thread_count
    from stgcn_fast.dtw._windowed_kernels import mean_along_path

    cells = _checked_band(name, *band)
    if y is not None:
        _check_alike(name, x, y)
    number = x.frames.dtype
    table = np.empty((len(x), len(x if y is None else y)), number)

    def emit(rows: Any, columns: Any, values: Any) -> None:
        table[rows[:, None], columns] = values
        if y is None:
            table[columns[:, None], rows] = values.T

    recurrence = mean_along_path(number, cells) if mean else None
    threads = thread_count(None, name)
    distances(x, y, cells, emit, squared=squared, threads=threads, progress=None, recurrence=recurrence)
    return torch.from_numpy(table)


def _reference_distance(
    x: Tensor, y: Tensor, radius: int, share: float, band: int, slope: float, mean: bool, squared: bool
) -> Tensor:
    a, b = (
        _sequences("dtw_distance", argument, part, torch.tensor([0, len(part)]))
        for argument, part in (("x", x), ("y", y))
    )
    return _matrix("dtw_distance", a, b, (radius, share, band, slope), mean, squared).view(()).to(x.device)


def _reference_pairwise(
    frames: Tensor, offsets: Tensor, radius: int, share: float, band: int, slope: float, mean: bool,
    squared: bool,
) -> Tensor:  # fmt: skip
    name = "dtw_pairwise_distance"
    x = _sequences(name, "X", frames, offsets)
    return _matrix(name, x, None, (radius, share, band, slope), mean, squared).to(frames.device)


def _reference_cdist(
    x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, radius: int, share: float, band: int,
    slope: float, mean: bool, squared: bool,
) -> Tensor:  # fmt: skip
    a, b = _sequences("dtw_cdist", "X", x, x_offsets), _sequences("dtw_cdist", "Y", y, y_offsets)
    return _matrix("dtw_cdist", a, b, (radius, share, band, slope), mean, squared).to(x.device)


def dtw_distance(
    x: Tensor,
    y: Tensor,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
) -> Tensor:
    """DTW distance of two sequences.

    Args:
        x: [T_x, D] or [T_x] (one feature). float16 and bfloat16 are computed in float32.
        y: [T_y, D] or [T_y], of the dtype and on the device of x.
        window: width of the band, see `stgcn_fast.dtw.dtw_distance`, as for all that follow.
        band: its kind.
        max_slope: of an Itakura parallelogram.
        normalize: None, or "path" for the mean along the path.
        squared: leave out the root.

    Returns:
        [], float32 or float64 like x, without a derivative.

    Raises:
        TypeError: an argument is no floating-point tensor, or the dtypes differ.
        ValueError: shapes or devices do not fit, an option is out of range, a frame is not finite.
    """
    name = "dtw_distance"
    a, b = _frames(name, "x", x), _frames(name, "y", y)
    for argument, part in (("x", a), ("y", b)):
        if part.dim() not in (1, 2) or part.numel() == 0:
            raise fail_value(name, argument, "[T, D] or [T], none of them zero", shape_text(part))
    a, b = (part if part.dim() == 2 else part[:, None] for part in (a, b))
    _same(name, "y", b, "x", a)
    cells = _band(name, window, max(a.shape[0], b.shape[0]), band, max_slope)
    out: Tensor = _op_distance(a, b, *cells, _mean(name, normalize), squared)
    return out


def dtw_pairwise_distance(
    X: Tensor,
    offsets: Tensor | None = None,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
) -> Tensor:
    """DTW distances between all sequences of a collection.

    Args:
        X: [N, T, D], or with `offsets` [rows, D], the frames of all sequences. float16 and bfloat16 are
            computed in float32.
        offsets: [N + 1], int64: sequence i is `X[offsets[i]:offsets[i + 1]]`; None: all have T frames.
        window: width of the band, see `stgcn_fast.dtw.dtw_distance`, as for all that follow.
        band: its kind.
        max_slope: of an Itakura parallelogram.
        normalize: None, or "path" for the mean along the path.
        squared: leave out the root.

    Returns:
        [N, N], float32 or float64 like X, without a derivative.

    Raises:
        TypeError: X is no floating-point tensor, or offsets are no integers.
        ValueError: shapes, devices or offsets do not fit, an option is out of range, a frame is not finite.
    """
    name = "dtw_pairwise_distance"
    frames, starts, longest = _packed(name, "X", X, "offsets", offsets)
    cells = _band(name, window, longest, band, max_slope)
    out: Tensor = _op_pairwise(frames, starts, *cells, _mean(name, normalize), squared)
    return out


def dtw_cdist(
    X: Tensor,
    Y: Tensor,
    x_offsets: Tensor | None = None,
    y_offsets: Tensor | None = None,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
) -> Tensor:
    """DTW distances of every sequence of one collection to every one of another.

    Args:
        X: [N, T, D], or with `x_offsets` [rows, D], as for `dtw_pairwise_distance`.
        Y: [M, T', D], or with `y_offsets` [rows, D].
        x_offsets: [N + 1], or None.
        y_offsets: [M + 1], or None.
        window: width of the band, see `stgcn_fast.dtw.dtw_distance`, as for all that follow.
        band: its kind.
        max_slope: of an Itakura parallelogram.
        normalize: None, or "path" for the mean along the path.
        squared: leave out the root.

    Returns:
        [N, M], float32 or float64 like X, without a derivative.

    Raises:
        TypeError: see `dtw_pairwise_distance`; the dtypes differ.
        ValueError: see `dtw_pairwise_distance`; D or the devices differ.
    """
    name = "dtw_cdist"
    x, x_starts, x_longest = _packed(name, "X", X, "x_offsets", x_offsets)
    y, y_starts, y_longest = _packed(name, "Y", Y, "y_offsets", y_offsets)
    _same(name, "Y", y, "X", x)
    longest = None if x_longest is None or y_longest is None else max(x_longest, y_longest)
    cells = _band(name, window, longest, band, max_slope)
    out: Tensor = _op_cdist(x, x_starts, y, y_starts, *cells, _mean(name, normalize), squared)
    return out


def _frames(name: str, argument: str, x: object) -> Tensor:
    if not isinstance(x, Tensor):
        raise fail_type(name, argument, "a torch.Tensor", type(x).__name__)
    if x.dtype in _HALF:
        return x.float()
    if x.dtype not in _WIDE:
        raise fail_type(name, argument, "a floating-point tensor", x.dtype)
    return x


def _packed(
    name: str, argument: str, x: object, word: str, offsets: object
) -> tuple[Tensor, Tensor, int | None]:
    """(frames [rows, D], offsets [N + 1], frames of the longest sequence where that is known)."""
    frames = _frames(name, argument, x)
    if offsets is None:
        if frames.dim() != 3 or frames.numel() == 0:
            rule = f"[N, T, D], none of them zero (or [rows, D] with {word})"
            raise fail_value(name, argument, rule, shape_text(frames))
        count, length, width = frames.shape
        starts = torch.arange(0, (count + 1) * length, length, device=frames.device)
        return frames.reshape(count * length, width), starts, length
    if not isinstance(offsets, Tensor) or offsets.dtype not in (torch.int32, torch.int64):
        raise fail_type(name, word, "an int64 tensor", getattr(offsets, "dtype", type(offsets).__name__))
    if offsets.dim() != 1 or offsets.shape[0] < 2:
        raise fail_value(name, word, "[N + 1] with N >= 1", shape_text(offsets))
    if frames.dim() != 2 or frames.numel() == 0:
        rule = f"[rows, D], none of them zero, with {word}"
        raise fail_value(name, argument, rule, shape_text(frames))
    return frames, offsets.long(), None


def _same(name: str, argument: str, x: Tensor, other_name: str, other: Tensor) -> None:
    if x.dtype != other.dtype:
        raise fail_type(name, argument, f"of the dtype of {other_name}, {other.dtype}", x.dtype)
    if x.device != other.device:
        raise fail_value(name, argument, f"on the device of {other_name}, {other.device}", x.device)
    if x.shape[-1] != other.shape[-1]:
        rule = f"of D = {int(other.shape[-1])} features like {other_name}"
        raise fail_value(name, argument, rule, int(x.shape[-1]))


def _band(name: str, window: Any, longest: int | None, band: Any, max_slope: Any) -> Band:
    from stgcn_fast.dtw.sequences import as_band

    # Lengths that only the offsets know: a wider window than the longest sequence is no band.
    return as_band(window, _WIDEST if longest is None else longest, name, band, max_slope)


def _mean(name: str, normalize: Any) -> bool:
    from stgcn_fast.dtw.sequences import as_normalize

    return as_normalize(normalize, name)


def _fake_distance(
    x: Tensor, y: Tensor, radius: int, share: float, band: int, slope: float, mean: bool, squared: bool
) -> Tensor:
    return x.new_empty(())


def _fake_pairwise(
    frames: Tensor, offsets: Tensor, radius: int, share: float, band: int, slope: float, mean: bool,
    squared: bool,
) -> Tensor:  # fmt: skip
    count = offsets.shape[0] - 1
    return frames.new_empty((count, count))


def _fake_cdist(
    x: Tensor, x_offsets: Tensor, y: Tensor, y_offsets: Tensor, radius: int, share: float, band: int,
    slope: float, mean: bool, squared: bool,
) -> Tensor:  # fmt: skip
    return x.new_empty((x_offsets.shape[0] - 1, y_offsets.shape[0] - 1))


_OPTIONS = "int radius, float share, int band, float slope, bool mean, bool squared"
_op_distance = define(
    f"dtw_distance(Tensor x, Tensor y, {_OPTIONS}) -> Tensor",
    _reference_distance,
    _fake_distance,
    plain=False,
)
_op_pairwise = define(
    f"dtw_pairwise_distance(Tensor frames, Tensor offsets, {_OPTIONS}) -> Tensor",
    _reference_pairwise,
    _fake_pairwise,
    plain=False,
)
_op_cdist = define(
    f"dtw_cdist(Tensor x, Tensor x_offsets, Tensor y, Tensor y_offsets, {_OPTIONS}) -> Tensor",
    _reference_cdist,
    _fake_cdist,
    plain=False,
)


def _without_derivative(op: torch._ops.OpOverload) -> None:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        return

    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(f"{op._opname}: the result has no derivative; stgcn_fast.dtw.soft_dtw has one")

    torch.library.register_autograd(op, backward, setup_context=setup)


for _overload in (_op_distance, _op_pairwise, _op_cdist):
    _without_derivative(_overload)
