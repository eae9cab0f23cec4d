"""Layers: the maths written out, memory formats, errors, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stgcn_fast.nn import GraphConv, STGCNBlock, TemporalConv, init_as_public

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
def test_graph_conv_is_its_formula(bias: bool, memory_format: torch.memory_format) -> None:
    layer = GraphConv(3, 4, 2, bias=bias).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).contiguous(memory_format=memory_format)
    A, M = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    A[A < 0] = 0
    y = layer(x, A, M)
    expected = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    for k in range(2):
        part = slice(4 * k, 4 * k + 4)
        z = torch.einsum("oc,nctv->notv", layer.conv.weight[part, :, 0, 0], x)
        if bias:
            z = z + layer.conv.bias[part, None, None]
        expected += z @ (A[k] * M[k])
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=memory_format)
    per_sample = layer(x, torch.stack([A, 2 * A]))
    torch.testing.assert_close(per_sample[1], 2 * layer(x, A)[1])
    grouped = layer(x, torch.stack([A, A], dim=1), groups=2)
    torch.testing.assert_close(grouped, layer(x, A))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(9, 1, 1), (9, 2, 1), (3, 1, 2), (5, 3, 3), (1, 2, 1)]
)
def test_temporal_conv_is_conv2d(
    kernel: int, stride: int, dilation: int, memory_format: torch.memory_format
) -> None:
    layer = TemporalConv(3, 5, kernel, stride, dilation)
    plain = nn.Conv2d(3, 5, (kernel, 1), (stride, 1), (dilation * (kernel - 1) // 2, 0), (dilation, 1))
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 11, 4).contiguous(memory_format=memory_format)
    y = layer(x)
    torch.testing.assert_close(y, plain(x), rtol=1e-5, atol=1e-5)
    assert y.shape[2] == -(-11 // stride)
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("outputs", "stride", "residual"), [(4, 1, True), (6, 1, True), (4, 2, True), (4, 1, False)]
)
def test_block_is_its_formula(outputs: int, stride: int, residual: bool) -> None:
    block = STGCNBlock(4, outputs, 2, temporal_kernel=3, stride=stride, residual=residual).eval()
    x, A = torch.randn(2, 4, 7, 5), torch.rand(2, 5, 5)
    first, _, conv, last, _ = block.tcn
    y = last(F.conv2d(first(block.gcn(x, A)).relu(), conv.weight, conv.bias, (stride, 1), (1, 0)))
    if residual:
        y = y + (x if outputs == 4 and stride == 1 else block.residual(x))
    torch.testing.assert_close(block(x, A), y.relu(), rtol=1e-5, atol=1e-5)
    names = {name.split(".")[0] for name in block.state_dict()}
    assert names == {"gcn", "tcn"} | ({"residual"} if residual and (outputs, stride) != (4, 1) else set())


def test_block_drops_out_only_in_training() -> None:
    block = STGCNBlock(2, 2, 1, dropout=1.0, residual=False)
    x, A = torch.randn(3, 2, 12, 4), torch.eye(4)[None]
    assert not block.train()(x, A).any()
    assert block.eval()(x, A).any()


def test_block_can_be_copied_pickled_and_moved_to_other_types() -> None:
    block = STGCNBlock(2, 3, 1, stride=2).eval()
    x, A = torch.randn(2, 2, 9, 4), torch.eye(4)[None]
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x, A), block(x, A))
    doubled = copy.deepcopy(block).double()
    torch.testing.assert_close(doubled(x.double(), A.double()).float(), block(x, A))
    shuffled = copy.deepcopy(block).to(memory_format=torch.channels_last)
    torch.testing.assert_close(shuffled(x, A), block(x, A))


def test_hooks_see_both_sides_of_the_gcn_and_tcn_boundary() -> None:
    block = STGCNBlock(2, 3, 1).eval()
    seen = {}
    block.gcn.register_forward_hook(lambda m, args, out: seen.__setitem__("gcn", out))
    block.tcn.register_forward_pre_hook(lambda m, args: seen.__setitem__("tcn", args[0]))
    block.tcn[2].register_forward_hook(lambda m, args, out: 0 * out)
    x, A = torch.randn(2, 2, 9, 4), torch.eye(4)[None]
    out = block(x, A)
    assert seen["tcn"] is seen["gcn"]
    torch.testing.assert_close(out, (block.tcn[3](torch.zeros_like(out)) + block.residual(x)).relu())


@pytest.mark.parametrize("residual", [True, False])
def test_hooks_may_keep_what_they_see(residual: bool) -> None:
    block = STGCNBlock(3, 3, 1, residual=residual)
    kept, grads = {}, {}
    for name in ("gcn", "tcn"):
        layer = block.get_submodule(name)
        layer.register_forward_hook(
            lambda m, args, out, name=name: kept.__setitem__(name, (out, out.clone()))
        )
        layer.register_full_backward_hook(lambda m, gin, gout, name=name: grads.__setitem__(name, gout[0]))
    block.register_full_backward_hook(lambda m, gin, gout: grads.__setitem__("block", gin[0]))
    x = torch.randn(2, 3, 9, 4, requires_grad=True)
    block(x, torch.eye(4)[None]).square().sum().backward()
    assert all(torch.equal(out, copied) for out, copied in kept.values())
    assert (kept["tcn"][0] < 0).any()
    torch.testing.assert_close(grads["block"], x.grad)
    assert set(grads) == {"gcn", "tcn", "block"}


def test_initialisation_touches_convolutions_and_norms_only() -> None:
    torch.manual_seed(1)
    layers = nn.ModuleList(
        [nn.Linear(3, 3), nn.BatchNorm2d(500), TemporalConv(20, 20), nn.Conv2d(2, 2, 1, bias=False)]
    )
    linear = layers[0].weight.clone()
    layers.apply(init_as_public)
    assert torch.equal(layers[0].weight, linear)
    assert abs(float(layers[1].weight.detach().mean()) - 1) < 0.005
    assert not layers[1].bias.any()
    assert not layers[2].bias.any()
    assert 0.015 < float(layers[2].weight.detach().std()) < 0.025


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: GraphConv(0, 1, 1), ValueError, "GraphConv: in_channels must be positive, got 0"),
        (lambda: GraphConv(1, 1, 2.0), TypeError, "GraphConv: num_partitions must be an integer, got 2.0"),
        (lambda: TemporalConv(1, 1, 4), ValueError, "TemporalConv: kernel_size must be odd, got 4"),
        (lambda: TemporalConv(1, 1, 3, stride=0), ValueError, "TemporalConv: stride must be positive, got 0"),
        (lambda: TemporalConv(1, "1"), TypeError, "TemporalConv: out_channels must be an integer, got '1'"),
        (lambda: STGCNBlock(1, 1, 1, dropout=1.5), ValueError, r"dropout must be in \[0, 1\], got 1.5"),
        (lambda: STGCNBlock(1, 1, 1, dropout="x"), TypeError, "dropout must be a number, got 'x'"),
    ],
)
def test_bad_sizes(build: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
