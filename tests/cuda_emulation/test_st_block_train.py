"""The emulated CUDA kernels of a training block beside the reference in float64 and the CPU's kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Draw = Callable[..., Tensor]

# N, C, T, V, O, K, kernel, stride, residual, dropout. Channels around 16 bytes, warps that share dropout's
# counters and such that do not, joints that do not divide a tile, frames that no tap of a stride reaches.
BLOCKS = [
    (2, 3, 11, 5, 8, 3, 9, 1, "none", 0.5),
    (2, 16, 9, 25, 16, 2, 3, 1, "identity", 0.25),
    (1, 9, 10, 7, 9, 1, 3, 1, "identity", 0.0),
    (2, 8, 13, 7, 20, 2, 3, 2, "convolution", 0.3),
    (1, 5, 8, 4, 40, 2, 1, 3, "convolution", 0.9),
]
# Of the second frame of the stride's two a sample has fewer tiles.
FEWER_TILES = (1, 6, 11, 25, 8, 1, 3, 2, "convolution", 0.3)
# Several roundings lie between an input and a result: of y, h and z, and of the gradients between passes.
ROUNDINGS = 4.0


def block(draw: Draw, shape: tuple[Any, ...], last: bool = True, bias: bool = True) -> dict[str, Any]:
    """The arguments of the operator."""
    n, c, t, v, o, k, kernel, stride, residual, dropout = shape
    convolved = residual == "convolution"
    support = (
        torch.randperm(k * v * v, generator=torch.Generator().manual_seed(3)).view(1, k, 1, v, v) % 3 != 0
    )
    adjacency = draw(1, k, 1, v, v) / v**0.5
    return {
        "x": draw(n, c, t, v, channels_last=last),
        "graph_weight": draw(k, o, c) / c**0.5,
        "graph_bias": draw(k, o) if bias else None,
        "adjacency": adjacency * support,
        "weight1": 1 + draw(o) / 4,
        "bias1": draw(o),
        "temporal_weight": draw(o, o, kernel, 1) / (o * kernel) ** 0.5,
        "temporal_bias": draw(o) if bias else None,
        "weight2": 1 + draw(o) / 4,
        "bias2": draw(o),
        "residual_weight": draw(o, c) / c**0.5 if convolved else None,
        "residual_bias": draw(o) if convolved and bias else None,
        "weight_r": draw(o) if convolved else None,
        "bias_r": draw(o) if convolved else None,
        "support": support.to(adjacency.dtype) if bias else None,
        "seed": torch.tensor(-(2**61) + 12345),
        "eps1": 1e-3,
        "eps2": 1e-4,
        "eps_r": 1e-5,
        "residual": residual != "none",
        "stride": stride,
        "dropout": dropout,
        "fast": False,
    }


def plain(*shape: int, channels_last: bool = False) -> Tensor:
    """Random numbers in float32."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("shape", BLOCKS, ids=str)
def test_training_blocks_agree_with_the_reference(
    emulated: Any, kind: str, draw: Draw, shape: tuple[Any, ...]
) -> None:
    arguments = block(draw, shape)
    saved = emulated.check("st_block_train", kind, *arguments.values(), roundings=ROUNDINGS)
    grad = draw(*saved[0].shape)
    # Of what the kernels saved: the gates of both sides are the same.
    emulated.check(
        "st_block_train_backward", kind, grad, *saved, *arguments.values(), True, True, roundings=ROUNDINGS
    )


