"""Layers for inference, with BatchNorm folded: what the networks of ``optimize`` are made of.

They hold their own weights, without gradients, and compute in channels_last memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.nn._branches import Branch
from stgcn_fast.swap import parts, residuals

_FORMAT = torch.channels_last


def kept(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """A parameter of its own memory without a gradient."""
    return nn.Parameter(tensor.detach().to(dtype, copy=True).contiguous(), requires_grad=False)


def folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """A convolution and the BatchNorm behind it (or None) as one, in float64.

    Args:
        weight: ``[O, ...]``.
        bias: ``[O]``, or None.
        norm: of O channels.
    """
    weight = weight.detach().double()
    shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    if norm is None:
        return weight, shift
    scale, moved = _fusion.scale_and_shift(norm, torch.float64)
    return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), torch.addcmul(moved, shift, scale)


class Folded(nn.Module):
    """A layer for inference.

    Attributes:
        packed: whether results are channels_last whatever the input's memory format is; else they follow it.
    """

    packed = False

    def compute(self, x: Tensor, *rest: Any) -> Any:
        """The layer on ``[N, C, T, V]`` in channels_last memory."""
        raise TypeError(
            f"{type(self).__name__}: compute must be defined by the subclass, got {list(x.shape)}"
        )

    def forward(self, x: Tensor, *rest: Any) -> Any:
        """Computes the layer; takes and gives what the layer that it replaces does."""
        plain = not self.packed and x.is_contiguous()
        entered = x.contiguous(memory_format=_FORMAT)
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
            y = self.compute(entered, *rest)
        else:
            # Nothing here has a gradient: autograd's part of every call is a tenth of a small layer.
            with torch._C._AutoDispatchBelowAutograd():
                y = self.compute(entered, *rest)
        if plain:
            return (y[0].contiguous(), *y[1:]) if isinstance(y, tuple) else y.contiguous()
        return y

    def train(self, mode: bool = True) -> Folded:
        """Stays in evaluation mode.

        Raises:
            RuntimeError: training mode is asked for.
        """
        if mode:
            raise RuntimeError("optimize: mode must be evaluation; train the network that was optimised")
        super().train(False)
        return self


class Pending(NamedTuple):
    """``relu(y + shift + add) * row_gate * channel_gate``, not yet computed; None where there is none."""

    y: Tensor  # [N, C, T, V]
    shift: Tensor | None = None  # [C] or [V, C]
    add: Tensor | None = None  # as y
    rectify: bool = True
    row_gate: Tensor | None = None  # [N, T, V]
    channel_gate: Tensor | None = None  # [N, C]

    def closed(self) -> Tensor:
        """The result, in the memory of ``y``."""
        y = self.y
        if self.shift is not None:
            y.add_(self.shift[:, None, None] if self.shift.dim() == 1 else self.shift.mT[:, None])
        if self.add is not None:
            y.add_(self.add)
        if self.rectify:
            y.relu_()
        if self.row_gate is not None:
            y.mul_(self.row_gate[:, None])
        if self.channel_gate is not None:
            y.mul_(self.channel_gate[:, :, None, None])
        return y


class Shortcut(nn.Module):
    """What a residual connection adds: nothing, the input, or a 1x1 convolution of it.

    Args:
        residual: :func:`residuals.is_known`.
        dtype: of the weights.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, residual: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind = parts.shortcut(residual)
        self.weight = self.bias = None
        self.stride = 1
        if self.kind == "module":
            pair = residuals._projection(residual)
            if pair is None or pair[0].kernel_size != (1, 1) or pair[0].padding != (0, 0):
                raise ValueError("its residual is not a 1x1 convolution")
            weight, bias = folded(pair[0].weight.flatten(1), pair[0].bias, pair[1])
            self.weight, self.bias = kept(weight, dtype), kept(bias, dtype)
            self.stride = pair[0].stride[0]

    def forward(self, x: Tensor) -> Tensor | None:
        """The summand for an input ``[N, C, T, V]``."""
        if self.weight is None:
            return None if self.kind == "none" else x
        return ops.temporal_conv(x, self.weight[:, :, None, None], self.bias, self.stride)


