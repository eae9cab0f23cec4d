"""The fast form of temporal_conv, native bfloat16, and independence of the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stgcn_fast import _native, ops
from stgcn_fast.ops.temporal_conv import FAST_ERROR

from .test_temporal_conv import Case, make_case, plain

native = pytest.mark.skipif(not _native.load().loaded, reason="no compiled kernels")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(case: Case, fast: bool | None) -> list[Tensor]:
    """Result and gradients; the upstream gradient depends on the shape alone."""
    leaves = [t.detach().requires_grad_() for t in case.tensors()]
    out = ops.temporal_conv(
        leaves[0], leaves[1], leaves[2] if len(leaves) == 3 else None, *case.numbers, fast
    )
    rng = torch.Generator().manual_seed(7)
    upstream = torch.randn(out.shape, generator=rng, dtype=torch.float64).to(out.dtype)
    upstream = upstream.contiguous(memory_format=torch.channels_last)
    return [out.detach(), *torch.autograd.grad(out, leaves[:2], upstream)]


def exact(case: Case) -> list[Tensor]:
    leaves = [t.detach().double().requires_grad_() for t in case.tensors()]
    out = plain(leaves[0], leaves[1], leaves[2] if len(leaves) == 3 else None, *case.numbers)
    rng = torch.Generator().manual_seed(7)
    upstream = torch.randn(out.shape, generator=rng, dtype=torch.float64).to(case.x.dtype).double()
    return [out.detach(), *torch.autograd.grad(out, leaves[:2], upstream)]


def error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


fast_cases = st.builds(
    lambda samples, channels, frames, joints, outputs, geometry, extra, layout, bias, seed: make_case(
        (samples, channels, frames, joints),
        outputs,
        geometry[0],
        (1, min(geometry[1] * (geometry[0] - 1) // 2 + extra, 40), geometry[1]),
        torch.float32,
        layout,
        bias,
        seed,
    ),
    st.integers(1, 5),
    st.sampled_from([32, 33, 48, 64]),
    st.sampled_from([7, 12, 25, 31, 40, 75]),
    st.sampled_from([1, 7, 18, 25]),
    st.sampled_from([32, 40, 64, 100]),
    st.sampled_from([(3, 1), (3, 2), (3, 4), (5, 1), (5, 2), (6, 1), (7, 1), (8, 2), (9, 1), (9, 2)]),
    st.integers(0, 2),
    st.sampled_from(["contiguous", "channels_last", "strided"]),
    st.booleans(),
    st.integers(0, 1000),
)


@given(case=fast_cases)
@settings(max_examples=40)
def test_fast_form_stays_within_its_error_bound(case: Case) -> None:
    for actual, expected in zip(run(case, True), exact(case)):
        assert actual.shape == expected.shape
        assert error(actual, expected) <= FAST_ERROR


@pytest.mark.parametrize(("channels", "stride"), [(64, 1), (256, 1), (128, 2), (256, 2)])
@pytest.mark.parametrize("rectified", [False, True])
def test_error_bound_at_the_layers_of_a_network(channels: int, stride: int, rectified: bool) -> None:
    case = make_case((2, channels, 75, 18), channels, 9, (stride, 4, 1), torch.float32, "channels_last", True)
    case.x = case.x.relu() if rectified else case.x + 3.0
    for actual, expected in zip(run(case, True), exact(case)):
        assert error(actual, expected) <= FAST_ERROR


strided_cases = st.builds(
    lambda samples, channels, frames, joints, outputs, taps, extra, layout, bias, seed: make_case(
        (samples, channels, frames, joints),
        outputs,
        taps,
        (2, taps // 2 + extra, 1),
        torch.float32,
        layout,
        bias,
        seed,
    ),
    st.integers(1, 5),
    st.sampled_from([32, 33, 64, 100]),
    st.sampled_from([9, 11, 12, 23, 29, 30, 61]),
    st.sampled_from([1, 7, 18, 25]),
    st.sampled_from([32, 40, 64, 100]),
    st.sampled_from([5, 7, 8, 9, 11, 12]),
    st.integers(-2, 3),
    st.sampled_from(["contiguous", "channels_last", "strided"]),
    st.booleans(),
    st.integers(0, 1000),
)


@given(case=strided_cases)
@settings(max_examples=40)
def test_fast_form_of_every_other_frame_stays_within_its_error_bound(case: Case) -> None:
    for actual, expected in zip(run(case, True), exact(case)):
        assert actual.shape == expected.shape
        assert error(actual, expected) <= FAST_ERROR


@native
@pytest.mark.parametrize(
    ("taps", "numbers"), [(9, (1, 4, 1)), (9, (2, 4, 1)), (9, (2, 3, 1)), (7, (2, 3, 1))]
)
def test_the_fast_form_runs_where_it_is_allowed(taps: int, numbers: tuple[int, int, int]) -> None:
    case = make_case((2, 64, 60, 25), 64, taps, numbers, torch.float32, "channels_last")
    direct, fast = run(case, False), run(case, True)
    assert all(not torch.equal(a, b) for a, b in zip(direct, fast))
    with ops.options(fast_temporal=False):
        assert all(torch.equal(a, b) for a, b in zip(run(case, None), direct))
        assert all(torch.equal(a, b) for a, b in zip(run(case, True), fast))
    with ops.options(fast_temporal=True):
        assert all(torch.equal(a, b) for a, b in zip(run(case, None), fast))


@native
@pytest.mark.parametrize(
    ("sizes", "outputs", "taps", "numbers", "dtype"),
    [
        ((1, 64, 60, 25), 64, 9, (3, 4, 1), torch.float32),  # stride
        ((1, 64, 60, 25), 64, 9, (2, 8, 2), torch.float32),  # stride and dilation
        ((1, 64, 60, 25), 64, 3, (2, 1, 1), torch.float32),  # few taps to each frame
        ((1, 64, 13, 25), 64, 9, (2, 4, 1), torch.float32),  # a block of one frame
        ((1, 64, 60, 25), 64, 4, (1, 2, 1), torch.float32),  # few taps, not three
        ((1, 16, 60, 25), 64, 9, (1, 4, 1), torch.float32),  # few channels
        ((1, 64, 1, 25), 64, 9, (1, 4, 1), torch.float32),  # one frame
        ((1, 64, 60, 25), 64, 9, (1, 4, 1), torch.float64),
    ],
)
def test_the_direct_form_runs_elsewhere(
    sizes: tuple[int, int, int, int],
    outputs: int,
    taps: int,
    numbers: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    case = make_case(sizes, outputs, taps, numbers, dtype, "channels_last")
    assert all(torch.equal(a, b) for a, b in zip(run(case, True), run(case, False)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("taps", "stride", "dilation"), [(9, 1, 1), (3, 1, 3), (9, 2, 1), (7, 2, 1)])
def test_what_is_not_finite_spreads_two_frames_further_at_most(
    value: float, taps: int, stride: int, dilation: int
) -> None:
    padding = dilation * (taps - 1) // 2
    case = make_case((1, 32, 60, 3), 32, taps, (stride, padding, dilation), torch.float32, "channels_last")
    for frame in (0, 20, 31, 59):
        x = case.x.clone()
        x[0, 5, frame, 1] = value
        out = ops.temporal_conv(x, case.weight, case.bias, *case.numbers, True)
        sees = torch.zeros(60 // stride, dtype=torch.bool)
        for q in range(taps):
            target, beside = divmod(frame + padding - q * dilation, stride)
            if 0 <= target < 60 // stride and beside == 0:
                sees[target] = True
        bad = ~out.isfinite().all(1)[0]  # [T, V]
        assert bad[sees, 1].all()
        assert not bad[:, [0, 2]].any()
        near = sees.clone()
        for shift in (1, 2):
            near[shift * dilation :] |= sees[: -shift * dilation]
            near[: -shift * dilation] |= sees[shift * dilation :]
        assert not bad[~near, 1].any()


@native
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("numbers", [(1, 4, 1), (2, 4, 1)])
def test_results_do_not_depend_on_the_number_of_threads(
    layout: str, dtype: torch.dtype, fast: bool, numbers: tuple[int, int, int]
) -> None:
    case = make_case((3, 32, 100, 25), 70, 9, numbers, dtype, layout)
    torch.set_num_threads(1)
    alone = run(case, fast)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for one, many in zip(alone, run(case, fast)):
            assert torch.equal(one, many)


bfloat16_cases = st.builds(
    make_case,
    st.tuples(
        st.integers(1, 2),
        st.sampled_from([1, 3, 16, 33, 64]),
        st.sampled_from([9, 13, 30]),
        st.sampled_from([1, 18, 25]),
    ),
    st.sampled_from([1, 16, 33, 48]),
    st.sampled_from([1, 3, 9]),
    st.tuples(st.integers(1, 3), st.integers(4, 8), st.integers(1, 2)),
    st.just(torch.bfloat16),
    st.sampled_from(["contiguous", "channels_last", "strided"]),
    st.booleans(),
    st.integers(0, 1000),
)


@given(case=bfloat16_cases)
@settings(max_examples=40)
def test_bfloat16_is_right_to_its_rounding(case: Case) -> None:
    for actual, expected in zip(run(case, None), exact(case)):
        assert actual.dtype == torch.bfloat16
        if expected.abs().max() > 0:
            assert error(actual, expected) <= 1.05 * torch.finfo(torch.bfloat16).eps / 2 + 1e-5


@native
def test_neighbours_that_are_not_finite_stay_apart_in_bfloat16() -> None:
    case = make_case((1, 3, 20, 5), 4, 3, (1, 1, 1), torch.bfloat16, "channels_last")
    case.x[0, :, :, 2] = float("nan")
    out, by_x, _ = run(case, None)
    assert out[..., 2].isnan().all()
    assert out[..., [0, 1, 3, 4]].isfinite().all()
    assert by_x.isfinite().all()


def test_fast_must_be_a_bool() -> None:
    case = make_case()
    with pytest.raises(TypeError, match=r"^temporal_conv: fast must be a bool or None, got int"):
        ops.temporal_conv(case.x, case.weight, fast=1)  # type: ignore[arg-type]


@native
def test_compiled_with_the_option_of_the_moment() -> None:
    case = make_case((1, 32, 30, 5), 32, 9, (1, 4, 1), torch.float32, "channels_last")
    compiled = torch.compile(
        lambda x, w: ops.temporal_conv(x, w, None, *case.numbers), backend="eager", fullgraph=True
    )
    for allowed in (True, False, True):
        with ops.options(fast_temporal=allowed):
            expected = ops.temporal_conv(case.x, case.weight, None, *case.numbers, allowed)
            assert torch.equal(compiled(case.x, case.weight), expected)
