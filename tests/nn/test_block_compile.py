"""Fused blocks under torch.compile and torch.export: one graph, one compilation for any N and T."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo_config

from stgcn_fast import ops
from stgcn_fast.nn import STGCNBlock

pytestmark = [
    pytest.mark.usefixtures("fusing"),
    # Raised by torch itself while it compiles and exports.
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
SHAPES = [(4, 9), (3, 14), (6, 33)]


class Pair(nn.Module):
    """Two blocks and their graph."""

    A: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("A", torch.rand(2, 5, 5))
        self.mask = nn.Parameter(torch.rand(2, 5, 5))
        self.first = STGCNBlock(3, 8, 2, temporal_kernel=5, residual=False)
        self.second = STGCNBlock(8, 7, 2, temporal_kernel=3, stride=2, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, self.A, self.mask), self.A, self.mask)
        return out


def clip(n: int, t: int) -> Tensor:
    return torch.randn(n, 3, t, 5).contiguous(memory_format=torch.channels_last)


def test_a_training_step_compiles_once() -> None:
    torch.compiler.reset()
    model = Pair().double()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend="aot_eager")
    for step, (n, t) in enumerate(SHAPES):
        x = clip(n, t).double()
        model.zero_grad()
        twin.zero_grad()
        model(x).square().sum().backward()
        with dynamo_config.patch(error_on_recompile=step > 0):
            compiled(x).square().sum().backward()
        for ours, other in zip(model.parameters(), twin.parameters()):
            torch.testing.assert_close(other.grad, ours.grad)
    for ours, other in zip(model.buffers(), twin.buffers()):
        torch.testing.assert_close(other, ours)


def test_inference_compiles_once_and_follows_the_switch() -> None:
    torch.compiler.reset()
    model = Pair().eval()
    graphs: list[str] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(str(module.graph))
        return module

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for n, t in SHAPES:
            x = clip(n, t)
            torch.testing.assert_close(compiled(x), model(x))
        with ops.options(fused_blocks=False):
            torch.testing.assert_close(compiled(x), model(x))
        compiled(x)
    assert ["st_block" in graph for graph in graphs] == [True, False]


def test_dropout_is_fresh_in_every_call_of_compiled_code() -> None:
    torch.compiler.reset()
    model = Pair(dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = clip(4, 9)
    torch.manual_seed(1)
    first, second = compiled(x), compiled(x)
    torch.manual_seed(1)
    assert torch.equal(compiled(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("training", [False, True])
def test_export_with_dynamic_batch_and_length(training: bool) -> None:
    model = Pair().train(training)
    reference = copy.deepcopy(model)
    dynamic = {0: torch.export.Dim("N", min=2, max=64), 2: torch.export.Dim("T", min=3, max=512)}
    with torch.no_grad():
        program = torch.export.export(model, (clip(*SHAPES[0]),), dynamic_shapes=(dynamic,), strict=False)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert ("stgcn_fast.st_block_train.default" if training else "stgcn_fast.st_block.default") in names
    for n, t in SHAPES:
        x = clip(n, t)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), reference(x), rtol=1e-4, atol=1e-4)
    plain = program.run_decompositions(torch.export.default_decompositions() | ops.decompositions())
    assert "stgcn_fast" not in str(plain.graph)
    x = clip(5, 20)
    with torch.no_grad():
        torch.testing.assert_close(plain.module()(x), reference(x), rtol=1e-4, atol=1e-4)
