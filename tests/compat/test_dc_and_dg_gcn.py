"""DC-GCN's and DG-STGCN's layers, accelerated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from stgcn_fast.swap import accelerate
from twins import dc_gcn, dg_st_gcn
from twins.common import adjacency, lively

A = adjacency(9)


@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)])
def test_dc_gcn_layers(agree: Callable[..., None], channels: tuple[int, int]) -> None:
    layer = dc_gcn.unit_gcn(*channels, A + 0.5, groups=4)
    agree(layer, torch.randn(2, channels[0], 7, 9), ops=["graph_conv", "graph_conv_backward"])


def test_dc_gcn_statistics_far_from_zero(swapping: None) -> None:
    """Mean and variance by moments: an offset of a hundred standard deviations costs little."""
    plain = lively(dc_gcn.unit_gcn(16, 16, A + 0.5, groups=4)).train()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    x = 100 + torch.randn(2, 16, 7, 9)
    exact = copy.deepcopy(plain).double()
    expected = exact(x.double())
    torch.testing.assert_close(fast(x).double(), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(fast.bn0.running_var.double(), exact.bn0.running_var, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.bn0.running_mean.double(), exact.bn0.running_mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"subset_wise": True}, {"ctr": None}, {"ada": None}, {"ctr": None, "ada": None}],
)
def test_dg_st_gcn_layers(agree: Callable[..., None], options: dict) -> None:
    layer = dg_st_gcn.dggcn(16, 16, A, **options)
    agree(layer, torch.randn(2, 16, 7, 9), ops=["graph_conv"])


def test_dg_st_gcn_maps_of_frames_are_left(swapping: None) -> None:
    layer = dg_st_gcn.dggcn(16, 16, A, ctr="NA")
    report = accelerate(layer)
    assert "differ from frame to frame" in str(report)
    assert "" not in {row.name for row in report.taken}


@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)])
@pytest.mark.parametrize("stride", [1, 2])
def test_dg_st_gcn_blocks(agree: Callable[..., None], channels: tuple[int, int], stride: int) -> None:
    block = dg_st_gcn.DGBlock(*channels, A, stride, residual=channels[0] != 3)
    agree(block, torch.randn(2, channels[0], 7, 9), taken=["", "gcn", "tcn"])


@pytest.mark.parametrize("path", ["gcn.pre.1", "gcn.post", "tcn.transform", "tcn.branches.2"])
def test_a_watched_layer_is_called(swapping: None, path: str) -> None:
    plain = lively(dg_st_gcn.DGBlock(16, 16, A)).eval()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    calls = []
    fast.get_submodule(path).register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 16, 7, 9)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-4)
    assert calls
