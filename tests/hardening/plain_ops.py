"""The ops as their formulas read, in plain float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def graph_conv(
    x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None, mask: Tensor | None, **form: Any
) -> Tensor:
    """Sum over partitions and source joints."""
    y = torch.einsum("koc,nctv->nkotv", weight, x)
    if bias is not None:
        y = y + bias[:, :, None, None]
    if mask is not None:
        adjacency = adjacency * mask
    if form["per_frame"]:
        return torch.einsum("nkotv,ntkvw->notw", y, adjacency)
    if form["groups"]:
        return torch.einsum("nkotv,kvw->notw", y, adjacency[:, 0])
    letters = {3: "kvw", 4: "nkvw", 5: "nkovw"}[adjacency.dim()]
    return torch.einsum(f"nkotv,{letters}->notw", y, adjacency)


def temporal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    fast: bool | None,
) -> Tensor:
    """A convolution along the frames."""
    return conv2d(x, weight, bias, (stride, 1), (padding, 0), (dilation, 1))


def window_graph_conv(
    x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None, window: int, stride: int, dilation: int
) -> Tensor:
    """Lays the windows out, then convolves."""
    n, c, t, v = x.shape
    reach = dilation * (window // 2)
    padded = pad(x, (0, 0, reach, reach))
    frames = [padded[:, :, a * dilation : a * dilation + t : stride] for a in range(window)]
    windows = torch.stack(frames, 3).reshape(n, c, -1, window * v)
    y = torch.einsum("koc,nctv,kvw->notw", weight, windows, adjacency)
    return y if bias is None else y + bias[:, None, None]


def st_block(
    x: Tensor, graph_weight: Tensor, adjacency: Tensor, temporal_weight: Tensor, **rest: Any
) -> Tensor:
    """Graph convolution, normalisation, ReLU, temporal convolution, normalisation, residual, ReLU."""

    def normalise(y: Tensor, number: int) -> Tensor:
        scale, shift = rest[f"scale{number}"], rest[f"shift{number}"]
        y = y if scale is None else y * scale[:, None, None]
        return y if shift is None else y + shift[:, None, None]

    h = graph_conv(x, graph_weight, adjacency, rest["graph_bias"], None, per_frame=False, groups=None)
    h = normalise(h, 1).relu()
    z = conv2d(h, temporal_weight, None, (rest["stride"], 1), (temporal_weight.shape[2] // 2, 0))
    z = normalise(z, 2)
    if rest["residual_weight"] is not None:
        kernel = rest["residual_weight"][:, :, None, None]
        z = z + conv2d(x, kernel, rest["residual_shift"], (rest["stride"], 1))
    elif rest["residual"]:
        z = z + x
    return z.relu()


def dtw_pairwise_distance(X: Tensor, window: int | float | None) -> Tensor:
    """Dynamic programming, one cell after another."""
    count, frames, _ = X.shape
    radius = frames if window is None else int(window * frames + 0.5) if isinstance(window, float) else window
    out = X.new_zeros(count, count)
    for i in range(count):
        for j in range(count):
            table = [[float("inf")] * (frames + 1) for _ in range(frames + 1)]
            table[0][0] = 0.0
            for s in range(1, frames + 1):
                for t in range(max(1, s - radius), min(frames, s + radius) + 1):
                    least = min(table[s - 1][t], table[s][t - 1], table[s - 1][t - 1])
                    table[s][t] = float((X[i, s - 1] - X[j, t - 1]).square().sum()) + least
            out[i, j] = table[frames][frames] ** 0.5
    return out
