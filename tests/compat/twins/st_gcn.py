"""Twin of the public ST-GCN: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twins.common import adjacency, nothing, same

WIDTHS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)


class ConvTemporalGraphical(nn.Module):
    """One 1x1 kernel per partition, then a sum over the joints that each partition links."""

    def __init__(self, inputs: int, outputs: int, partitions: int) -> None:
        super().__init__()
        self.kernel_size = partitions
        self.conv = nn.Conv2d(inputs, outputs * partitions, 1)

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        assert A.shape[0] == self.kernel_size
        copies = self.conv(x).unflatten(1, (self.kernel_size, -1))
        return torch.einsum("nkotv,kvw->notw", copies, A).contiguous(), A


class st_gcn(nn.Module):
    """Graph convolution, convolution over frames, residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: tuple[int, int],
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.gcn = ConvTemporalGraphical(inputs, outputs, kernel_size[1])
        over_frames = nn.Conv2d(
            outputs, outputs, (kernel_size[0], 1), (stride, 1), ((kernel_size[0] - 1) // 2, 0)
        )
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            over_frames,
            nn.BatchNorm2d(outputs),
            nn.Dropout(dropout, inplace=True),
        )
        if not residual:
            self.residual = nothing
        elif inputs == outputs and stride == 1:
            self.residual = same
        else:
            projection = nn.Conv2d(inputs, outputs, 1, stride=(stride, 1))
            self.residual = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        skipped = self.residual(x)
        y, A = self.gcn(x, A)
        return self.relu(self.tcn(y) + skipped), A


class Model(nn.Module):
    """The network."""

    def __init__(
        self,
        channels: int = 3,
        classes: int = 60,
        joints: int = 25,
        widths: tuple[int, ...] = WIDTHS,
        importance: bool = True,
        dropout: float = 0.0,
        taps: int = 9,
    ) -> None:
        super().__init__()
        self.register_buffer("A", adjacency(joints))
        kernel_size = (taps, len(self.A))
        self.data_bn = nn.BatchNorm1d(channels * joints)
        blocks = []
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else channels
            stride = 2 if i and before != width else 1
            blocks.append(st_gcn(before, width, kernel_size, stride, dropout if i else 0.0, i > 0))
        self.st_gcn_networks = nn.ModuleList(blocks)
        if importance:
            self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones_like(self.A)) for _ in widths)
        else:
            self.edge_importance = [1] * len(widths)
        self.fcn = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        samples, channels, frames, joints, persons = x.shape
        y = x.permute(0, 4, 3, 1, 2).reshape(samples * persons, joints * channels, frames)
        y = self.data_bn(y).unflatten(1, (joints, channels)).permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            y, _ = block(y, self.A * importance)
        y = y.mean((2, 3)).unflatten(0, (samples, persons)).mean(1)
        return self.fcn(y[:, :, None, None]).flatten(1)
