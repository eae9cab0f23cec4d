"""BlockGCN's and HD-GCN's layers, accelerated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from stgcn_fast.swap import accelerate
from twins import block_gcn, hd_gcn
from twins.common import adjacency, lively

A = adjacency(9)
GROUPS = ([1], [2, 3], [4, 5, 6], [7, 8, 9])
LEVELS = hd_gcn.hierarchy(GROUPS, 9)


def hd_layer(*channels: int, **options: object) -> hd_gcn.HD_Gconv:
    layer = hd_gcn.HD_Gconv(*channels, LEVELS, **options)
    if layer.att:
        layer.aha = hd_gcn.AHA(channels[1], len(LEVELS), GROUPS)
    return layer


@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)])
def test_block_gcn_layers(agree: Callable[..., None], channels: tuple[int, int]) -> None:
    agree(block_gcn.unit_gcn(*channels, A), torch.randn(2, channels[0], 7, 9), ops=["graph_conv"])


@pytest.mark.parametrize("stride", [1, 2])
def test_block_gcn_units(agree: Callable[..., None], stride: int) -> None:
    unit = block_gcn.TCN_GCN_unit(16, 16, A, stride)
    agree(unit, torch.randn(2, 16, 7, 9), taken=["", "gcn1", "tcn1"])


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)])
def test_hd_gcn_layers(agree: Callable[..., None], channels: tuple[int, int], attention: bool) -> None:
    layer = hd_layer(*channels, att=attention, residual=channels[0] != 3)
    agree(layer, torch.randn(2, channels[0], 7, 9), ops=["graph_conv", "temporal_conv"])


@pytest.mark.parametrize("stride", [1, 2])
def test_hd_gcn_units(agree: Callable[..., None], stride: int) -> None:
    unit = hd_gcn.TCN_GCN_unit(16, 16, LEVELS, stride, att=False)
    unit.gcn1 = hd_layer(16, 16, att=True)
    agree(unit, torch.randn(2, 16, 7, 9), taken=["", "gcn1", "tcn1"])


@pytest.mark.parametrize(
    "path", ["gcn1.conv.1.0", "gcn1.conv.2.3.conv", "gcn1.aha.edge_conv", "gcn1.conv_down.0"]
)
def test_a_watched_layer_is_called(swapping: None, path: str) -> None:
    plain = hd_gcn.TCN_GCN_unit(16, 16, LEVELS, att=False)
    plain.gcn1 = hd_layer(16, 16, att=True)
    lively(plain).eval()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    calls = []
    fast.get_submodule(path).register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 16, 7, 9)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-4)
    assert calls


def test_a_layer_of_another_width_runs_plain_and_says_so_itself(swapping: None) -> None:
    layer = block_gcn.unit_gcn(16, 16, A)
    accelerate(layer)
    before = layer.bn.running_mean.clone()
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 8, 7, 9))
    assert torch.equal(layer.bn.running_mean, before)
