"""What torch asks of an operator: opcheck, compile, export, autocast; with and without kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

NAMES = [
    "graph_conv",
    "graph_conv_backward",
    "temporal_conv",
    "temporal_conv_grad_input",
    "temporal_conv_grad_weight",
    "st_block",
    "st_blocks",
    "st_block_train",
    "st_block_train_backward",
    "branch_block",
    "relation_graph_conv",
    "joint_relations",
    "joint_attention",
    "attention_gates",
]
COMPILED = NAMES
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def samples(name: str) -> list[tuple[Any, ...]]:
    """Arguments of the operator: each form of the adjacency, both memory formats."""
    n, c, o, k, t, v = 2, 4, 6, 3, 5, 7

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, requires_grad=True)

    def last(x: Tensor) -> Tensor:
        return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()

    x, grad, weight = random(n, c, t, v), random(n, o, t, v), random(k, o, c)
    shared, lanes = random(1, k, 1, v, v), random(n, k, o, v, v)
    support = (torch.rand(1, k, 1, v, v) < 0.2).float()
    kernel, strided = random(o, c, 3, 1), random(n, o, 3, v)
    block = (weight, random(k, o), shared, random(o), random(o), random(o, o, 3, 1), random(o))
    gates = (random(3, c), random(1), random(5, c), random(1))
    gates += (random(o, c), random(o), random(c, o), random(c))
    ends = (random(o), random(o), random(o, c), random(o), True, 2, True)
    again = (random(k, o, o), None, shared, None, None, random(o, o, 3, 1), *([None] * 5))
    known = (torch.tensor([2, 0]), random(1, o, 3, v))
    square, small = random(o, o, 3, 1), random(1, k, 1, v, v)
    training = (weight, random(k, o), small, random(o), random(o), square, random(o), random(o), random(o))
    training += (random(o, c), random(o), random(o), random(o), support, torch.tensor(7))
    numbers = (1e-3, 1e-3, 1e-3, True, 1, 0.5, True)

    dilated = ([random(4, 4, 3, 1), random(2)], [random(4), random(2)], [2, 1])
    all_parts = (
        random(c),
        random(n, c, t, v),
        True,
        random(n, t, v),
        random(n, c),
        random(o, c),
        random(o),
        4,
    )
    all_parts += (
        *dilated,
        random(o, o),
        random(o),
        True,
        random(n, c, t, v),
        random(o, c),
        random(o),
        True,
        2,
    )
    all_parts += (True,)
    one_kernel = (None, None, False, None, None, None, None, 0, [kernel], [random(o)], [1], None, None, False)
    one_kernel += (None, None, None, False, 1, False)

    def kept() -> tuple[Tensor, ...]:
        op = torch.ops.stgcn_fast.st_block_train.default
        return tuple(value.detach() for value in op(x, *training, *numbers))

    table: dict[str, list[tuple[Any, ...]]] = {
        "graph_conv": [
            (x, weight, shared, random(k, o), False, None),
            (last(x), weight, lanes, random(k, o), False, None),
            (x, weight, (shared * support).detach().requires_grad_(), None, True, support),
        ],
        "graph_conv_backward": [
            (x, grad, weight, shared, random(k, o), False, None, True, True, True, True),
            (x, grad, weight, shared, random(k, o), False, support, False, True, True, False),
            (last(x), last(grad), weight, lanes, random(k, o), False, None, True, True, False, True),
            (x, grad, weight, shared, None, True, None, False, False, True, False),
        ],
        "temporal_conv": [(x, kernel, random(o), 1, 1, 1, True), (last(x), kernel, None, 2, 1, 1, False)],
        "temporal_conv_grad_input": [
            (grad, kernel, t, 1, 1, 1, True),
            (last(strided), kernel, t, 2, 1, 1, False),
        ],
        "st_block_train": [(x, *training, *numbers), (last(x), *training, *numbers)],
        "st_block_train_backward": [
            (grad, *kept(), x.detach(), *training, *numbers, True, True),
            (last(grad), *kept(), last(x).detach(), *training, *numbers, False, False),
        ],
        "st_block": [(x, *block, *ends, None, None), (last(x), *block, *ends, *known)],
        "st_blocks": [
            (x, [*block, *ends[:4], *again], [2, 1], [1, 0], True),
            (last(x), [*block, *ends[:4], *again], [3, 1], [1, 1], False),
        ],
        "relation_graph_conv": [
            (x, weight, random(k, o, 2), random(n, k, 2, v, v), random(k, o)),
            (last(x), weight, random(k, o, 3), random(n, k, 3, v, 5), None),
        ],
        "joint_relations": [
            (x, random(2, k, o, c), random(2, k, o), random(k, 2, v, v), False),
            (last(x), random(2, k, 1, c), random(2, k, 1), random(k, 0, v, v), True),
        ],
        "attention_gates": [
            (x, random(c), random(n, c, t, v), *gates),
            (last(x), None, None, *gates),
        ],
        "joint_attention": [
            (x, random(2, k, o, c), random(2, k, o), random(k, v, v), random(1)),
            (last(x), random(2, k, 1, c), random(2, k, 1), random(k, v, v), None),
        ],
        "branch_block": [(x, *all_parts), (last(x), *one_kernel)],
        "temporal_conv_grad_weight": [
            (x, grad, 3, 1, 1, 1, True),
            (last(x), last(strided), 3, 2, 1, 1, False),
        ],
    }
    return table[name]


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str) -> None:
    op = getattr(torch.ops.stgcn_fast, name).default
    for arguments in samples(name):
        torch.library.opcheck(op, arguments)


def test_every_operator_is_checked() -> None:
    assert sorted(op.__name__.split(".")[0] for op in ops.decompositions()) == sorted(NAMES)


class Layer(torch.nn.Module):
    """Graph and temporal convolution as a model uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 6, 4))
        self.bias = torch.nn.Parameter(torch.randn(2, 6))
        self.mask = torch.nn.Parameter(torch.ones(2, 5, 5))
        self.kernel = torch.nn.Parameter(torch.randn(6, 6, 3, 1))
        self.register_buffer("adjacency", (torch.rand(2, 5, 5) < 0.3).float())

    def forward(self, x: Tensor) -> Tensor:
        y = ops.graph_conv(x, self.weight, self.adjacency, self.bias, self.mask)  # type: ignore[arg-type]
        return ops.temporal_conv(y.relu(), self.kernel, stride=2, padding=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_without_breaks_or_recompiles(layout: torch.memory_format) -> None:
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i, (n, t) in enumerate([(2, 8), (3, 9), (4, 12), (5, 31)]):
            x = torch.randn(n, 4, t, 5).contiguous(memory_format=layout).requires_grad_()
            if i == 0:
                torch._dynamo.mark_dynamic(x, 0)
                torch._dynamo.mark_dynamic(x, 2)
            results = []
            for run in (layer, compiled):
                out = run(x)
                results.append((out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])))
            for plain, traced in zip(*results):
                torch.testing.assert_close(plain, traced, rtol=1e-4, atol=1e-4)
            assert results[0][0].stride() == results[1][0].stride()


