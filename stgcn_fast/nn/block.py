"""The spatial-temporal block of ST-GCN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion, _orders
from stgcn_fast.nn.graph_conv import GraphConv
from stgcn_fast.nn.temporal_conv import TemporalConv
from stgcn_fast.ops._library import transformed


class STGCNBlock(nn.Module):
    """Graph convolution, temporal convolution, residual, ReLU (Yan et al. 2018, section 3.6).

    ``relu(tcn(gcn(x)) + residual(x))``; ``tcn`` is BatchNorm, ReLU, a (Γ, 1) convolution, BatchNorm, dropout.
    The residual is the input itself where shapes allow, else a strided 1x1 convolution with BatchNorm.
    Parameter names are those of the public code.

    Where it can, the block runs as one operator: :func:`stgcn_fast.ops.st_block` without gradients in
    evaluation mode, :func:`stgcn_fast.ops.st_block_train` in training mode. The results are those of its
    layers. It runs layer by layer where somebody watches or changed one of them (hooks, parametrisations,
    other modules in its place), where BatchNorm is frozen, has no parameters or no running statistics, where
    gradients are asked for in evaluation mode, for adjacencies per sample, within ``torch.func`` transforms
    and forward-mode derivatives, on devices without a compiled kernel, with
    ``ops.options(fused_blocks=False)``, and in any order but the standard one.

    Orders of the layers (the last five: Nagy, Panesar and Qian, sections 4.5 and 5.5):

    ===================  ==================================================================================
    name                 layers
    ===================  ==================================================================================
    ``standard``         graph, norm, relu, temporal, norm, dropout, sum, relu
    ``pre_activation``   norm, relu, graph, norm, relu, temporal, dropout, sum (full pre-activation)
    ``norm_ends``        norm, graph, temporal, norm, sum, relu, dropout
    ``norm_start``       norm, graph, temporal, sum, relu, dropout
    ``norm_last``        norm, graph, temporal, sum, relu, norm, dropout
    ``no_norm``          graph, temporal, sum, relu, dropout
    ===================  ==================================================================================

    ``sum`` adds the residual, ``norm`` is BatchNorm. In any order but the standard one the layers are
    ``before``, ``gcn``, ``tcn`` (up to the sum) and ``after``, and a residual that is no identity is the
    strided 1x1 convolution alone.

    Args:
        in_channels: C.
        out_channels: O.
        num_partitions: K of the graph.
        temporal_kernel: Γ, odd.
        stride: step of the temporal convolution.
        dropout: probability of zeroing a feature where ``dropout`` stands in the order.
        residual: whether there is a residual connection.
        order: a name, or the names of the layers: ``graph``, ``temporal``, ``sum`` once each and in this
            order, ``norm``, ``relu`` and ``dropout`` anywhere.

    Raises:
        TypeError: a size is not an integer, or the order is no name and no list of names.
        ValueError: a size is not positive, the kernel is even, dropout is outside [0, 1], or the order is
            unknown.
    """

    residual: nn.Module | None
    order: tuple[str, ...] = _orders.STANDARD

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_partitions: int,
        temporal_kernel: int = 9,
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
        order: str | Sequence[str] = "standard",
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
            raise TypeError(f"STGCNBlock: dropout must be a number, got {dropout!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"STGCNBlock: dropout must be in [0, 1], got {dropout}")
        self.order = _orders.resolve(order, "STGCNBlock")
        self.gcn = GraphConv(in_channels, out_channels, num_partitions)
        if self.order != _orders.STANDARD:
            self._make_ordered(in_channels, out_channels, temporal_kernel, stride, dropout, residual)
            return
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            TemporalConv(out_channels, out_channels, temporal_kernel, stride),
            nn.BatchNorm2d(out_channels),
            nn.Dropout(dropout, inplace=True),
        )
        if not residual:
            self.register_module("residual", None)
        elif in_channels == out_channels and stride == 1:
            self.residual = nn.Identity()
        else:
            self.residual = nn.Sequential(
                TemporalConv(in_channels, out_channels, kernel_size=1, stride=stride),
                nn.BatchNorm2d(out_channels),
            )
        # Without a residual the sum is tcn's own output, which a hook may have kept.
        self.relu = nn.ReLU(inplace=residual)

    def _make_ordered(
        self, inputs: int, outputs: int, taps: int, stride: int, dropout: float, residual: bool
    ) -> None:
        before, between, after = _orders.split(self.order)
        self.before = _orders.build(before, inputs, dropout, None)
        self.tcn = _orders.build(between, outputs, dropout, TemporalConv(outputs, outputs, taps, stride))
        if not residual:
            self.register_module("residual", None)
        elif inputs == outputs and stride == 1:
            self.residual = nn.Identity()
        else:
            self.residual = TemporalConv(inputs, outputs, kernel_size=1, stride=stride)
        self.after = _orders.build(after, outputs, dropout, None)

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: ``[N, C, T, V]``.
            adjacency: ``[K, V, V]`` or per sample ``[N, K, V, V]``, source joint first.
            mask: edge importance ``[K, V, V]``, or None.

        Returns:
            ``[N, O, ceil(T / stride), V]`` in the memory format of ``x``.
        """
        if self.order != _orders.STANDARD:
            return self._forward_ordered(x, adjacency, mask)
        layers = self._fusible_layers(x, adjacency, mask)
        if layers is not None:
            if self._learns_from_batch(layers, x):
                return self._forward_training(layers, x, adjacency, mask)
            if self._is_frozen(layers, x, adjacency, mask):
                return self._forward_inference(layers, x, adjacency, mask)
        y = self.tcn(self.gcn(x, adjacency, mask))
        if self.residual is not None:
            y = y + self.residual(x)
        out: Tensor = self.relu(y)
        return out

    def _forward_ordered(self, x: Tensor, adjacency: Tensor, mask: Tensor | None) -> Tensor:
        y = self.tcn(self.gcn(self.before(x), adjacency, mask))
        if self.residual is not None:
            y = y + self.residual(x)
        out: Tensor = self.after(y)
        return out

    def _fusible_layers(self, x: Tensor, adjacency: Tensor, mask: Tensor | None) -> _fusion.Layers | None:
        """The layers, if they and the input are what one operator computes."""
        if not ops.get_options().fused_blocks or transformed() or _fusion.watched_globally():
            return None
        layers = _fusion.layers_of(self, GraphConv, TemporalConv)
        if layers is None or not self._input_fits(layers, x, adjacency, mask):
            return None
        return layers

    def _input_fits(self, layers: _fusion.Layers, x: Tensor, adjacency: Tensor, mask: Tensor | None) -> bool:
        """Whether shapes, types and devices agree; where not, the layers say what is wrong."""
        weight = layers.conv.weight
        if x.dim() != 4 or x.shape[1] != weight.shape[1] or not x.is_floating_point():
            return False
        joints = x.shape[3]
        if adjacency.shape != (weight.shape[0] // layers.first.num_features, joints, joints):
            return False
        if mask is not None and mask.shape != adjacency.shape:
            return False
        cast = torch.is_autocast_enabled(x.device.type)
        return all(
            other.device == x.device and (other.dtype == x.dtype or (cast and other.is_floating_point()))
            for other in ((adjacency, weight) if mask is None else (adjacency, weight, mask))
        )

    def _learns_from_batch(self, layers: _fusion.Layers, x: Tensor) -> bool:
        # One joint could be one value a channel, which BatchNorm refuses.
        return (
            all(norm.training for norm in layers.norms())
            and x.shape[3] > 1
            and x.shape[0] > 0
            and x.shape[2] > 0
            and _fusion.compiled("st_block_train", x.device.type)
        )

    def _is_frozen(self, layers: _fusion.Layers, x: Tensor, adjacency: Tensor, mask: Tensor | None) -> bool:
        dropout = layers.dropout
        if any(norm.training for norm in layers.norms()) or (dropout.training and dropout.p > 0):
            return False
        if torch.is_grad_enabled() and (
            x.requires_grad
            or adjacency.requires_grad
            or (mask is not None and mask.requires_grad)
            or any(parameter.requires_grad for parameter in self.parameters())
        ):
            return False
        return _fusion.compiled("st_block", x.device.type)

    def _forward_inference(
        self, layers: _fusion.Layers, x: Tensor, adjacency: Tensor, mask: Tensor | None
    ) -> Tensor:
        weight, bias = self.gcn.kernels()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        scale1, shift1 = _fusion.scale_and_shift(layers.first, dtype)
        scale2, shift2 = _fusion.scale_and_shift(layers.second, dtype)
        projection = shift = None
        if layers.projection is not None and layers.third is not None:
            projection, shift = _fusion.fold(layers.projection, layers.third, dtype)
            projection = projection.flatten(1)
        return ops.st_block(
            x,
            weight,
            adjacency if mask is None else adjacency * mask,
            layers.temporal.weight,
            graph_bias=bias,
            scale1=scale1,
            shift1=shift1,
            temporal_bias=layers.temporal.bias,
            scale2=scale2,
            shift2=shift2,
            residual=self.residual is not None,
            residual_weight=projection,
            residual_shift=shift,
            stride=layers.temporal.stride[0],
        )

    def _forward_training(
        self, layers: _fusion.Layers, x: Tensor, adjacency: Tensor, mask: Tensor | None
    ) -> Tensor:
        first, second, third = layers.first, layers.second, layers.third
        temporal, projection, dropout = layers.temporal, layers.projection, layers.dropout
        weight, bias = self.gcn.kernels()
        out, statistics = ops.st_block_train(
            x,
            weight,
            bias,
            adjacency if mask is None else adjacency * mask,
            None if mask is None or adjacency.requires_grad else adjacency,
            first.weight,
            first.bias,
            first.eps,
            temporal.weight,
            temporal.bias,
            second.weight,
            second.bias,
            second.eps,
            None if projection is None else projection.weight,
            None if projection is None else projection.bias,
            None if third is None else third.weight,
            None if third is None else third.bias,
            second.eps if third is None else third.eps,
            residual=self.residual is not None,
            stride=temporal.stride[0],
            dropout=float(dropout.p) if dropout.training else 0.0,
        )
        _fusion.track(first, statistics[0], x.shape[0] * x.shape[2] * x.shape[3])
        count = out.shape[0] * out.shape[2] * out.shape[3]
        _fusion.track(second, statistics[1], count)
        if third is not None:
            _fusion.track(third, statistics[2], count)
        return out
