"""Twin of Shift-GCN (Cheng et al., CVPR 2020).

The frames' shift is a CUDA extension in the public code; here it is plain PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twins.common import same


class Shift(nn.Module):
    """Each channel read at a place of its own, between frames and between joints, zeros outside."""

    def __init__(self, channel: int, stride: int, init_scale: float = 1.0) -> None:
        super().__init__()
        self.stride = stride
        self.xpos = nn.Parameter(torch.empty(channel).uniform_(-1e-8, 1e-8))
        self.ypos = nn.Parameter(torch.empty(channel).uniform_(-init_scale, init_scale))

    def forward(self, x: Tensor) -> Tensor:
        frames, joints = x.shape[2:]
        down = self.ypos + (0.5 if self.stride != 1 else 0.0)
        t = torch.arange(0, frames, self.stride)[None, :, None] + down[:, None, None]  # [C, T', 1]
        v = torch.arange(joints)[None, None] + self.xpos[:, None, None]  # [C, 1, V]
        grid = [2 * v / (joints - 1) - 1, 2 * t / (frames - 1) - 1]
        places = torch.stack(torch.broadcast_tensors(*grid), 3)  # [C, T', V, 2]
        return F.grid_sample(x.transpose(0, 1), places, align_corners=True).transpose(0, 1)


class Shift_tcn(nn.Module):
    """Shift, 1x1 convolution, shift."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shift_in = Shift(inputs, 1)
        self.shift_out = Shift(outputs, stride)
        self.temporal_linear = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.temporal_linear(self.shift_in(self.bn(x))))
        return self.bn2(self.shift_out(y))


class Shift_gcn(nn.Module):
    """Channel c of joint v is read from joint v + c, and written back after the product over channels."""

    def __init__(self, inputs: int, outputs: int, joints: int = 25) -> None:
        super().__init__()
        self.down = same
        if inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.Linear_weight = nn.Parameter(torch.randn(inputs, outputs) * outputs**-0.5)
        self.Linear_bias = nn.Parameter(torch.zeros(1, 1, outputs))
        self.Feature_Mask = nn.Parameter(torch.zeros(1, joints, inputs))
        self.bn = nn.BatchNorm1d(joints * outputs)
        self.relu = nn.ReLU()
        self.shift_in = nn.Parameter(self.places(joints, inputs, 1), requires_grad=False)
        self.shift_out = nn.Parameter(self.places(joints, outputs, -1), requires_grad=False)

    @staticmethod
    def places(joints: int, channels: int, way: int) -> Tensor:
        v, c = torch.arange(joints)[:, None], torch.arange(channels)
        return ((v + way * c) % joints * channels + c).flatten()

    def forward(self, x0: Tensor) -> Tensor:
        samples, channels, frames, joints = x0.shape
        rows = x0.permute(0, 2, 3, 1).reshape(samples * frames, joints * channels)
        y = rows[:, self.shift_in].unflatten(1, (joints, channels)) * (self.Feature_Mask.tanh() + 1)
        y = (y @ self.Linear_weight + self.Linear_bias).flatten(1)
        y = self.bn(y[:, self.shift_out]).view(samples, frames, joints, -1).permute(0, 3, 1, 2)
        return self.relu(y + self.down(x0))