class Frames(nn.Module):
    """A temporal module and what stands around it, as one operator.

    Args:
        weights: of each branch, as for :func:`stgcn_fast.ops.branch_block`.
        biases: of each branch.
        spans: of each branch.
        stride: step between output frames.
        dtype: of the weights.
        entry: 1x1 convolution in front of the branches, weight and bias, or None.
        rectified: how many of its channels go through ReLU.
        mix: 1x1 convolution behind ReLU behind the branches, weight and bias, or None.
        rectify: whether ReLU ends it.
    """

    entry_weight: nn.Parameter | None
    entry_bias: nn.Parameter | None
    mix_weight: nn.Parameter | None
    mix_bias: nn.Parameter | None

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        spans: Sequence[int],
        stride: int,
        dtype: torch.dtype,
        entry: tuple[Tensor, Tensor] | None = None,
        rectified: int = 0,
        mix: tuple[Tensor, Tensor] | None = None,
        rectify: bool = True,
    ) -> None:
        super().__init__()
        self.fast_temporal: bool | None = None
        for i, (weight, bias) in enumerate(zip(weights, biases)):
            self.register_parameter(f"weight{i}", kept(weight, dtype))
            self.register_parameter(f"bias{i}", kept(bias, dtype))
        self.spans, self.stride, self.rectified, self.rectify = list(spans), stride, rectified, rectify
        self.entry_weight, self.entry_bias = _kept_pair(entry, dtype)
        self.mix_weight, self.mix_bias = _kept_pair(mix, dtype)

    def forward(self, x: Tensor | Pending, residual: Tensor | None, shortcut: Shortcut | None) -> Tensor:
        """Runs the branches.

        Args:
            x: ``[N, C, T, V]``, or what it is to be made of.
            residual: what the shortcut reads.
            shortcut: of the residual connection, or None.
        """
        given = x if isinstance(x, Pending) else Pending(x, rectify=False)
        none = shortcut is None or shortcut.kind == "none"
        # Looked up one by one, modules' parameters cost more than the operator's checks.
        own, count = self._parameters, len(self.spans)
        return ops.branch_block(
            given.y,
            [own[f"weight{i}"] for i in range(count)],  # type: ignore[misc]
            [own[f"bias{i}"] for i in range(count)],  # type: ignore[misc]
            self.spans,
            shift=given.shift,
            add=given.add,
            rectify_input=given.rectify,
            row_gate=given.row_gate,
            channel_gate=given.channel_gate,
            entry_weight=own.get("entry_weight"),
            entry_bias=own.get("entry_bias"),
            rectified=self.rectified,
            mix_weight=own.get("mix_weight"),
            mix_bias=own.get("mix_bias"),
            rectify_branches=own.get("mix_weight") is not None,
            residual=None if none else residual,
            residual_weight=None if none or shortcut is None else shortcut._parameters.get("weight"),
            residual_bias=None if none or shortcut is None else shortcut._parameters.get("bias"),
            rectify=self.rectify,
            stride=self.stride,
            fast=self.fast_temporal,
        )


