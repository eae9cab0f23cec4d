"""Twins of layers that make adjacencies from samples: 2s-AGCN, MS-AAGCN, GCN-NAS, UNIK.

Shi et al., "Two-Stream Adaptive Graph Convolutional Networks" (2019) and "Skeleton-Based Action Recognition
with Multi-Stream Adaptive Graph Convolutional Networks" (2020); Peng et al., "Learning Graph Convolutional
Network for Skeleton-Based Human Action Recognition by Neural Searching" (2020); Yang et al., "UNIK" (2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twins.common import nothing, same
from twins.ms_tcn import fold_persons


def pointwise(count: int, inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for _ in range(count))


def over_frames(count: int, inputs: int, outputs: int, mixed: bool = False) -> nn.ModuleList:
    """Convolutions of nine frames; with ``mixed`` each behind a 1x1 one, and so twice as many."""
    convs: list[nn.Module] = []
    for _ in range(count):
        if mixed:
            convs.append(nn.Conv2d(inputs, outputs, 1))
        convs.append(nn.Conv2d(inputs, outputs, (9, 1), padding=(4, 0)))
    return nn.ModuleList(convs)


def similarity(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """``theta(x)^T phi(x)`` over the number of terms: ``[N, V, V]``."""
    a, b = first(x), second(x)
    return torch.einsum("nctv,nctw->nvw", a, b) / (a.shape[1] * a.shape[2])


def shortcut(inputs: int, outputs: int):
    if inputs == outputs:
        return same
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))


def mix(x: Tensor, adjacency: Tensor) -> Tensor:
    """Sum over source joints with ``[V, W]`` or ``[N, V, W]``."""
    return torch.einsum("nctv,vw->nctw" if adjacency.dim() == 2 else "nctv,nvw->nctw", x, adjacency)


class AdaptiveGraph(nn.Module):
    """What the four have in common."""

    def __init__(self, inputs: int, outputs: int, subsets: int) -> None:
        super().__init__()
        self.num_subset, self.inter_c = subsets, outputs // 4
        self.conv_d = pointwise(subsets, inputs, outputs)
        self.down = shortcut(inputs, outputs)
        self.bn = nn.BatchNorm2d(outputs)
        self.soft = nn.Softmax(-2)
        self.relu = nn.ReLU()

    def adjacency(self, k: int, x: Tensor) -> Tensor:
        raise AssertionError

    def convolve(self, x: Tensor) -> Tensor:
        y = sum(self.conv_d[k](mix(x, self.adjacency(k, x))) for k in range(self.num_subset))
        return self.relu(self.bn(y) + self.down(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x)


class unit_gcn(AdaptiveGraph):
    """2s-AGCN: the skeleton (no buffer, as in the public code), a learnt part, attention between joints."""

    def __init__(self, inputs: int, outputs: int, A: Tensor) -> None:
        super().__init__(inputs, outputs, len(A))
        self.PA = nn.Parameter(torch.full_like(A, 1e-6))
        self.A = A.clone()
        self.conv_a = pointwise(len(A), inputs, self.inter_c)
        self.conv_b = pointwise(len(A), inputs, self.inter_c)

    def adjacency(self, k: int, x: Tensor) -> Tensor:
        return self.soft(similarity(self.conv_a[k], self.conv_b[k], x)) + self.A[k] + self.PA[k]


class unit_tcn(nn.Module):
    """Convolution over frames and BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 9, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, (kernel_size, 1), (stride, 1), ((kernel_size - 1) // 2, 0))
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class TCN_GCN_unit(nn.Module):
    """A block around any of these graph layers."""

    def __init__(
        self, gcn: nn.Module, inputs: int, outputs: int, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        self.gcn1 = gcn
        self.tcn1 = unit_tcn(outputs, outputs, stride=stride)
        self.relu = nn.ReLU()
        if not residual:
            self.residual = nothing
        elif inputs == outputs and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.tcn1(self.gcn1(x)) + self.residual(x))


class unit_aagcn(AdaptiveGraph):
    """MS-AAGCN: a learnt map, attention weighted by alpha, then gates for joints, frames and channels.

    The adjacency is ``A`` in pyskl and ``PA`` in the authors' code.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        A: Tensor,
        adaptive: bool = True,
        attention: bool = True,
        own: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, len(A))
        self.adaptive, self.attention = adaptive, attention
        self.learnt = "PA" if own else "A"
        if adaptive:
            setattr(self, self.learnt, nn.Parameter(A.clone()))
            self.alpha = nn.Parameter(torch.zeros(1))
            self.conv_a = pointwise(len(A), inputs, self.inter_c)
            self.conv_b = pointwise(len(A), inputs, self.inter_c)
        else:
            self.register_buffer("A", A.clone())
        if attention:
            joints = A.shape[1] - 1 + A.shape[1] % 2
            self.conv_ta = nn.Conv1d(outputs, 1, 9, padding=4)
            self.conv_sa = nn.Conv1d(outputs, 1, joints, padding=(joints - 1) // 2)
            self.fc1c = nn.Linear(outputs, outputs // 2)
            self.fc2c = nn.Linear(outputs // 2, outputs)
        self.tan = nn.Tanh()
        self.sigmoid = nn.Sigmoid()

    def adjacency(self, k: int, x: Tensor) -> Tensor:
        if not self.adaptive:
            return self.A[k]
        made = self.tan(similarity(self.conv_a[k], self.conv_b[k], x))
        return getattr(self, self.learnt)[k] + made * self.alpha

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolve(x)
        if self.attention:
            y = y + y * self.sigmoid(self.conv_sa(y.mean(2)))[:, :, None]
            y = y + y * self.sigmoid(self.conv_ta(y.mean(3)))[..., None]
            gate = self.fc2c(F.relu(self.fc1c(y.mean((2, 3)))))
            y = y + y * self.sigmoid(gate)[:, :, None, None]
        return y


class unit_gtcn_12(AdaptiveGraph):
    """GCN-NAS: a Chebyshev term of the skeleton, a learnt part, three kinds of attention between joints."""

    kinds = ("a", "T", "ST")
    terms = ("A_ch3",)

    def __init__(self, inputs: int, outputs: int, A: Tensor) -> None:
        super().__init__(inputs, outputs, len(A))
        self.PA = nn.Parameter(torch.full_like(A, 1e-6))
        self.A = A.clone()
        own = torch.eye(A.shape[1])
        if "A_ch3" in self.terms:
            self.A_ch3 = 4 * A**2 - A - 2 * own
        if "A_ch4s" in self.terms:
            self.A_ch4s = self.soft((8 * A**4 - 4 * A**2 - 4 * A + own) / A.shape[1])
        if "a" in self.kinds:
            self.conv_a = pointwise(len(A), inputs, self.inter_c)
            self.conv_b = pointwise(len(A), inputs, self.inter_c)
        if "T" in self.kinds:
            self.conv_T1 = over_frames(len(A), inputs, self.inter_c)
            self.conv_T2 = over_frames(len(A), inputs, self.inter_c)
        if "ST" in self.kinds:
            self.conv_ST11 = over_frames(len(A), inputs, self.inter_c, mixed=True)
            self.conv_ST12 = over_frames(len(A), inputs, self.inter_c, mixed=True)

    def adjacency(self, k: int, x: Tensor) -> Tensor:
        total = self.PA[k] + sum(getattr(self, term)[k] for term in self.terms)
        for kind, first, second in (
            ("a", "conv_a", "conv_b"),
            ("T", "conv_T1", "conv_T2"),
            ("ST", "conv_ST11", "conv_ST12"),
        ):
            if kind in self.kinds:
                total = total + self.soft(similarity(getattr(self, first)[k], getattr(self, second)[k], x))
        return total


class unit_gtcn_689(unit_gtcn_12):
    kinds = ("T",)


class unit_gtcn_7(unit_gtcn_12):
    terms = ("A_ch3", "A_ch4s")


class unit_gtcn_10(unit_gtcn_12):
    kinds = ("T",)
    terms = ()


class UnfoldTemporalWindows(nn.Module):
    """Windows of tau frames, their joints side by side: ``[N, C, T, tau V]``."""

    def __init__(self, tau: int) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        half = (self.tau - 1) // 2
        frames = x.shape[2]
        padded = F.pad(x, (0, 0, half, half))
        return torch.cat([padded[:, :, i : i + frames] for i in range(self.tau)], 3)


class S_LSU(AdaptiveGraph):
    """UNIK's spatial unit: learnt maps without a skeleton, attention between the joints of tau frames."""

    def __init__(self, inputs: int, outputs: int, joints: int, tau: int = 1, heads: int = 3) -> None:
        super().__init__(inputs, outputs, heads)
        self.tau, self.num_heads = tau, heads
        self.DepM = nn.Parameter(torch.rand(heads, joints * tau, joints * tau) * 0.1)
        self.bias = nn.Parameter(torch.zeros(joints * tau))  # nobody uses it
        if tau != 1:
            self.tw = UnfoldTemporalWindows(tau)
            self.out_conv = nn.Conv3d(outputs, outputs, (1, tau, 1))
            self.out_bn = nn.BatchNorm2d(outputs)
        self.conv_a = pointwise(heads, inputs, self.inter_c)
        self.conv_b = pointwise(heads, inputs, self.inter_c)

    def adjacency(self, k: int, x: Tensor) -> Tensor:
        return self.DepM[k] + self.soft(similarity(self.conv_a[k], self.conv_b[k], x))

    def forward(self, x: Tensor) -> Tensor:
        if self.tau == 1:
            return self.convolve(x)
        y = self.convolve(self.tw(x)).unflatten(3, (self.tau, -1))
        return self.out_bn(self.out_conv(y).squeeze(3))


class Model(nn.Module):
    """Ten blocks around graph layers ``graph(inputs, outputs, A)``: ``[N, C, T, V, M]`` to logits."""

    def __init__(
        self,
        A: Tensor,
        graph: type[AdaptiveGraph] = unit_aagcn,
        classes: int = 60,
        channels: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(2 * channels * A.shape[1])
        widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        for i, outputs in enumerate(widths):
            inputs = widths[i - 1] if i else channels
            stride = 2 if i and inputs != outputs else 1
            unit = TCN_GCN_unit(graph(inputs, outputs, A), inputs, outputs, stride, residual=i > 0)
            setattr(self, f"l{i + 1}", unit)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[0], x.shape[4]
        y = fold_persons(x, self.data_bn)
        for i in range(1, 11):
            y = getattr(self, f"l{i}")(y)
        return self.fc(y.view(n, m, y.shape[1], -1).mean(3).mean(1))
