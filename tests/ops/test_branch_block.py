"""branch_block: kernels against the composition of PyTorch's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import _native, ops
from stgcn_fast.ops.branch_block import _plain

LIMIT = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}


def case(
    n: int, c: int, t: int, v: int, widths: tuple[int, ...], stride: int, mixed: bool, dtype: torch.dtype
) -> dict[str, Any]:
    """Arguments with every part: dilated kernels, a maximum, a bare branch, gates, a projected residual."""
    generator = torch.Generator().manual_seed(len(widths) * 100 + c)

    def random(*shape: int) -> Tensor:
        fan = max(1, torch.Size(shape[1:]).numel())
        return (torch.randn(shape, generator=generator, dtype=torch.float64) / fan**0.5).to(dtype)

    def features(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = [random(w, w, 3, 1) for w in widths[:-2]] + [random(widths[-2]), random(widths[-1])]
    outputs = sum(widths) + (5 if mixed else 0)
    return {
        "x": features(n, c, t, v),
        "weights": weights,
        "biases": [random(w) for w in widths],
        "spans": [*range(1, len(widths) - 1), 3, 1],
        "shift": random(c),
        "add": features(n, c, t, v),
        "rectify_input": True,
        "row_gate": features(n, t, v),
        "channel_gate": features(n, c),
        "entry_weight": random(sum(widths), c),
        "entry_bias": random(sum(widths)),
        "rectified": sum(widths[:-1]),
        "mix_weight": random(outputs, sum(widths)) if mixed else None,
        "mix_bias": random(outputs) if mixed else None,
        "rectify_branches": mixed,
        "residual": features(n, c, t, v),
        "residual_weight": random(outputs, c),
        "residual_bias": random(outputs),
        "rectify": True,
        "stride": stride,
    }


def plain(given: dict[str, Any]) -> Tensor:
    """The composition, in float64."""

    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [wide(item) for item in value]
        return value.double() if isinstance(value, Tensor) else value

    names = ("x", "shift", "add", "rectify_input", "row_gate", "channel_gate", "entry_weight", "entry_bias")
    names += ("rectified", "weights", "biases", "spans", "mix_weight", "mix_bias", "rectify_branches")
    names += ("residual", "residual_weight", "residual_bias", "rectify", "stride")
    defaults = {"rectify_input": False, "rectified": 0, "rectify_branches": False, "rectify": False}
    defaults |= {"stride": 1, "spans": [1] * len(given["weights"])}
    return _plain(*(wide(given.get(name, defaults.get(name))) for name in names), False)


def assert_agrees(given: dict[str, Any]) -> None:
    expected = plain(given)
    for layout in (torch.contiguous_format, torch.channels_last):
        names = ("x", "add", "residual")
        fed = {
            name: value.contiguous(memory_format=layout) if name in names and value is not None else value
            for name, value in given.items()
        }
        out = ops.branch_block(**fed)
        assert out.shape == expected.shape
        assert out.dtype == given["x"].dtype
        if out.numel():
            error = (out.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
            assert error <= LIMIT[out.dtype], float(error)
            assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "sizes", [(2, 5, 13, 7, (4, 3, 2, 3)), (1, 48, 40, 25, (16, 16, 16, 16)), (3, 20, 1, 1, (10, 14, 10))]
)
def test_all_parts(sizes: tuple[Any, ...], mixed: bool, stride: int, dtype: torch.dtype) -> None:
    assert_agrees(case(*sizes, stride, mixed, dtype))


@pytest.mark.parametrize("kernel", [1, 5, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [4, 31, 64])
def test_one_kernel_without_1x1_convolutions(kernel: int, stride: int, frames: int) -> None:
    x = torch.randn(2, 32, frames, 11)
    weight = torch.randn(32, 32, kernel, 1) / (32 * kernel) ** 0.5
    given = {"x": x, "weights": [weight], "biases": [torch.randn(32)], "stride": stride, "rectify": True}
    if stride == 1:
        given["residual"] = torch.randn_like(x)
    assert_agrees(given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shift_of_each_joint(dtype: torch.dtype) -> None:
    given = case(2, 20, 9, 7, (14, 10, 10), 1, True, dtype)
    assert_agrees(given | {"shift": torch.randn(7, 20, dtype=dtype)})
    with pytest.raises(ValueError, match=r"branch_block: shift must be \[7, 20\], got \[6, 20\]"):
        ops.branch_block(**given | {"shift": torch.randn(6, 20, dtype=dtype)})


@pytest.mark.skipif(not _native.load().loaded, reason="torch's own convolutions depend on its threads")
def test_results_do_not_depend_on_threads_or_batch() -> None:
    before = torch.get_num_threads()
    given = case(2, 32, 150, 25, (16, 16, 16, 16), 1, True, torch.float32)
    kernel = {"x": given["x"], "weights": [torch.randn(32, 32, 9, 1)], "biases": [torch.randn(32)]}
    try:
        for arguments in (given, kernel):
            torch.set_num_threads(1)
            one = ops.branch_block(**arguments)
            torch.set_num_threads(3)
            assert torch.equal(ops.branch_block(**arguments), one)
    finally:
        torch.set_num_threads(before)
    first = ops.branch_block(**{**kernel, "x": kernel["x"][:1]})
    torch.testing.assert_close(first[0], one[0], rtol=0, atol=0)


def test_changed_weights_count() -> None:
    given = case(1, 16, 9, 5, (16, 16, 16), 1, False, torch.float32)
    ops.branch_block(**given)
    for name in ("entry_weight", "residual_weight"):
        given[name].mul_(-1)
    given["weights"][0].data.add_(0.1)
    assert_agrees(given)


@pytest.mark.parametrize("shape", [(0, 8, 5, 3), (2, 8, 0, 3)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    out = ops.branch_block(x, [torch.randn(6, 8, 3, 1)], [torch.randn(6)], stride=2)
    assert out.shape == (shape[0], 6, (shape[2] + 1) // 2, shape[3])


def test_a_nan_stays() -> None:
    x = torch.zeros(1, 16, 20, 3)
    x[0, 2, 10, 1] = float("nan")
    out = ops.branch_block(
        x, [torch.ones(16)], [torch.zeros(16)], [3], rectify_input=True, rectified=16, rectify=True
    )
    assert out.isnan().nonzero().tolist() == [[0, 2, t, 1] for t in (9, 10, 11)]


def test_gradients_are_those_of_the_composition() -> None:
    given = case(1, 4, 6, 3, (2, 2, 2), 1, True, torch.float64)
    x = given.pop("x").requires_grad_()
    assert torch.autograd.gradcheck(lambda y: ops.branch_block(y, **given), x)
    torch.testing.assert_close(
        torch.func.vmap(lambda y: ops.branch_block(y, **given))(x[None])[0], ops.branch_block(x, **given)
    )


def test_under_autocast() -> None:
    given = case(1, 16, 9, 5, (16, 16, 16), 1, True, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.branch_block(**given)
    assert out.dtype == torch.bfloat16
    expected = plain(given)
    assert (out.double() - expected).abs().max() < 3e-2 * expected.abs().max()


X, W, B = torch.zeros(2, 4, 5, 3), torch.zeros(6, 4, 3, 1), torch.zeros(6)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": X[0]}, ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[4, 5, 3\]"),
        ({"x": X.long()}, TypeError, "x must be a floating-point tensor, got torch.int64"),
        ({"weights": []}, ValueError, "weights must be one or more, as many as biases and spans"),
        ({"weights": [W[:, :3]]}, ValueError, "weights must be of 4 input channels together, got 3"),
        ({"weights": [W[:, :, :2]]}, ValueError, r"weights\[0\] must be \[O, C, Γ, 1\] with Γ odd, or \[C\]"),
        ({"biases": [B[:2]]}, ValueError, r"biases\[0\] must be \[6\], got \[2\]"),
        ({"weights": [W.double()]}, TypeError, r"weights\[0\] must be of the dtype of x, torch.float32"),
        ({"spans": [0]}, ValueError, r"spans\[0\] must be at least 1, got 0"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"stride": 1.5}, TypeError, "stride must be an int, got float"),
        ({"shift": B}, ValueError, r"shift must be \[4\], got \[6\]"),
        ({"add": X[:1]}, ValueError, r"add must be \[2, 4, 5, 3\], got \[1, 4, 5, 3\]"),
        ({"row_gate": B}, ValueError, r"row_gate must be \[2, 5, 3\], got \[6\]"),
        (
            {"entry_weight": torch.zeros(4, 4)},
            ValueError,
            "entry_bias must be given exactly where entry_weight",
        ),
        ({"mix_bias": B}, ValueError, "mix_bias must be given exactly where mix_weight is, got a tensor"),
        ({"rectified": 4}, ValueError, "rectified must be 0, or C with rectify_input, without entry_weight"),
        ({"rectify_branches": True}, ValueError, "rectify_branches must be False without mix_weight"),
        ({"residual": X}, ValueError, "residual_weight must be given unless R = O and stride = 1, got None"),
        (
            {"weights": [B[:4]], "biases": [B[:4]], "spans": [3]},
            ValueError,
            "rectified must be as many channels as a maximum of several frames reads, got 0",
        ),
        ({"fast": 1}, TypeError, "fast must be a bool, got int"),
    ],
)
def test_bad_arguments(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"x": X, "weights": [W], "biases": [B]}
    with pytest.raises(kind, match=f"branch_block: {message}"):
        ops.branch_block(**(given | change))


def test_the_kernels_check_too() -> None:
    if not torch._C._dispatch_has_kernel_for_dispatch_key("stgcn_fast::branch_block", "CPU"):
        pytest.skip("no compiled kernel")
    op = torch.ops.stgcn_fast.branch_block

    def call(weight: Tensor, bias: Tensor, span: int, rectified: int = 0) -> Tensor:
        nothing = [None] * 4
        first = (X, None, None, False, None, None, None, None, rectified, [weight], [bias], [span])
        return op(*first, None, None, False, *nothing[:3], True, 1, True)

    for arguments in ((W[:, :3], B, 1), (W, B[:2], 1), (W, B, 0), (B[:4], B[:4], 3), (W, B, 1, 9)):
        with pytest.raises(RuntimeError, match=r"branch_block: .* must be"):
            call(*arguments)
