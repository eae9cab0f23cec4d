"""The spatial-temporal block of ST-GCN."""

from __future__ import annotations

from torch import Tensor, nn

from stgcn_fast.nn.graph_conv import GraphConv
from stgcn_fast.nn.temporal_conv import TemporalConv


class STGCNBlock(nn.Module):
    """Graph convolution, temporal convolution, residual, ReLU (Yan et al. 2018, section 3.6).

    ``relu(tcn(gcn(x)) + residual(x))``; ``tcn`` is BatchNorm, ReLU, a (Γ, 1) convolution, BatchNorm, dropout.
    The residual is the input itself where shapes allow, else a strided 1x1 convolution with BatchNorm.
    Parameter names are those of the public code.

    Args:
        in_channels: C.
        out_channels: O.
        num_partitions: K of the graph.
        temporal_kernel: Γ, odd.
        stride: step of the temporal convolution.
        dropout: probability of zeroing a feature behind the temporal convolution.
        residual: whether there is a residual connection.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is not positive, the kernel is even, or dropout is outside [0, 1].
    """

    residual: nn.Module | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_partitions: int,
        temporal_kernel: int = 9,
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
            raise TypeError(f"STGCNBlock: dropout must be a number, got {dropout!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"STGCNBlock: dropout must be in [0, 1], got {dropout}")
        self.gcn = GraphConv(in_channels, out_channels, num_partitions)
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

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: ``[N, C, T, V]``.
            adjacency: ``[K, V, V]`` or per sample ``[N, K, V, V]``, source joint first.
            mask: edge importance ``[K, V, V]``, or None.

        Returns:
            ``[N, O, ceil(T / stride), V]`` in the memory format of ``x``.
        """
        y = self.tcn(self.gcn(x, adjacency, mask))
        if self.residual is not None:
            y = y + self.residual(x)
        out: Tensor = self.relu(y)
        return out
