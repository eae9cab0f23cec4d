"""Soft-DTW: a DTW whose minimum is smoothed, so that it can be differentiated."""

from __future__ import annotations

import functools
import math
import numbers
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw import _soft_batches, _soft_kernels
from stgcn_fast.dtw._engine import _aligned, _depth, run, thread_count
from stgcn_fast.dtw._jit import compiled
from stgcn_fast.dtw._kernels import COLUMNS, ROWS
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band, Sequences, as_band, as_collections

Index = npt.NDArray[np.int64]

# Gradients of vectors of pairs that wait to be added up in order, for each thread.
_WAITING_BYTES = 2 << 20
_TASKS_PER_THREAD = 8


@dataclass(frozen=True)
class _Work:
    """Pairs (rows[p], columns[p]) of two collections."""

    rows: Index
    columns: Index
    gamma: float
    band: Band
    threads: int


def soft_dtw(
    x: Any,
    y: Any = None,
    gamma: float = 1.0,
    *,
    window: int | float | None = None,
    normalize: bool = False,
    batched: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
) -> Any:
    """Soft-DTW of all pairs of two collections, or of pairs given one by one; differentiable in torch.

    With the local cost c(i, j) = sum_d (x[i, d] - y[j, d])^2,

        r(i, j) = c(i, j) - gamma log(exp(-r(i - 1, j - 1) / gamma) + exp(-r(i - 1, j) / gamma)
                                      + exp(-r(i, j - 1) / gamma)),

    and the result is r(T_x - 1, T_y - 1), without a square root. It may be negative, and tends to
    `dtw_distance(..., squared=True)` from below as gamma tends to 0.

    Normalized, it is the soft-DTW divergence: soft_dtw(x, y) - soft_dtw(x, x) / 2 - soft_dtw(y, y) / 2, which
    is zero for y = x and, without a window, never negative.

    Torch tensors (on the CPU) give a tensor; the gradient flows to every one that requires it, once (there
    is no second derivative). The backward pass computes the forward pass anew and keeps, for each thread,
    4 T_x T_y vectors of 64 bytes (AVX-512).

    Args:
        x: N sequences: an [N, T, D] or [N, T] (one feature) array or tensor, or a list of [T_i, D] or [T_i]
            ones of any lengths, or `Sequences`.
        y: M sequences like x; None: x itself.
        gamma: smoothing, > 0, in the unit of the local cost.
        window: band, see `dtw_distance`.
        normalize: return the divergence.
        batched: pair x[b] with y[b] instead of all with all.
        dtype: float32 or float64. Default: float32 if all sequences are, else float64.
        n_jobs: threads, see `dtw_pairwise_distance`. Results do not depend on it.

    Returns:
        [N, M], or [B] if batched: a tensor if x or y holds tensors, else an array.

    Raises:
        TypeError: not numbers, a dtype other than those, a wrong type of `gamma`, `window` or `n_jobs`.
        ValueError: an empty collection or sequence, a non-finite number, differing D, a window or gamma out
            of range, collections of different size or no y if batched.

    References:
        M. Cuturi and M. Blondel, "Soft-DTW: a differentiable loss function for time-series", ICML 2017,
        equations 1 and 2, algorithms 1 and 2.
        M. Blondel, A. Mensch and J.-P. Vert, "Differentiable divergences between time series", AISTATS 2021.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.5, 1.5, 3.0]], requires_grad=True)
        >>> loss = soft_dtw(x, [torch.tensor([0.0, 2.0])], gamma=0.1)
        >>> round(loss.item(), 3)
        1.5
        >>> loss.sum().backward()
        >>> x.grad.round(decimals=3).tolist()
        [[1.0, -1.0, 2.0]]
    """
    name = "soft_dtw"
    gamma = _smoothing(gamma, name)
    values = {"x": x} if y is None else {"x": x, "y": y}
    if batched and y is None:
        raise ValueError(f"{name}: y must be given if batched, got None")
    collections = as_collections(values, dtype, name)
    first, second = collections[0], collections[-1]
    if batched and len(first) != len(second):
        raise ValueError(f"{name}: y must hold {len(first)} sequences like x if batched, got {len(second)}")
    band = as_band(window, int(max(part.lengths.max() for part in collections)), name)
    threads = thread_count(n_jobs, name)
    frames = _tensors(list(values.values()), collections)

    def pairs(a: int, b: int, rows: Index, columns: Index) -> Any:
        work = _Work(rows, columns, gamma, band, threads)
        if frames is None:
            return _values(collections[a], collections[b], work)
        return _operator().apply(frames[a], frames[b], (collections[a], collections[b], work))

    def own(which: int) -> Any:
        each = np.arange(len(collections[which]))
        return pairs(which, which, each, each)

    last = len(collections) - 1
    shape = (len(first), len(second))
    if batched:
        each = np.arange(len(first))
        result = pairs(0, last, each, each)
        return result - (own(0) + own(last)) / 2 if normalize else result
    if y is None:
        # Each pair once; both of its places take the value, and give their gradients to it.
        rows, columns = np.tril_indices(len(first))
        place = np.empty(shape, np.int64)
        place[rows, columns] = place[columns, rows] = np.arange(len(rows))
        flat = pairs(0, 0, rows, columns)
        result = flat[place if frames is None else _index(place)]
        if not normalize:
            return result
        diagonal = result.diagonal()
        return result - (diagonal[:, None] + diagonal[None]) / 2
    row, column = np.indices(shape)
    result = pairs(0, last, row.ravel(), column.ravel()).reshape(shape)
    return result - (own(0)[:, None] + own(last)[None]) / 2 if normalize else result


