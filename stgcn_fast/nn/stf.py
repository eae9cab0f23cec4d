"""The module of STF: a graph for every sample, learnt from what it should focus on.

    S = beta(X)        an estimate of the focus, [N, T, V]
    G_k = alpha_k(S)   added to the k-th adjacency, [N, K, V, W]

The gates of ``G_k`` begin at zero, so that a network begins as its backbone.

Source: Ke, Peng and Lyu, "Towards To-a-T Spatio-Temporal Focus for Skeleton-Based Action Recognition" (AAAI
2022), which gives G_k = alpha(beta(X)) and the loss ||Q - beta(X)||; the layers inside are chosen here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _norms as norms
from stgcn_fast.nn.focus import focus, last_focus, present, resampled, scaled, weighted

__all__ = [
    "ALPHAS",
    "ContextGraph",
    "FocusAdjacency",
    "FocusEstimate",
    "LowRankGraph",
    "focus",
    "last_focus",
    "present",
    "resampled",
    "scaled",
    "weighted",
]

ALPHAS = ("focus", "cen")
_REDUCTION = 8  # of the channels inside beta
_LEAST = 4  # channels inside beta where the input is coordinates


class FocusEstimate(nn.Module):
    """beta: a 1x1 convolution to an eighth of the channels, BatchNorm, ReLU, another to one, softplus.

    Args:
        in_channels: C.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        inner = max(in_channels // _REDUCTION, _LEAST)
        self.enter = nn.Conv2d(in_channels, inner, 1)
        self.norm = nn.BatchNorm2d(inner)
        self.leave = nn.Conv2d(inner, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` to ``[N, T, V]``, not negative."""
        entered, _ = formats.enter(x)
        y = norms.rectified(norms.convolved(entered, [self.enter], [self.norm]))
        rows = F.linear(y.permute(0, 2, 3, 1), self.leave.weight.flatten(1), self.leave.bias)
        return F.softplus(rows.squeeze(3))


class LowRankGraph(nn.Module):
    """alpha: means over P stretches of the clip, two linear maps to r features a joint, their products.

    ``G_k = g_k tanh(e1_k^T e2_k / r)`` with ``e_k = W_k S_P``, S_P being the means ``[P, V]`` of S; for any
    number of frames.

    Args:
        num_partitions: K.
        bins: P.
        rank: r.
    """

    def __init__(self, num_partitions: int, bins: int, rank: int) -> None:
        super().__init__()
        self.bins, self.rank = bins, rank
        self.source = nn.Parameter(torch.empty(num_partitions, rank, bins))
        self.target = nn.Parameter(torch.empty(num_partitions, rank, bins))
        self.gate = nn.Parameter(torch.zeros(num_partitions))
        for weight in (self.source, self.target):
            nn.init.normal_(weight, std=bins**-0.5)

    def forward(self, s: Tensor) -> Tensor:
        """``[N, T, V]`` to ``[N, K, V, W]``."""
        stretches = _stretches(s, self.bins)[:, None]  # [N, 1, P, V]
        product = (self.source @ stretches).mT @ (self.target @ stretches)
        return torch.tanh(product / self.rank) * self.gate[:, None, None]


class ContextGraph(nn.Module):
    """The other alpha: the context encoding of Dynamic-GCN (Ye et al. 2020), for clips of one length.

    Frames are squeezed to one by a linear map, V features make ``K V V`` by another, and columns have norm
    one, times the gate.

    Args:
        num_partitions: K.
        num_joints: V.
        frames: T where the module stands.
    """

    def __init__(self, num_partitions: int, num_joints: int, frames: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(frames, 1)
        self.expand = nn.Linear(num_joints, num_partitions * num_joints * num_joints)
        self.gate = nn.Parameter(torch.zeros(num_partitions))

    def forward(self, s: Tensor) -> Tensor:
        """``[N, T, V]`` to ``[N, K, V, W]``."""
        frames, joints = s.shape[1:]
        if frames != self.squeeze.in_features:
            rule = f"{self.squeeze.in_features} frames long in this layer (alpha 'cen')"
            raise ValueError(f"ContextGraph: s must be {rule}, got {frames}")
        context = self.squeeze(s.mT).squeeze(2)  # [N, V]
        graph = self.expand(context).view(len(s), -1, joints, joints)
        return F.normalize(graph, dim=2) * self.gate[:, None, None]


class FocusAdjacency(nn.Module):
    """One module: its estimate of the focus, and the adjacency that it makes of it.

    Args:
        in_channels: C.
        num_partitions: K, scales or partitions of the graph that the result is added to.
        num_joints: V.
        alpha: ``"focus"`` for :class:`LowRankGraph`, ``"cen"`` for :class:`ContextGraph`.
        bins: P of the first.
        rank: r of the first.
        frames: T of the second.

    Raises:
        ValueError: an unknown alpha, a number that is not positive, or no ``frames`` where they are needed.
    """

    def __init__(
        self,
        in_channels: int,
        num_partitions: int,
        num_joints: int,
        alpha: str = "focus",
        bins: int = 8,
        rank: int = 16,
        frames: int | None = None,
    ) -> None:
        super().__init__()
        if alpha not in ALPHAS:
            raise ValueError(f"FocusAdjacency: alpha must be one of {', '.join(ALPHAS)}, got {alpha!r}")
        for name, value in (("bins", bins), ("rank", rank)):
            if value < 1:
                raise ValueError(f"FocusAdjacency: {name} must be positive, got {value}")
        self.beta = FocusEstimate(in_channels)
        if alpha == "focus":
            self.alpha: nn.Module = LowRankGraph(num_partitions, bins, rank)
        elif frames is None or frames < 1:
            raise ValueError(f"FocusAdjacency: frames must be positive with alpha 'cen', got {frames}")
        else:
            self.alpha = ContextGraph(num_partitions, num_joints, frames)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, C, T, V]`` to the adjacency ``[N, K, V, W]`` and the estimate ``[N, T, V]``."""
        s = self.beta(x)
        return self.alpha(s), s


def _stretches(s: Tensor, bins: int) -> Tensor:
    """Means over ``bins`` stretches of the frames, ``[N, T, V]`` to ``[N, bins, V]``, as adaptive pooling."""
    frames = s.shape[1]
    # A product with a matrix: the derivative of adaptive pooling is not deterministic on every device.
    numbers = torch.arange(bins, device=s.device)[:, None]
    start, stop = numbers * frames // bins, -(-(numbers + 1) * frames // bins)
    places = torch.arange(frames, device=s.device)
    inside = ((places >= start) & (places < stop)).to(s.dtype)
    return (inside / inside.sum(1, keepdim=True)) @ s