@pytest.mark.parametrize("shape", [*BLOCKS[1::2], FEWER_TILES], ids=str)
def test_cpu_kernels_give_the_same(emulated: Any, shape: tuple[Any, ...]) -> None:
    """Outputs, statistics and gradients as the operator returns them, in another layout, without biases."""
    emulated.library.stgcn_fast_emulation_tf32(False)
    arguments = list(block(plain, shape, last=False, bias=False).values())
    got = emulated("st_block_train", *arguments)
    want = torch.ops.stgcn_fast.st_block_train(*arguments)
    grad = plain(*got[0].shape)
    by_got = emulated("st_block_train_backward", grad, *got, *arguments, True, False)
    by_want = torch.ops.stgcn_fast.st_block_train_backward(grad, *got, *arguments, True, False)
    for first, second in zip((*got, *by_got), (*want, *by_want), strict=True):
        assert first.shape == second.shape
        assert first.stride() == second.stride()
        assert first.dtype == second.dtype
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [8, 9, 24, 64, 136])
def test_dropout_drops_what_the_cpu_drops(emulated: Any, dtype: torch.dtype, channels: int) -> None:
    emulated.library.stgcn_fast_emulation_tf32(False)
    arguments = block(plain, (2, 2, 5, 3, channels, 1, 1, 1, "none", 0.4), bias=False)
    arguments |= {"weight2": torch.zeros(channels), "bias2": torch.ones(channels)}
    for name, value in arguments.items():
        if isinstance(value, Tensor) and name not in ("seed", "weight2", "bias2"):
            arguments[name] = value.to(dtype)
    out = emulated("st_block_train", *arguments.values())[0]
    assert torch.equal(out, torch.ops.stgcn_fast.st_block_train(*arguments.values())[0])
    assert 0 < (out == 0).float().mean() < 1


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_all_or_nothing_is_dropped(emulated: Any, dropout: float) -> None:
    arguments = block(plain, (2, 2, 5, 3, 8, 1, 1, 1, "none", dropout))
    arguments |= {"weight2": torch.zeros(8), "bias2": torch.ones(8)}
    out = emulated("st_block_train", *arguments.values())[0]
    assert torch.equal(out, torch.full_like(out, 1 - dropout))


def test_parameters_of_their_own_dtype(emulated: Any) -> None:
    """Under autocast activations are bfloat16, and what normalisation has stays float32."""
    arguments = block(plain, BLOCKS[3])
    kept = (
        "weight1",
        "bias1",
        "weight2",
        "bias2",
        "weight_r",
        "bias_r",
        "seed",
        "temporal_bias",
        "residual_bias",
    )
    for name, value in arguments.items():
        if isinstance(value, Tensor) and name not in kept:
            arguments[name] = value.bfloat16()
    saved = emulated.check("st_block_train", "bfloat16", *arguments.values(), roundings=ROUNDINGS)
    assert saved[4].dtype == torch.float32
    grads = emulated(
        "st_block_train_backward", plain(*saved[0].shape).bfloat16(), *saved, *arguments.values(), True, True
    )
    types = [torch.bfloat16, torch.float32]
    assert [grad.dtype for grad in grads] == [types[i] for i in (0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1)]


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 3, 0, 4)], ids=str)
def test_nothing_gives_nothing(emulated: Any, shape: tuple[int, ...]) -> None:
    n, c, t, v = shape
    arguments = block(plain, (1, c, 1, v, 6, 2, 3, 1, "none", 0.5)) | {"x": torch.randn(shape)}
    saved = emulated("st_block_train", *arguments.values())
    assert saved[0].shape == (n, 6, t, v)
    assert not saved[4].any()
    grads = emulated("st_block_train_backward", saved[0], *saved, *arguments.values(), True, True)
    assert grads[0].shape == shape
    assert all(not grad.any() for grad in grads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 4, 5)}, "x must be [N, C, T, V] with C, V >= 1, got [2, 4, 5]"),
        ({"x": torch.randn(1, 4, 5, 129)}, "adjacency must be [1, K, 1, V, V] = [1, 2, 1, 129, 129]"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"weight1": torch.randn(5)}, "weight1 must be [O] = [6], got [5]"),
        ({"seed": torch.tensor(0.5)}, "seed must be an int64 scalar, got []"),
        ({"dropout": 1.5}, "dropout must be in [0, 1], got 1.5"),
        ({"residual": True}, "residual_weight must be given where C != O or stride != 1, got none"),
    ],
)
def test_bad_input_is_said(emulation: ctypes.CDLL, change: dict[str, Any], message: str) -> None:
    arguments = block(plain, (1, 4, 5, 4, 6, 2, 3, 1, "none", 0.0)) | change
    with pytest.raises(RuntimeError) as raised:
        torch.ops.stgcn_fast_emulated.st_block_train(*arguments.values())
    assert f"st_block_train: {message}" in str(raised.value)


def test_too_many_joints_are_said(emulation: ctypes.CDLL) -> None:
    arguments = block(plain, (1, 4, 5, 129, 6, 1, 3, 1, "none", 0.0))
    with pytest.raises(RuntimeError, match=r"st_block_train: x must be \[N, C, T, V\] with V <= 128 on CUDA"):
        torch.ops.stgcn_fast_emulated.st_block_train(*arguments.values())