def _smoothing(gamma: Any, function: str) -> float:
    if isinstance(gamma, bool) or not isinstance(gamma, numbers.Real):
        raise TypeError(f"{function}: gamma must be a number, got {gamma!r}")
    value = float(gamma)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{function}: gamma must be above 0, got {value}")
    return value


def _index(place: Index) -> Any:
    import torch

    return torch.from_numpy(place)


def _tensors(values: list[Any], collections: list[Sequences]) -> list[Any] | None:
    """The frames [rows, D] of each collection as tensors that gradients can flow to; None without tensors."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None

    def is_tensor(value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    held = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    if not any(is_tensor(item) for items in held for item in items):
        return None
    result = []
    for items, part in zip(held, collections):
        if any(is_tensor(item) for item in items):
            width = part.features
            rows = [torch.as_tensor(item).reshape(-1, width) for item in items]
            dtype = torch.float32 if part.frames.dtype.itemsize == 4 else torch.float64
            result.append(torch.cat([row.to(dtype) for row in rows]))
        else:
            result.append(torch.from_numpy(part.frames.copy()))
    return result


@functools.cache
def _operator() -> Any:
    """The autograd function, made when torch is first needed."""
    import torch

    class SoftDTWGradient(torch.autograd.Function):
        """A function of its own, so that a second derivative is an error and not zero."""

        @staticmethod
        def forward(ctx: Any, grad: Any, fx: Any, fy: Any, parts: tuple[Sequences, Sequences, _Work]) -> Any:
            return tuple(torch.from_numpy(part) for part in _gradients(*parts, grad.detach().numpy()))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError("soft_dtw: has no second derivative")

    class SoftDTW(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, fx: Any, fy: Any, parts: tuple[Sequences, Sequences, _Work]) -> Any:
            ctx.save_for_backward(fx, fy)
            ctx.parts = parts
            return torch.from_numpy(_values(*parts))

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            operator: Any = SoftDTWGradient
            return (*operator.apply(grad, *ctx.saved_tensors, ctx.parts), None)

    return SoftDTW


class _Batches:
    """Calls the kernel for many vectors of pairs at a time; every thread has its own room to work in."""

    def __init__(self, x: Sequences, y: Sequences, work: _Work, pairs: Index | None, gradient: bool) -> None:
        self.work, self.gradient, self.dtype = work, gradient, x.frames.dtype
        self.depth, self.lanes = _depth(x.features), VECTOR_BYTES // self.dtype.itemsize
        self.sides = [
            (part.frames, part.offsets[index], part.lengths[index])
            for part, index in ((x, work.rows), (y, work.columns))
        ]
        lengths = [side[2] for side in self.sides]
        # Pairs of one x side by side, where an x has several: it need not be laid out anew for every lane.
        rows = work.rows if len(work.rows) > len(x) else np.zeros_like(work.rows)
        # The long ones first.
        order = np.lexsort((lengths[1], rows, lengths[0]))[::-1]
        self.order = np.ascontiguousarray(order if pairs is None else order[pairs[order]])
        self.count = -(-len(self.order) // self.lanes)
        n, m = sizes = [int(length.max()) for length in lengths]
        self._need = _soft_batches.scratch_size(n, m, x.features, self.depth, self.dtype.itemsize, gradient)
        packed = -(-x.features // self.depth) * self.depth * self.lanes if gradient else 0
        self.room = [-(-size // unit) * unit * packed for size, unit in zip(sizes, (ROWS, COLUMNS))]
        number = types.float32 if self.dtype.itemsize == 4 else types.float64
        frames, whole, real = types.Array(number, 2, "C", readonly=True), types.int64, types.float64
        side, vector = (frames, whole[::1], whole[::1]), number[::1]
        self._batch = compiled(
            _soft_batches.batch,
            (*side, *side, whole[::1], whole, whole, whole, real, whole, real, vector, types.boolean, vector,
             vector, vector, whole, whole),
        )  # fmt: skip
        self._local = threading.local()

    def __call__(self, first: int, end: int, result: Array, packed: list[Array]) -> None:
        """Vectors first..end-1; the gradients go to the start of each of `packed`."""
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = _aligned(self._need, self.dtype)
        work = self.work
        self._batch(*self.sides[0], *self.sides[1], self.order, first, end, work.band.radius, work.band.share,
                    self.depth, work.gamma, scratch, self.gradient, result, *packed, *self.room)  # fmt: skip


def _values(x: Sequences, y: Sequences, work: _Work) -> Array:
    """[P], the soft-DTW of each pair."""
    values = np.empty(len(work.rows), x.frames.dtype)
    batches = _Batches(x, y, work, None, gradient=False)
    none = [_aligned(0, values.dtype)] * 2
    step = -(-batches.count // (work.threads * _TASKS_PER_THREAD))

    def one(first: int) -> int:
        batches(first, min(first + step, batches.count), values, none)
        return step

    for _ in run(range(0, batches.count, step), one, work.threads):
        pass
    far = _soft_kernels.FAR_SINGLE if values.dtype.itemsize == 4 else _soft_kernels.FAR_DOUBLE
    values[~(values < far)] = np.inf
    values *= values.dtype.type(work.gamma)
    return values


def _gradients(x: Sequences, y: Sequences, work: _Work, grad: Array) -> tuple[Array, Array]:
    """Gradients by all frames of x and of y of the sum of grad [P] times the values."""
    out = np.zeros(x.frames.shape, x.frames.dtype), np.zeros(y.frames.shape, y.frames.dtype)
    batches = _Batches(x, y, work, grad != 0, gradient=True)
    number = types.float32 if x.frames.dtype.itemsize == 4 else types.float64
    whole, vector = types.int64, number[::1]
    spread = compiled(
        _soft_batches.spread,
        (
            vector,
            whole,
            whole,
            whole[::1],
            whole,
            whole,
            whole[::1],
            whole[::1],
            vector,
            whole,
            number[:, ::1],
        ),
    )
    values = np.empty(len(work.rows), x.frames.dtype)
    factors = np.ascontiguousarray(2 * grad)
    # Vectors whose gradients wait to be added up: what fits the cache, in several tasks a thread.
    most = max(1, _WAITING_BYTES // (sum(batches.room) * x.frames.dtype.itemsize))
    tasks = work.threads * _TASKS_PER_THREAD if work.threads > 1 else 1
    each = max(1, min(most, -(-batches.count // tasks)))
    step = max(1, most // each) * each * work.threads
    packed = [_aligned(min(step, batches.count) * room, x.frames.dtype) for room in batches.room]
    for start in range(0, batches.count, step):
        stop = min(start + step, batches.count)

        def one(first: int, start: int = start, stop: int = stop) -> int:
            parts = [part[(first - start) * room :] for part, room in zip(packed, batches.room)]
            batches(first, min(first + each, stop), values, parts)
            return first

        for _ in run(range(start, stop, each), one, work.threads):
            pass

        # Pairs share sequences: they add up in one order, whatever thread was first.
        def add(side: int, start: int = start, stop: int = stop) -> int:
            _, starts, lengths = batches.sides[side]
            unit = (ROWS, COLUMNS)[side]
            spread(packed[side], batches.room[side], unit, batches.order, start, stop, starts, lengths,
                   factors, batches.depth, out[side])  # fmt: skip
            return side

        for _ in run(range(2), add, work.threads):
            pass
    return out
