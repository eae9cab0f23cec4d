"""CTR-GCN, official and pyskl's, and multi-branch temporal modules, accelerated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from stgcn_fast.swap import accelerate
from twins import ctr_gcn, dg_st_gcn, pyskl_ctr_gcn
from twins.common import adjacency, lively
from twins.ms_tcn import MultiScale_TemporalConv

A = adjacency(11)


def clip(channels: int, frames: int = 9) -> torch.Tensor:
    return torch.randn(2, channels, frames, 11)


@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)])
@pytest.mark.parametrize("layer", [ctr_gcn.unit_gcn, pyskl_ctr_gcn.unit_ctrgcn])
def test_graph_layers(agree: Callable[..., None], layer: type[nn.Module], channels: tuple[int, int]) -> None:
    agree(layer(*channels, A), clip(channels[0]), ops=["graph_conv", "graph_conv_backward"])


@pytest.mark.parametrize("options", [{"residual": False}, {}, {"stride": 2}])
@pytest.mark.parametrize("unit", [ctr_gcn.TCN_GCN_unit, pyskl_ctr_gcn.CTRGCNBlock])
def test_units(agree: Callable[..., None], unit: type[nn.Module], options: dict) -> None:
    agree(unit(16, 16, A, **options), clip(16), taken=["", "gcn1", "tcn1"], ops=["graph_conv"])


def test_network(swapping: None) -> None:
    # Ten layers: in float32 a rounding error turns a rectifier and is a difference of its own.
    plain = ctr_gcn.Model(A, 4, width=8).double()
    fast = copy.deepcopy(plain)
    report = accelerate(fast)
    assert {"l1", "l5", "l10.tcn1", "l10.gcn1"} <= {row.name for row in report.taken}
    x = torch.randn(2, 3, 8, 11, 2).double()
    for model in (plain, fast):
        model(x).square().sum().backward()
    torch.testing.assert_close(fast(x), plain(x))
    for ours, theirs in zip(fast.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 9, 12])
def test_branches(agree: Callable[..., None], stride: int, frames: int) -> None:
    for layer in (
        MultiScale_TemporalConv(6, 12, 3, stride),
        MultiScale_TemporalConv(12, 12, 5, stride, (1, 2), residual=False, act=None, apart=True),
        pyskl_ctr_gcn.MSTCN(8, 13, 3, stride, (1, 2)),
        dg_st_gcn.mstcn(8, 14, stride=stride),
        dg_st_gcn.dgmstcn(8, 14, 11, stride=stride),
    ):
        agree(layer, clip(layer.branches[0][0].in_channels, frames), ops=["temporal_conv"])


def test_branches_that_keep_their_statistics_while_the_rest_trains(swapping: None) -> None:
    plain = lively(MultiScale_TemporalConv(12, 12))
    fast = copy.deepcopy(plain)
    accelerate(fast)
    x = clip(12)
    for model in (plain, fast):
        model.train()
        model.branches[1][1].eval()
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.branches[1][1].running_mean, plain.branches[1][1].running_mean)


@pytest.mark.parametrize("path", ["gcn1.convs.1", "tcn1.branches.0", "tcn1", "gcn1.bn", "residual.conv"])
def test_a_watched_layer_is_called(swapping: None, path: str) -> None:
    plain = lively(ctr_gcn.TCN_GCN_unit(16, 12, A, stride=2)).eval()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    calls = []
    fast.get_submodule(path).register_forward_hook(lambda *_: calls.append(1))
    x = clip(16)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-4)
    assert calls


def test_a_layer_that_sums_over_the_other_joint_is_left(swapping: None) -> None:
    class CTRGC(ctr_gcn.CTRGC):
        def forward(self, x, A=None, alpha=1):
            return super().forward(x, A.T, alpha)

    unit = lively(ctr_gcn.unit_gcn(16, 16, A))
    for conv in unit.convs:
        conv.__class__ = CTRGC
    report = accelerate(unit)
    assert "" not in {row.name for row in report.taken}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(swapping: None, memory_format: torch.memory_format) -> None:
    unit = lively(ctr_gcn.TCN_GCN_unit(16, 12, A)).train()
    accelerate(unit)
    x = clip(16).contiguous(memory_format=memory_format).requires_grad_()
    y = unit(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=memory_format)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=memory_format)