def _kept_pair(
    pair: tuple[Tensor, Tensor] | None, dtype: torch.dtype
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    return (None, None) if pair is None else (kept(pair[0], dtype), kept(pair[1], dtype))


def from_convolution(conv: Any, norm: Any, dtype: torch.dtype, rectify: bool) -> Frames | None:
    """One convolution over frames and its BatchNorm; None if it changes the number of frames otherwise."""
    taps, dilation = conv.kernel_size[0], conv.dilation[0]
    if taps % 2 == 0 or 2 * conv.padding[0] != dilation * (taps - 1):
        return None
    weight, bias = folded(conv.weight, conv.bias, norm)
    return Frames([weight], [bias], [dilation], conv.stride[0], dtype, rectify=rectify)


def from_branches(
    known: Sequence[Branch],
    stride: int,
    dtype: torch.dtype,
    rectify: bool,
    first: Any = None,
    mix: Any = None,
    last: Any = None,
) -> Frames | None:
    """Branches side by side; None if a bare one stands in front of another kind.

    Args:
        known: as ``swap.branches.read`` gives them.
        stride: as that gives it.
        dtype: of the weights.
        rectify: whether ReLU ends it.
        first: BatchNorm behind the branches, which ReLU and ``mix`` follow, or None.
        mix: 1x1 convolution, or None.
        last: BatchNorm behind it.
    """
    bare = [branch.norm is None for branch in known]
    if bare != sorted(bare):
        return None
    if first is None:
        behind = None
    else:
        scale, shift = _fusion.scale_and_shift(first, torch.float64)
        widths = [(branch.entry if branch.taps is None else branch.taps).out_channels for branch in known]
        behind = list(zip(torch.split(scale, widths), torch.split(shift, widths)))
    entries, weights, biases, spans, rectified = [], [], [], [], 0
    for i, branch in enumerate(known):
        entry = branch.entry
        entries.append(folded(entry.weight.flatten(1), entry.bias, branch.norm))
        rectified += 0 if branch.norm is None else entry.out_channels
        if branch.taps is not None:
            weight, bias = folded(branch.taps.weight, branch.bias, branch.after)
            spans.append(branch.taps.dilation[0])
        else:
            weight, bias = folded(torch.ones(entry.out_channels), None, branch.after)
            spans.append(3 if branch.pooled else 1)
        if behind is not None:
            scale, shift = behind[i]
            weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
            bias = torch.addcmul(shift, bias, scale)
            if branch.norm is None:
                # Both ReLUs in a row are one: bare branches join the others' in front.
                entries[i] = entries[i][0] * weight[:, None], torch.addcmul(bias, entries[i][1], weight)
                weight, bias = torch.ones_like(weight), torch.zeros_like(bias)
                rectified += entry.out_channels
        weights.append(weight)
        biases.append(bias)
    entry = torch.cat([pair[0] for pair in entries]), torch.cat([pair[1] for pair in entries])
    mixed = None if mix is None else folded(mix.weight.flatten(1), mix.bias, last)
    return Frames(weights, biases, spans, stride, dtype, entry, rectified, mixed, rectify)


class Unit(Folded):
    """A graph layer, a temporal module, a residual connection and ReLU.

    Args:
        graph: gives a :class:`Pending` for ``[N, C, T, V]``.
        frames: the temporal module.
        shortcut: the residual connection.
    """

    def __init__(self, graph: nn.Module, frames: Frames, shortcut: Shortcut) -> None:
        super().__init__()
        self.graph, self.frames, self.shortcut = graph, frames, shortcut

    def compute(self, x: Tensor, *rest: Any) -> Tensor:
        """The unit on ``[N, C, T, V]`` in channels_last memory."""
        out: Tensor = self.frames(self.graph(x), x, self.shortcut)
        return out


class GraphLayer(Folded):
    """A graph layer alone.

    Args:
        graph: gives a :class:`Pending` for ``[N, C, T, V]``.
    """

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def compute(self, x: Tensor, *rest: Any) -> Tensor:
        """The layer on ``[N, C, T, V]`` in channels_last memory."""
        pending: Pending = self.graph(x)
        return pending.closed()


class TemporalLayer(Folded):
    """A temporal module alone.

    Args:
        frames: the module.
        shortcut: its residual connection, or None.
    """

    def __init__(self, frames: Frames, shortcut: Shortcut | None = None) -> None:
        super().__init__()
        self.frames, self.shortcut = frames, shortcut

    def compute(self, x: Tensor, *rest: Any) -> Tensor:
        """The module on ``[N, C, T, V]`` in channels_last memory."""
        out: Tensor = self.frames(x, x, self.shortcut)
        return out


class WholeBlock(Folded):
    """A block of ST-GCN as one operator.

    Args:
        block: its layers.
        dtype: of the weights.
        adjacency: ``[K, V, V]``, or None where it comes as an argument, and is handed back.
    """

    def __init__(self, block: Any, dtype: torch.dtype, adjacency: Tensor | None) -> None:
        super().__init__()
        self.fast_temporal: bool | None = None
        scale, shift = _fusion.scale_and_shift(block.first, torch.float64)
        operands = {
            "graph_weight": block.weight.double() * scale[:, None],
            "graph_bias": None if block.bias is None else block.bias.double() * scale,
            "shift1": shift,
        }
        operands["temporal_weight"], operands["shift2"] = folded(
            block.temporal.weight, block.temporal.bias, block.second
        )
        if block.projection is not None:
            weight, operands["residual_shift"] = folded(
                block.projection.weight, block.projection.bias, block.third
            )
            operands["residual_weight"] = weight.flatten(1)
        if adjacency is not None:
            operands["adjacency"] = adjacency
        for name, value in operands.items():
            self.register_parameter(name, None if value is None else kept(value, dtype))
        self.residual, self.stride = bool(block.residual), int(block.temporal.stride[0])

    def compute(self, x: Tensor, *rest: Any) -> Any:
        """The block on ``[N, C, T, V]`` in channels_last memory."""
        given: dict[str, Any] = dict(self._parameters)
        outside = "adjacency" not in given
        if outside:
            given["adjacency"] = rest[0]
        out = ops.st_block(x, **given, residual=self.residual, stride=self.stride, fast=self.fast_temporal)
        return (out, rest[0]) if outside else out
