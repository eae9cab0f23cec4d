"""joint_relations: kernels against the composition of PyTorch's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.ops.joint_relations import _reference

LIMIT = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 3e-2}


def operands(
    n: int, c: int, t: int, v: int, k: int, r: int, f: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = ((n, c, t, v), (2, k, r, c), (2, k, r), (k, f, v, v))
    x, weight, bias, fixed = (torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, weight, bias, fixed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [(2, 5, 9, 7, 3, 2, 2), (1, 16, 70, 25, 3, 10, 0), (3, 1, 1, 1, 1, 1, 1), (2, 48, 5, 33, 2, 18, 2)],
)
def test_agrees_with_pytorch(sizes: tuple[int, ...], turned: bool, dtype: torch.dtype) -> None:
    given = operands(*sizes, dtype)
    expected = _reference(*(tensor.double() for tensor in given), turned)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = ops.joint_relations(given[0].contiguous(memory_format=layout), *given[1:], turned)
        assert out.dtype == dtype
        assert out.shape == expected.shape
        assert (out.double() - expected).abs().max() <= LIMIT[dtype] * max(1, expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_of_any_difference(dtype: torch.dtype) -> None:
    size = torch.logspace(-6, 3, 400, dtype=torch.float64)
    values = torch.cat([size, -size, torch.tensor([0.0, torch.inf, -torch.inf], dtype=torch.float64)]).to(
        dtype
    )
    x = torch.zeros(len(values), 1, 1, 3, dtype=dtype)
    x[..., 0] = values[:, None, None]
    weight = torch.tensor([1.0, 0.0], dtype=dtype).view(2, 1, 1, 1)
    finite = x.nan_to_num(posinf=1e30, neginf=-1e30)
    out = ops.joint_relations(
        finite, weight, torch.zeros(2, 1, 1, dtype=dtype), torch.zeros(1, 0, 3, 3, dtype=dtype)
    )
    expected = finite[:, 0, 0, :, None].double().tanh().expand(-1, 3, 3)
    torch.testing.assert_close(out[:, 0, 0].double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_a_nan_stays_where_it_is() -> None:
    x, weight, bias, fixed = operands(2, 4, 6, 5, 1, 2, 1, torch.float32)
    x[1, 2, 3, 4] = torch.nan
    out = ops.joint_relations(x, weight, bias, fixed)
    assert torch.equal(out.isnan(), _reference(x, weight, bias, fixed, False).isnan())


def test_results_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    given = operands(4, 32, 64, 25, 3, 8, 2, torch.float32)
    try:
        torch.set_num_threads(1)
        one = ops.joint_relations(*given)
        torch.set_num_threads(3)
        assert torch.equal(ops.joint_relations(*given), one)
    finally:
        torch.set_num_threads(before)


def test_changed_weights_count() -> None:
    given = operands(1, 8, 9, 7, 2, 3, 1, torch.float32)
    for at in (1, 2):
        ops.joint_relations(*given)
        given[at].data.mul_(2)
        torch.testing.assert_close(
            ops.joint_relations(*given), _reference(*given, False), rtol=1e-5, atol=1e-5
        )


def test_gradients_and_transforms() -> None:
    given = tuple(t.requires_grad_() for t in operands(1, 2, 3, 4, 2, 2, 1, torch.float64))
    assert torch.autograd.gradcheck(ops.joint_relations, given)
    x, *rest = (t.detach() for t in given)
    mapped = torch.func.vmap(lambda y: ops.joint_relations(y, *rest))(x[None])
    torch.testing.assert_close(mapped[0], ops.joint_relations(x, *rest))


def test_no_samples() -> None:
    assert ops.joint_relations(*operands(0, 4, 5, 3, 2, 3, 1, torch.float32)).shape == (0, 2, 4, 3, 3)


GOOD = operands(2, 4, 5, 3, 2, 3, 1, torch.float32)


@pytest.mark.parametrize(
    ("at", "value", "kind", "message"),
    [
        (0, GOOD[0][0], ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[4, 5, 3\]"),
        (0, GOOD[0].long(), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (1, GOOD[1][..., :2], ValueError, r"weight must be \[2, K, R, C\] with C = 4, got \[2, 2, 3, 2\]"),
        (2, GOOD[2][:, :1], ValueError, r"bias must be \[2, K, R\] with K, R = 2, 3, got \[2, 1, 3\]"),
        (
            3,
            GOOD[3][..., :2],
            ValueError,
            r"fixed must be \[K, F, V, V\] with K, V = 2, 3, got \[2, 1, 3, 2\]",
        ),
        (
            1,
            GOOD[1].double(),
            TypeError,
            "weight must be of the dtype of x, torch.float32, got torch.float64",
        ),
    ],
)
def test_bad_arguments(at: int, value: Any, kind: type[Exception], message: str) -> None:
    given = [*GOOD[:at], value, *GOOD[at + 1 :]]
    with pytest.raises(kind, match=f"joint_relations: {message}"):
        ops.joint_relations(*given)
    name = "stgcn_fast::joint_relations"
    if kind is ValueError and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
        with pytest.raises(RuntimeError, match=r"joint_relations: .* must be"):
            torch.ops.stgcn_fast.joint_relations(*given, False)
