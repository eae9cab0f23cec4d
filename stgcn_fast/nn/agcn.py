"""Layers of 2s-AGCN and MS-AAGCN (Shi et al., CVPR 2019 and TIP 2020) with the public names.

They compute plainly; by their names and attributes :func:`stgcn_fast.accelerate` and
:func:`stgcn_fast.optimize` know them, as they know the public code's own. Adjacencies are made from each
sample: source joint first, biases behind the aggregation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn._bones import nothing, same

_REDUCTION = 4  # of the embeddings' channels
_SMALL = 1e-6  # first values of 2s-AGCN's learnt part, and of BatchNorm's scale behind the graph layer
_GATE_TAPS = 9  # of the gate over frames


def _pointwise(count: int, inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for _ in range(count))


def projection(inputs: int, outputs: int) -> nn.Module:
    """The residual connection of a graph layer: the input, or a 1x1 convolution and BatchNorm."""
    if inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class _AdaptiveGraph(nn.Module):
    """``relu(bn(sum_k conv_d[k](x A_k)) + down(x))``, A from :meth:`adjacency`."""

    def __init__(self, in_channels: int, out_channels: int, subsets: int) -> None:
        super().__init__()
        embedded = out_channels // _REDUCTION
        self.num_subset, self.inter_c = subsets, embedded
        self.conv_a = _pointwise(subsets, in_channels, embedded)
        self.conv_b = _pointwise(subsets, in_channels, embedded)
        self.conv_d = _pointwise(subsets, in_channels, out_channels)
        self.down = projection(in_channels, out_channels)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, _SMALL)
        self.soft = nn.Softmax(-2)
        self.relu = nn.ReLU()

    def similarity(self, x: Tensor) -> Tensor:
        """``theta_k(x)^T phi_k(x)`` over the number of terms: ``[N, K, V, V]``."""
        maps = []
        for theta, phi in zip(self.conv_a, self.conv_b):
            first, second = theta(x), phi(x)
            maps.append(torch.einsum("nctv,nctw->nvw", first, second) / (first.shape[1] * first.shape[2]))
        return torch.stack(maps, 1)

    def convolve(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """The layer with its adjacency ``[N, K, V, V]``."""
        weight = torch.stack([conv.weight.flatten(1) for conv in self.conv_d])  # type: ignore[operator]
        bias = torch.stack([conv.bias for conv in self.conv_d]).sum(0)  # type: ignore[misc]
        y: Tensor = self.bn(ops.graph_conv(x, weight, adjacency) + bias[:, None, None])
        out: Tensor = self.relu(y + self.down(x))
        return out


class unit_gcn(_AdaptiveGraph):
    """2s-AGCN's graph layer: the skeleton, a learnt part, attention between joints.

    Args:
        in_channels: C.
        out_channels: O.
        A: the skeleton ``[K, V, V]``, source joint first.
    """

    A: Tensor

    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__(in_channels, out_channels, len(A))
        self.PA = nn.Parameter(torch.full_like(A, _SMALL))
        # Public checkpoints do not hold it.
        self.register_buffer("A", A.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        return self.convolve(x, self.soft(self.similarity(x)) + (self.A + self.PA))


class unit_aagcn(_AdaptiveGraph):
    """MS-AAGCN's graph layer: a learnt map, attention weighted by alpha, gates for joints, frames, channels.

    Args:
        in_channels: C.
        out_channels: O.
        A: first values of the adjacency ``[K, V, V]``, source joint first.
    """

    adaptive = True
    attention = True

    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__(in_channels, out_channels, len(A))
        self.PA = nn.Parameter(A.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        taps = A.shape[1] - 1 + A.shape[1] % 2
        self.conv_ta = nn.Conv1d(out_channels, 1, _GATE_TAPS, padding=_GATE_TAPS // 2)
        self.conv_sa = nn.Conv1d(out_channels, 1, taps, padding=taps // 2)
        self.fc1c = nn.Linear(out_channels, out_channels // 2)
        self.fc2c = nn.Linear(out_channels // 2, out_channels)
        self.tan = nn.Tanh()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        y = self.convolve(x, self.PA + self.alpha * self.tan(self.similarity(x)))
        y = y + y * self.sigmoid(self.conv_sa(y.mean(2)))[:, :, None]
        y = y + y * self.sigmoid(self.conv_ta(y.mean(3)))[..., None]
        gate = self.fc2c(self.relu(self.fc1c(y.mean((2, 3)))))
        out: Tensor = y + y * self.sigmoid(gate)[:, :, None, None]
        return out


class unit_tcn(nn.Module):
    """Convolution over frames and BatchNorm.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: Γ, odd.
        stride: between frames.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 9, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (kernel_size // 2, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, ceil(T / stride), V]``."""
        out: Tensor = self.bn(self.conv(x))
        return out


class TCN_GCN_unit(nn.Module):
    """A unit: ``relu(tcn1(gcn1(x)) + residual(x))``.

    Args:
        gcn: graph layer.
        tcn: temporal layer.
        in_channels: C.
        out_channels: O.
        stride: between frames.
        residual: whether there is a residual connection.
    """

    def __init__(
        self,
        gcn: nn.Module,
        tcn: nn.Module,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.gcn1 = gcn
        self.tcn1 = tcn
        self.relu = nn.ReLU()
        if not residual:
            self.residual: Any = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, ceil(T / stride), V]``."""
        out: Tensor = self.relu(self.tcn1(self.gcn1(x)) + self.residual(x))
        return out
