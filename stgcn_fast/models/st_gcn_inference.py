"""ST-GCN rebuilt for inference; made by :func:`stgcn_fast.models.optimize.optimize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.models import _reuse
from stgcn_fast.models.optimize import Settings, register_optimizer
from stgcn_fast.models.st_gcn import STGCN, check_input, frame_sums, mean_over_persons
from stgcn_fast.nn import GraphConv, STGCNBlock, TemporalConv, _fusion, _orders


class InferenceBlock(nn.Module):
    """One block with BatchNorm folded into its convolutions.

    Args:
        block: the block, of layers that can be folded.
        adjacency: ``[K, V, V]``, edge importance multiplied in.
        settings: of the network.

    Raises:
        ValueError: the block's layers are not those it was made with, or are watched by hooks.
    """

    graph_bias: nn.Parameter | None
    residual_weight: nn.Parameter | None
    residual_shift: nn.Parameter | None

    def __init__(self, block: STGCNBlock, adjacency: Tensor, settings: Settings) -> None:
        super().__init__()
        layers = _fusion.layers_of(block, GraphConv, TemporalConv)
        if layers is None:
            raise ValueError(
                "optimize: blocks must have the layers they were made with, BatchNorm2d with running "
                f"statistics among them, without hooks and parametrisations, got {block}"
            )
        self.residual = block.residual is not None
        self.stride = layers.temporal.stride[0]
        self.taps = layers.temporal.kernel_size[0]
        self.fast = settings.fast_temporal
        small, wide = settings.dtype, _wide(settings.dtype)
        weight, bias = block.gcn.kernels()
        scale, shift = _fusion.scale_and_shift(layers.first, torch.float64)
        self.graph_weight = _kept(weight.double() * scale[:, None], small)
        self.graph_bias = None if bias is None else _kept(bias.double() * scale, wide)
        self.shift1 = _kept(shift, wide)
        self.adjacency = _kept(adjacency, wide)
        folded, shift = _fusion.fold(layers.temporal, layers.second, torch.float64)
        self.temporal_weight = _kept(folded, small)
        self.shift2 = _kept(shift, wide)
        self.residual_weight = self.residual_shift = None
        if layers.projection is not None and layers.third is not None:
            folded, shift = _fusion.fold(layers.projection, layers.third, torch.float64)
            self.residual_weight = _kept(folded.flatten(1), small)
            self.residual_shift = _kept(shift, wide)

    def forward(self, x: Tensor, frames: Tensor | None = None, rest: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: ``[N, C, T, V]``.
            frames: int64 ``[N]``, frames that may differ from the clip that ``rest`` is the output of.
            rest: ``[1, O, ceil(T / stride), V]``.

        Returns:
            ``[N, O, ceil(T / stride), V]``.
        """
        return ops.st_block(x, **self.operands(), fast=self.fast, frames=frames, rest=rest)

    def operands(self) -> dict[str, Any]:
        """The block as the arguments of ``ops.st_block`` that do not depend on the features."""
        # Looked up one by one, modules' parameters cost more than the operator's checks.
        return {**self._parameters, "residual": self.residual, "stride": self.stride}

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        partitions, outputs, inputs = self.graph_weight.shape
        sizes = f"{inputs}, {outputs}, num_partitions={partitions}, temporal_kernel={self.taps}"
        return f"{sizes}, stride={self.stride}, dtype={self.graph_weight.dtype}"


