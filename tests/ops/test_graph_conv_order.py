"""graph_conv sums over joints before or after it multiplies: which, and that both are right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

from .test_graph_conv import Case, make_case, plain

# C, O, V and whether the multiplication comes first, of a dense adjacency.
ORDERS = [(8, 3, 25, True), (3, 8, 25, False), (40, 40, 25, False), (256, 64, 25, True), (96, 192, 20, False)]


def huge_inputs(inputs: int, joints: int) -> tuple[Tensor, Tensor]:
    """Inputs whose sum over two joints overflows, and weights that bring them down to one."""
    x = torch.zeros(1, inputs, 9, joints)
    x[:, 0] = 3e38
    weight = torch.zeros(1, 1, inputs)
    weight[..., 0] = 1e-38
    return x, weight


@pytest.mark.parametrize("form", ["shared", "per_sample"])
@pytest.mark.parametrize(("inputs", "outputs", "joints", "first"), ORDERS)
def test_the_cheaper_order_is_chosen(
    on_backend: Any, form: str, inputs: int, outputs: int, joints: int, first: bool
) -> None:
    x, weight = huge_inputs(inputs, joints)
    weight = weight.expand(2, outputs, inputs)
    adjacency = torch.ones(2, joints, joints)
    with on_backend("native"):
        out = ops.graph_conv(x, weight, adjacency if form == "shared" else adjacency[None])
    assert bool(torch.isfinite(out).all()) == first


@pytest.mark.parametrize(("edges", "first"), [("into_one", False), ("out_of_one", True)])
def test_the_order_counts_empty_joints(on_backend: Any, edges: str, first: bool) -> None:
    # Joints that send to one make one sum to multiply; one that sends to many is multiplied once.
    x, weight = huge_inputs(32, 12)
    adjacency = torch.zeros(1, 12, 12)
    if edges == "into_one":
        adjacency[0, :12, 3] = 1.0
    else:
        x[..., 3] = 3e38
        adjacency[0, 3, :] = 2.0
    with on_backend("native"):
        out = ops.graph_conv(x, weight.expand(1, 32, 32), adjacency)
    assert bool(torch.isfinite(out).all()) == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["shared", "sparse", "per_sample"])
@pytest.mark.parametrize(
    "sizes", [(8, 3, 25, 25), (3, 40, 25, 25), (2, 5, 7, 40), (70, 20, 25, 18), (48, 80, 33, 25)]
)
@pytest.mark.parametrize("leaves", ["all", "x_weight", "weight", "adjacency"])
def test_both_orders_and_their_gradients(
    on_backend: Any, dtype: torch.dtype, form: str, sizes: tuple[int, int, int, int], leaves: str
) -> None:
    inputs, outputs, joints, targets = sizes
    case = make_case(
        form, dtype, "channels_last", sizes=(2, inputs, 23, joints, 3), outputs=outputs, targets=targets
    )
    chosen = {"all": (0, 1, 2), "x_weight": (0, 1), "weight": (1,), "adjacency": (2,)}[leaves]
    tensors = [case.x, case.weight, case.adjacency]
    exact = [t.detach().double() for t in tensors]
    for i in chosen:
        tensors[i] = tensors[i].detach().requires_grad_()
        exact[i].requires_grad_()
    assert case.bias is not None
    full = Case(exact[0], exact[1], exact[2], None).full
    expected = plain(exact[0], exact[1], full, case.bias.double())
    upstream = torch.randn(expected.shape, dtype=torch.float64).to(dtype)
    wanted = torch.autograd.grad(expected, [exact[i] for i in chosen], upstream.double())
    with on_backend("native"):
        out = Case(tensors[0], tensors[1], tensors[2], case.bias).run()
        grads = torch.autograd.grad(out, [tensors[i] for i in chosen], upstream)
    tolerance = (12 if dtype == torch.bfloat16 else 60) * torch.finfo(dtype).eps
    for got, want in zip([out, *grads], [expected, *wanted]):
        assert (got.double() - want).abs().max().item() <= tolerance * want.abs().max().item()
