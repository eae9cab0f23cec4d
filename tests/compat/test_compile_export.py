"""STGCN under torch.compile and torch.export: whole graphs, one compilation for any N and T."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo_config

from stgcn_fast import ops
from stgcn_fast.models import STGCN

# Raised by torch itself while it compiles and exports.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
SHAPES = [(5, 9), (4, 14), (7, 8), (6, 33)]  # N and T; unlike C = 3 and M = 2, which torch would tie them to


def network(**options: object) -> STGCN:
    model = STGCN(3, layout="openpose18", channels=(6, 8), temporal_kernel=5, **options)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
    return model


def clip(n: int, t: int) -> torch.Tensor:
    return torch.randn(n, 3, t, 18, 2)


@pytest.mark.parametrize("options", [{}, {"edge_importance": False, "person_pooling": "present"}])
def test_one_compilation_serves_any_batch_and_length(options: dict) -> None:
    torch.compiler.reset()
    model = network(**options).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad(), dynamo_config.patch(error_on_recompile=True):
        for n, t in SHAPES:
            x = clip(n, t)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_compiled_training_step_is_the_eager_one() -> None:
    torch.compiler.reset()
    model = network().double().train()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, t in SHAPES[:2]:
        x = clip(n, t).double()
        model.zero_grad()
        twin.zero_grad()
        model(x).square().sum().backward()
        with dynamo_config.patch(error_on_recompile=True):
            compiled(x).square().sum().backward()
        for ours, other in zip(model.parameters(), twin.parameters()):
            torch.testing.assert_close(other.grad, ours.grad)
    for ours, other in zip(model.buffers(), twin.buffers()):
        torch.testing.assert_close(other, ours)


def test_inductor() -> None:
    torch.compiler.reset()
    model = network().eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n, t in SHAPES[:2]:
            x = clip(n, t)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


def test_compiled_under_autocast() -> None:
    torch.compiler.reset()
    model = network().eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = clip(*SHAPES[0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), model(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("training", [False, True])
def test_export_with_dynamic_batch_and_length(training: bool) -> None:
    model = network().train(training)
    reference = copy.deepcopy(model)
    dynamic = {0: torch.export.Dim("N", min=2, max=64), 2: torch.export.Dim("T", min=3, max=512)}
    program = torch.export.export(model, (clip(*SHAPES[0]),), dynamic_shapes=(dynamic,), strict=False)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    layers = {"stgcn_fast.graph_conv.default", "stgcn_fast.temporal_conv.default"}
    assert layers <= names or (training and "stgcn_fast.st_block_train.default" in names)
    for n, t in SHAPES:
        x = clip(n, t)
        torch.testing.assert_close(program.module()(x), reference(x), rtol=1e-4, atol=1e-4)
    assert {"A", "fcn.weight", "edge_importance.0", "data_bn.running_mean"} <= set(program.state_dict)


def test_exported_program_decomposes_to_plain_operators() -> None:
    model = network().eval()
    dynamic = {0: torch.export.Dim("N", min=2, max=64), 2: torch.export.Dim("T", min=3, max=512)}
    program = torch.export.export(model, (clip(*SHAPES[0]),), dynamic_shapes=(dynamic,), strict=False)
    plain = program.run_decompositions(ops.decompositions())
    assert not [n for n in plain.graph.nodes if "stgcn_fast" in str(n.target)]
    x = clip(3, 20)
    torch.testing.assert_close(plain.module()(x), model(x), rtol=1e-4, atol=1e-4)
