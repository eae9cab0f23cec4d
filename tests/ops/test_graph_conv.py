"""graph_conv against an independently written sum, on both backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stgcn_fast import ops

BACKENDS = ["native", "reference"]
FORMATS = ["contiguous", "channels_last", "strided", "expanded"]
FORMS = ["shared", "sparse", "per_sample", "per_group", "per_sample_group", "per_channel"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


def plain(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None) -> Tensor:
    """The definition, with the adjacency [B, K, G, V, W] written out for every sample and channel."""
    samples, outputs = x.shape[0], weight.shape[1]
    full = adjacency.expand(samples, -1, -1, -1, -1)
    full = full.repeat_interleave(outputs // full.shape[2], dim=2)  # [N, K, O, V, W]
    z = torch.tensordot(x, weight, dims=([1], [2])).permute(0, 3, 4, 1, 2)  # [N, K, O, T, V]
    if bias is not None:
        z = z + bias[None, :, :, None, None]
    return torch.matmul(z, full).sum(1)


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = x.new_empty([2 * size for size in x.shape])[::2, ::2, ::2, 1::2]
        return wide.copy_(x)
    if layout == "expanded":
        return x[:, :, :, :1].expand_as(x)
    return x


@dataclass
class Case:
    """One call of the public function."""

    x: Tensor
    weight: Tensor
    adjacency: Tensor
    bias: Tensor | None
    groups: int | None = None

    @property
    def full(self) -> Tensor:
        """The adjacency on all five axes."""
        if self.adjacency.dim() == 3:
            return self.adjacency[None, :, None]
        if self.adjacency.dim() == 4:
            return self.adjacency[:, :, None] if self.groups is None else self.adjacency[None]
        return self.adjacency

    def tensors(self) -> list[Tensor]:
        some = [self.x, self.weight, self.adjacency, self.bias]
        return [tensor for tensor in some if tensor is not None]

    def run(self) -> Tensor:
        return ops.graph_conv(self.x, self.weight, self.adjacency, self.bias, groups=self.groups)


def make_case(
    form: str,
    dtype: torch.dtype = torch.float64,
    layout: str = "contiguous",
    *,
    sizes: tuple[int, int, int, int, int] = (2, 4, 5, 6, 3),
    groups: int = 2,
    outputs: int = 6,
    targets: int | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Case:
    samples, channels, frames, joints, partitions = sizes
    rng = torch.Generator().manual_seed(seed)
    targets = joints if targets is None else targets

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    shapes = {
        "shared": (partitions, joints, targets),
        "sparse": (partitions, joints, targets),
        "per_sample": (samples, partitions, joints, targets),
        "per_group": (partitions, groups, joints, targets),
        "per_sample_group": (samples, partitions, groups, joints, targets),
        "per_channel": (samples, partitions, outputs, joints, targets),
    }
    adjacency = random(*shapes[form])
    if form == "sparse":
        keep = torch.rand(adjacency.shape, generator=rng) < 0.15
        adjacency = torch.where(keep, adjacency, torch.zeros_like(adjacency))
    weight = random(channels, outputs, partitions).permute(2, 1, 0)
    return Case(
        laid_out(random(samples, channels, frames, joints), layout),
        weight,
        adjacency,
        random(partitions, outputs) if bias else None,
        groups if form in ("per_group", "per_sample_group") else None,
    )


cases = st.builds(
    lambda form, dtype, layout, n, c, t, v, k, g, per, w, bias, seed: make_case(
        form, dtype, layout, sizes=(n, c, t, v, k), groups=g, outputs=g * per, targets=w, bias=bias, seed=seed
    ),
    st.sampled_from(FORMS),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(FORMATS),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3, 7, 16, 33, 64]),
    st.sampled_from([0, 1, 2, 5, 13, 30]),
    st.sampled_from([1, 2, 5, 18, 25, 33]),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([1, 3, 8, 16]),
    st.sampled_from([None, None, 1, 4, 27]),
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
    tolerance = TOLERANCE[case.x.dtype]
    exact = [t.detach().double().requires_grad_() for t in (case.x, case.weight, case.full)]
    exact_bias = None if case.bias is None else case.bias.detach().double().requires_grad_()
    expected = plain(*exact, exact_bias)
    upstream = torch.randn(expected.shape, dtype=torch.float64).to(case.x.dtype)
    expected.backward(upstream.double())

    leaves = [t.detach().requires_grad_() for t in case.tensors()]
    live = Case(*leaves[:3], leaves[3] if case.bias is not None else None, case.groups)
    with on_backend(backend):
        out = live.run()
        grads = torch.autograd.grad(out, leaves, upstream)
    assert out.dtype == case.x.dtype
    assert_near(out, expected, tolerance)
    wanted = [t.grad for t in (*exact, exact_bias) if t is not None]
    for leaf, grad, want in zip(leaves, grads, wanted):
        assert want is not None
        assert_near(grad, want.reshape(leaf.shape), tolerance * 30)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_first_and_second_derivatives(on_backend: Any, backend: str, form: str) -> None:
    case = make_case(form, sizes=(2, 2, 3, 4, 2), outputs=4)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def run(*tensors: Tensor) -> Tensor:
        return Case(*tensors, groups=case.groups).run()  # type: ignore[arg-type, misc]

    with on_backend(backend):
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["sparse", "per_sample", "per_group"])
def test_third_derivatives(on_backend: Any, backend: str, form: str) -> None:
    case = make_case(form, sizes=(2, 2, 2, 3, 2), outputs=2)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def penalty(*tensors: Tensor) -> tuple[Tensor, ...]:
        out = Case(*tensors, groups=case.groups).run()  # type: ignore[arg-type, misc]
        first = torch.autograd.grad(out.pow(2).sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), tensors, create_graph=True)

    with on_backend(backend):
        assert torch.autograd.gradcheck(penalty, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("whole_adjacency", [False, True])
def test_a_mask_scales_the_adjacency(on_backend: Any, backend: str, whole_adjacency: bool) -> None:
    case = make_case("sparse", sizes=(3, 4, 7, 25, 3), outputs=5)
    adjacency = case.adjacency.clone().requires_grad_(whole_adjacency)
    mask = torch.randn(case.adjacency.shape, dtype=torch.float64)
    mask[0] = 0.0  # a mask may be zero where its gradient is not
    leaves = [t.detach().requires_grad_() for t in (case.x, case.weight, case.bias, mask) if t is not None]
    if whole_adjacency:
        leaves.append(adjacency)
    x, weight, bias, learnt = leaves[:4]
    expected = plain(x, weight, (adjacency * learnt)[None, :, None], bias)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, leaves, upstream)
    with on_backend(backend):
        out = ops.graph_conv(x, weight, adjacency, bias, learnt)
        grads = torch.autograd.grad(out, leaves, upstream)
    torch.testing.assert_close(out, expected)
    for grad, want in zip(grads, wanted):
        torch.testing.assert_close(grad, want)
    if not whole_adjacency:
        assert torch.all(grads[3][case.adjacency == 0] == 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_with_a_mask(on_backend: Any, backend: str) -> None:
    case = make_case("sparse", sizes=(2, 2, 3, 5, 2), outputs=3)
    mask = torch.randn(case.adjacency.shape, dtype=torch.float64)
    leaves = [t.detach().requires_grad_() for t in (case.x, case.weight, case.bias, mask) if t is not None]

    def run(x: Tensor, weight: Tensor, bias: Tensor, learnt: Tensor) -> Tensor:
        return ops.graph_conv(x, weight, case.adjacency, bias, learnt)

    with on_backend(backend):
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves)


def test_a_mask_fits_every_form() -> None:
    for form in FORMS:
        case = make_case(form)
        full = torch.rand(case.adjacency.shape, dtype=torch.float64)
        expected = plain(
            case.x,
            case.weight,
            Case(case.x, case.weight, case.adjacency * full, None, case.groups).full,
            None,
        )
        out = ops.graph_conv(case.x, case.weight, case.adjacency, None, full, groups=case.groups)
        torch.testing.assert_close(out, expected)
        shared = torch.rand(3, 6, 6, dtype=torch.float64)  # [K, V, W]
        expected = plain(case.x, case.weight, case.full * shared[None, :, None], None)
        out = ops.graph_conv(case.x, case.weight, case.adjacency, None, shared, groups=case.groups)
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [3, 32])
def test_the_output_keeps_the_memory_format(
    on_backend: Any, backend: str, layout: str, channels: int
) -> None:
    case = make_case("shared", torch.float32, layout, sizes=(2, channels, 9, 25, 3), outputs=32)
    with on_backend(backend):
        out = case.run()
    assert out.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
    assert out.is_contiguous() == (layout != "channels_last")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_accurate_to_its_last_bits(
    on_backend: Any, backend: str, dtype: torch.dtype, form: str
) -> None:
    case = make_case(form, dtype, "channels_last", sizes=(2, 16, 5, 25, 3), outputs=8)
    expected = plain(case.x.double(), case.weight.double(), case.full.double(), case.bias.double())  # type: ignore[union-attr]
    with on_backend(backend):
        out = case.run()
    assert out.dtype == dtype
    scale = expected.abs().max().item()
    assert (out.double() - expected).abs().max().item() <= 4 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("form", FORMS)
def test_laws(form: str) -> None:
    case = make_case(form, sizes=(2, 5, 11, 25, 3), outputs=6, bias=False)
    x, weight, groups = case.x, case.weight, case.groups
    other = torch.randn_like(x)

    def run(x: Tensor, weight: Tensor = weight, adjacency: Tensor = case.adjacency) -> Tensor:
        return ops.graph_conv(x, weight, adjacency, groups=groups)

    torch.testing.assert_close(run(2.0 * x - other), 2.0 * run(x) - run(other))
    # The derivative by x is the adjoint map.
    leaf = x.clone().requires_grad_()
    cotangent = torch.randn_like(run(x))
    (back,) = torch.autograd.grad(run(leaf), leaf, cotangent)
    torch.testing.assert_close((cotangent * run(other)).sum(), (back * other).sum())
    # Renaming the joints renames the result.
    order = torch.randperm(25)
    renamed = case.adjacency[..., order, :][..., order]
    torch.testing.assert_close(run(x[..., order], adjacency=renamed), run(x)[..., order])
    # Partitions add up.
    axis = case.full.shape[1] and (1 if case.adjacency.dim() > 3 and form != "per_group" else 0)
    parts = [
        ops.graph_conv(x, weight[k : k + 1], case.adjacency.narrow(axis, k, 1), groups=groups)
        for k in range(3)
    ]
    torch.testing.assert_close(sum(parts), run(x))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("groups", [2, 4, 5, 8, 20, 40])
def test_groups_that_begin_within_a_vector(on_backend: Any, groups: int) -> None:
    case = make_case("per_group", torch.float32, sizes=(2, 5, 13, 7, 2), outputs=40, groups=groups)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def run() -> list[Tensor]:
        out = Case(*leaves, groups=case.groups).run()  # type: ignore[arg-type, misc]
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    with on_backend("reference"):
        expected = run()
    for found, wanted in zip(run(), expected):
        assert_near(found, wanted.double(), 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_call_gives_the_same_bits(form: str) -> None:
    case = make_case(form, torch.float32, sizes=(3, 24, 40, 25, 3), outputs=20)
    leaves = [t.detach().requires_grad_() for t in case.tensors()]

    def run() -> list[Tensor]:
        out = Case(*leaves, groups=case.groups).run()  # type: ignore[arg-type, misc]
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    for first, second in zip(run(), run()):
        assert torch.equal(first, second)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_threads_do_not_change_the_result(form: str, dtype: torch.dtype) -> None:
    case = make_case(form, dtype, "channels_last", sizes=(3, 40, 70, 25, 3), outputs=36)
    mask = torch.rand(case.adjacency.shape).to(dtype).requires_grad_()
    leaves = [case.x.requires_grad_(), case.weight.requires_grad_(), mask]
    if case.bias is not None:
        leaves.append(case.bias.requires_grad_())
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out = ops.graph_conv(case.x, case.weight, case.adjacency, case.bias, mask, groups=case.groups)
            results.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    for one, two, three in zip(*results):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [3, 16, 33, 64])
def test_half_precision_gradients(on_backend: Any, backend: str, layout: str, channels: int) -> None:
    sizes = (2, channels, 31, 25, 3)
    case = make_case("sparse", torch.bfloat16, layout, sizes=sizes, outputs=40)
    mask = torch.rand(case.adjacency.shape).bfloat16()
    leaves = [
        t.detach().clone().requires_grad_() for t in (case.x, case.weight, case.bias, mask) if t is not None
    ]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = plain(*exact[:2], (case.adjacency.double() * exact[3])[None, :, None], exact[2])
    upstream = torch.randn(expected.shape).bfloat16()
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    with on_backend(backend):
        out = ops.graph_conv(leaves[0], leaves[1], case.adjacency, leaves[2], leaves[3])
        grads = torch.autograd.grad(out, leaves, upstream)
    for grad, want in zip(grads, wanted):
        assert grad.dtype == torch.bfloat16
        scale = want.abs().max().item()
        assert (grad.double() - want).abs().max().item() <= 6 * torch.finfo(torch.bfloat16).eps * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_change_of_the_weights_is_seen(dtype: torch.dtype) -> None:
    case = make_case("sparse", dtype, "channels_last", sizes=(2, 16, 5, 25, 3), outputs=32)
    weight = case.weight.contiguous()
    first = ops.graph_conv(case.x, weight, case.adjacency)
    weight.data[1, 3, 5] += 1.0
    second = ops.graph_conv(case.x, weight, case.adjacency)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, ops.graph_conv(case.x, weight.clone(), case.adjacency))
    with torch.no_grad():
        weight.copy_(case.weight)
    assert torch.equal(ops.graph_conv(case.x, weight, case.adjacency), first)


def test_only_gradients_that_are_asked_for_are_computed(calls: Any) -> None:
    case = make_case("sparse", sizes=(2, 3, 8, 25, 3))
    mask = torch.ones_like(case.adjacency).requires_grad_()
    weight = case.weight.detach().requires_grad_()
    with calls:
        ops.graph_conv(case.x, weight, case.adjacency, case.bias, mask).sum().backward()
    assert calls.count == {"graph_conv": 1, "graph_conv_backward": 1}
    calls.count.clear()
    x = case.x.detach().requires_grad_()
    with calls:
        ops.graph_conv(x, case.weight, case.adjacency).sum().backward()
    assert calls.count == {"graph_conv": 2}
    calls.count.clear()
    with calls:
        ops.graph_conv(x, case.weight, case.adjacency, None, mask).sum().backward()
    assert calls.count == {"graph_conv": 1, "graph_conv_backward": 1}


@pytest.mark.parametrize("samples", [0, 1])
@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_in_nothing_out(on_backend: Any, backend: str, samples: int, frames: int) -> None:
    case = make_case("sparse", sizes=(samples, 3, frames, 25, 3))
    leaves = [t.detach().requires_grad_() for t in case.tensors()]
    with on_backend(backend):
        out = Case(*leaves).run()
        grads = torch.autograd.grad(out.sum(), leaves)
    assert out.shape == (samples, 6, frames, 25)
    for leaf, grad in zip(leaves, grads):
        assert grad.shape == leaf.shape
        assert torch.any(grad != 0) == bool(samples and frames)
