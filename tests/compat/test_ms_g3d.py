"""MS-G3D's layers, official and pyskl's, accelerated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from stgcn_fast.swap import accelerate
from twins import ms_g3d, pyskl_ms_g3d
from twins.common import lively

CHAIN = torch.diag(torch.ones(6), 1) + torch.diag(torch.ones(6), -1)  # 7 joints in a row


@pytest.mark.parametrize("layer", [ms_g3d.MultiScale_GraphConv, pyskl_ms_g3d.MSGCN])
@pytest.mark.parametrize("channels", [3, 12])
def test_scales(agree: Callable[..., None], layer: type[nn.Module], channels: int) -> None:
    ops = ["graph_conv"] if channels == 12 else ["graph_conv", "temporal_conv"]
    agree(layer(4, channels, 8, CHAIN), torch.randn(2, channels, 9, 7), ops=ops)


@pytest.mark.parametrize("layer", [ms_g3d.MS_G3D, pyskl_ms_g3d.MSG3DBlock])
@pytest.mark.parametrize(
    ("channels", "window", "stride", "dilation"),
    [((3, 12), 3, 1, 1), ((3, 12), 5, 1, 2), ((12, 16), 3, 2, 1), ((12, 8), 5, 2, 1)],
)
def test_windows(
    agree: Callable[..., None],
    layer: type[nn.Module],
    channels: tuple[int, int],
    window: int,
    stride: int,
    dilation: int,
) -> None:
    module = layer(*channels, CHAIN, 3, window, stride, dilation)
    agree(module, torch.randn(2, channels[0], 9, 7), ops=["temporal_conv", "temporal_conv_grad_weight"])


def test_windows_of_embedded_channels(agree: Callable[..., None]) -> None:
    module = pyskl_ms_g3d.MSG3DBlock(6, 12, CHAIN, 3, 3, 2, embed_factor=2)
    agree(module, torch.randn(2, 6, 8, 7), ops=["temporal_conv"])


def test_one_frame_and_one_sample(agree: Callable[..., None]) -> None:
    agree(ms_g3d.MS_G3D(12, 8, CHAIN, 3, 3, 2), torch.randn(1, 12, 1, 7).repeat(1, 1, 2, 1))


def test_network(swapping: None) -> None:
    # Many layers: in float32 a rounding error turns a rectifier and is a difference of its own.
    plain = ms_g3d.Model(CHAIN, 4, num_gcn_scales=4, num_g3d_scales=3, width=12).double()
    fast = copy.deepcopy(plain)
    taken = {row.name for row in accelerate(fast).taken}
    assert {"sgcn1.0", "sgcn2.1", "sgcn3.2", "gcn3d1.gcn3d.0", "gcn3d3.gcn3d.1", "tcn2"} <= taken
    x = torch.randn(2, 3, 8, 7, 2).double()
    for model in (plain, fast):
        model(x).square().sum().backward()
    torch.testing.assert_close(fast(x), plain(x))
    for ours, theirs in zip(fast.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", ["gcn3d.0", "gcn3d.1.mlp.layers.1", "out_conv", "gcn3d.1"])
def test_a_watched_layer_is_called(swapping: None, path: str) -> None:
    plain = lively(ms_g3d.MS_G3D(12, 8, CHAIN, 3, 3, 2)).eval()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    calls = []
    fast.get_submodule(path).register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 12, 8, 7)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-4)
    assert calls
