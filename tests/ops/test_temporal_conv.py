"""temporal_conv against an independently written sum, on both backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stgcn_fast import ops

BACKENDS = ["native", "reference"]
FORMATS = ["contiguous", "channels_last", "strided", "expanded"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int) -> Tensor:
    """The definition, tap by tap on the padded clip."""
    samples, _, frames, joints = x.shape
    taps = weight.shape[2]
    length = (frames + 2 * padding - dilation * (taps - 1) - 1) // stride + 1 if frames else 0
    empty = x.new_zeros(samples, x.shape[1], padding, joints)
    padded = torch.cat([empty, x, empty], dim=2)
    out = x.new_zeros(samples, weight.shape[0], length, joints)
    for q in range(taps):
        seen = padded[:, :, q * dilation :: stride][:, :, :length]
        if length:
            out = out + torch.tensordot(seen, weight[:, :, q, 0], dims=([1], [1])).permute(0, 3, 1, 2)
    return out if bias is None else out + bias[:, None, None]


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = x.new_empty([2 * size for size in x.shape])[::2, 1::2, ::2, ::2]
        return wide.copy_(x)
    if layout == "expanded":
        return x[:, :, :, :1].expand_as(x)
    return x


@dataclass
class Case:
    """One call of the public function."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    numbers: tuple[int, int, int]  # stride, padding, dilation

    def tensors(self) -> list[Tensor]:
        return [t for t in (self.x, self.weight, self.bias) if t is not None]


def make_case(
    sizes: tuple[int, int, int, int] = (2, 3, 9, 4),
    outputs: int = 5,
    taps: int = 3,
    numbers: tuple[int, int, int] = (1, 1, 1),
    dtype: torch.dtype = torch.float64,
    layout: str = "contiguous",
    bias: bool = True,
    seed: int = 0,
) -> Case:
    rng = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    weight = random(taps, sizes[1], outputs, 1).permute(2, 1, 0, 3)
    return Case(laid_out(random(*sizes), layout), weight, random(outputs) if bias else None, numbers)


cases = st.builds(
    make_case,
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([1, 2, 3, 7, 16, 33]),
        st.sampled_from([0, 1, 2, 5, 13, 30]),
        st.sampled_from([1, 2, 18, 25]),
    ),
    st.sampled_from([1, 3, 16, 37]),
    st.sampled_from([1, 2, 3, 9]),
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1, 3)),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(FORMATS),
    st.booleans(),
    st.integers(0, 1000),
)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    if actual.numel():
        scale = 1.0 + expected.abs().max().item()
        assert (actual.double() - expected).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("backend", BACKENDS)
@given(case=cases)
@settings(max_examples=60)
def test_values_and_gradients_follow_the_definition(on_backend: Any, backend: str, case: Case) -> None:
    _, padding, dilation = case.numbers
    frames, taps = case.x.shape[2], case.weight.shape[2]
    assume(frames == 0 or frames + 2 * padding >= dilation * (taps - 1) + 1)
    tolerance = TOLERANCE[case.x.dtype]
    exact = [t.detach().double().requires_grad_() for t in case.tensors()]
    expected = plain(exact[0], exact[1], exact[2] if case.bias is not None else None, *case.numbers)
    upstream = torch.randn(expected.shape, dtype=torch.float64).to(case.x.dtype)
    wanted: tuple[Tensor, ...] = tuple(torch.zeros_like(t) for t in exact)
    if expected.numel():
        wanted = torch.autograd.grad(expected, exact, upstream.double())

    leaves = [t.detach().requires_grad_() for t in case.tensors()]
    with on_backend(backend):
        out = ops.temporal_conv(leaves[0], leaves[1], leaves[2] if len(leaves) == 3 else None, *case.numbers)
        grads = torch.autograd.grad(out, leaves, upstream)
    assert out.dtype == case.x.dtype
    assert_near(out, expected, tolerance)
    for grad, want in zip(grads, wanted):
        assert_near(grad, want, tolerance * 30)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("numbers", [(1, 1, 1), (2, 0, 1), (2, 3, 2), (3, 4, 1)])
