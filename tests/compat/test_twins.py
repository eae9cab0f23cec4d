"""The plain twins are the published networks: parameters, names, shapes, and what tells them apart."""

from __future__ import annotations

import pytest
import torch

from stgcn_fast.graph import Graph, get_layout
from twins import block_gcn, ctr_gcn, dc_gcn, dg_st_gcn, hd_gcn, ms_g3d, pyskl_ctr_gcn


def adjacency(layout: str = "ntu25") -> torch.Tensor:
    return Graph(layout, partition="spatial", normalization="column").adjacency(torch.float32)


def binary(layout: str) -> torch.Tensor:
    """Bones, [V, V], both ways, without self-loops."""
    bones = get_layout(layout).edges
    out = torch.zeros(len(get_layout(layout).joints), len(get_layout(layout).joints))
    for child, parent in bones:
        out[child, parent] = out[parent, child] = 1
    return out


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("layout", "classes", "scales", "count"),
    [
        ("ntu25", 60, (13, 6), 3_194_595),
        ("ntu25", 120, (13, 6), 3_217_695),
        ("openpose18", 400, (8, 8), 3_144_328),
    ],
)
def test_ms_g3d_has_the_published_number_of_parameters(
    layout: str, classes: int, scales: tuple[int, int], count: int
) -> None:
    model = ms_g3d.Model(binary(layout), classes, num_gcn_scales=scales[0], num_g3d_scales=scales[1])
    assert parameters(model) == count
    keys = set(model.state_dict())
    for key in (
        "sgcn1.0.A_res",
        "sgcn1.0.mlp.layers.0.weight",
        "gcn3d2.gcn3d.1.gcn3d.1.A_res",
        "gcn3d2.gcn3d.1.gcn3d.1.mlp.layers.1.running_var",
        "gcn3d3.gcn3d.0.out_conv.weight",
        "gcn3d3.gcn3d.0.out_bn.bias",
        "tcn2.branches.0.3.conv.weight",
        "tcn2.branches.4.4.weight",
        "sgcn2.1.residual.conv.weight",
    ):
        assert key in keys
    assert not any("A_powers" in key or "A_scales" in key for key in keys)


def test_ctr_gcn_has_the_published_number_of_parameters() -> None:
    assert parameters(ctr_gcn.Model(adjacency())) == 1_446_672


def test_networks_score_clips() -> None:
    for model in (ms_g3d.Model(binary("ntu25"), 7, width=12), ctr_gcn.Model(adjacency(), 7, width=8)):
        assert model(torch.randn(2, 3, 8, 25, 2)).shape == (2, 7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(16, 16), (16, 32)])
def test_units_keep_their_shapes(channels: tuple[int, int], stride: int) -> None:
    a, levels = adjacency(), hd_gcn.hierarchy()
    units = [
        ctr_gcn.TCN_GCN_unit(*channels, a, stride),
        pyskl_ctr_gcn.CTRGCNBlock(*channels, a, stride),
        block_gcn.TCN_GCN_unit(*channels, a, stride),
        dc_gcn.TCN_GCN_unit(*channels, a, 8, stride=stride),
        dg_st_gcn.DGBlock(*channels, a, stride, gcn={"ratio": 0.25}),
        hd_gcn.TCN_GCN_unit(*channels, levels, stride),
    ]
    x = torch.randn(2, channels[0], 6, 25)
    for unit in units:
        y = unit(x, 1.0) if isinstance(unit, dc_gcn.TCN_GCN_unit) else unit(x)
        assert y.shape == (2, channels[1], 6 // stride, 25)
        assert y.min() >= 0


def test_official_and_pyskl_ctr_gcn_sum_over_different_joints() -> None:
    official, other = ctr_gcn.CTRGC(32, 8), pyskl_ctr_gcn.CTRGC(32, 8)
    other.load_state_dict(official.state_dict())
    x, a = torch.randn(1, 32, 4, 25), torch.rand(25, 25)
    with torch.no_grad():
        assert (official(x, a, 0.5) - other(x, a, 0.5)).abs().max() > 0.1
        torch.testing.assert_close(official(x, a, 0.0), other(x, a.T.contiguous(), 0.0))


def test_ms_g3d_scales_are_disjoint_rings_around_each_joint() -> None:
    hops = ms_g3d.scales(binary("ntu25"), 13).view(13, 25, 25)
    torch.testing.assert_close(hops[0], torch.eye(25))
    rings = (hops > 0).float() - torch.eye(25)
    assert rings[1:].sum(0).max() == 1
    torch.testing.assert_close(rings[1], binary("ntu25"))


def test_drop_graph_rescales_what_it_keeps() -> None:
    drop = dc_gcn.DropBlock_Ske(25)
    y = drop(torch.ones(4, 2, 3, 25), 0.7, adjacency().sum(0))
    assert 0 < (y == 0).float().mean() < 1
    torch.testing.assert_close(y.mean(), torch.tensor(1.0))
