"""Spatial graph convolution with the parameter names of the public ST-GCN."""

from __future__ import annotations

from torch import Tensor, nn

from stgcn_fast import ops


class GraphConv(nn.Module):
    """Partitioned graph convolution: one 1x1 kernel per partition, then aggregation over the graph.

    ``y[n,o,t,w] = sum_k sum_v A[k,v,w] M[k,v,w] (sum_c W[k,o,c] x[n,c,t,v] + b[k,o])``; Yan et al. 2018,
    equation 10. The parameters are ``conv.weight [K * O, C, 1, 1]`` and ``conv.bias [K * O]``, partition by
    partition, as the public code names and stacks them.

    Args:
        in_channels: C.
        out_channels: O.
        num_partitions: K.
        bias: whether each partition has a bias; it is aggregated as the features are.

    Raises:
        TypeError: a count is not an integer.
        ValueError: a count is not positive.
    """

    def __init__(self, in_channels: int, out_channels: int, num_partitions: int, bias: bool = True) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("num_partitions", num_partitions),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"GraphConv: {name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"GraphConv: {name} must be positive, got {value}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_partitions = num_partitions
        self.conv = nn.Conv2d(in_channels, out_channels * num_partitions, 1, bias=bias)

    def forward(
        self, x: Tensor, adjacency: Tensor, mask: Tensor | None = None, *, groups: int | None = None
    ) -> Tensor:
        """Convolves.

        Args:
            x: ``[N, C, T, V]``.
            adjacency: ``[K, V, W]``, per sample ``[N, K, V, W]``, or any other form of
                :func:`stgcn_fast.ops.graph_conv`; source joint first.
            mask: factors of the adjacency's entries (edge importance), ``[K, V, W]``, or None.
            groups: with it a 4-D adjacency is ``[K, G, V, W]``.

        Returns:
            ``[N, O, T, W]`` in the memory format of ``x``.
        """
        weight, bias = self.kernels()
        return ops.graph_conv(x, weight, adjacency, bias, mask, groups=groups)

    def kernels(self) -> tuple[Tensor, Tensor | None]:
        """The parameters by partition: weight ``[K, O, C]`` and bias ``[K, O]`` or None."""
        shape = (self.num_partitions, self.out_channels)
        bias = None if self.conv.bias is None else self.conv.bias.reshape(shape)
        return self.conv.weight.reshape(*shape, self.in_channels), bias

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        return f"{self.in_channels}, {self.out_channels}, num_partitions={self.num_partitions}"
