"""relation_graph_conv: against graph_conv with the adjacency laid out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

LIMIT = {torch.float32: 3e-6, torch.float64: 1e-14, torch.bfloat16: 3e-2}


def operands(
    n: int, c: int, t: int, v: int, o: int, k: int, r: int, w: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    shapes = ((n, c, t, v), (k, o, c), (k, o, r), (n, k, r, v, w), (k, o))
    return tuple(
        (torch.randn(shape, dtype=torch.float64) / max(1, shape[-1]) ** 0.5).to(dtype) for shape in shapes
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 5, 9, 7, 6, 3, 2, 4),
        (1, 16, 70, 25, 64, 3, 10, 25),
        (3, 1, 1, 1, 40, 1, 1, 1),
        (2, 48, 5, 11, 32, 2, 18, 11),
    ],
)
def test_agrees_with_graph_conv(sizes: tuple[int, ...], biased: bool, dtype: torch.dtype) -> None:
    x, weight, mix, relations, bias = operands(*sizes, dtype)
    wide = [tensor.double() for tensor in (x, weight, mix, relations, bias)]
    adjacency = torch.einsum("kor,nkrvw->nkovw", wide[2], wide[3])
    expected = ops.graph_conv(wide[0], wide[1], adjacency, wide[4] if biased else None)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = ops.relation_graph_conv(
            x.contiguous(memory_format=layout), weight, mix, relations, bias if biased else None
        )
        assert out.dtype == dtype
        assert out.shape == expected.shape
        assert out.is_contiguous(memory_format=layout)
        assert (out.double() - expected).abs().max() <= LIMIT[dtype] * expected.abs().max()


def test_results_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    x, *rest = operands(1, 32, 64, 25, 96, 3, 6, 25, torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    try:
        torch.set_num_threads(1)
        one = ops.relation_graph_conv(x, *rest)
        torch.set_num_threads(3)
        assert torch.equal(ops.relation_graph_conv(x, *rest), one)
    finally:
        torch.set_num_threads(before)


def test_changed_weights_count() -> None:
    x, weight, mix, relations, _ = operands(1, 8, 9, 7, 16, 2, 3, 7, torch.float32)
    first = ops.relation_graph_conv(x, weight, mix, relations)
    mix.data.mul_(2)
    torch.testing.assert_close(ops.relation_graph_conv(x, weight, mix, relations), 2 * first)


def test_gradients_and_transforms() -> None:
    given = tuple(t.requires_grad_() for t in operands(1, 2, 3, 4, 3, 2, 2, 3, torch.float64))
    assert torch.autograd.gradcheck(ops.relation_graph_conv, given)
    x, *rest = (t.detach() for t in given)
    mapped = torch.func.vmap(lambda y: ops.relation_graph_conv(y, *rest))(x[None])
    torch.testing.assert_close(mapped[0], ops.relation_graph_conv(x, *rest))


@pytest.mark.parametrize("empty", [0, 2])
def test_nothing_gives_nothing(empty: int) -> None:
    sizes = [2, 4, 5, 3, 6, 1, 2, 3]
    sizes[empty] = 0
    out = ops.relation_graph_conv(*operands(*sizes, torch.float32))
    assert out.shape == (sizes[0], 6, sizes[2], 3)


GOOD = operands(2, 4, 5, 3, 6, 2, 3, 3, torch.float32)


@pytest.mark.parametrize(
    ("at", "value", "kind", "message"),
    [
        (0, GOOD[0][0], ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[4, 5, 3\]"),
        (0, GOOD[0].long(), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (1, GOOD[1][..., :2], ValueError, r"weight must be \[K, O, C\] with C = 4, got \[2, 6, 2\]"),
        (2, GOOD[2][:, :5], ValueError, r"mix must be \[K, O, R\] with K, O = 2, 6, got \[2, 5, 3\]"),
        (
            3,
            GOOD[3][:1],
            ValueError,
            r"relations must be \[N, K, R, V, W\] with N, K, R, V = 2, 2, 3, 3, got \[1",
        ),
        (4, GOOD[4][:1], ValueError, r"bias must be \[K, O\] with K, O = 2, 6, got \[1, 6\]"),
        (2, GOOD[2].double(), TypeError, "mix must be of the dtype of x, torch.float32, got torch.float64"),
    ],
)
def test_bad_arguments(at: int, value: Any, kind: type[Exception], message: str) -> None:
    given = [*GOOD[:at], value, *GOOD[at + 1 :]]
    with pytest.raises(kind, match=f"relation_graph_conv: {message}"):
        ops.relation_graph_conv(*given)
    if kind is ValueError and torch._C._dispatch_has_kernel_for_dispatch_key(
        "stgcn_fast::relation_graph_conv", "CPU"
    ):
        with pytest.raises(RuntimeError, match=r"relation_graph_conv: .* must be"):
            torch.ops.stgcn_fast.relation_graph_conv(*given)
