"""Twin of EfficientGCN (Song et al., TPAMI 2022), and of its reader's three inputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from twins.partitioned import Spatial_Graph_Layer


def norm(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


def depthwise(channels: int, taps: int, stride: int = 1) -> nn.Sequential:
    return norm(nn.Conv2d(channels, channels, (taps, 1), (stride, 1), (taps // 2, 0), groups=channels))


class Temporal(nn.Module):
    """What the temporal layers share: a residual connection, strided if they are."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.residual: nn.Module = nn.Identity()
        if stride > 1:
            self.residual = norm(nn.Conv2d(channels, channels, 1, (stride, 1)))


class Basic(Temporal):
    def __init__(self, channels: int, taps: int, stride: int = 1, ratio: int = 1) -> None:
        super().__init__(channels, stride)
        self.conv = nn.Conv2d(channels, channels, (taps, 1), (stride, 1), (taps // 2, 0))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + self.residual(x))


class Separable(Temporal):
    def __init__(self, channels: int, taps: int, stride: int, ratio: int) -> None:
        super().__init__(channels, stride)
        wide = ratio * channels if ratio else channels
        if ratio:
            self.expand_conv = norm(nn.Conv2d(channels, wide, 1))
        self.depth_conv = depthwise(wide, taps, stride)
        self.point_conv = norm(nn.Conv2d(wide, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand_conv(x)) if hasattr(self, "expand_conv") else x
        return self.point_conv(self.act(self.depth_conv(y))) + self.residual(x)


class Sandglass(Temporal):
    def __init__(self, channels: int, taps: int, stride: int, ratio: int) -> None:
        super().__init__(channels, stride)
        self.depth_conv1 = depthwise(channels, taps)
        self.point_conv1 = norm(nn.Conv2d(channels, channels // ratio, 1))
        self.point_conv2 = norm(nn.Conv2d(channels // ratio, channels, 1))
        self.depth_conv2 = depthwise(channels, taps, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.point_conv2(self.point_conv1(self.act(self.depth_conv1(x)))))
        return self.depth_conv2(y) + self.residual(x)


class Gates(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = channels // reduction
        self.fcn = nn.Sequential(nn.Conv2d(channels, narrow, 1), nn.BatchNorm2d(narrow), nn.Hardswish())
        self.conv_t = nn.Conv2d(narrow, channels, 1)
        self.conv_v = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        over_joints = self.fcn(torch.cat([x.mean(3), x.mean(2)], 2)[..., None])
        t = x.shape[2]
        frames, joints = over_joints[:, :, :t], over_joints[:, :, t:]
        return torch.sigmoid(self.conv_t(frames)) * torch.sigmoid(self.conv_v(joints)).mT


class Attention(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.att = Gates(channels, reduction)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.bn(self.att(x) * x))


LAYERS = {"basic": Basic, "sep": Separable, "sg": Sandglass}


class EfficientGCN(nn.Module):
    """Takes what :func:`three_inputs` makes, ``[N, 3, 2 C, T, V, M]``."""

    def __init__(
        self,
        A: Tensor,
        classes: int,
        channels: int,
        blocks: list[tuple[int, int, int]],
        kind: str,
        ratio: int,
        stem: int = 16,
        taps: int = 5,
        reduction: int = 4,
    ) -> None:
        super().__init__()
        self.A, self.kind, self.taps, self.ratio, self.reduction = A, kind, taps, ratio, reduction
        entrances = []
        for _ in range(3):
            first = {
                "init_bn": nn.BatchNorm2d(2 * channels),
                "stem_scn": Spatial_Graph_Layer(2 * channels, stem, len(A) - 1, A),
                "stem_tcn": Basic(stem, taps),
            }
            entrances.append(self.stream(first, stem, blocks[:2]))
        self.input_branches = nn.ModuleList(entrances)
        self.main_stream = self.stream({}, 3 * blocks[1][0], blocks[2:])
        self.classifier = nn.Sequential()
        self.classifier.add_module("gap", nn.AdaptiveAvgPool3d(1))
        self.classifier.add_module("fc", nn.Conv3d(blocks[-1][0], classes, 1))

    def stream(
        self, parts: dict[str, nn.Module], width: int, blocks: list[tuple[int, int, int]]
    ) -> nn.Module:
        for i, (outputs, stride, depth) in enumerate(blocks):
            parts[f"block-{i}_scn"] = Spatial_Graph_Layer(width, outputs, len(self.A) - 1, self.A)
            for j in range(depth):
                step = 1 if j else stride
                parts[f"block-{i}_tcn-{j}"] = LAYERS[self.kind](outputs, self.taps, step, self.ratio)
            parts[f"block-{i}_att"] = Attention(outputs, self.reduction)
            width = outputs
        found = nn.Sequential()
        for name, part in parts.items():
            found.add_module(name, part)
        return found

    def forward(self, x: Tensor) -> Tensor:
        n, _, c, t, v, m = x.shape
        clips = x.permute(1, 0, 5, 2, 3, 4).reshape(3, n * m, c, t, v)
        y = self.main_stream(torch.cat([run(clip) for run, clip in zip(self.input_branches, clips)], 1))
        return self.classifier(y.unflatten(0, (n, m)).permute(0, 2, 3, 4, 1)).flatten(1)


def three_inputs(clip: np.ndarray, towards: list[int], reference: int) -> np.ndarray:
    """Joints, velocities and bones ``[3, 2 C, T, V, M]`` of a clip ``[C, T, V, M]``, number by number."""
    c, t, v, _ = clip.shape
    found = np.zeros((3, 2 * c, *clip.shape[1:]))
    for j in range(v):
        found[0, :c, :, j] = clip[:, :, j]
        found[0, c:, :, j] = clip[:, :, j] - clip[:, :, reference]
        found[2, :c, :, j] = clip[:, :, j] - clip[:, :, towards[j]]
    for i in range(t - 2):
        found[1, :c, i] = clip[:, i + 1] - clip[:, i]
        found[1, c:, i] = clip[:, i + 2] - clip[:, i]
    length = np.sqrt((found[2, :c] ** 2).sum(0)) + 1e-4
    found[2, c:] = np.arccos(found[2, :c] / length)
    return found
