"""The public ST-GCN, accelerated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from twins import st_gcn

A = torch.rand(3, 11, 11) * (torch.rand(3, 11, 11) > 0.7)


@pytest.mark.parametrize("frames", [1, 14])
def test_graph_convolution(agree: Callable[..., None], frames: int) -> None:
    agree(st_gcn.ConvTemporalGraphical(5, 7, 3), torch.randn(2, 5, frames, 11), A, ops=["graph_conv"])


@pytest.mark.parametrize("options", [{"residual": False}, {}, {"stride": 2}])
def test_block(agree: Callable[..., None], options: dict) -> None:
    inputs = 4 if options else 8
    block = st_gcn.st_gcn(inputs, 8, (5, 3), **options)
    ops = ["st_block", "st_block_train", "graph_conv"]
    agree(block, torch.randn(2, inputs, 15, 11), A, taken=["", "gcn"], ops=ops)


@pytest.mark.parametrize("importance", [True, False])
def test_network(agree: Callable[..., None], importance: bool) -> None:
    model = st_gcn.Model(3, 4, 11, (8, 8, 12), importance, taps=5)
    agree(model, torch.randn(2, 3, 15, 11, 2), taken=["", "st_gcn_networks.2", "st_gcn_networks.0.gcn"])


def test_parameters_are_those_of_the_public_network() -> None:
    assert sum(p.numel() for p in st_gcn.Model().parameters()) == 3_098_832
