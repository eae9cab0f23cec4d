"""The spatial-temporal block of ST-GCN in training: batch statistics and dropout inside.

    y = graph_conv(x)                           statistics of y normalise it: s1 * y + t1
    z = temporal_conv(relu(s1 * y + t1))        statistics of z normalise it: s2 * z + t2
    r = residual_weight x[:, :, ::stride]       statistics of r normalise it: sr * r + tr
    out = relu(D * (s2 * z + t2) + res)         res = x | sr * r + tr | 0

with s = weight / sqrt(var + eps), t = bias - s * mean over samples, frames and joints, and D dropout's
factors. `x` is [N, C, T, V], `graph_weight` [K, O, C], `graph_bias` [K, O], `adjacency` [1, K, 1, V, V]
(masked already; `support` names the entries that are free to change), `temporal_weight` [O, O, Γ, 1] with Γ
odd and padding (Γ - 1) / 2, `residual_weight` [O, C], the result [N, O, ceil(T / stride), V].

A constant added to what is normalised cancels: the biases of the temporal and of the residual convolution
move the running means alone, and their gradients are exactly zero.

Besides its result the operator returns y, z and r as [N, T, V, O rounded up to 16], channels innermost and
the rest zero, and `statistics` [3, 2, O]: mean and biased variance of y, z and r in float32 (float64 for
float64). Its derivative reads those and recomputes the rest: rectified activations, dropout's factors (from
the seed), normalised values.

Sources: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), section 3.6; Ioffe and Szegedy,
"Batch Normalization" (2015).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _block_checks
from ._block_train import (
    ALIGNED,
    GRADIENTS,
    Numbers,
    Tensors,
    compose,
    reference,
    reference_backward,
    results_like,
    split,
    wide_dtype,
)
from ._checks import check_alike, check_floating, fail_type
from ._library import define, empty, register_autocast, register_derivative, transformed
from ._options import get_options

_NAME = "st_block_train"


def st_block_train(
    x: Tensor,
    graph_weight: Tensor,
    graph_bias: Tensor | None,
    adjacency: Tensor,
    support: Tensor | None,
    weight1: Tensor,
    bias1: Tensor,
    eps1: float,
    temporal_weight: Tensor,
    temporal_bias: Tensor | None,
    weight2: Tensor,
    bias2: Tensor,
    eps2: float,
    residual_weight: Tensor | None = None,
    residual_bias: Tensor | None = None,
    weight_r: Tensor | None = None,
    bias_r: Tensor | None = None,
    eps_r: float = 1e-5,
    *,
    residual: bool = True,
    stride: int = 1,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    fast: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Run one block of ST-GCN in training mode.

    Args:
        x: input [N, C, T, V].
        graph_weight: [K, O, C].
        graph_bias: [K, O], or None.
        adjacency: [K, V, V], source joint first, edge importance multiplied in.
        support: like `adjacency`: where it is zero the adjacency gets no gradient; or None.
        weight1: scale of the normalisation behind the graph convolution, [O].
        bias1: its shift, [O].
        eps1: added to its variance.
        temporal_weight: [O, O, Γ, 1], Γ odd.
        temporal_bias: [O], or None; moves the returned mean only.
        weight2: scale of the normalisation behind the temporal convolution, [O].
        bias2: its shift, [O].
        eps2: added to its variance.
        residual_weight: 1x1 convolution of the residual, [O, C] or [O, C, 1, 1]; None for the input itself
            (C = O, stride 1) or no residual.
        residual_bias: [O], or None; moves the returned mean only.
        weight_r: scale of the residual convolution's normalisation, [O]; None without one.
        bias_r: its shift, [O]; None without one.
        eps_r: added to its variance.
        residual: whether there is a residual.
        stride: of the temporal convolution and of the residual.
        dropout: probability of a zero behind the second normalisation, in steps of 1/65,536.
        seed: int64 scalar that fixes what is dropped; None draws one from torch's generator.
        fast: whether the fast temporal algorithm may run; None for the option `fast_temporal`.

    Returns:
        [N, O, ceil(T / stride), V] in the memory format of `x`, and the statistics [3, 2, O]: mean and biased
        variance behind the graph, the temporal and the residual convolution (zeros without one), in float32
        (float64 for float64) and without a gradient. A batch without elements has zeros.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit, or there is one value per channel only.
    """
    _block_checks.check_input(x, graph_weight)
    partitions, channels = graph_weight.shape[:2]
    _block_checks.check_weight("graph_bias", graph_bias, x, "[K, O]", (partitions, channels))
    check_floating(_NAME, "adjacency", adjacency)
    edges = _block_checks.expand_adjacency("adjacency", adjacency, x, partitions)
    free = _block_checks.expand_adjacency("support", support, x, partitions)
    assert edges is not None
    check_alike(_NAME, "adjacency", adjacency, x, "x")
    _block_checks.check_temporal_weight(temporal_weight, x, channels)
    parameters = {"residual_bias": residual_bias, "weight_r": weight_r, "bias_r": bias_r}
    for name, value in {"weight1": weight1, "bias1": bias1, "weight2": weight2, "bias2": bias2}.items():
        _block_checks.check_channels(name, value, x, channels, False)
    for name, maybe in {"temporal_bias": temporal_bias, **parameters}.items():
        _block_checks.check_channels(name, maybe, x, channels, True)
    _block_checks.check_numbers(x, stride, dropout, {"eps1": eps1, "eps2": eps2, "eps_r": eps_r})
    kernel = _block_checks.check_residual(residual, x, channels, stride, residual_weight, parameters)
    drawn = _block_checks.check_seed(seed, x, dropout)
    t = Tensors(
        x, graph_weight, graph_bias, edges, weight1, bias1, temporal_weight, temporal_bias, weight2, bias2,
        kernel, residual_bias, weight_r, bias_r, free, drawn,
    )  # fmt: skip
    if fast is None:
        fast = get_options().fast_temporal
    elif not isinstance(fast, bool):
        raise fail_type(_NAME, "fast", "a bool", type(fast).__name__)
    numbers = Numbers(float(eps1), float(eps2), float(eps_r), residual, stride, float(dropout), fast)
    if transformed():
        out, _, _, _, statistics = compose(t, numbers)
        statistics = statistics.detach()
    else:
        out, _, _, _, statistics = _op(*t, *numbers)
    return out, _with_biases(statistics, temporal_bias, residual_bias)


