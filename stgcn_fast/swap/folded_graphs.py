"""Graph layers of folded units: each gives its result as a sum that the temporal module completes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap.folded import Pending, Shortcut, kept


def mean_frame(x: Tensor) -> Tensor:
    """Mean over frames of ``[N, C, T, V]`` in channels_last memory, as ``[N, V, C]``.

    A product with a row of ones: a sum over a middle axis walks memory with strides.
    """
    n, c, t, v = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n, t, v * c)
    return (torch.matmul(x.new_ones((1, t)), rows) / t).view(n, v, c)


class StaticGraph(nn.Module):
    """``relu(norm(graph_conv(x) + behind) + shortcut(x))`` with one adjacency for all samples.

    Args:
        weight: ``[K, O, C]``.
        bias: ``[K, O]``, aggregated, or None.
        behind: ``[O]``, not aggregated, or None.
        adjacency: ``[K, V, V]``, source joint first.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer, or None.
        dtype: of the weights.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        behind: Tensor | None,
        adjacency: Tensor,
        norm: Any,
        shortcut: Shortcut | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        if behind is not None:
            shift = torch.addcmul(shift, behind.double(), scale)
        if bias is not None:  # what it brings to each joint: [W, O]
            shift = shift + torch.einsum("ko,kvw->wo", bias.double() * scale, adjacency.double())
        self.weight = kept(weight.double() * scale[:, None], dtype)
        self.adjacency = kept(adjacency, dtype)
        self.shift = kept(shift, dtype)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``."""
        y = ops.graph_conv(x, self.weight, self.adjacency)
        return Pending(y, self.shift, None if self.shortcut is None else self.shortcut(x))


class SampleGraph(nn.Module):
    """2s-AGCN and MS-AAGCN: the adjacency is a static part and an activation of products of embeddings.

    Args:
        weight: ``[K, O, C]``.
        behind: sum of the biases ``[O]``, or None.
        static: ``[K, V, V]``, source joint first.
        embeddings: 1x1 convolutions, ``[2 K C', C]`` and ``[2 K C']``, sources' first, or None.
        alpha: factor of tanh of the products ``[1]``; None for softmax over sources.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer.
        gates: the layer with the three gates of MS-AAGCN, or None.
        dtype: of the weights.
    """

    embed_weight: nn.Parameter | None
    embed_bias: nn.Parameter | None
    alpha: nn.Parameter | None

    def __init__(
        self,
        weight: Tensor,
        behind: Tensor | None,
        static: Tensor,
        embeddings: tuple[Tensor, Tensor] | None,
        alpha: Tensor | None,
        norm: Any,
        shortcut: Shortcut,
        gates: Any,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        if behind is not None:
            shift = torch.addcmul(shift, behind.double(), scale)
        self.weight = kept(weight.double() * scale[:, None], dtype)
        self.shift = kept(shift, dtype)
        self.static = kept(static, dtype)
        self.alpha = None if alpha is None else kept(alpha, dtype)
        self.embed_weight = self.embed_bias = None
        if embeddings is not None:
            shape = (2, len(weight), -1)
            self.embed_weight = kept(embeddings[0].view(*shape, weight.shape[2]), dtype)  # [2, K, C', C]
            self.embed_bias = kept(embeddings[1].view(shape), dtype)
        self.shortcut = shortcut
        self.gates = None if gates is None else Gates(gates, dtype)

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``, channels_last."""
        adjacency: Tensor = self.static
        if self.embed_weight is not None and self.embed_bias is not None:
            adjacency = ops.joint_attention(x, self.embed_weight, self.embed_bias, adjacency, self.alpha)
        pending = Pending(ops.graph_conv(x, self.weight, adjacency), self.shift, self.shortcut(x))
        return pending if self.gates is None else self.gates(pending)


class Gates(nn.Module):
    """MS-AAGCN's gates of joints, frames and channels, ``1 + sigmoid`` of an average each.

    Args:
        layer: holds ``conv_sa``, ``conv_ta``, ``fc1c`` and ``fc2c``.
        dtype: of the weights.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        for name, source in (("joints", layer.conv_sa), ("frames", layer.conv_ta)):
            self.register_parameter(f"{name}_weight", kept(source.weight[0].T, dtype))  # [taps, C]
            self.register_parameter(f"{name}_bias", kept(source.bias, dtype))
        for name, source in (("down", layer.fc1c), ("up", layer.fc2c)):
            self.register_parameter(f"{name}_weight", kept(source.weight, dtype))
            self.register_parameter(f"{name}_bias", kept(source.bias, dtype))

    def forward(self, pending: Pending) -> Pending:
        """Gates of a result in channels_last memory, not yet multiplied in."""
        own = self._parameters
        names = (
            f"{kind}_{part}" for kind in ("joints", "frames", "down", "up") for part in ("weight", "bias")
        )
        weights: Any = [own[name] for name in names]
        y, rows, channels = ops.attention_gates(pending.y, *weights, shift=pending.shift, add=pending.add)
        return Pending(y, rectify=False, row_gate=rows, channel_gate=channels)


class ChannelGraph(nn.Module):
    """CTR-GCN: a joint map for each sample, subset and channel, ``alpha W4 tanh(q_u - p_v) + A_k[u, v]``.

    Args:
        convs: the four kinds of 1x1 convolutions, a list over subsets each.
        adjacency: ``[K, V, V]``.
        alpha: ``[1]``.
        turned: whether targets come first in the maps, as in the official code.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer.
        dtype: of the weights.
    """

    def __init__(
        self,
        convs: dict[str, list[Any]],
        adjacency: Tensor,
        alpha: Tensor,
        turned: bool,
        norm: Any,
        shortcut: Shortcut,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        both = [convs["conv1"], convs["conv2"]]
        kernels = [torch.stack([conv.weight.flatten(1) for conv in each]) for each in both]
        self.embed_weight = kept(torch.stack(kernels), dtype)  # [2, K, R, C]
        biases = [torch.stack([conv.bias for conv in each]) for each in both]
        self.embed_bias = kept(torch.stack(biases), dtype)
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        weight = torch.stack([conv.weight.flatten(1) for conv in convs["conv3"]])
        self.weight = kept(weight.double() * scale[:, None], dtype)
        bias = torch.stack([conv.bias for conv in convs["conv3"]])
        self.bias = kept(bias.double() * scale, dtype)
        self.shift = kept(shift, dtype)
        mix = torch.stack([conv.weight.flatten(1) for conv in convs["conv4"]]).double() * alpha.double()
        moved = torch.stack([conv.bias for conv in convs["conv4"]]).double() * alpha.double()
        # Two more rows of relations: the adjacency, for every channel alike, and ones, times the shift.
        more = torch.stack([torch.ones_like(moved), moved], 2)
        self.mix = kept(torch.cat([mix, more], 2), dtype)  # [K, O, R + 2]
        fixed = adjacency.mT if turned else adjacency
        self.fixed = kept(torch.stack([fixed, torch.ones_like(fixed)], 1), dtype)  # [K, 2, V, V]
        self.turned, self.shortcut = turned, shortcut

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``, channels_last."""
        relations = ops.joint_relations(x, self.embed_weight, self.embed_bias, self.fixed, self.turned)
        y = ops.relation_graph_conv(x, self.weight, self.mix, relations, self.bias)
        return Pending(y, self.shift, self.shortcut(x))
