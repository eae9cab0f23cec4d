"""st_block against its parts written down one after the other, on both backends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stgcn_fast import ops

BACKENDS = ["native", "reference"]
FORMATS = ["contiguous", "channels_last", "strided", "expanded"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
DTYPES = list(TOLERANCE)


@dataclass
class Case:
    """One call of the public function."""

    x: Tensor
    operands: dict[str, Tensor]
    numbers: dict[str, Any] = field(default_factory=dict)

    def run(self, **changes: Any) -> Tensor:
        return ops.st_block(**({"x": self.x} | self.operands | self.numbers | changes))

    def tensors(self) -> dict[str, Tensor]:
        return {"x": self.x} | self.operands


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return x.new_empty([2 * size for size in x.shape])[::2, 1::2, ::2, ::2].copy_(x)
    if layout == "expanded":
        return x[:, :, :, :1].expand_as(x)
    return x


def make_case(
    sizes: tuple[int, int, int, int] = (2, 3, 11, 5),  # N, C, T, V
    outputs: int = 6,
    taps: int = 9,
    stride: int = 1,
    residual: str = "convolution",
    dtype: torch.dtype = torch.float64,
    layout: str = "channels_last",
    vectors: bool = True,
    wide: bool = False,
    seed: int = 0,
) -> Case:
    """`wide`: operands in the computing dtype beside a narrow x."""
    rng = torch.Generator().manual_seed(seed)
    if residual == "identity":
        outputs, stride = sizes[1], 1
    inputs, joints, partitions = sizes[1], sizes[3], 3
    operand_dtype = torch.float32 if wide and dtype.itemsize == 2 else dtype

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    edges = torch.rand((partitions, joints, joints), generator=rng, dtype=torch.float64) < 0.3
    operands = {
        "graph_weight": random(partitions, outputs, inputs) / inputs**0.5,
        "adjacency": random(partitions, joints, joints) * edges,
        "temporal_weight": random(outputs, taps, outputs, 1).transpose(1, 2) / (outputs * taps) ** 0.5,
    }
    if vectors:
        operands["graph_bias"] = random(partitions, outputs)
        for name in ("scale1", "shift1", "temporal_bias", "scale2", "shift2"):
            operands[name] = random(outputs)
    if residual == "convolution":
        operands["residual_weight"] = random(inputs, outputs).t()
        if vectors:
            operands["residual_shift"] = random(outputs)
    return Case(
        laid_out(random(*sizes).to(dtype), layout),
        {name: tensor.to(operand_dtype) for name, tensor in operands.items()},
        {"residual": residual != "none", "stride": stride},
    )


def plain(case: Case) -> Tensor:
    """The definition in float64, joint by joint and tap by tap."""
    t = {name: tensor.double() for name, tensor in case.tensors().items()}
    x, weight, adjacency, kernel = t["x"], t["graph_weight"], t["adjacency"], t["temporal_weight"]
    outputs, taps, stride = weight.shape[1], kernel.shape[2], case.numbers["stride"]
    one, zero = torch.ones(outputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)

    def column(name: str, missing: Tensor) -> Tensor:
        return t.get(name, missing)[None, :, None, None]

    mixed = torch.tensordot(x, weight, dims=([1], [2])).permute(3, 0, 4, 1, 2)  # [K, N, O, T, V]
    if "graph_bias" in t:
        mixed = mixed + t["graph_bias"][:, None, :, None, None]
    y = sum(mixed[k] @ adjacency[k] for k in range(len(adjacency)))
    h = (column("scale1", one) * y + column("shift1", zero)).clamp(min=0)
    padded = torch.nn.functional.pad(h, (0, 0, taps // 2, taps // 2))
    length = -(-x.shape[2] // stride)
    z = torch.zeros(x.shape[0], outputs, length, adjacency.shape[2], dtype=torch.float64)
    for q in range(taps):
        seen = padded[:, :, q::stride][:, :, :length]
        z = z + torch.tensordot(seen, kernel[:, :, q, 0], dims=([1], [1])).permute(0, 3, 1, 2)
    z = column("scale2", one) * (z + column("temporal_bias", zero)) + column("shift2", zero)
    if "residual_weight" in t:
        r = torch.tensordot(x[:, :, ::stride], t["residual_weight"], dims=([1], [1])).permute(0, 3, 1, 2)
        z = z + r + column("residual_shift", zero)
    elif case.numbers["residual"]:
        z = z + x
    return z.clamp(min=0)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    if actual.numel():
        scale = 1.0 + expected.abs().max().item()
        assert (actual.double() - expected).abs().max().item() <= tolerance * scale


cases = st.builds(
    make_case,
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([1, 3, 16, 33, 64]),
        st.sampled_from([0, 1, 2, 4, 13, 31]),
        st.sampled_from([1, 2, 18, 25]),
    ),
    st.sampled_from([1, 3, 16, 37, 64]),
    st.sampled_from([1, 3, 5, 9]),
    st.integers(1, 3),
    st.sampled_from(["none", "identity", "convolution"]),
    st.sampled_from(DTYPES),
    st.sampled_from(FORMATS),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(case=cases, fast=st.booleans())
@settings(max_examples=120)
def test_values_follow_the_definition(on_backend: Any, backend: str, case: Case, fast: bool) -> None:
    with on_backend(backend):
        out = case.run(fast=fast)
    assert out.dtype == case.x.dtype
    assert_near(out, plain(case), TOLERANCE[case.x.dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", FORMATS)
def test_the_output_follows_the_memory_format_of_x(on_backend: Any, backend: str, layout: str) -> None:
    case = make_case(layout=layout, stride=2)
    with on_backend(backend):
        out = case.run()
    channels_last = layout == "channels_last"
    assert out.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert out.is_contiguous() != channels_last


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_may_lead_to_other_joints(on_backend: Any, backend: str) -> None:
    case = make_case(residual="none")
    case.operands["adjacency"] = torch.randn(3, 5, 8, dtype=torch.float64)
    with on_backend(backend):
        assert_near(case.run(), plain(case), 1e-12)
        five = case.run(adjacency=case.operands["adjacency"][None, :, None])
    assert_near(five, plain(case), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("residual", "stride"), [("none", 1), ("identity", 1), ("convolution", 2)])
def test_gradients(on_backend: Any, backend: str, residual: str, stride: int) -> None:
    case = make_case((2, 3, 5, 4), 3, 3, stride, residual)
    names = list(case.tensors())
    leaves = [tensor.detach().clone().requires_grad_() for tensor in case.tensors().values()]

    def public(*tensors: Tensor) -> Tensor:
        return case.run(**dict(zip(names, tensors)))

    def raw(*tensors: Tensor) -> Tensor:
        t = dict(zip(names, tensors))
        return torch.ops.stgcn_fast.st_block(
            *(
                t["x"],
                t["graph_weight"],
                t["graph_bias"],
                t["adjacency"][None, :, None],
                t["scale1"],
                t["shift1"],
            ),
            *(t["temporal_weight"], t["temporal_bias"], t["scale2"], t["shift2"]),
            *(
                t.get("residual_weight"),
                t.get("residual_shift"),
                residual != "none",
                stride,
                True,
                None,
                None,
            ),
        )

    with on_backend(backend):
        for run in (public, raw):
            assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
            assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_where_a_part_is_known(on_backend: Any, backend: str) -> None:
    case = make_case((2, 3, 9, 4), 3, 3)
    known = torch.randn(1, 3, 9, 4, dtype=torch.float64, requires_grad=True)
    frames = torch.tensor([2, 0])
    x = case.x.clone().requires_grad_()
    with on_backend(backend):
        out = case.run(x=x, frames=frames, rest=known)
        by_x, by_known = torch.autograd.grad(out.sum(), [x, known])
    assert torch.equal(by_known[0, 0, :, 0], torch.tensor([1.0] * 3 + [2.0] * 6, dtype=torch.float64))
    assert by_x[0, :, :4].abs().min() > 0
    assert not by_x[0, :, 4:].any()
    assert not by_x[1].any()


def test_in_place_changes_of_the_weights_are_seen() -> None:
    case = make_case(dtype=torch.float32)
    case.run()
    for tensor in case.operands.values():
        tensor.mul_(0.7).add_(0.1)
        assert_near(case.run(), plain(case), 4e-6)
    case.operands["scale1"].data[1] = 7.0
    assert_near(case.run(), plain(case), 4e-6)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_threads_do_not_change_a_bit(dtype: torch.dtype, layout: str) -> None:
    before = torch.get_num_threads()
    for stride in (1, 2):
        case = make_case((3, 32, 95, 25), 64, 9, stride, "convolution", dtype, layout)
        wide = case.x.repeat(4, 1, 1, 1).to(memory_format=torch.channels_last)
        try:
            results = []
            for threads in (1, 2, 3, 5):
                torch.set_num_threads(threads)
                results.append((case.run(), case.run(x=wide)))
        finally:
            torch.set_num_threads(before)
        for one, many in results:
            assert torch.equal(one, results[0][0])
            assert torch.equal(many, results[0][1])
        assert torch.equal(results[0][1][:3], results[0][0])


@given(
    frames=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    length=st.integers(1, 40),
    kernel=st.sampled_from([1, 3, 5, 9]),
    stride=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
)
def test_the_frames_that_may_differ(
    frames: list[int], length: int, kernel: int, stride: int, dtype: torch.dtype
) -> None:
    differ = torch.tensor([min(f, length) for f in frames])
    reached = ops.st_block_frames(differ, length, kernel, stride, dtype)
    out_frames = -(-length // stride)
    for f, e in zip(differ.tolist(), reached.tolist()):
        reads = [
            t * stride - kernel // 2 < f and t * stride + kernel // 2 >= 0 and f > 0
            for t in range(out_frames)
        ]
        assert not any(reads[e:])
        group = {(5, 1): 5, (9, 1): 9, (9, 2): 5}.get((kernel, stride), 3)
        if dtype == torch.bfloat16 and group > 3:
            group = 10
        assert e == out_frames or e % group == 0
        assert e - sum(reads) < group


@pytest.mark.usefixtures("native")
@given(
    data=st.data(),
    length=st.integers(1, 40),
    taps=st.sampled_from([1, 3, 9]),
    stride=st.integers(1, 3),
    residual=st.sampled_from(["none", "identity", "convolution"]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["contiguous", "channels_last"]),
    fast=st.booleans(),
)
@settings(max_examples=80)
def test_what_cannot_differ_is_copied_bit_for_bit(
    data: Any, length: int, taps: int, stride: int, residual: str, dtype: torch.dtype, layout: str, fast: bool
) -> None:
    case = make_case((4, 16, length, 5), 32 if fast else 24, taps, stride, residual, dtype, layout)
    known = torch.randn(1, 16, length, 5).to(dtype)
    frames = torch.tensor([data.draw(st.integers(0, length)) for _ in range(4)])
    x = torch.where((torch.arange(length) < frames[:, None])[:, None, :, None], case.x, known)
    x = laid_out(x, layout)
    rest = case.run(x=laid_out(known, layout), fast=fast)
    whole = case.run(x=x, fast=fast)
    assert torch.equal(case.run(x=x, fast=fast, frames=frames, rest=rest), whole)
    other = rest.contiguous() if layout == "channels_last" else laid_out(rest, "channels_last")
    assert torch.equal(case.run(x=x, fast=fast, frames=frames, rest=other), whole)
    expected = ops.st_block_frames(frames, length, taps, case.numbers["stride"], dtype)
    marked = case.run(x=x, fast=fast, frames=frames, rest=torch.full_like(rest, 7.0))
    for n, e in enumerate(expected.tolist()):
        assert torch.equal(marked[n, :, :e], whole[n, :, :e])
        assert torch.all(marked[n, :, e:] == 7.0)


def test_the_fast_algorithm_is_chosen_by_argument_and_option() -> None:
    case = make_case((1, 64, 30, 5), 64, residual="identity", dtype=torch.float32)
    direct, fast = case.run(fast=False), case.run(fast=True)
    with ops.options(fast_temporal=False):
        assert torch.equal(case.run(), direct)
    with ops.options(fast_temporal=True):
        assert torch.equal(case.run(), fast)
    assert_near(fast, direct.double(), 4e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_users_dtype(dtype: torch.dtype) -> None:
    case = make_case(dtype=torch.float32, stride=2)
    with torch.autocast("cpu", dtype=dtype):
        out = case.run()
        leaf = case.x.clone().requires_grad_()
        differentiable = case.run(x=leaf)
        exact = make_case().run()
    assert out.dtype == differentiable.dtype == dtype
    assert exact.dtype == torch.float64
    assert_near(out, plain(case), TOLERANCE[dtype])
    assert_near(differentiable.detach(), plain(case), 3 * TOLERANCE[dtype])
    assert torch.autograd.grad(differentiable.float().sum(), leaf)[0].dtype == torch.float32
    if dtype == torch.bfloat16:
        narrow = case.x.to(dtype)
        assert torch.equal(case.run(x=narrow), out)


class Layer(torch.nn.Module):
    """A block as a model uses it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.numbers = case.numbers
        for name, tensor in case.operands.items():
            self.register_parameter(name, torch.nn.Parameter(tensor))

    def forward(self, x: Tensor, frames: Tensor | None = None, rest: Tensor | None = None) -> Tensor:
        return ops.st_block(x, **dict(self.named_parameters()), **self.numbers, frames=frames, rest=rest)