class STGCNInference(nn.Module):
    """ST-GCN for inference: logits from clips, as the network it is made of gives them in evaluation mode.

    Its parameters need no gradient and may be edited and loaded like any; what depends on them is made anew
    when they change. It stays in evaluation mode.

    Args:
        model: the network, which is left as it is.
        settings: type of features, and switches.

    Raises:
        ValueError: the network was changed beyond what can be folded.
    """

    def __init__(self, model: STGCN, settings: Settings) -> None:
        super().__init__()
        norm: Any = model.data_bn
        head = model.fcn
        plain = _fusion.is_plain
        if model.order != _orders.STANDARD:
            order = _orders.described(model.order)
            raise ValueError(
                f"optimize: order must be 'standard', whose layers fold into one operator, got {order!r}"
            )
        absent = plain(norm, nn.Identity)
        if not absent and (
            not plain(norm, nn.BatchNorm1d) or norm.running_mean is None or norm.weight is None
        ):
            raise ValueError(
                "optimize: data_bn must be a BatchNorm1d with parameters and running statistics, without "
                f"hooks, got {norm}"
            )
        if not plain(head, nn.Conv2d):
            raise ValueError(f"optimize: fcn must be a Conv2d without hooks and parametrisations, got {head}")
        self.in_channels = model.in_channels
        self.num_joints = model.graph.num_joints
        self.layout_name = model.layout.name
        self.person_pooling = model.person_pooling
        self.dtype = settings.dtype
        self.reuse = settings.reuse
        wide = _wide(settings.dtype)
        if absent:
            scale = model.A.new_ones(model.in_channels * model.graph.num_joints)
            shift = torch.zeros_like(scale)
        else:
            scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        self.data_scale = _kept(scale, wide)  # [V * C]
        self.data_shift = _kept(shift, wide)
        blocks = cast(Sequence[STGCNBlock], model.st_gcn_networks)
        importance = model.edge_importance or [torch.ones_like(model.A)] * len(model.channels)
        built = [
            InferenceBlock(block, model.A.double() * factors.double(), settings)
            for block, factors in zip(blocks, importance)
        ]
        self.blocks = nn.ModuleList(built)
        self.steps = [_reuse.Step(block.taps, block.stride) for block in built]
        self.head_weight = _kept(head.weight.flatten(1), wide)  # [num_classes, C]
        self.head_bias = None if head.bias is None else _kept(head.bias, wide)
        self._zeros = _reuse.ZeroClips()

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``, of any floating point type.

        Returns:
            Logits ``[N, num_classes]`` in float32 (float64 for float64).

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the layout or the number of channels.
        """
        check_input(x, self.in_channels, self.num_joints, self.layout_name)
        n, c, t, v, m = x.shape
        rows = x.permute(0, 4, 2, 3, 1).reshape(n * m, t, v * c).to(self.data_scale.dtype)
        y = torch.addcmul(self.data_shift, rows, self.data_scale).to(self.dtype)
        y = y.view(n * m, t, v, c).permute(0, 3, 1, 2)
        sums = self._reusing(x, rows, y) if self.reuse else None
        if sums is None:
            sums = frame_sums(self._through_blocks(y))
        pooled = sums.sum(1) / (sums.shape[1] * v)  # [N * M, C]
        persons = mean_over_persons(pooled.view(n, m, pooled.shape[1]), x, self.person_pooling)
        return nn.functional.linear(persons, self.head_weight, self.head_bias)

    def train(self, mode: bool = True) -> STGCNInference:
        """Stays in evaluation mode.

        Raises:
            RuntimeError: training mode is asked for.
        """
        if mode:
            raise RuntimeError("STGCNInference: mode must be evaluation; train the network it was made of")
        super().train(False)
        return self

    def _through_blocks(self, y: Tensor) -> Tensor:
        """All blocks by one operator, or one after another where somebody watches or replaced them."""
        blocks = list(self.blocks)
        if not _fusion.watched_globally() and all(
            _fusion.is_plain(block, InferenceBlock) for block in blocks
        ):
            built = cast(Sequence[InferenceBlock], blocks)
            forms = {block.fast for block in built}
            if len(forms) == 1:
                return ops.st_blocks(y, [block.operands() for block in built], fast=forms.pop())
        for block in blocks:
            y = block(y)
        return y

    def _reusing(self, x: Tensor, rows: Tensor, y: Tensor) -> Tensor | None:
        """Sums over joints of the last features ``[N * M, T, C]``, or None where nothing can be reused."""
        if torch.compiler.is_compiling() or not _fusion.compiled("st_block", x.device.type):
            return None
        if _reuse.all_filled(rows):
            return None
        tensors = list(self.parameters())
        if not _reuse.may_reuse(x, tensors):
            return None
        frames = rows.shape[1]
        lengths = _reuse.length_of(rows).tolist()
        skipped = len(lengths) * frames - sum(lengths)
        if skipped == 0:
            return None
        key = ops.get_options().fast_temporal
        zeros = self._zeros.find(frames, key, tensors, skipped, lambda: self._features_of_zeros(y))
        if zeros is None:
            return None
        sums = zeros.sums.repeat(len(lengths), 1, 1)
        for group in _reuse.groups_of(lengths):
            out = _reuse.run(y[group], [lengths[i] for i in group], zeros, list(self.blocks), self.steps)
            found = frame_sums(out)
            sums[group, : found.shape[1]] = found
        return sums

    def _features_of_zeros(self, like: Tensor) -> _reuse.Zeros:
        _, c, t, v = like.shape
        row = self.data_shift.to(self.dtype).view(v, c)
        y = row.expand(1, t, v, c).contiguous().permute(0, 3, 1, 2)
        outputs = []
        for block in self.blocks:
            y = block(y)
            outputs.append(y)
        return _reuse.Zeros(outputs, frame_sums(y)[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zeros": _reuse.ZeroClips()}


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Type of what is kept precise beside features of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _kept(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """A parameter of its own memory, without gradient."""
    return nn.Parameter(tensor.detach().to(dtype, copy=True).contiguous(), requires_grad=False)


@register_optimizer(STGCN)
def _rebuild(model: STGCN, settings: Settings) -> STGCNInference:
    return STGCNInference(model, settings)
