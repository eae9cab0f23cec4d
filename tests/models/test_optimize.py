"""optimize: the network's outputs from a module made for inference."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast import ops
from stgcn_fast.models import STGCN, STGCNInference
from stgcn_fast.models import optimize as optimizers

Network = Callable[..., STGCN]
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 0.03, torch.float16: 0.01}


def clip(n: int = 3, t: int = 40, m: int = 2) -> Tensor:
    return torch.randn(n, 3, t, 21, m)


def plain(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), ops.options(fused_blocks=False):
        out: Tensor = model(x)
        return out


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    limit = tolerance * float(expected.abs().max())
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "edge_importance": False,
            "person_pooling": "present",
            "strides": (2, 1, 3, 1),
            "temporal_kernel": 5,
        },
        {"channels": (16,), "dropout": 0.5},
    ],
    ids=["importance", "present", "one block"],
)
def test_outputs_are_the_networks(options: dict[str, Any], dtype: torch.dtype, network: Network) -> None:
    model, x = network(**options), clip()
    fast = stgcn_fast.optimize(model, x, dtype)
    expected = plain(copy.deepcopy(model).double(), x.double())
    with torch.no_grad():
        found = fast(x)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_near(found, expected.to(found.dtype), TOLERANCES[dtype])
        assert torch.equal(fast(x), found)
        assert_near(fast(x[1:2]), found[1:2], 1e-5)
        assert fast(x[:0]).shape == (0, 4)
        strided = x.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)
        assert torch.equal(fast(strided), found)
    assert not fast.training


def test_the_dtype_is_the_networks_by_default(network: Network) -> None:
    model = network().double()
    fast = stgcn_fast.optimize(model)
    assert {p.dtype for p in fast.parameters()} == {torch.float64}
    small = stgcn_fast.optimize(model, dtype=torch.bfloat16)
    assert small.blocks[0].temporal_weight.dtype == torch.bfloat16
    kept = (small.data_scale, small.head_weight, small.blocks[0].shift1, small.blocks[0].adjacency)
    assert {p.dtype for p in kept} == {torch.float32}


def test_the_network_is_left_as_it_is(network: Network) -> None:
    model = network(dropout=0.5).train()
    before = copy.deepcopy(model.state_dict())
    fast = stgcn_fast.optimize(model, clip())
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    mine = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    assert not mine & {p.data_ptr() for p in fast.parameters()}
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("pooling", ["all", "present"])
def test_persons_are_pooled_as_in_the_network(pooling: str, network: Network) -> None:
    model, x = network(person_pooling=pooling), clip(n=4, m=3)
    x[0, ..., 1:] = 0
    x[1] = 0
    x[2, ..., 0] = 0
    fast = stgcn_fast.optimize(model)
    with torch.no_grad():
        assert_near(fast(x), plain(model, x), 1e-4)


def test_edits_are_seen(network: Network) -> None:
    model, x = network(), clip()
    x[:, :, 20:] = 0
    fast = stgcn_fast.optimize(model)
    with torch.no_grad():
        before = fast(x)
        again = fast(x)
        assert torch.equal(before, again)
        for name, parameter in list(fast.named_parameters()):
            kept = parameter.clone()
            parameter.mul_(1.5)
            changed = fast(x)
            fresh = stgcn_fast.optimize(model)
            fresh.load_state_dict(fast.state_dict())
            assert torch.equal(changed, fresh(x)), name
            assert not torch.equal(changed, before), name
            parameter.copy_(kept)
            assert torch.equal(fast(x), before), name


def test_copies_pickles_and_state_dicts(network: Network) -> None:
    model, x = network(), clip()
    x[0, ..., 1] = 0
    fast = stgcn_fast.optimize(model, x)
    with torch.no_grad():
        expected = fast(x)
        for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(other(x), expected)
        other = stgcn_fast.optimize(network())
        assert not torch.equal(other(x), expected)
        other.load_state_dict(fast.state_dict())
        assert torch.equal(other(x), expected)
    assert len(pickle.dumps(fast)) < 1.5 * sum(p.nbytes for p in fast.parameters()) + 20_000
    assert {"data_scale", "blocks.0.graph_weight", "blocks.2.residual_weight", "head_bias"} <= set(
        fast.state_dict()
    )


def test_the_fast_temporal_algorithm_can_be_forbidden(network: Network) -> None:
    model, x = network(channels=(32, 32)), clip()
    default, direct, fast = (
        stgcn_fast.optimize(model, fast_temporal=choice) for choice in (None, False, True)
    )
    with torch.no_grad():
        with ops.options(fast_temporal=False):
            assert torch.equal(default(x), direct(x))
            changed = fast(x)
        with ops.options(fast_temporal=True):
            assert torch.equal(default(x), changed)
        assert_near(changed, direct(x), 1e-4)


def test_training_is_refused(network: Network) -> None:
    fast = stgcn_fast.optimize(network().train())
    with pytest.raises(RuntimeError, match="mode must be evaluation; train the network it was made of"):
        fast.train()
    assert fast.eval() is fast


def lose_statistics(model: STGCN) -> None:
    model.st_gcn_networks[1].tcn[0] = nn.BatchNorm2d(16, track_running_stats=False)


def lose_data_statistics(model: STGCN) -> None:
    model.data_bn = nn.BatchNorm1d(63, track_running_stats=False)


def other_head(model: STGCN) -> None:
    model.fcn = nn.Sequential(model.fcn)


def other_activation(model: STGCN) -> None:
    model.st_gcn_networks[2].relu = nn.GELU()


def hook(model: STGCN) -> None:
    model.st_gcn_networks[0].gcn.register_forward_hook(lambda module, args, out: out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lose_statistics,
            "optimize: blocks must have the layers they were made with, BatchNorm2d with running",
        ),
        (
            lose_data_statistics,
            "optimize: data_bn must be a BatchNorm1d with parameters and running statistics",
        ),
        (other_head, "optimize: fcn must be a Conv2d without hooks"),
        (other_activation, "optimize: blocks must have the layers they were made with"),
        (hook, "optimize: blocks must have .* without hooks"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_changed_networks_are_refused(
    change: Callable[[STGCN], None], message: str, network: Network
) -> None:
    model = network()
    change(model)
    with pytest.raises(ValueError, match=message):
        stgcn_fast.optimize(model)


def test_bad_arguments(network: Network) -> None:
    model = network()
    for arguments, message in (
        ((nn.Linear(2, 2),), r"optimize: model must be one of .*STGCN.*, got Linear"),
        ((3,), r"optimize: model must be a torch.nn.Module, got int"),
        ((model, [1.0]), r"optimize: example must be a tensor, got list"),
        (
            (model, None, torch.int8),
            r"optimize: dtype must be a floating point dtype or None, got torch.int8",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            stgcn_fast.optimize(*arguments)
    with pytest.raises(TypeError, match="optimize: reuse must be a bool, got NoneType"):
        stgcn_fast.optimize(model, reuse=None)
    fast = stgcn_fast.optimize(model)
    for wrong in (torch.zeros(1, 3, 4, 20, 1), torch.zeros(1, 2, 4, 21, 1), torch.zeros(1, 3, 0, 21, 1)):
        with pytest.raises(ValueError, match="STGCN: x must have"):
            fast(wrong)
    with pytest.raises(TypeError, match=r"STGCN: x must be of a floating point type, got torch.int64"):
        fast(torch.zeros(1, 3, 4, 21, 1, dtype=torch.int64))


def test_an_example_that_disagrees_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Linear):
        pass

    monkeypatch.setattr(optimizers, "_BUILDERS", dict(optimizers._BUILDERS))
    factors = iter([1.0, 1.01, float("nan")])

    @optimizers.register_optimizer(Twice)
    def build(model: Twice, settings: optimizers.Settings) -> nn.Module:
        built = copy.deepcopy(model)
        built.weight.mul_(next(factors))
        return built

    model, x = Twice(3, 2, bias=False), torch.randn(4, 3)
    assert torch.equal(stgcn_fast.optimize(model, x)(x), model(x))
    for error in ("0.01", "nan"):
        with pytest.raises(
            ValueError, match=f"agree with the model's within 0.001 .* on example, got {error}"
        ):
            stgcn_fast.optimize(model, x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
def test_compile_and_export(network: Network) -> None:
    torch.compiler.reset()
    fast = stgcn_fast.optimize(network(channels=(8, 16), person_pooling="present"))
    assert isinstance(fast, STGCNInference)
    compiled = torch.compile(fast, fullgraph=True, dynamic=True, backend="aot_eager")
    shapes = ((4, 14), (5, 9), (6, 33))
    with torch.no_grad():
        for n, t in shapes:
            x = clip(n, t)
            x[0, ..., 1] = 0
            torch.testing.assert_close(compiled(x), fast(x), rtol=1e-4, atol=1e-4)
        dynamic = {0: torch.export.Dim("N", min=2, max=64), 2: torch.export.Dim("T", min=3, max=512)}
        program = torch.export.export(fast, (clip(4, 14),), dynamic_shapes=(dynamic,), strict=False)
        for n, t in shapes:
            x = clip(n, t)
            torch.testing.assert_close(program.module()(x), fast(x), rtol=1e-4, atol=1e-4)