def _with_biases(statistics: Tensor, temporal_bias: Tensor | None, residual_bias: Tensor | None) -> Tensor:
    """Means as the convolutions with their biases would have them."""
    if temporal_bias is None and residual_bias is None:
        return statistics
    moved = statistics.clone()
    for row, bias in ((1, temporal_bias), (2, residual_bias)):
        if bias is not None:
            moved[row, 0] += bias.detach()
    return moved


def _saved_shape(x: Tensor, frames: int, channels: int) -> tuple[int, int, int, int]:
    padded = (channels + ALIGNED - 1) // ALIGNED * ALIGNED
    return (x.shape[0], frames, x.shape[3], padded)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    t, numbers = split(arguments)
    x, channels = t.x, t.graph_weight.shape[1]
    frames = (x.shape[2] + numbers.stride - 1) // numbers.stride
    r = (0,) if t.residual_weight is None else _saved_shape(x, frames, channels)
    return (
        empty(x, (x.shape[0], channels, frames, x.shape[3])),
        x.new_empty(_saved_shape(x, x.shape[2], channels)),
        x.new_empty(_saved_shape(x, frames, channels)),
        x.new_empty(r),
        x.new_empty((3, 2, channels), dtype=wide_dtype(x.dtype)),
    )


def _fake_backward(grad: Tensor, out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    need_x, need_adjacency = arguments[-2:]
    t, _ = split(arguments[4:-2])
    results = [
        t.x.new_empty((0,)) if like is None else like.new_empty(like.shape) for like in results_like(t)
    ]
    results[0] = empty(t.x, tuple(t.x.shape)) if need_x else t.x.new_empty((0,))
    if not need_adjacency:
        results[3] = t.x.new_empty((0,))
    return tuple(results)


_OPERANDS = (
    "Tensor x, Tensor graph_weight, Tensor? graph_bias, Tensor adjacency, Tensor weight1, Tensor bias1,"
    " Tensor temporal_weight, Tensor? temporal_bias, Tensor weight2, Tensor bias2, Tensor? residual_weight,"
    " Tensor? residual_bias, Tensor? weight_r, Tensor? bias_r, Tensor? support, Tensor seed, float eps1,"
    " float eps2, float eps_r, bool residual, int stride, float dropout, bool fast"
)
_op = define(
    f"st_block_train({_OPERANDS}) -> (Tensor out, Tensor y, Tensor z, Tensor r, Tensor statistics)",
    reference,
    _fake,
)
_op_backward = define(
    "st_block_train_backward(Tensor grad, Tensor out, Tensor y, Tensor z, Tensor r, Tensor statistics,"
    f" {_OPERANDS}, bool need_x, bool need_adjacency)"
    " -> (Tensor x, Tensor graph_weight, Tensor graph_bias, Tensor adjacency, Tensor weight1, Tensor bias1,"
    " Tensor temporal_weight, Tensor weight2, Tensor bias2, Tensor residual_weight, Tensor weight_r,"
    " Tensor bias_r)",
    reference_backward,
    _fake_backward,
)

# Of the differentiable operands these two cancel in a normalisation.
_CANCELLED = ("temporal_bias", "residual_bias")
_RETURNED = tuple(name for name in Tensors._fields[:GRADIENTS] if name not in _CANCELLED)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    t, ctx.numbers = split(inputs)
    ctx.save_for_backward(*output, *t)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
    results: list[Any] = [None] * (len(Tensors._fields) + len(Numbers._fields))
    if grad is None:
        return tuple(results)
    kept = ctx.saved_tensors  # once: checkpointing unpacks each time it is read
    saved, t = kept[:5], Tensors(*kept[5:])
    need = dict(zip(Tensors._fields, ctx.needs_input_grad[1:]))
    grads = _op_backward(grad, *saved, *t, *ctx.numbers, need["x"], need["adjacency"])
    by_name = dict(zip(_RETURNED, grads))
    for i, (name, value) in enumerate(zip(Tensors._fields[:GRADIENTS], t)):
        if need[name] and value is not None:
            results[i] = torch.zeros_like(value) if name in _CANCELLED else by_name[name]
    return tuple(results)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    first = 6 + len(Tensors._fields)
    ctx.numbers = Numbers(*inputs[first:-2])
    ctx.needs = inputs[-2:]
    ctx.save_for_backward(inputs[0], *inputs[6:first])
    ctx.set_materialize_grads(False)


def _backward_backward(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
    """Derivative of the derivative: the parts differentiated twice."""
    numbers = [None] * len(Numbers._fields)
    if all(tangent is None for tangent in tangents):
        return (*[None] * (6 + len(Tensors._fields)), *numbers, None, None)
    again = torch.is_grad_enabled()
    grad, *kept = ctx.saved_tensors
    t = Tensors(*kept)
    skipped = {name for name, wanted in zip(("x", "adjacency"), ctx.needs) if not wanted}
    with torch.enable_grad():

        def leaf(value: Tensor) -> Tensor:
            return value.view_as(value) if again and value.requires_grad else value.detach().requires_grad_()

        leaves = {name: leaf(value) for name in _RETURNED if (value := getattr(t, name)) is not None}
        by_out = leaf(grad)
        out = compose(t._replace(**leaves), ctx.numbers)[0]
        wanted = {
            name: tangent
            for name, tangent in zip(_RETURNED, tangents)
            if name in leaves and name not in skipped and tangent is not None
        }
        if t.support is not None and "adjacency" in wanted:
            wanted["adjacency"] = torch.where(t.support != 0, wanted["adjacency"], 0.0)
        firsts = torch.autograd.grad(out, [leaves[name] for name in wanted], by_out, create_graph=True)
        inputs = [by_out, *leaves.values()]
        seconds = torch.autograd.grad(
            firsts, inputs, list(wanted.values()), create_graph=again, allow_unused=True
        )
    by_name = dict(zip(leaves, seconds[1:]))
    if t.support is not None and by_name["adjacency"] is not None:
        by_name["adjacency"] = torch.where(t.support != 0, by_name["adjacency"], 0.0)
    by_operand = [by_name.get(name) for name in Tensors._fields]
    return (seconds[0], *[None] * 5, *by_operand, *numbers, None, None)


register_derivative(_op, _backward, _setup)
register_derivative(_op_backward, _backward_backward, _setup_backward)

# Normalisation stays in its own dtype; so do the entries that are free and the seed.
_KEPT = (
    "temporal_bias",
    "residual_bias",
    "weight1",
    "bias1",
    "weight2",
    "bias2",
    "weight_r",
    "bias_r",
    "support",
    "seed",
)
register_autocast(_op, keep=tuple(Tensors._fields.index(name) for name in _KEPT))
