"""A block as one operator: the results of its layers, and when it runs layer by layer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from stgcn_fast import ops
from stgcn_fast.nn import STGCNBlock

pytestmark = pytest.mark.usefixtures("fusing")
FUSED = {"st_block", "st_block_train"}
KINDS = {
    "identity": {"in_channels": 4, "out_channels": 4},
    "projection": {"in_channels": 3, "out_channels": 5},
    "stride": {"in_channels": 4, "out_channels": 4, "stride": 2},
    "stride 3": {"in_channels": 2, "out_channels": 6, "stride": 3, "temporal_kernel": 5},
    "none": {"in_channels": 3, "out_channels": 4, "residual": False},
    "one tap": {"in_channels": 4, "out_channels": 4, "temporal_kernel": 1},
}


def make(kind: str = "identity", dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> STGCNBlock:
    """A block far from its initial values, with nothing at zero."""
    block = STGCNBlock(num_partitions=2, dropout=dropout, **KINDS[kind]).to(dtype)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 1.5)
    return block


def inputs(block: STGCNBlock, n: int = 3, t: int = 11, v: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    dtype = block.gcn.conv.weight.dtype
    x = torch.randn(n, block.gcn.in_channels, t, v, dtype=dtype)
    edges = torch.rand(2, v, v, dtype=dtype)
    edges[edges < 0.5] = 0
    return x, edges, torch.rand(2, v, v, dtype=dtype)


def layers(block: STGCNBlock, *arguments: Any) -> Tensor:
    with ops.options(fused_blocks=False):
        out: Tensor = block(*arguments)
        return out


def route(block: STGCNBlock, calls: Any, *arguments: Any) -> set[str]:
    """The fused operators that one call of the block runs."""
    with calls:
        block(*arguments)
    return FUSED & set(calls.count)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_the_layers(kind: str, memory_format: torch.memory_format, calls: Any) -> None:
    block = make(kind)
    plain = copy.deepcopy(block)
    if kind == "stride":
        for network in (block, plain):
            network.tcn[0].momentum = None
            network.residual[1].momentum = 0.3
    x, edges, mask = inputs(block)
    x = x.contiguous(memory_format=memory_format)
    for step in range(3):
        mine, theirs = ([t.clone().requires_grad_() for t in (x * (1 + step), mask)] for _ in range(2))
        with calls:
            out = block(mine[0], edges, mine[1])
        expected = layers(plain, theirs[0], edges, theirs[1])
        torch.testing.assert_close(out, expected)
        assert out.is_contiguous(memory_format=memory_format)
        grad = torch.randn_like(out)
        out.backward(grad)
        expected.backward(grad)
        for ours, other in zip(mine, theirs):
            torch.testing.assert_close(ours.grad, other.grad)
    assert calls.count["st_block_train"] == 3
    for (name, ours), other in zip(block.named_parameters(), plain.parameters()):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, ours), other in zip(block.named_buffers(), plain.buffers()):
        torch.testing.assert_close(ours, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_inference_is_that_of_the_layers(kind: str, memory_format: torch.memory_format, calls: Any) -> None:
    block = make(kind).eval()
    x, edges, mask = inputs(block)
    x = x.contiguous(memory_format=memory_format)
    kept = x.clone()
    with torch.no_grad(), calls:
        out = block(x, edges, mask)
    assert calls.count == {"st_block": 1}
    assert out.is_contiguous(memory_format=memory_format)
    assert torch.equal(x, kept)
    with torch.no_grad():
        torch.testing.assert_close(out, layers(block, x, edges, mask))
        torch.testing.assert_close(block(x, edges), layers(block, x, edges))
    single = copy.deepcopy(block).float()
    with torch.inference_mode():
        small = single(x.float(), edges.float(), mask.float())
    torch.testing.assert_close(small.double(), out, rtol=1e-4, atol=1e-4)


def test_statistics_are_learnt_without_gradients_too(calls: Any) -> None:
    block, plain = make("stride"), make("stride")
    plain.load_state_dict(block.state_dict())
    x, edges, _ = inputs(block)
    with torch.no_grad():
        assert route(block, calls, x, edges) == {"st_block_train"}
        layers(plain, x, edges)
    for ours, other in zip(block.buffers(), plain.buffers()):
        torch.testing.assert_close(ours, other)


def half_frozen(block: STGCNBlock) -> None:
    block.tcn[3].eval()


def other_norm(block: STGCNBlock) -> None:
    block.tcn[0] = nn.GroupNorm(2, 4).double()


def no_affine(block: STGCNBlock) -> None:
    block.tcn[0] = nn.BatchNorm2d(4, affine=False).double()


def no_statistics(block: STGCNBlock) -> None:
    block.tcn[3] = nn.BatchNorm2d(4, track_running_stats=False).double()


def other_activation(block: STGCNBlock) -> None:
    block.relu = nn.LeakyReLU(0.2)


def subclass(block: STGCNBlock) -> None:
    class Noisy(nn.Dropout):
        pass

    block.tcn[4] = Noisy(0.0)


def dilated(block: STGCNBlock) -> None:
    block.tcn[2].dilation, block.tcn[2].padding = (2, 1), (8, 0)


def longer(block: STGCNBlock) -> None:
    block.tcn.append(nn.Identity())


def weight_norm(block: STGCNBlock) -> None:
    parametrizations.weight_norm(block.gcn.conv)


def own_forward(block: STGCNBlock) -> None:
    forward = block.tcn[2].forward
    block.tcn[2].forward = lambda x: 2 * forward(x)


def forward_hook(block: STGCNBlock) -> None:
    block.tcn[2].register_forward_hook(lambda module, args, out: 2 * out)


def pre_hook(block: STGCNBlock) -> None:
    block.gcn.conv.register_forward_pre_hook(lambda module, args: args)


def backward_hook(block: STGCNBlock) -> None:
    block.residual.register_full_backward_hook(lambda module, before, behind: None)


def backward_pre_hook(block: STGCNBlock) -> None:
    block.relu.register_full_backward_pre_hook(lambda module, behind: None)


CHANGES: list[Callable[[STGCNBlock], None]] = [
    half_frozen, other_norm, no_affine, no_statistics, other_activation, subclass, dilated, longer,
    weight_norm, own_forward, forward_hook, pre_hook, backward_hook, backward_pre_hook,
]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_or_watched_block_runs_layer_by_layer(
    change: Callable[[STGCNBlock], None], training: bool, calls: Any
) -> None:
    block = make().train(training)
    x, edges, mask = inputs(block)
    with torch.no_grad():
        assert route(copy.deepcopy(block), calls, x, edges, mask)
    calls.count.clear()
    change(block)
    if change is half_frozen and not training:
        block.tcn[3].train()
    with torch.no_grad():
        assert not route(block, calls, x, edges, mask)
    assert {"graph_conv"} < set(calls.count) if change is not own_forward else True


@pytest.mark.parametrize("register", ["forward", "forward_pre"])
def test_hooks_for_all_modules_see_every_layer(register: str, calls: Any) -> None:
    block = make()
    x, edges, _ = inputs(block)
    seen = []
    hook = getattr(torch_module, f"register_module_{register}_hook")(lambda m, *rest: seen.append(m))
    try:
        with calls:
            block(x, edges).sum().backward()
    finally:
        hook.remove()
    assert not FUSED & set(calls.count)
    assert block.tcn[2] in seen
    assert route(block, calls, x, edges) == {"st_block_train"}


def test_a_hook_that_is_gone_and_one_on_the_block_itself_change_nothing(calls: Any) -> None:
    block = make()
    x, edges, _ = inputs(block)
    block.gcn.register_forward_hook(lambda module, args, out: out).remove()
    seen = []
    block.register_forward_hook(lambda module, args, out: seen.append(out))
    assert route(block, calls, x, edges) == {"st_block_train"}
    assert len(seen) == 1


def test_gradients_in_evaluation_mode_come_from_the_layers(calls: Any) -> None:
    block = make().eval()
    x, edges, _ = inputs(block)
    assert not route(block, calls, x, edges)
    block.requires_grad_(False)
    assert route(block, calls, x, edges) == {"st_block"}
    calls.count.clear()
    assert not route(block, calls, x.requires_grad_(), edges)
    assert block(x, edges).requires_grad


def test_dropout_in_evaluation_mode_runs_layer_by_layer(calls: Any) -> None:
    block = make(dropout=0.5).eval()
    block.tcn[4].train()
    x, edges, _ = inputs(block)
    with torch.no_grad():
        assert not route(block, calls, x, edges)


def test_other_adjacencies_transforms_and_switches_run_layer_by_layer(calls: Any) -> None:
    block = make()
    x, edges, _ = inputs(block)
    assert not route(block, calls, x, edges.expand(3, 2, 5, 5))
    (expected,) = torch.autograd.grad(block.eval()(x.requires_grad_(), edges).square().sum(), x)
    found = torch.func.grad(lambda x: block.eval()(x, edges).square().sum())(x.detach())
    torch.testing.assert_close(found, expected)
    x.requires_grad_(False)
    block.train()
    with ops.options(fused_blocks=False):
        assert not route(block, calls, x, edges)
    one = inputs(block, v=1)
    assert not route(block, calls, *one)
    assert not route(block, calls, x[:0], edges)


def test_mistakes_are_named_by_the_layers() -> None:
    block = make()
    x, edges, mask = inputs(block)
    for wrong in ((x[:, :3], edges), (x, edges[:1]), (x, edges, mask[:, :2]), (x[0], edges)):
        with pytest.raises(ValueError, match=r"^graph_conv: "):
            block(*wrong)
    with pytest.raises(TypeError, match=r"^graph_conv: .* dtype of x"):
        block(x.float(), edges)


def test_dropout_follows_the_seed_and_its_probability() -> None:
    block = make("none", dropout=0.25, dtype=torch.float32)
    block.tcn[3].bias.data.fill_(10)  # so that only dropout makes zeros
    x, edges, _ = inputs(block, n=8, t=300)
    torch.manual_seed(3)
    first, second = block(x, edges), block(x, edges)
    torch.manual_seed(3)
    assert torch.equal(block(x, edges), first)
    assert not torch.equal(second, first)
    dropped = (first == 0).float()
    assert abs(float(dropped.mean()) - 0.25) < 0.01
    both = ((first == 0) & (second == 0)).float().mean()
    assert abs(float(both) - 0.25**2) < 0.01
    block.tcn[4].p = 0.0
    kept = block(x, edges)
    scale = (first / kept)[first != 0]
    torch.testing.assert_close(scale, torch.full_like(scale, 1 / 0.75), rtol=1e-3, atol=0)
    state = torch.get_rng_state()
    block(x, edges)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_repeats_the_same_dropout(reentrant: bool, calls: Any) -> None:
    block = make(dropout=0.5)
    x, edges, mask = inputs(block)
    results = []
    for again in (False, True):
        block.zero_grad()
        leaf = x.clone().requires_grad_()
        torch.manual_seed(5)
        if again:
            with calls:
                out = checkpoint(block, leaf, edges, mask, use_reentrant=reentrant)
                out.square().sum().backward()
            assert calls.count["st_block_train"] == 2
        else:
            out = block(leaf, edges, mask)
            out.square().sum().backward()
        results.append([out.detach(), leaf.grad, *(p.grad.clone() for p in block.parameters())])
    for ours, other in zip(*results):
        torch.testing.assert_close(ours, other)


def test_copies_and_pickles_keep_fusing(calls: Any) -> None:
    block = make("stride")
    x, edges, _ = inputs(block)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert route(other, calls, x, edges) == {"st_block_train"}
        calls.count.clear()
    assert list(make().state_dict()) == [
        "gcn.conv.weight", "gcn.conv.bias",
        *(f"tcn.{i}.{name}" for i, names in (
            (0, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
            (2, ("weight", "bias")),
            (3, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        ) for name in names),
    ]  # fmt: skip


def test_parameters_may_be_frozen_or_handed_in(calls: Any) -> None:
    block = make("stride")
    x, edges, _ = inputs(block)
    block.tcn[2].requires_grad_(False)
    block(x, edges).sum().backward()
    assert block.tcn[2].weight.grad is None
    assert block.gcn.conv.weight.grad is not None
    parameters = {name: 2 * p.detach() for name, p in block.named_parameters()}
    buffers = {name: b.clone() for name, b in block.named_buffers()}
    twin = copy.deepcopy(block)
    twin.load_state_dict({**parameters, **buffers})
    with calls:
        out = torch.func.functional_call(block, (parameters, buffers), (x, edges))
    assert set(calls.count) == {"st_block_train"}
    torch.testing.assert_close(out, layers(twin, x, edges))
    assert int(buffers["tcn.0.num_batches_tracked"]) == 2
    assert int(block.tcn[0].num_batches_tracked) == 1


@pytest.mark.parametrize("training", [True, False])
def test_autocast(training: bool, calls: Any) -> None:
    block = make("projection", dtype=torch.float32).train(training)
    x, edges, mask = inputs(block)
    expected = layers(copy.deepcopy(block), x, edges, mask)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
        with calls:
            out = block(x, edges, mask)
        again = block(out[:, :3], edges, mask)  # the next block's input has the region's dtype
    assert FUSED & set(calls.count)
    assert out.dtype == again.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
    if training:
        out.float().square().sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in block.parameters())
        assert block.tcn[0].running_mean.dtype == torch.float32