@pytest.mark.parametrize("grad", [False, True])
def test_compiled_without_breaks_or_recompiles(grad: bool) -> None:
    torch._dynamo.reset()
    layer = Layer(make_case((2, 4, 8, 5), stride=2, dtype=torch.float32))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True), torch.set_grad_enabled(grad):
        for n, t in [(2, 8), (3, 9), (4, 12)]:
            x = torch.randn(n, 4, t, 5).contiguous(memory_format=torch.channels_last)
            torch._dynamo.maybe_mark_dynamic(x, 0)
            torch._dynamo.maybe_mark_dynamic(x, 2)
            expected, out = layer(x), compiled(x)
            torch.testing.assert_close(out, expected)
            assert out.stride() == expected.stride()
            if grad:
                wanted = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
                for made, want in zip(
                    torch.autograd.grad(out.square().sum(), list(layer.parameters())), wanted
                ):
                    torch.testing.assert_close(made, want, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exported_with_dynamic_batch_and_frames() -> None:
    layer = Layer(make_case((2, 4, 8, 5), dtype=torch.float32)).requires_grad_(False)
    dims = {0: torch.export.Dim("N", min=1, max=64), 2: torch.export.Dim("T", min=4, max=512)}
    known = {0: None, 2: dims[2]}
    example = (torch.randn(2, 4, 8, 5), torch.tensor([3, 0]), torch.randn(1, 6, 8, 5))
    shapes = {"x": dims, "frames": {0: dims[0]}, "rest": known}
    program = torch.export.export(layer, example, dynamic_shapes=shapes)
    assert "stgcn_fast.st_block" in str(program.graph)
    inputs = (torch.randn(3, 4, 17, 5), torch.tensor([17, 5, 0]), torch.randn(1, 6, 17, 5))
    torch.testing.assert_close(program.module()(*inputs), layer(*inputs))
    simple = program.run_decompositions(torch.export.default_decompositions() | ops.decompositions())
    assert "stgcn_fast" not in str(simple.graph)
    torch.testing.assert_close(simple.module()(*inputs), layer(*inputs), rtol=1e-4, atol=1e-4)


def test_function_transforms_agree() -> None:
    case = make_case((3, 4, 6, 5), stride=2)
    samples = case.x[:, None]
    mapped = torch.func.vmap(lambda x: case.run(x=x))(samples)
    torch.testing.assert_close(mapped[:, 0], case.run())
    by_func = torch.func.grad(lambda x: case.run(x=x).square().sum())(case.x)
    leaf = case.x.clone().requires_grad_()
    torch.testing.assert_close(by_func, torch.autograd.grad(case.run(x=leaf).square().sum(), leaf)[0])


def test_several_threads_may_call_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    case = make_case((2, 16, 40, 25), 32, dtype=torch.float32)
    others = [make_case((2, 16, 40, 25), 32, dtype=torch.float32, seed=seed) for seed in range(1, 5)]
    expected = [each.run() for each in (case, *others)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: each.run(), (case, *others) * 8))
    for i, out in enumerate(results):
        assert torch.equal(out, expected[i % 5])
