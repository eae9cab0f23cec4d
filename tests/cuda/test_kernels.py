"""The CUDA kernels on a GPU beside the references in float64. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import _native, dtw, models, ops
from stgcn_fast.ops._library import decompositions

if not (torch.cuda.is_available() and _native.load().cuda.loaded):
    pytest.skip("needs a GPU and the CUDA kernels", allow_module_level=True)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# N, C, T, V, O: the sizes of the networks, and around 16 bytes, a tile and a grid of more than one tile.
SIZES = [
    (2, 3, 64, 25, 64),
    (4, 64, 100, 25, 64),
    (2, 128, 75, 18, 256),
    (1, 5, 31, 33, 7),
    (3, 100, 40, 17, 48),
]


@pytest.fixture(autouse=True)
def plain_float32() -> Any:
    """No tf32: it has a test of its own."""
    was = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = was


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    seed = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=seed, dtype=torch.float64).to(dtype)


def check(name: str, dtype: torch.dtype, *arguments: Any, allowed: float | None = None) -> None:
    """Run an operator on the GPU, twice, and its reference in float64 on the processor."""

    def turned(move: Callable[[Tensor], Tensor]) -> list[Any]:
        return [move(a) if isinstance(a, Tensor) else a for a in arguments]

    op = getattr(torch.ops.stgcn_fast, name).default
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"stgcn_fast::{name}", "CUDA")
    on_device = turned(lambda a: a.cuda())
    got, again = op(*on_device), op(*on_device)
    wanted = decompositions()[op](*turned(lambda a: a.double() if a.is_floating_point() else a))
    results = [value if isinstance(value, tuple) else (value,) for value in (got, again, wanted)]
    for first, second, want in zip(*results):
        assert torch.equal(first, second), f"{name}: two runs differ"
        if want.numel() == 0:
            continue
        error = (first.cpu().double() - want).abs().max() / want.abs().max().clamp_min(1e-30)
        assert error <= (allowed or ROUNDING[dtype]), (name, float(error))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("form", ["static", "sample", "group", "channel"])
def test_graph_conv(dtype: torch.dtype, size: tuple[int, ...], form: str) -> None:
    n, c, t, v, o = size
    k = 3
    shape = {
        "static": (1, k, 1, v, v),
        "sample": (n, k, 1, v, v),
        "group": (1, k, 4 if o % 4 == 0 else 7, v, v),
        "channel": (n, k, o, v, v),
    }[form]
    weight, adjacency = draw(k, o, c, dtype=dtype) / c**0.5, draw(*shape, dtype=dtype) / v**0.5
    x, bias = draw(n, c, t, v, dtype=dtype), draw(k, o, dtype=dtype)
    check("graph_conv", dtype, x, weight, adjacency, bias, False, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("geometry", [(9, 1, 4, 1), (9, 2, 4, 1), (5, 1, 4, 2), (1, 2, 0, 1), (3, 1, 4, 4)])
def test_temporal_conv(dtype: torch.dtype, size: tuple[int, ...], geometry: tuple[int, ...]) -> None:
    n, c, t, v, o = size
    kernel, *steps = geometry
    x, weight = draw(n, c, t, v, dtype=dtype), draw(o, c, kernel, 1, dtype=dtype) / (c * kernel) ** 0.5
    check("temporal_conv", dtype, x, weight, draw(o, dtype=dtype), *steps, False)
    frames = ops.temporal_conv(x.float(), weight.float(), None, *steps).shape[2]
    grad = draw(n, o, frames, v, dtype=dtype)
    check("temporal_conv_grad_input", dtype, grad, weight, t, *steps, False)
    check("temporal_conv_grad_weight", dtype, x, grad, kernel, *steps, False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_st_block(dtype: torch.dtype, size: tuple[int, ...], stride: int) -> None:
    n, c, t, v, o = size
    vectors = [draw(o, dtype=dtype) for _ in range(6)]
    check(
        "st_block",
        dtype,
        *(draw(n, c, t, v, dtype=dtype), draw(3, o, c, dtype=dtype) / c**0.5, draw(3, o, dtype=dtype)),
        *(draw(1, 3, 1, v, v, dtype=dtype) / v**0.5, vectors[0], vectors[1]),
        *(draw(o, o, 9, 1, dtype=dtype) / (9 * o) ** 0.5, vectors[2], vectors[3], vectors[4]),
        *(draw(o, c, dtype=dtype) / c**0.5, vectors[5], True, stride, False, None, None),
        allowed=2 * ROUNDING[dtype],
    )


def training_block(size: tuple[int, ...], residual: str, stride: int, dtype: torch.dtype) -> list[Any]:
    """The arguments of `st_block_train`, with dropout."""
    n, c, t, v, o = size
    convolved = residual == "convolution"
    support = (draw(1, 3, 1, v, v) > 0).to(dtype)
    vectors = [draw(o, dtype=dtype) / 4 + i for i in (1, 0, 0, 1, 0, 0, 1, 0)]
    return [
        *(draw(n, c, t, v, dtype=dtype), draw(3, o, c, dtype=dtype) / c**0.5, draw(3, o, dtype=dtype)),
        *(draw(1, 3, 1, v, v, dtype=dtype) / v**0.5 * support, vectors[0], vectors[1]),
        *(draw(o, o, 9, 1, dtype=dtype) / (9 * o) ** 0.5, vectors[2], vectors[3], vectors[4]),
        *(draw(o, c, dtype=dtype) / c**0.5 if convolved else None, vectors[5] if convolved else None),
        *(vectors[6] if convolved else None, vectors[7] if convolved else None, support),
        *(torch.tensor(2**40 + 7), 1e-5, 1e-5, 1e-5, residual != "none", stride, 0.5, False),
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("size", "residual", "stride"),
    [
        ((2, 3, 64, 25, 64), "none", 1),
        ((4, 64, 100, 25, 64), "identity", 1),
        ((2, 128, 75, 18, 256), "convolution", 2),
        ((1, 5, 31, 33, 7), "convolution", 3),
        ((3, 100, 40, 17, 100), "identity", 1),
    ],
    ids=str,
)
def test_st_block_train(dtype: torch.dtype, size: tuple[int, ...], residual: str, stride: int) -> None:
    arguments = training_block(size, residual, stride, dtype)
    check("st_block_train", dtype, *arguments, allowed=6 * ROUNDING[dtype])
    on_device = [value.cuda() if isinstance(value, Tensor) else value for value in arguments]
    saved = [value.cpu() for value in torch.ops.stgcn_fast.st_block_train(*on_device)]
    grad = draw(*saved[0].shape, dtype=dtype)
    # Of what the kernels saved: the gates of both sides are the same.
    allowed = 6 * ROUNDING[dtype]
    check("st_block_train_backward", dtype, grad, *saved, *arguments, True, True, allowed=allowed)


def test_dropout_drops_what_the_cpu_drops() -> None:
    for channels in (8, 9, 24, 64, 136):
        arguments = training_block((2, 4, 30, 25, channels), "none", 1, torch.float32)
        arguments[8], arguments[9] = torch.zeros(channels), torch.ones(channels)
        on_device = [value.cuda() if isinstance(value, Tensor) else value for value in arguments]
        got = torch.ops.stgcn_fast.st_block_train(*on_device)[0]
        assert torch.equal(got.cpu(), torch.ops.stgcn_fast.st_block_train(*arguments)[0])


def test_tf32_is_used_where_torch_allows_it() -> None:
    x, weight = draw(2, 64, 50, 25, dtype=torch.float32), draw(64, 64, 9, 1, dtype=torch.float32) / 24
    torch.backends.cudnn.allow_tf32 = True
    check("temporal_conv", torch.float32, x, weight, None, 1, 4, 1, False, allowed=2e-3)


@pytest.mark.parametrize("features", [1, 2, 3, 8, 75, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"window": 9}, {"band": "slanted", "window": 0.2}, {"band": "itakura"}]
)
def test_dtw(features: int, dtype: torch.dtype, mean: bool, options: dict[str, Any]) -> None:
    lengths = [90, 64, 100, 33, 65, 130, 97, 70, 128, 71]
    frames = draw(sum(lengths), features, dtype=dtype).cumsum(0)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    normalize = "path" if mean else None
    got = ops.dtw_pairwise_distance(frames.cuda(), offsets.cuda(), normalize=normalize, **options)
    want = ops.dtw_pairwise_distance(frames, offsets, normalize=normalize, **options)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0.0)
    assert not got.diagonal().any()


def test_many_sequences() -> None:
    x = draw(700, 40, 3, dtype=torch.float32)
    got = ops.dtw_pairwise_distance(x.cuda(), window=8)
    torch.testing.assert_close(
        got.cpu(), torch.from_numpy(dtw.dtw_pairwise_distance(x.numpy(), 8)), rtol=1e-5, atol=0.0
    )


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    shapes = [(1, 2, 6, 3), (2, 3, 2), (2, 3, 3), (2, 3)]
    return tuple(draw(*shape, dtype=dtype).cuda().requires_grad_() for shape in shapes)


def test_gradients_of_graph_conv() -> None:
    assert torch.autograd.gradcheck(ops.graph_conv, inputs())
    assert torch.autograd.gradgradcheck(ops.graph_conv, inputs())


def test_gradients_of_temporal_conv() -> None:
    x, weight = draw(1, 2, 7, 3).cuda().requires_grad_(), draw(3, 2, 3, 1).cuda().requires_grad_()

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return ops.temporal_conv(x, weight, None, 2, 1, 1)

    assert torch.autograd.gradcheck(convolve, (x, weight))
    assert torch.autograd.gradgradcheck(convolve, (x, weight))


def test_gradients_of_training_blocks() -> None:
    sizes = {"x": (2, 3, 5, 2), "graph_weight": (1, 3, 3), "graph_bias": (1, 3), "adjacency": (1, 2, 2)}
    sizes |= dict.fromkeys(("weight1", "bias1", "weight2", "bias2", "weight_r", "bias_r"), (3,))
    sizes |= {"temporal_weight": (3, 3, 3, 1), "residual_weight": (3, 3)}
    leaves = [draw(*size).cuda().requires_grad_() for size in sizes.values()]

    def run(*tensors: Tensor) -> Tensor:
        seed = torch.tensor(11, device="cuda")
        rest = {"support": None, "temporal_bias": None, "eps1": 1e-3, "eps2": 1e-3, "stride": 2}
        return ops.st_block_train(**dict(zip(sizes, tensors)), **rest, dropout=0.3, seed=seed)[0]

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def test_captured_in_a_graph_and_on_another_stream() -> None:
    x, weight, adjacency, bias = (value.detach().float() for value in inputs())
    wanted = ops.graph_conv(x, weight, adjacency, bias)
    other = torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        for _ in range(3):
            on_other = ops.graph_conv(x, weight, adjacency, bias)
    torch.cuda.current_stream().wait_stream(other)
    assert torch.equal(on_other, wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.graph_conv(x, weight, adjacency, bias)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, wanted)


def test_a_training_step_of_the_network() -> None:
    torch.manual_seed(0)
    model = models.STGCN(10, dropout=0.0, channels=(64, 64, 128), strides=(1, 1, 2))
    x, label = draw(2, 3, 32, 25, 2, dtype=torch.float32), torch.tensor([1, 7])
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x.to(device)), label.to(device))
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters()]))
    assert abs(losses[0] - losses[1]) <= 1e-4 * abs(losses[0])
    assert (gradients[0] - gradients[1]).norm() <= 3e-3 * gradients[0].norm()


def test_a_training_block_is_captured_in_a_graph() -> None:
    arguments = [
        value.cuda() if isinstance(value, Tensor) else value
        for value in training_block((2, 32, 20, 25, 32), "identity", 1, torch.float32)
    ]
    op, backward = torch.ops.stgcn_fast.st_block_train, torch.ops.stgcn_fast.st_block_train_backward
    saved = op(*arguments)
    grad = torch.ones_like(saved[0])
    wanted = backward(grad, *saved, *arguments, True, True)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = op(*arguments)
        gradients = backward(grad, *captured, *arguments, True, True)
    graph.replay()
    torch.cuda.synchronize()
    for first, second in zip((*captured, *gradients), (*saved, *wanted)):
        assert torch.equal(first, second)


def test_different_devices_are_an_error() -> None:
    x, weight, adjacency, _ = inputs()
    with pytest.raises((RuntimeError, ValueError), match="weight"):
        ops.graph_conv(x, weight.cpu(), adjacency)
