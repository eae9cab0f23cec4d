"""Accelerated units of every family under torch.compile, autocast, and twice differentiated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo_config

from stgcn_fast.swap import accelerate
from twins import block_gcn, ctr_gcn, dc_gcn, dg_st_gcn, hd_gcn, ms_g3d, pyskl_ctr_gcn
from twins.common import adjacency, lively

A = adjacency(9)
GROUPS = ([1], [2, 3], [4, 5, 6], [7, 8, 9])
CHAIN = (A.sum(0) + A.sum(0).T > 0).float() - torch.eye(9)
UNITS: dict[str, Callable[[], nn.Module]] = {
    "ctr": lambda: ctr_gcn.TCN_GCN_unit(16, 12, A, 2),
    "pyskl": lambda: pyskl_ctr_gcn.CTRGCNBlock(16, 16, A),
    "block": lambda: block_gcn.TCN_GCN_unit(16, 16, A),
    "dc": lambda: dc_gcn.unit_gcn(16, 16, A + 0.5, 4),
    "dg": lambda: dg_st_gcn.DGBlock(16, 16, A),
    "hd": lambda: hd_gcn.TCN_GCN_unit(16, 16, hd_gcn.hierarchy(GROUPS, 9), att=False),
    "scales": lambda: ms_g3d.MultiScale_GraphConv(4, 16, 8, CHAIN),
    "windows": lambda: ms_g3d.MS_G3D(16, 8, CHAIN, 3, 3, 2),
}
pytestmark = pytest.mark.usefixtures("swapping")


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    plain = lively(UNITS[name]())
    fast = copy.deepcopy(plain)
    assert accelerate(fast).taken
    return plain, fast


@pytest.mark.parametrize("name", ["ctr", "dc", "windows"])  # the others hold too, and take longest
def test_one_compilation_serves_any_batch_and_length(name: str) -> None:
    torch.compiler.reset()
    plain, fast = (model.train() for model in pair(name))
    compiled = torch.compile(fast, fullgraph=True, dynamic=True, backend="eager")
    for i, (n, t) in enumerate([(5, 8), (4, 14), (6, 11)]):
        x = torch.randn(n, 16, t, 9)
        with dynamo_config.patch(error_on_recompile=i > 1), torch.no_grad():
            torch.testing.assert_close(compiled(x), plain(x), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", UNITS)
def test_autocast(name: str) -> None:
    plain, fast = (model.train() for model in pair(name))
    x = torch.randn(4, 16, 12, 9)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = fast(x.clone().requires_grad_()), plain(x.clone())
        ours.float().square().mean().backward()
    error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
    assert error < 0.05
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in fast.parameters())


@pytest.mark.parametrize("name", UNITS)
def test_twice_differentiated(name: str) -> None:
    results = []
    plain, fast = (model.double().eval() for model in pair(name))
    x = torch.randn(2, 16, 6, 9).double()
    for model in (plain, fast):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(leaf * 1).pow(3).sum(), leaf, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6 * float(results[0].abs().max()))


@pytest.mark.parametrize("name", ["ctr", "pyskl", "hd", "scales"])  # the others' own forwards refuse it
def test_no_samples(name: str) -> None:
    plain, fast = (model.eval() for model in pair(name))
    x = torch.randn(0, 16, 8, 9)
    assert fast(x).shape == plain(x).shape