def test_first_to_third_derivatives(on_backend: Any, backend: str, numbers: tuple[int, int, int]) -> None:
    case = make_case((2, 2, 6, 2), outputs=2, numbers=numbers)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def run(*tensors: Tensor) -> Tensor:
        return ops.temporal_conv(*tensors, *numbers)  # type: ignore[arg-type]

    def penalty(*tensors: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(run(*tensors).pow(2).sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), tensors, create_graph=True)

    with on_backend(backend):
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves)
        assert torch.autograd.gradcheck(penalty, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_conv2d_and_keeps_the_memory_format(
    on_backend: Any, backend: str, layout: str, stride: int
) -> None:
    case = make_case((2, 32, 20, 25), 32, 9, (stride, 4, 1), torch.float32, layout)
    with on_backend(backend):
        out = ops.temporal_conv(case.x, case.weight, case.bias, *case.numbers)
    expected = torch.nn.functional.conv2d(case.x, case.weight, case.bias, (stride, 1), (4, 0))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert out.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
    assert out.is_contiguous() == (layout != "channels_last")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accurate_to_its_last_bits(
    on_backend: Any, backend: str, dtype: torch.dtype
) -> None:
    case = make_case((2, 16, 12, 25), 8, 3, (1, 1, 1), dtype, "channels_last")
    expected = plain(*[t.double() for t in case.tensors()], *case.numbers)  # type: ignore[arg-type]
    with on_backend(backend):
        out = ops.temporal_conv(case.x, case.weight, case.bias, *case.numbers)
    assert out.dtype == dtype
    limit = 2 * torch.finfo(dtype).eps * expected.abs().max().item()
    assert (out.double() - expected).abs().max().item() <= limit


def test_laws() -> None:
    case = make_case((2, 6, 30, 25), 7, 5, (2, 3, 2), bias=False)
    x, weight, other = case.x, case.weight, torch.randn_like(case.x)

    def run(x: Tensor) -> Tensor:
        return ops.temporal_conv(x, weight, None, *case.numbers)

    torch.testing.assert_close(run(2.0 * x - other), 2.0 * run(x) - run(other))
    leaf = x.clone().requires_grad_()
    cotangent = torch.randn_like(run(x))
    (back,) = torch.autograd.grad(run(leaf), leaf, cotangent)
    torch.testing.assert_close((cotangent * run(other)).sum(), (back * other).sum())
    # Joints and samples do not see each other; a later clip is the same clip, later.
    order = torch.randperm(25)
    torch.testing.assert_close(run(x[..., order]), run(x)[..., order])
    torch.testing.assert_close(run(x[1:]), run(x)[1:])
    late = torch.nn.functional.pad(x, (0, 0, 4, 0))
    torch.testing.assert_close(run(late)[:, :, 5:], run(x)[:, :, 3:])


def test_the_same_call_gives_the_same_bits() -> None:
    case = make_case((3, 24, 60, 25), 20, 9, (1, 4, 1), torch.float32)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def run() -> list[Tensor]:
        out = ops.temporal_conv(*leaves, *case.numbers)  # type: ignore[arg-type]
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    for first, second in zip(run(), run()):
        assert torch.equal(first, second)


def test_only_gradients_that_are_asked_for_are_computed(calls: Any) -> None:
    case = make_case()
    weight = case.weight.detach().requires_grad_()
    with calls:
        ops.temporal_conv(case.x, weight, case.bias, 1, 1).sum().backward()
    assert calls.count == {"temporal_conv": 1, "temporal_conv_grad_weight": 1}
    calls.count.clear()
    with calls:
        ops.temporal_conv(case.x.detach().requires_grad_(), case.weight).sum().backward()
    assert calls.count == {"temporal_conv": 1, "temporal_conv_grad_input": 1}
