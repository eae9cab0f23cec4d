"""joint_attention: kernels against the composition of PyTorch's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.ops.joint_attention import _reference

LIMIT = {torch.float32: 5e-6, torch.float64: 1e-14, torch.bfloat16: 3e-2}


def operands(
    n: int, c: int, t: int, v: int, k: int, r: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shapes = ((n, c, t, v), (2, k, r, c), (2, k, r), (k, v, v), (1,))
    x, weight, bias, fixed, alpha = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    weight /= c**0.5
    return x.to(dtype), weight.to(dtype), bias.to(dtype), fixed.to(dtype), alpha.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 5, 9, 7, 3, 2),
        (1, 16, 70, 25, 3, 16),
        (3, 1, 1, 1, 1, 1),
        (2, 48, 5, 33, 2, 36),
        (1, 64, 60, 25, 1, 64),
    ],
)
def test_agrees_with_pytorch(sizes: tuple[int, ...], scaled: bool, dtype: torch.dtype) -> None:
    x, *rest, alpha = operands(*sizes, dtype)
    factor = alpha if scaled else None
    expected = _reference(*(t.double() for t in (x, *rest)), None if factor is None else factor.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        out = ops.joint_attention(x.contiguous(memory_format=layout), *rest, factor)
        assert out.dtype == dtype
        assert out.shape == expected.shape
        assert (out.double() - expected).abs().max() <= LIMIT[dtype] * max(1, expected.abs().max())


@pytest.mark.parametrize("scaled", [True, False])
def test_large_products(scaled: bool) -> None:
    x, *rest, alpha = operands(2, 8, 6, 9, 2, 4, torch.float32)
    given = (30 * x, *rest, alpha if scaled else None)
    out, expected = ops.joint_attention(*given), _reference(*given)
    assert expected.isfinite().all()
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_nan_stays_where_it_is(scaled: bool) -> None:
    x, *rest, alpha = operands(2, 4, 6, 5, 2, 3, torch.float32)
    x[1, 2, 3, 4] = torch.nan
    given = (x, *rest, alpha if scaled else None)
    assert torch.equal(ops.joint_attention(*given).isnan(), _reference(*given).isnan())


def test_results_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    given = operands(2, 64, 100, 25, 3, 16, torch.float32)
    try:
        torch.set_num_threads(1)
        one = ops.joint_attention(*given)
        torch.set_num_threads(3)
        assert torch.equal(ops.joint_attention(*given), one)
    finally:
        torch.set_num_threads(before)


def test_changed_weights_count() -> None:
    given = operands(1, 8, 9, 7, 2, 3, torch.float32)
    for at in range(1, 5):
        ops.joint_attention(*given)
        given[at].data.mul_(2)
        torch.testing.assert_close(ops.joint_attention(*given), _reference(*given), rtol=1e-4, atol=1e-5)


def test_gradients_and_transforms() -> None:
    given = tuple(t.requires_grad_() for t in operands(1, 2, 3, 4, 2, 2, torch.float64))
    assert torch.autograd.gradcheck(ops.joint_attention, given)
    assert torch.autograd.gradcheck(ops.joint_attention, given[:4])
    x, *rest = (t.detach() for t in given)
    mapped = torch.func.vmap(lambda y: ops.joint_attention(y, *rest))(x[None])
    torch.testing.assert_close(mapped[0], ops.joint_attention(x, *rest))


def test_no_samples() -> None:
    assert ops.joint_attention(*operands(0, 4, 5, 3, 2, 3, torch.float32)).shape == (0, 2, 3, 3)


GOOD = operands(2, 4, 5, 3, 2, 3, torch.float32)


@pytest.mark.parametrize(
    ("at", "value", "kind", "message"),
    [
        (0, GOOD[0][0], ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[4, 5, 3\]"),
        (0, GOOD[0].long(), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (1, GOOD[1][..., :2], ValueError, r"weight must be \[2, K, R, C\] with C = 4, got \[2, 2, 3, 2\]"),
        (2, GOOD[2][:, :1], ValueError, r"bias must be \[2, K, R\] with K, R = 2, 3, got \[2, 1, 3\]"),
        (3, GOOD[3][..., :2], ValueError, r"fixed must be \[K, V, V\] with K, V = 2, 3, got \[2, 3, 2\]"),
        (4, GOOD[4].expand(2), ValueError, r"alpha must be \[1\], got \[2\]"),
        (4, GOOD[4].double(), TypeError, "alpha must be of the dtype of x, torch.float32, got torch.float64"),
    ],
)
def test_bad_arguments(at: int, value: Any, kind: type[Exception], message: str) -> None:
    given = [*GOOD[:at], value, *GOOD[at + 1 :]]
    with pytest.raises(kind, match=f"joint_attention: {message}"):
        ops.joint_attention(*given)
    name = "stgcn_fast::joint_attention"
    if kind is ValueError and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
        with pytest.raises(RuntimeError, match=r"joint_attention: .* must be"):
            torch.ops.stgcn_fast.joint_attention(*given)
