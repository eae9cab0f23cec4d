"""An accelerated network under all that a plain one stands."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo_config
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint

from stgcn_fast import ops
from stgcn_fast.swap import accelerate
from twins import agcn, attention, pyskl
from twins.common import adjacency, lively

Network = Callable[..., nn.Module]
# Raised by torch itself while it compiles and exports.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
SHAPES = [(5, 13), (4, 14), (7, 9)]  # N and T
A = adjacency(11)


def fast(model: nn.Module) -> nn.Module:
    """An accelerated copy."""
    other = copy.deepcopy(model)
    assert accelerate(other).taken
    return other


def close(found: Tensor, expected: Tensor, limit: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit * float(expected.detach().abs().max()))


def layer(name: str) -> nn.Module:
    return {
        "pyskl": lambda: pyskl.STGCNBlock(16, 16, A, stride=2),
        "st_gcn++": lambda: pyskl.STGCNBlock(16, 96, A, plus=True),
        "aagcn": lambda: agcn.unit_aagcn(16, 16, A),
        "info_gcn": lambda: attention.SA_GC(16, 16, A),
    }[name]()


@pytest.mark.parametrize("where", ["gcn", "gcn.conv", "tcn", "tcn.2", "tcn.3", "relu", "residual.1"])
@pytest.mark.parametrize("training", [True, False])
def test_hooks_inside_a_block_see_what_they_saw(
    network: Network, clips: Tensor, where: str, training: bool
) -> None:
    plain = network().train(training)
    swapped = fast(plain)
    seen: dict[int, Tensor] = {}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        seen[id(module)] = out.detach().clone()

    for model in (plain, swapped):
        model.st_gcn_networks[2].get_submodule(where).register_forward_hook(watch)
        with torch.no_grad():
            model(clips)
    first, second = seen.values()
    close(second, first)


@pytest.mark.parametrize("where", ["soft", "tan", "relu", "conv_a.1", "conv_d.0", "bn", "sigmoid", "fc1c"])
def test_hooks_inside_an_adaptive_layer_are_called_as_often(where: str) -> None:
    plain = lively(agcn.unit_aagcn(16, 16, A) if where != "soft" else agcn.unit_gcn(16, 16, A)).eval()
    x = torch.randn(2, 16, 7, 11)
    seen: list[list[Tensor]] = []
    for model in (plain, fast(plain)):
        seen.append([])
        hook = lambda m, i, out, kept=seen[-1]: kept.append(out.detach().clone())  # noqa: E731
        model.get_submodule(where).register_forward_hook(hook)
        with torch.no_grad():
            model(x)
    assert len(seen[0]) == len(seen[1]) > 0
    for first, second in zip(*seen):
        close(second, first)


def test_inputs_by_name(network: Network) -> None:
    layer_ = network().st_gcn_networks[1].eval()
    swapped = fast(layer_)
    x = torch.randn(2, 16, 9, 11)
    with torch.no_grad():
        for call in (lambda m: m(x=x, A=A), lambda m: m(x, A=A), lambda m: m(A=A, x=x)):
            close(call(swapped)[0], call(layer_)[0])
        with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
            swapped(x, A, mask=None)
    block = lively(layer("pyskl")).eval()
    y = torch.randn(2, 16, 9, 11)
    close(fast(block)(x=y), block(x=y))


def test_hooks_on_blocks_and_gradient_hooks(network: Network, clips: Tensor) -> None:
    plain = network().eval()
    maps = []
    for model in (plain, fast(plain)):
        kept: list[Tensor] = []
        block = model.st_gcn_networks[1]
        block.register_forward_hook(lambda m, i, out, kept=kept: kept.append(out[0]))
        block.register_full_backward_hook(lambda m, i, out, kept=kept: kept.append(out[0]))
        model(clips)[:, 1].sum().backward()
        features, gradients = kept
        maps.append((features * gradients.mean((2, 3), keepdim=True)).mean(1).relu())
    close(maps[1], maps[0])
    assert float(maps[0].detach().max()) > 0


def test_hooks_for_all_modules(network: Network, clips: Tensor) -> None:
    plain = network()
    counts = []
    for model in (plain, fast(plain)):
        seen: list[str] = []
        handle = torch_module.register_module_forward_hook(
            lambda m, i, o, seen=seen: seen.append(str(type(m).__name__))
        )
        try:
            model(clips)
        finally:
            handle.remove()
        counts.append(seen)
    assert counts[0] == counts[1]


def test_a_layer_that_is_put_in_later_is_called(network: Network, clips: Tensor) -> None:
    plain = network().eval()
    swapped = fast(plain)
    for model in (plain, swapped):
        model.st_gcn_networks[1].relu = nn.LeakyReLU(0.3)
        model.st_gcn_networks[2].gcn.conv = lively(nn.Conv2d(16, 72, 1))
    swapped.st_gcn_networks[2].gcn.conv.load_state_dict(plain.st_gcn_networks[2].gcn.conv.state_dict())
    with torch.no_grad():
        close(swapped(clips), plain(clips))


def test_frozen_normalisation(network: Network, clips: Tensor) -> None:
    plain = network()
    results = []
    for model in (plain, fast(plain)):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        out = model(clips)
        out.square().sum().backward()
        results.append((out, [p.grad for p in model.parameters()]))
    close(results[1][0], results[0][0])
    for found, expected in zip(results[1][1], results[0][1]):
        close(found, expected, 1e-3)


@pytest.mark.parametrize(
    ("name", "training"),
    [("network", True), ("st_gcn++", False), ("aagcn", True), ("info_gcn", False)],
)
def test_one_whole_graph_for_any_batch_and_length(network: Network, name: str, training: bool) -> None:
    torch.compiler.reset()
    model = network() if name == "network" else lively(layer(name))
    model.train(training)
    accelerate(model)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=True, backend="aot_eager")
    with dynamo_config.patch(error_on_recompile=True):
        for n, t in SHAPES:
            x = torch.randn(n, 3, t, 11, 2) if name == "network" else torch.randn(n, 16, t, 11)
            out = compiled(x)
            close(out, model(x))
            if training:
                out.sum().backward()


def test_inductor() -> None:
    torch.compiler.reset()
    model = lively(layer("pyskl")).eval()
    accelerate(model)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n, t in SHAPES[:2]:
            x = torch.randn(n, 16, t, 11)
            close(compiled(x), model(x))


def test_accelerating_a_compiled_model(network: Network, clips: Tensor) -> None:
    torch.compiler.reset()
    model = network().eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        expected = compiled(clips)
        assert accelerate(compiled).taken
        close(compiled(clips), expected)


@pytest.mark.parametrize("name", ["network", "pyskl", "st_gcn++", "aagcn", "info_gcn"])
def test_autocast(network: Network, name: str) -> None:
    plain = network() if name == "network" else lively(layer(name))
    x = torch.randn(3, 3, 13, 11, 2) if name == "network" else torch.randn(3, 16, 13, 11)
    exact = copy.deepcopy(plain)(x).detach()
    results = []
    for model in (plain, fast(plain)):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
            loss = out.float().square().mean()
        loss.backward()
        results.append(out)
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())
    assert results[0].dtype == results[1].dtype
    size = float(exact.detach().abs().max())
    errors = [float((out.detach().float() - exact).abs().max()) / size for out in results]
    assert errors[1] < 1.5 * errors[0] + 0.01


def test_empty_batches_and_strided_inputs(network: Network) -> None:
    model = network().eval()
    accelerate(model)
    with torch.no_grad():
        assert model(torch.randn(0, 3, 13, 11, 2)).shape == (0, 4)
        x = torch.randn(2, 11, 13, 2, 3).permute(0, 4, 2, 1, 3)
        close(model(x), model(x.contiguous()))
        block = layer("pyskl").eval()
        accelerate(block)
        y = torch.randn(3, 16, 13, 11)
        assert block(y).is_contiguous()
        last = block(y.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        close(last, block(y))
        close(block(y[:, :, ::2]), block(y[:, :, ::2].contiguous()))
        assert block(y[:0]).shape == (0, 16, 7, 11)


def test_second_derivatives(network: Network, clips: Tensor) -> None:
    plain = network().double()
    results = []
    for model in (plain, fast(plain)):
        x = clips.double().requires_grad_()
        (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        first.square().sum().backward()
        results.append([x.grad, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    whole = max(float(gradient.abs().max()) for gradient in results[0])
    for found, expected in zip(results[1], results[0]):
        if float(expected.abs().max()) > 1e-9 * whole:  # what cancels is noise
            close(found, expected, 1e-6)


def test_transforms_of_torch_func(network: Network, clips: Tensor) -> None:
    plain = network().eval()
    swapped = fast(plain)
    directions = torch.randn_like(clips)

    def slope(model: nn.Module) -> Tensor:
        return torch.func.jvp(lambda x: model(x), (clips,), (directions,))[1]

    close(slope(swapped), slope(plain))
    gradient = [torch.func.grad(lambda x, m=m: m(x[None]).sum())(clips[0]) for m in (plain, swapped)]
    close(gradient[1], gradient[0])


def test_checkpointing(network: Network) -> None:
    plain = lively(layer("pyskl"))
    x = torch.randn(3, 16, 13, 11)
    results = []
    for model in (plain, fast(plain)):
        leaf = x.clone().requires_grad_()
        checkpoint(model, leaf, use_reentrant=False).square().sum().backward()
        results.append([leaf.grad, *(p.grad for p in model.parameters())])
    for found, expected in zip(results[1], results[0]):
        if float(expected.abs().max()) > 1e-3:
            close(found, expected, 1e-3)


def test_dropout_follows_the_seed_and_its_rate(network: Network, clips: Tensor) -> None:
    model = network(dropout=0.5)
    accelerate(model)
    block = model.st_gcn_networks[1]
    x = torch.randn(8, 16, 40, 11)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(block(x, model.A)[0])
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    model.eval()
    assert torch.equal(model(clips), model(clips))


@pytest.mark.parametrize("training", [False, True])
def test_export(network: Network, clips: Tensor, training: bool) -> None:
    model = network().train(training)
    accelerate(model)
    dynamic = {0: torch.export.Dim("N", min=2, max=64), 2: torch.export.Dim("T", min=3, max=512)}
    reference = copy.deepcopy(model)
    program = torch.export.export(
        model, (torch.randn(5, 3, 13, 11, 2),), dynamic_shapes=(dynamic,), strict=False
    )
    close(program.module()(clips), reference(clips))
    if not training:
        plain = program.run_decompositions(ops.decompositions())
        assert not [node for node in plain.graph.nodes if "stgcn_fast" in str(node.target)]
        close(plain.module()(clips), reference(clips))


def test_switches_are_followed(network: Network, clips: Tensor) -> None:
    model = network().eval()
    accelerate(model)
    with torch.no_grad():
        expected = model(clips)
        with ops.options(fused_blocks=False, fast_temporal=False):
            close(model(clips), expected)


def test_averaged_weights(network: Network, clips: Tensor) -> None:
    model = network()
    accelerate(model)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    averaged.update_parameters(model)
    model.eval()
    averaged.eval()
    with torch.no_grad():
        before = averaged(clips)
        assert accelerate(averaged).taken[0].reason.endswith("before")
        close(averaged(clips), before, 0)


DISTRIBUTED = """
    import sys
    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from torch.nn.parallel import DistributedDataParallel
    from stgcn_fast.swap import accelerate
    from twins import st_gcn
    from twins.common import lively

    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = lively(st_gcn.Model(3, 4, 11, (16, 16, 24), taps=5))
    clips, labels = torch.randn(2, 3, 3, 13, 11, 2), torch.arange(3)
    wrapped = DistributedDataParallel(model)
    accelerate(wrapped)
    for _ in range(2):
        F.cross_entropy(wrapped(clips[rank]), labels).backward()
    total = torch.stack([p.grad.abs().sum() for p in model.parameters()])
    both = [torch.zeros_like(total) for _ in range(2)]
    dist.all_gather(both, total)
    assert torch.equal(both[0], both[1])
    print("gradients", float(total.sum()))
    dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(DISTRIBUTED), encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    path = [str(root), str(root / "tests" / "compat")]
    code = f"import sys; sys.path[:0] = {path!r}; sys.argv[1:] = {{!r}}; exec(open({str(script)!r}).read())"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code.format([str(rank), str(tmp_path / "store")])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [run.communicate(timeout=200) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""


def test_a_training_run_stays_beside_the_plain_one(network: Network) -> None:
    plain = network()
    swapped = fast(plain)
    clips, labels = torch.randn(6, 3, 13, 11, 2), torch.arange(6) % 4
    losses = []
    for model in (plain, swapped):
        optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True)
        losses.append([])
        for _ in range(20):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(clips), labels)
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