def test_compiled_by_inductor() -> None:
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    x = torch.randn(2, 4, 8, 5).contiguous(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-4)


def test_exported_with_dynamic_batch_and_frames() -> None:
    layer = Layer().eval()
    dims = {0: torch.export.Dim("N", min=1, max=64), 2: torch.export.Dim("T", min=4, max=512)}
    program = torch.export.export(layer, (torch.randn(2, 4, 8, 5),), dynamic_shapes={"x": dims})
    x = torch.randn(3, 4, 17, 5)
    expected = layer(x)
    assert "stgcn_fast.graph_conv" in str(program.graph)
    torch.testing.assert_close(program.module()(x), expected)
    torch.testing.assert_close(program.run_decompositions().module()(x), expected)
    plain = program.run_decompositions(torch.export.default_decompositions() | ops.decompositions())
    assert "stgcn_fast" not in str(plain.graph)
    torch.testing.assert_close(plain.module()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_users_dtype(dtype: torch.dtype) -> None:
    layer = Layer()
    x = torch.randn(2, 4, 8, 5)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(x)
        # As for conv2d: mixed inputs meet in the lower precision, float64 stays.
        mixed = ops.temporal_conv(x.to(dtype), layer.kernel[:, :4])
        exact = ops.temporal_conv(x.double(), layer.kernel[:, :4].double())
        traced = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert out.dtype == mixed.dtype == traced.dtype == dtype
    assert exact.dtype == torch.float64
    torch.testing.assert_close(out, traced)
    torch.testing.assert_close(out.float(), layer(x), rtol=0.1, atol=0.2)
    grads = torch.autograd.grad(out.float().sum(), list(layer.parameters()))
    assert all(g.dtype == torch.float32 for g in grads)
    with torch.autocast("cpu", enabled=False):
        assert layer(x).dtype == torch.float32


def test_without_the_extension() -> None:
    if os.environ.get("STGCN_FAST_BACKEND") == "reference":
        assert not any(map(has_kernel, NAMES))
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", str(Path(__file__))]
    command += ["-k", "opcheck or compiled_without or exported or autocast or extension"]
    environment = os.environ | {"STGCN_FAST_BACKEND": "reference"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def has_kernel(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"stgcn_fast::{name}", "CPU")


def test_the_extension_has_every_kernel() -> None:
    from stgcn_fast import _native

    if not _native.load().loaded:
        pytest.skip(f"no compiled kernels: {_native.load().reason}")
    assert all(map(has_kernel, COMPILED))


def test_function_transforms_and_forward_mode_agree_with_backward() -> None:
    from torch import func
    from torch.autograd import forward_ad

    layer = Layer().double()
    names = dict(layer.named_parameters())
    x = torch.randn(3, 4, 8, 5, dtype=torch.float64)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return func.functional_call(layer, parameters, (x,)).square().sum()

    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(loss(names, leaf), [leaf, *names.values()])
    plain = {name: value.detach() for name, value in names.items()}
    by_parameters, by_x = func.grad(loss, (0, 1))(plain, x)
    for actual, wanted in zip((by_x, *by_parameters.values()), expected):
        torch.testing.assert_close(actual, wanted)
    # Per-sample gradients add up to the gradient.
    each = func.vmap(func.grad(loss), (None, 0))(plain, x.unsqueeze(1))
    for actual, wanted in zip(each.values(), expected[1:]):
        torch.testing.assert_close(actual.sum(0), wanted)
    tangent = torch.randn_like(x)
    slope = (expected[0] * tangent).sum()
    torch.testing.assert_close(func.jvp(lambda x: loss(plain, x), (x,), (tangent,))[1], slope)
    with forward_ad.dual_level():
        dual = loss(plain, forward_ad.make_dual(x, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, slope)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_parameters_gradient_has_its_strides(
    on_backend: Any, backend: str, layout: torch.memory_format
) -> None:
    x = torch.randn(2, 8, 6, 5).contiguous(memory_format=layout)
    for weight in (torch.randn(8, 8, 1, 1), torch.randn(8, 8, 3, 1), torch.randn(8, 1, 3, 1)):
        leaf = weight.requires_grad_()
        with on_backend(backend):
            ops.temporal_conv(x[:, : weight.shape[1]], leaf, padding=1).square().sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.stride() == weight.stride()
    for partitions, channels in ((1, 8), (2, 8), (2, 1)):
        kernel = torch.randn(partitions, 6, channels, requires_grad=True)
        adjacency = torch.randn(partitions, 5, 5, requires_grad=True)
        with on_backend(backend):
            ops.graph_conv(x[:, :channels], kernel, adjacency).square().sum().backward()
        for leaf in (kernel, adjacency):
            assert leaf.grad is not None
            assert leaf.grad.stride() == leaf.stride()
