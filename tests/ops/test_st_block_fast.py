"""The fast temporal algorithm inside st_block: how exact it is in every dtype, and how far a NaN reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stgcn_fast.ops.st_block import frame_group
from stgcn_fast.ops.temporal_conv import FAST_ERROR

from .test_st_block import make_case, plain


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rectified", [False, True])
def test_the_fast_form_is_as_exact_as_it_says(stride: int, rectified: bool) -> None:
    for seed in range(3):
        case = make_case((1, 256, 40, 4), 256, 9, stride, "none", torch.float32, vectors=False, seed=seed)
        case.x = case.x.relu() if rectified else case.x + 3.0
        exact = plain(case)
        for fast in (False, True):
            error = (case.run(fast=fast).double() - exact).abs().max() / exact.abs().max()
            assert error <= FAST_ERROR / 2


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("taps", "stride"), [(9, 1), (9, 2), (5, 1), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_spreads_a_block_further_at_most(
    value: float, taps: int, stride: int, dtype: torch.dtype
) -> None:
    case = make_case((1, 32, 60, 3), 32, taps, stride, "none", dtype, vectors=False)
    case.operands["adjacency"] = torch.eye(3).expand(3, 3, 3).to(dtype).clone()
    for frame in (0, 20, 31, 59):
        x = case.x.clone()
        x[0, 5, frame, 1] = value
        bad = ~case.run(x=x, fast=True).isfinite().all(1)[0]  # [T_out, V]
        outputs = torch.arange(bad.shape[0])
        distance = (outputs * stride - frame).abs() - taps // 2  # frames beyond those that see it
        assert bad[distance <= 0, 1].all()
        assert not bad[:, [0, 2]].any()
        reach = frame_group(taps, stride, dtype) - 1
        assert not bad[distance > reach * stride, 1].any()


def clip(kind: str, x: Tensor) -> Tensor:
    if kind == "large mean":
        return x + 3
    if kind == "slow":
        return torch.linspace(0, 8, x.shape[2], dtype=x.dtype)[:, None] + 0.05 * x
    if kind == "jump":
        return 0.01 * x + 30 * (torch.arange(x.shape[2]) >= x.shape[2] // 2)[:, None]
    return x


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", ["noise", "large mean", "slow", "jump"])
@pytest.mark.parametrize(
    ("channels", "taps", "stride"), [(64, 9, 1), (256, 9, 1), (64, 5, 1), (64, 17, 2), (128, 9, 2)]
)
def test_in_bfloat16_it_is_at_least_as_exact_as_the_direct_form(
    kind: str, channels: int, taps: int, stride: int
) -> None:
    case = make_case((1, channels, 45, 4), channels, taps, stride, "none", torch.float64, vectors=False)
    case.operands["adjacency"] = torch.eye(4, dtype=torch.float64).expand(3, 4, 4).clone()
    case.x = clip(kind, case.x)
    for name, tensor in case.operands.items():
        case.operands[name] = tensor.bfloat16()
    case.x = case.x.bfloat16().contiguous(memory_format=torch.channels_last)
    exact = plain(case)
    direct, fast = ((case.run(fast=fast).double() - exact).square().mean() for fast in (False, True))
    assert fast > 0
    assert not torch.equal(case.run(fast=True), case.run(fast=False))
    # Of the mean square: what rounding the outputs alone leaves to chance.
    assert fast <= 1.02 * direct
