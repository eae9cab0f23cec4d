"""Blocks of ST-GCN one after another at inference.

    for block in blocks: x = st_block(x, **block)                           # [N, C, T, V] -> [N, O, T', W]

The results are those, to the last bit. On the CPU, where threads share the samples evenly, each takes whole
samples through all blocks: what stands between two blocks of a sample stays in its caches, and the threads
meet once instead of once a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stgcn_fast import _native

from ._block_operands import Operands, check_block, check_features, chosen_form
from ._checks import fail_type, fail_value
from ._library import LIBRARY, define, empty, register_autocast, transformed
from .st_block import _op as _block_op
from .st_block import _reference as _block_reference
from .st_block import st_block

_NAME = "st_blocks"
_TENSORS = 11
"""Tensors of a block: those of st_block's schema from `graph_weight` to `residual_shift`."""
_OPTIONAL = (
    *("graph_bias", "scale1", "shift1", "temporal_bias", "scale2", "shift2"),
    *("residual", "residual_weight", "residual_shift", "stride"),
)
_REQUIRED = ("graph_weight", "adjacency", "temporal_weight")


def _one_by_one(
    block: Callable[..., Tensor],
    x: Tensor,
    operands: Sequence[Tensor | None],
    strides: Sequence[int],
    residuals: Sequence[int],
    fast: bool,
) -> Tensor:
    for i, (stride, residual) in enumerate(zip(strides, residuals)):
        tensors = operands[i * _TENSORS : (i + 1) * _TENSORS]
        x = block(x, *tensors, bool(residual), stride, fast, None, None)
    return x


def _reference(
    x: Tensor, operands: list[Tensor | None], strides: list[int], residuals: list[int], fast: bool
) -> Tensor:
    return _one_by_one(_block_reference, x, operands, strides, residuals, fast)


def _with_kernels(
    x: Tensor, operands: list[Tensor | None], strides: list[int], residuals: list[int], fast: bool
) -> Tensor:
    return _one_by_one(_block_op, x, operands, strides, residuals, fast)


def _fake(
    x: Tensor, operands: list[Tensor | None], strides: list[int], residuals: list[int], fast: bool
) -> Tensor:
    batch, channels, frames, joints = x.shape
    for i, stride in enumerate(strides):
        weight, adjacency = operands[i * _TENSORS], operands[i * _TENSORS + 2]
        assert weight is not None
        assert adjacency is not None
        frames = (frames + stride - 1) // stride
        channels, joints = weight.shape[1], adjacency.shape[4]
    return empty(x, (batch, channels, frames, joints))


def st_blocks(x: Tensor, blocks: Sequence[Mapping[str, Any]], *, fast: bool | None = None) -> Tensor:
    """Run blocks for inference, each on the output of the one before.

    Where a gradient is wanted, :func:`st_block` runs one after another.

    Args:
        x: input [N, C, T, V].
        blocks: for each block the arguments of :func:`st_block` by name, `graph_weight`, `adjacency` and
            `temporal_weight` at least, but `fast`, `frames` and `rest`.
        fast: whether temporal convolutions may use the fast algorithm; None follows `ops.options`.

    Returns:
        [N, O, T', W] of the last block, in the dtype and memory format of `x`.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: there is no block, or a shape, a device or a number does not fit.
    """
    fast = chosen_form(_NAME, fast)
    if not _kernels_check(x):
        _check(x, blocks)
    operands: list[Tensor | None] = []
    try:
        for block in blocks:
            operands += _listed(**block)
        strides = [block.get("stride", 1) for block in blocks]
        residuals = [int(block.get("residual", False)) for block in blocks]
        wanted = (x, *operands)
        if transformed() or _differentiates(wanted):
            _check(x, blocks)
            for block in blocks:
                x = st_block(x, **block, fast=fast)
            return x
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        out: Tensor = _op(x, operands, strides, residuals, fast)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        _check(x, blocks)
        raise
    return out


