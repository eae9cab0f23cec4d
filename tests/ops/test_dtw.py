"""DTW operators: the numbers of `stgcn_fast.dtw`, compiled graphs, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stgcn_fast import dtw, ops

OPTIONS: list[dict[str, Any]] = [
    {},
    {"window": 3, "squared": True},
    {"window": 0.2},
    {"window": 2, "band": "slanted"},
    {"band": "itakura", "max_slope": 3.0},
    {"window": 4, "normalize": "path"},
]


def packed(lengths: list[int], features: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(sum(lengths), features, generator=generator, dtype=dtype).cumsum(0)
    return frames, torch.tensor([0, *np.cumsum(lengths)])


def clips(frames: Tensor, offsets: Tensor) -> list[np.ndarray]:
    return np.split(frames.numpy(), offsets[1:-1].numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_bits_as_the_arrays(options: dict[str, Any], dtype: torch.dtype) -> None:
    frames, offsets = packed([9, 20, 13, 20], 5, dtype)
    x = clips(frames, offsets)
    got = ops.dtw_pairwise_distance(frames, offsets, **options)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, dtw.dtw_pairwise_distance(x, **options))
    other, starts = frames[9:42].clone(), torch.tensor([0, 20, 33], dtype=torch.int32)
    between = ops.dtw_cdist(frames, other, offsets, starts, **options)
    np.testing.assert_array_equal(between, dtw.dtw_cdist(x, x[1:3], **options))
    single = ops.dtw_distance(frames[:9], frames[9:29], **options)
    assert single.shape == ()
    assert single.item() == dtw.dtw_distance(x[0], x[1], **options)


def test_batches_of_equal_length() -> None:
    x = torch.randn(6, 3, 14, dtype=torch.float64).transpose(1, 2)  # [N, T, D], not contiguous
    np.testing.assert_array_equal(ops.dtw_pairwise_distance(x), dtw.dtw_pairwise_distance(x.numpy()))
    y = torch.randn(2, 9, 3, dtype=torch.float64)
    np.testing.assert_array_equal(ops.dtw_cdist(x, y, window=2), dtw.dtw_cdist(x.numpy(), y.numpy(), 2))
    a, b = x[0, :, 0], y[0, :, 0]
    assert ops.dtw_distance(a, b).item() == dtw.dtw_distance(a.numpy(), b.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(4, 8, 3).to(dtype)
    got = ops.dtw_pairwise_distance(x)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, dtw.dtw_pairwise_distance(x.float().numpy()))


def low(window: int = 1 << 30) -> tuple[Any, ...]:
    return window, 0.0, 0, 0.0, False, False


def test_opcheck() -> None:
    frames, offsets = packed([4, 6, 5], 2)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (torch.ops.stgcn_fast.dtw_distance, (frames[:4], frames[4:], *low())),
        (torch.ops.stgcn_fast.dtw_pairwise_distance, (frames, offsets, *low(2))),
        (torch.ops.stgcn_fast.dtw_cdist, (frames, offsets, frames[4:], offsets[1:] - 4, *low())),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op.default, arguments)


def test_whole_graph_and_changing_sizes() -> None:
    def nearest(x: Tensor, y: Tensor) -> Tensor:
        table = ops.dtw_cdist(x * 2, y * 2, window=3, normalize="path")
        return table.min(1).values + ops.dtw_distance(x[0], y[0], band="itakura")

    compiled = torch.compile(nearest, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (3, 5):
        x, y = torch.randn(count, 9, 2), torch.randn(4, 9 + count, 2)
        torch.testing.assert_close(compiled(x, y), nearest(x, y), rtol=0, atol=0)

    def packed_pairs(frames: Tensor, offsets: Tensor) -> Tensor:
        return ops.dtw_pairwise_distance(frames, offsets, window=0.5) + 1

    frames, offsets = packed([4, 6, 5], 2)
    whole = torch.compile(packed_pairs, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(frames, offsets), packed_pairs(frames, offsets), rtol=0, atol=0)


def test_shapes_without_data() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, y = torch.empty(5, 7, 3), torch.empty(2, 4, 3)
        assert ops.dtw_cdist(x, y).shape == (5, 2)
        assert ops.dtw_pairwise_distance(x).shape == (5, 5)
        assert ops.dtw_distance(x[0], y[0]).shape == ()


def test_not_a_part_of_decompositions() -> None:
    assert not [op for op in ops.decompositions() if "dtw" in op.name()]


def test_a_derivative_is_refused_in_one_line() -> None:
    x = torch.randn(3, 5, 2, requires_grad=True)
    distances = ops.dtw_pairwise_distance(x)
    with pytest.raises(RuntimeError, match=r"^dtw_pairwise_distance: .* has no derivative; .*soft_dtw"):
        distances.sum().backward()
    with torch.no_grad():
        assert not ops.dtw_pairwise_distance(x).requires_grad


X = torch.zeros(3, 5, 2)
PACKED = torch.zeros(8, 2)


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: ops.dtw_distance([0.0], X[0]), TypeError,
         "dtw_distance: x must be a torch.Tensor, got list"),
        (lambda: ops.dtw_distance(X[0], X), ValueError,
         "dtw_distance: y must be [T, D] or [T], none of them zero, got [3, 5, 2]"),
        (lambda: ops.dtw_distance(X[0], X[0, :, :1]), ValueError,
         "dtw_distance: y must be of D = 2 features like x, got 1"),
        (lambda: ops.dtw_distance(X[0], X[0].double()), TypeError,
         "dtw_distance: y must be of the dtype of x, torch.float32, got torch.float64"),
        (lambda: ops.dtw_distance(X[0], X[0], window=9), ValueError,
         "dtw_distance: window must be from 0 to 5 cells (the longest sequence), got 9"),
        (lambda: ops.dtw_distance(X[0], X[0] * float("nan")), ValueError,
         "dtw_distance: y[0] must be finite, got nan at frame 0, feature 0"),
        (lambda: ops.dtw_pairwise_distance(X.long()), TypeError,
         "dtw_pairwise_distance: X must be a floating-point tensor, got torch.int64"),
        (lambda: ops.dtw_pairwise_distance(X[:0]), ValueError,
         "dtw_pairwise_distance: X must be [N, T, D], none of them zero (or [rows, D] with offsets), "
         "got [0, 5, 2]"),
        (lambda: ops.dtw_pairwise_distance(X, torch.tensor([0, 3])), ValueError,
         "dtw_pairwise_distance: X must be [rows, D], none of them zero, with offsets, got [3, 5, 2]"),
        (lambda: ops.dtw_pairwise_distance(PACKED, torch.tensor([0.0, 8.0])), TypeError,
         "dtw_pairwise_distance: offsets must be an int64 tensor, got torch.float32"),
        (lambda: ops.dtw_pairwise_distance(PACKED, torch.tensor([0])), ValueError,
         "dtw_pairwise_distance: offsets must be [N + 1] with N >= 1, got [1]"),
        (lambda: ops.dtw_pairwise_distance(PACKED, torch.tensor([0, 9])), ValueError,
         "dtw_pairwise_distance: X: offsets must run from 0 to 8 (the rows of frames), got 0 to 9"),
        (lambda: ops.dtw_pairwise_distance(PACKED, torch.tensor([0, 5, 5, 8])), ValueError,
         "dtw_pairwise_distance: X: sequence 1 must have at least one frame, got offsets [5 5]"),
        (lambda: ops.dtw_pairwise_distance(X, band="round"), ValueError,
         "dtw_pairwise_distance: band must be one of sakoe_chiba, slanted, itakura, got 'round'"),
        (lambda: ops.dtw_pairwise_distance(X, normalize="mean"), ValueError,
         "dtw_pairwise_distance: normalize must be None or 'path', got 'mean'"),
        (lambda: ops.dtw_cdist(X, PACKED, y_offsets=torch.tensor([0, 2, 8]), window=-1), ValueError,
         "dtw_cdist: window must be at least 0 cells, got -1"),
        (lambda: ops.dtw_cdist(X, X.to("meta")), ValueError,
         "dtw_cdist: Y must be on the device of X, cpu, got meta"),
    ],
)  # fmt: skip
def test_bad_input(call: Any, error: type[Exception], line: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == line
