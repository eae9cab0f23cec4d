"""The emulated CUDA kernels of DTW beside the engine of the processor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast.dtw.sequences import Band, as_band

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
BANDS: dict[str, tuple[Any, ...]] = {
    "all": (None, 200, ""),
    "radius": (5, 200, ""),
    "zero": (0, 200, ""),
    "share": (0.13, 200, ""),
    "slanted": (4, 200, "", "slanted"),
    "slanted_share": (0.2, 200, "", "slanted"),
    "itakura": (None, 200, "", "itakura", 2.5),
}
# Around a strip and a tile of either kernel: one frame, whole ones, one more.
LENGTHS = [1, 31, 32, 33, 64, 65, 70, 2, 130, 97]
# One kernel for each of the first three, then one and several stretches of features in shared memory.
FEATURES = [1, 2, 3, 4, 16, 37]


def collection(lengths: list[int], features: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(features + len(lengths))
    frames = torch.randn(sum(lengths), features, generator=generator, dtype=dtype).cumsum(0)
    return frames, torch.tensor([0, *lengths]).cumsum(0)


def agree(emulated: Any, name: str, *arguments: Any) -> None:
    (got,) = emulated(name, *arguments)
    want = getattr(torch.ops.stgcn_fast, name)(*arguments)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=ROUNDING[got.dtype], atol=0.0)


@pytest.fixture
def band(request: pytest.FixtureRequest) -> Band:
    return as_band(*BANDS[request.param])


@pytest.mark.parametrize("features", FEATURES)
def test_pairs_of_all_lengths_agree(emulated: Any, features: int) -> None:
    frames, offsets = collection(LENGTHS, features, torch.float32)
    agree(emulated, "dtw_pairwise_distance", frames, offsets, *as_band(None, 200, ""), False, False)


@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.parametrize("band", BANDS, indirect=True)
def test_bands_agree(emulated: Any, band: Band, features: int, mean: bool) -> None:
    x = collection([40, 75, 33], features, torch.float64)
    y = collection([75, 36, 40, 50, 34, 41, 75, 52, 33], features, torch.float64)
    agree(emulated, "dtw_cdist", *x, *y, *band, mean, True)


@pytest.mark.parametrize("features", [3, 40])
def test_a_pair_agrees(emulated: Any, features: int) -> None:
    frames, _ = collection([90], features, torch.float32)
    agree(emulated, "dtw_distance", frames[:50], frames[50:], *as_band(9, 50, ""), False, False)


def test_many_features_agree(emulated: Any) -> None:
    frames, offsets = collection([9, 12, 6], 1100, torch.float32)
    agree(emulated, "dtw_pairwise_distance", frames, offsets, *as_band(2, 12, ""), False, False)


@pytest.mark.parametrize("features", [1, 20])
def test_identical_sequences_are_exactly_zero_apart(emulated: Any, features: int) -> None:
    frames, _ = collection([50], features, torch.float32)
    twice, offsets = torch.cat([frames, frames]), torch.tensor([0, 50, 100])
    (out,) = emulated("dtw_pairwise_distance", twice, offsets, *as_band(None, 50, ""), True, False)
    assert not out.any()


@pytest.mark.parametrize("features", [2, 7])
def test_tables_without_a_path_are_infinite(emulated: Any, features: int) -> None:
    """A parallelogram has no way through a table whose sides differ by more than its slope."""
    x, y = collection([3], features, torch.float32), collection([64], features, torch.float32)
    band = as_band(None, 64, "", "itakura", 1.0)
    agree(emulated, "dtw_cdist", *x, *y, *band, False, False)


@pytest.mark.parametrize("features", [1, 6])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_frames_that_are_not_finite_have_no_distance(emulated: Any, features: int, bad: float) -> None:
    frames, offsets = collection([20, 9, 33], features, torch.float32)
    frames[25, -1] = bad
    (out,) = emulated("dtw_pairwise_distance", frames, offsets, *as_band(None, 33, ""), False, False)
    assert out.isnan().tolist() == [[i == 1 or j == 1 for j in range(3)] for i in range(3)]


@pytest.mark.parametrize("offsets", [[0, 10, 5, 30], [0, 40], [-1, 30], [0, 10, 10, 30], [2, 30], [0, 29]])
def test_offsets_that_do_not_fit_give_no_distance(emulated: Any, offsets: list[int]) -> None:
    frames, _ = collection([30], 5, torch.float32)
    table = torch.tensor(offsets)
    (out,) = emulated("dtw_pairwise_distance", frames, table, *as_band(None, 30, ""), False, False)
    assert out.isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": torch.randn(5)}, "X must be [rows, D], none of them zero, got [5]"),
        ({"frames": torch.randn(5, 2).half()}, "X must be float32 or float64, got a 16-bit type"),
        ({"offsets": torch.tensor([0, 5], dtype=torch.int32)}, "offsets must be int64, got another dtype"),
        ({"offsets": torch.tensor([0])}, "offsets must be [N + 1] with N from 1 to 2^30, got [1]"),
    ],
)
def test_bad_input_is_said(emulation: ctypes.CDLL, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"frames": torch.randn(5, 2), "offsets": torch.tensor([0, 5])} | change
    op: Callable[..., Tensor] = torch.ops.stgcn_fast_emulated.dtw_pairwise_distance
    with pytest.raises(RuntimeError) as raised:
        op(*arguments.values(), 3, 0.0, 0, 0.0, False, False)
    assert f"dtw_pairwise_distance: {message}" in str(raised.value)