def _kernels_check(x: object) -> bool:
    """Whether kernels run, which check their arguments; better words are found once they complain."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and torch._C._len_torch_dispatch_stack() == 0
        and _native.load().loaded
    )


def _listed(
    graph_weight: Tensor,
    adjacency: Tensor,
    temporal_weight: Tensor,
    graph_bias: Tensor | None = None,
    scale1: Tensor | None = None,
    shift1: Tensor | None = None,
    temporal_bias: Tensor | None = None,
    scale2: Tensor | None = None,
    shift2: Tensor | None = None,
    residual: bool = False,
    residual_weight: Tensor | None = None,
    residual_shift: Tensor | None = None,
    stride: int = 1,
) -> Operands:
    """The tensors of a block in the schema's order."""
    del residual, stride
    full = adjacency[None, :, None] if adjacency.dim() == 3 else adjacency
    first = (graph_weight, graph_bias, full, scale1, shift1)
    return (*first, temporal_weight, temporal_bias, scale2, shift2, residual_weight, residual_shift)


def _differentiates(tensors: Iterable[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _check(x: Tensor, blocks: Sequence[Mapping[str, Any]]) -> None:
    check_features(_NAME, x)
    shape: tuple[int, ...] = tuple(x.shape)
    for i, block in enumerate(blocks):
        _check_names(i, block)
        try:
            _, shape = check_block(x, shape, **block)
        except (TypeError, ValueError) as error:
            text = str(error).replace("st_block: ", f"{_NAME}: blocks[{i}]: ", 1)
            raise type(error)(text) from None
    if len(blocks) == 0:
        raise fail_value(_NAME, "blocks", "at least one block", "none")


def _check_names(i: int, block: Mapping[str, Any]) -> None:
    if not isinstance(block, Mapping):
        raise fail_type(_NAME, f"blocks[{i}]", "arguments of st_block by name", type(block).__name__)
    for name in _REQUIRED:
        if name not in block:
            raise fail_value(_NAME, f"blocks[{i}]", f"given {name}", ", ".join(block) or "nothing")
    for name in block:
        if name not in _REQUIRED and name not in _OPTIONAL:
            raise fail_value(_NAME, f"blocks[{i}]", f"of {', '.join(_REQUIRED + _OPTIONAL)}", repr(name))


_op = define(
    "st_blocks(Tensor x, Tensor?[] operands, int[] strides, int[] residuals, bool fast) -> Tensor",
    _reference,
    _fake,
)


class _Derivative(torch.autograd.Function):
    """Tensors one by one, as autograd wants them; the backward computes blocks again."""

    @staticmethod
    def forward(
        ctx: Any,
        keyset: torch._C.DispatchKeySet,
        strides: list[int],
        residuals: list[int],
        fast: bool,
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.numbers = strides, residuals, fast
        ctx.save_for_backward(*tensors)
        return _below(keyset, tensors[0], list(tensors[1:]), strides, residuals, fast)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # Behind fresh nodes, so that nothing in front of the operator is visited.
            seen = [None if t is None else t.view_as(t) for t in ctx.saved_tensors]
            assert seen[0] is not None
            out = _one_by_one(_block_op, seen[0], seen[1:], *ctx.numbers)
            needed = ctx.needs_input_grad[4:]
            wanted = [t for t, need in zip(seen, needed) if t is not None and need]
            made = iter(
                torch.autograd.grad(out, wanted, gradients, create_graph=again, materialize_grads=True)
            )
        return None, None, None, None, *(next(made) if need else None for need in needed)


def _below(keyset: torch._C.DispatchKeySet, *args: Any) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        out: Tensor = _op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
    return out


def _differentiable(
    keyset: torch._C.DispatchKeySet,
    x: Tensor,
    operands: list[Tensor | None],
    strides: list[int],
    residuals: list[int],
    fast: bool,
) -> Tensor:
    if not _differentiates((x, *operands)):
        return _below(keyset, x, operands, strides, residuals, fast)
    out: Tensor = _Derivative.apply(keyset, strides, residuals, fast, x, *operands)  # type: ignore[no-untyped-call]
    return out


LIBRARY.impl(_op, _differentiable, "Autograd", with_keyset=True)
# A device whose kernels know single blocks only.
LIBRARY.impl(_op, _with_kernels, "CUDA")
# Weights stay what they are: they are rounded once, folded.
register_autocast(_op, keep=(1, 2, 3, 4))
