"""Orders of the layers within a block: each is what its name says, layer by layer."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.nn import STGCNBlock

# As the documentation lists them.
ORDERS = {
    "pre_activation": "norm relu graph norm relu temporal dropout sum",
    "norm_ends": "norm graph temporal norm sum relu dropout",
    "norm_start": "norm graph temporal sum relu dropout",
    "norm_last": "norm graph temporal sum relu norm dropout",
    "no_norm": "graph temporal sum relu dropout",
    "of one's own": "relu graph norm temporal relu norm sum dropout norm",
}
KINDS = {
    "identity": {"in_channels": 4, "out_channels": 4},
    "projection": {"in_channels": 3, "out_channels": 5, "stride": 2},
    "none": {"in_channels": 3, "out_channels": 4, "residual": False},
}


def make(order: str, kind: str = "identity", **options: Any) -> STGCNBlock:
    """A block far from its initial values, with nothing at zero."""
    given = ORDERS[order].split() if order == "of one's own" else order
    block = STGCNBlock(num_partitions=2, temporal_kernel=3, order=given, **(KINDS[kind] | options)).double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 1.5)
    return block


def inputs(block: STGCNBlock, n: int = 3, t: int = 7, v: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(n, block.gcn.in_channels, t, v, dtype=torch.float64)
    return x, torch.rand(2, v, v, dtype=torch.float64), torch.rand(2, v, v, dtype=torch.float64)


def written_out(block: STGCNBlock, order: str, x: Tensor, adjacency: Tensor) -> Tensor:
    """The block from torch's functions, one word after another."""
    parts = (block.before, block.tcn, block.after)
    norms = iter([layer for part in parts for layer in part if isinstance(layer, nn.BatchNorm2d)])
    (conv,) = (layer for layer in block.tcn if isinstance(layer, nn.Conv2d))
    y = x
    for word in ORDERS[order].split():
        if word == "norm":
            norm = next(norms)
            statistics = (None, None) if norm.training else (norm.running_mean, norm.running_var)
            y = F.batch_norm(y, *statistics, norm.weight, norm.bias, norm.training, eps=norm.eps)
        elif word == "relu":
            y = F.relu(y)
        elif word == "graph":
            weight = block.gcn.conv.weight[:, :, 0, 0].unflatten(0, (2, -1))
            bias = block.gcn.conv.bias.unflatten(0, (2, -1))
            y = torch.einsum("koc,nctv,kvw->notw", weight, y, adjacency)
            y = y + torch.einsum("ko,kvw->ow", bias, adjacency)[:, None]
        elif word == "temporal":
            y = F.conv2d(y, conv.weight, conv.bias, conv.stride, (1, 0))
        elif word == "sum" and isinstance(block.residual, nn.Identity):
            y = y + x
        elif word == "sum" and block.residual is not None:
            y = y + F.conv2d(x, block.residual.weight, block.residual.bias, conv.stride)
    assert next(norms, None) is None
    return y


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_block_is_its_order_with_its_gradients(order: str, kind: str, training: bool, calls: Any) -> None:
    block = make(order, kind).train(training)
    plain = copy.deepcopy(block)
    x, edges, mask = inputs(block)
    kept = x.clone()
    mine, theirs = ([t.clone().requires_grad_() for t in (x, edges, mask)] for _ in range(2))
    with calls:
        out = block(*mine)
        with torch.no_grad():
            copy.deepcopy(block)(x, edges, mask)
    assert set(calls.count) == {"graph_conv", "temporal_conv"}  # the fused operators compute another order
    expected = written_out(plain, order, theirs[0], theirs[1] * theirs[2])
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    for ours, other in zip(mine, theirs):
        torch.testing.assert_close(ours.grad, other.grad)
    for (name, ours), other in zip(block.named_parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")
    with torch.no_grad():
        block(x, edges)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("order", ORDERS)
def test_memory_formats_and_adjacencies_per_sample(order: str) -> None:
    block = make(order, "projection").eval()
    x, edges, _ = inputs(block)
    last = block(x.contiguous(memory_format=torch.channels_last), edges)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, block(x, edges))
    assert last.shape == (3, 5, 4, 5)
    per_sample = block(x, torch.stack([edges, 2 * edges, edges]))
    torch.testing.assert_close(per_sample[1:2], block(x[1:2], 2 * edges))


def test_derivatives_of_second_order() -> None:
    block = make("pre_activation").eval()
    x, edges, _ = inputs(block, n=1, t=3, v=3)
    arguments = (x.requires_grad_(), edges.requires_grad_())
    assert torch.autograd.gradcheck(block, arguments)
    assert torch.autograd.gradgradcheck(block, arguments)


def test_where_dropout_stands() -> None:
    x, edges, _ = inputs(make("no_norm"))
    assert torch.equal(make("pre_activation", dropout=1.0)(x, edges), x)  # the branch alone
    for order in ("norm_ends", "norm_start", "norm_last", "no_norm"):
        assert not make(order, dropout=1.0)(x, edges).any()
        assert make(order, dropout=1.0).eval()(x, edges).any()


def test_the_standard_order_by_its_layers_is_the_standard_block() -> None:
    words = ["graph", "norm", "relu", "temporal", "norm", "dropout", "sum", "relu"]
    block, other = STGCNBlock(3, 4, 2, order=words), STGCNBlock(3, 4, 2)
    assert list(block.state_dict()) == list(other.state_dict())
    assert block.order == other.order
    names = {name.split(".")[0] for name in make("pre_activation", "projection").state_dict()}
    assert names == {"before", "gcn", "tcn", "residual"}


# Raised by torch itself while it compiles.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
def test_copies_pickles_and_one_graph() -> None:
    block = make("norm_ends", "projection").eval()
    x, edges, _ = inputs(block)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x, edges), block(x, edges))
    whole = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(x, edges), block(x, edges))


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("post", ValueError, "order must be one of standard, pre_activation, .*, got 'post'"),
        (3, TypeError, "order must be a name or a list of names of layers, got 3"),
        (["graph", 1], TypeError, "order must be a name or a list of names of layers, got"),
        (["graph", "tanh", "temporal", "sum"], ValueError, "layers of order must be among .*, got 'tanh'"),
        (["graph", "temporal"], ValueError, "must have graph, temporal and sum once each, in this order"),
        (["temporal", "graph", "sum"], ValueError, "must have graph, temporal and sum once each"),
        (["graph", "graph", "temporal", "sum"], ValueError, "must have graph, temporal and sum once each"),
    ],
)
def test_orders_that_are_none(order: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^STGCNBlock: .*{message}"):
        STGCNBlock(3, 4, 2, order=order)
