"""attention_gates: kernels against the composition of PyTorch's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.ops.attention_gates import _plain

LIMIT = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}
NAMES = ("joints_weight", "joints_bias", "frames_weight", "frames_bias")
NAMES += ("down_weight", "down_bias", "up_weight", "up_bias")


def operands(
    n: int, c: int, t: int, v: int, taps: tuple[int, int], hidden: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    shapes = ((taps[0], c), (1,), (taps[1], c), (1,), (hidden, c), (hidden,), (c, hidden), (c,))
    given = {name: torch.randn(shape, dtype=torch.float64) / c**0.5 for name, shape in zip(NAMES, shapes)}
    given |= {"shift": torch.randn(c, dtype=torch.float64)}
    given |= {name: torch.randn(n, c, t, v, dtype=torch.float64) for name in ("x", "add")}
    return {name: value.to(dtype) for name, value in given.items()}


def plain(given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    wide = {name: None if value is None else value.double() for name, value in given.items()}
    return _plain(wide["x"], wide.get("shift"), wide.get("add"), *(wide[name] for name in NAMES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 5, 9, 7, (7, 9), 3),
        (1, 64, 70, 25, (25, 9), 32),
        (3, 1, 1, 1, (1, 1), 1),
        (2, 48, 5, 33, (3, 11), 20),
    ],
)
def test_agrees_with_pytorch(sizes: tuple[Any, ...], bare: bool, dtype: torch.dtype) -> None:
    given: dict[str, Any] = operands(*sizes, dtype)
    if bare:
        given |= {"shift": None, "add": None}
    expected = plain(given)
    for layout in (torch.contiguous_format, torch.channels_last):
        fed = {
            name: value.contiguous(memory_format=layout)
            if name in ("x", "add") and value is not None
            else value
            for name, value in given.items()
        }
        found = ops.attention_gates(**fed)
        assert found[0].dtype == dtype
        assert found[0].is_contiguous(memory_format=layout)
        assert found[1].dtype == found[2].dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
        for ours, truth in zip(found, expected):
            assert ours.shape == truth.shape
            assert (ours.double() - truth).abs().max() <= LIMIT[dtype] * max(1, truth.abs().max())


def test_a_nan_stays() -> None:
    given = operands(2, 4, 6, 5, (5, 3), 2, torch.float32)
    given["x"][1, 2, 3, 4] = torch.nan
    for ours, truth in zip(ops.attention_gates(**given), plain(given)):
        assert torch.equal(ours.isnan(), truth.isnan())


def test_results_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    given = operands(4, 64, 100, 25, (25, 9), 32, torch.float32)
    try:
        torch.set_num_threads(1)
        one = ops.attention_gates(**given)
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(ops.attention_gates(**given), one))
    finally:
        torch.set_num_threads(before)


def test_gradients_and_transforms() -> None:
    given = operands(1, 2, 3, 4, (3, 3), 2, torch.float64)
    x, add = given.pop("x").requires_grad_(), given.pop("add")
    assert torch.autograd.gradcheck(lambda y: ops.attention_gates(y, add=add, **given), (x,))
    mapped = torch.func.vmap(lambda y: ops.attention_gates(y, add=add, **given)[2])(x.detach()[None])
    torch.testing.assert_close(mapped[0], ops.attention_gates(x.detach(), add=add, **given)[2])


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 4, 0, 3)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    given = operands(*shape, (3, 3), 2, torch.float32)
    h, rows, channels = ops.attention_gates(**given)
    assert (h.shape, rows.shape) == (shape, (shape[0], *shape[2:]))
    assert channels.isnan().all()


GOOD = operands(2, 4, 5, 3, (3, 3), 2, torch.float32)


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("x", GOOD["x"][0], ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[4, 5, 3\]"),
        ("x", GOOD["x"].long(), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (
            "joints_weight",
            GOOD["joints_weight"][:2],
            ValueError,
            r"joints_weight must be \[taps, C\] with an odd number of taps and C = 4, got \[2, 4\]",
        ),
        ("frames_bias", GOOD["x"][0, 0, 0], ValueError, r"frames_bias must be \[1\], got \[3\]"),
        (
            "down_weight",
            GOOD["up_weight"],
            ValueError,
            r"down_weight must be \[H, C\] with H >= 1 and C = 4, got \[4, 2\]",
        ),
        ("up_weight", GOOD["down_weight"], ValueError, r"up_weight must be \[4, 2\], got \[2, 4\]"),
        ("shift", GOOD["x"][0, 0, 0], ValueError, r"shift must be \[4\], got \[3\]"),
        ("add", GOOD["add"][:1], ValueError, r"add must be \[2, 4, 5, 3\], got \[1, 4, 5, 3\]"),
        ("add", GOOD["add"].double(), TypeError, "add must be of the dtype of x, torch.float32, got"),
    ],
)
def test_bad_arguments(name: str, value: Any, kind: type[Exception], message: str) -> None:
    given = GOOD | {name: value}
    with pytest.raises(kind, match=f"attention_gates: {message}"):
        ops.attention_gates(**given)
    key = "stgcn_fast::attention_gates"
    if kind is ValueError and torch._C._dispatch_has_kernel_for_dispatch_key(key, "CPU"):
        ordered = [given[part] for part in ("x", "shift", "add", *NAMES)]
        with pytest.raises(RuntimeError, match=r"attention_gates: .* must be"):
            torch.ops.stgcn_fast.attention_gates(*ordered)
