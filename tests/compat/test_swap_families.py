"""Layers of the families, accelerated, against themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from twins import agcn, attention, partitioned, pyskl, shift_gcn
from twins.common import adjacency

Agree = Callable[..., None]
JOINTS = 11
A = adjacency(JOINTS)


def clip(channels: int, frames: int = 9, joints: int = JOINTS) -> Tensor:
    return torch.randn(2, channels, frames, joints)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adaptive": "init", "with_res": True},
        {"adaptive": None},
        {"adaptive": "offset"},
        {"conv_pos": "post", "with_res": True},
    ],
)
@pytest.mark.parametrize("channels", [(5, 18), (8, 8)])
def test_pyskl_unit(agree: Agree, options: dict, channels: tuple[int, int]) -> None:
    agree(pyskl.unit_gcn(*channels, A, **options), clip(channels[0]), ops=["graph_conv"])


@pytest.mark.parametrize("options", [{"residual": False}, {"stride": 2}, {}])
def test_pyskl_block(agree: Agree, options: dict) -> None:
    block = pyskl.STGCNBlock(8, 8, A, **options)
    agree(block, clip(8, 13), taken=["", "gcn"], ops=["st_block", "st_block_train"])


def test_pyskl_block_of_st_gcn_plus_plus(agree: Agree) -> None:
    block = pyskl.STGCNBlock(16, 96, A, stride=2, plus=True)
    taken = [
        "gcn",
        "tcn.branches.0.0",
        "tcn.branches.1.3.conv",
        "tcn.branches.5",
        "tcn.transform.2",
        "residual.conv",
    ]
    agree(block, clip(16, 13), taken=taken, ops=["graph_conv", "temporal_conv"])


def test_sgn_of_pyskl(agree: Agree) -> None:
    agree(pyskl.unit_sgn(5, 7, bias=True), clip(5), torch.rand(2, 9, JOINTS, JOINTS), ops=["graph_conv"])


@pytest.mark.parametrize("channels", [(3, 8), (16, 16)])
def test_agcn(agree: Agree, channels: tuple[int, int]) -> None:
    block = agcn.TCN_GCN_unit(agcn.unit_gcn(*channels, A), *channels, residual=channels[0] > 3)
    agree(block, clip(channels[0]), taken=["gcn1"], ops=["graph_conv"])


@pytest.mark.parametrize("options", [{}, {"own": True}, {"adaptive": False}, {"attention": False}])
@pytest.mark.parametrize("joints", [11, 18])
def test_aagcn(agree: Agree, options: dict, joints: int) -> None:
    layer = agcn.unit_aagcn(4, 8, adjacency(joints), **options)
    agree(layer, clip(4, joints=joints), ops=["graph_conv"])


@pytest.mark.parametrize("kind", [agcn.unit_gtcn_12, agcn.unit_gtcn_689, agcn.unit_gtcn_7, agcn.unit_gtcn_10])
def test_gcn_nas(agree: Agree, kind: type[nn.Module]) -> None:
    agree(kind(16, 8, A), clip(16), ops=["graph_conv", "temporal_conv"])


@pytest.mark.parametrize("tau", [1, 3])
def test_unik(agree: Agree, tau: int) -> None:
    agree(agcn.S_LSU(4, 8, JOINTS, tau), clip(4), ops=["graph_conv"])


def test_pa_res_gcn(agree: Agree) -> None:
    block = partitioned.Spatial_Bottleneck_Block(8, 16, 2, residual=True)
    agree(block, clip(8), torch.rand(4, JOINTS, JOINTS), taken=["conv"], ops=["graph_conv"])


@pytest.mark.parametrize("edge", [True, False])
def test_efficient_gcn(agree: Agree, edge: bool) -> None:
    agree(partitioned.SpatialGraphConv(4, 6, 2, A, bias=edge, edge=edge), clip(4), ops=["graph_conv"])
    if edge:
        agree(partitioned.Spatial_Graph_Layer(4, 6, 2, A), clip(4), taken=["conv"], ops=["graph_conv"])


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"residual": True, "stride": 2}])
def test_kth(agree: Agree, options: dict) -> None:
    block = partitioned.SpatialTemporalConv(16, 16, A, **options)
    agree(block, clip(16), taken=["spatialConv", "temporalConv"], ops=["graph_conv", "temporal_conv"])


@pytest.mark.parametrize("channels", [(3, 8), (8, 8)])
def test_pst_gcn(agree: Agree, channels: tuple[int, int]) -> None:
    agree(partitioned.GraphConvolution(*channels, A), clip(channels[0]), ops=["graph_conv"])


@pytest.mark.parametrize("given", [False, True])
def test_info_gcn(agree: Agree, given: bool) -> None:
    inputs = [clip(8), torch.rand(18, 3, JOINTS, JOINTS)][: 1 + given]
    if given:  # the layer's own attention then has no gradient
        layer = attention.SA_GC(8, 8, A)
        layer.attn.requires_grad_(False)
    else:
        layer = attention.SA_GC(8, 12, A)
    agree(layer, *inputs, ops=["graph_conv"])


def test_ada_sgn(agree: Agree) -> None:
    layer = attention.gcn_spa(6, 8, bias=True)
    agree(layer, torch.randn(2, 6, JOINTS, 9), torch.rand(2, 9, JOINTS, JOINTS), ops=["graph_conv"])


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "glo_reg_t": False}, {"use_temporal_att": False}],
)
def test_dsta_net(agree: Agree, options: dict) -> None:
    inputs = 4 if "stride" in options else 8
    block = attention.STAttentionBlock(inputs, 8, 3, 2, JOINTS, 9, **options)
    agree(block, clip(inputs), ops=["graph_conv"])


@pytest.mark.parametrize("channels", [(16, 16), (4, 24)])
def test_shift_gcn_between_joints(agree: Agree, channels: tuple[int, int]) -> None:
    agree(shift_gcn.Shift_gcn(*channels, JOINTS), clip(channels[0]), ops=["temporal_conv"])


@pytest.mark.parametrize("stride", [1, 2])
def test_shift_gcn_between_frames(agree: Agree, stride: int) -> None:
    agree(shift_gcn.Shift_tcn(16, 24, stride), clip(16, 12), ops=["temporal_conv"])
