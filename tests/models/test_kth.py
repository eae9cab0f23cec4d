"""The KTH study's networks: orders, depth, no BatchNorm in front, and the quirks of its code by a switch."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast.cli.timing import EagerSTGCN
from stgcn_fast.models import STF, STGCN, StreamingSTGCN, load_checkpoint, save_checkpoint
from twins.partitioned import SpatialTemporalConv

Network = Callable[..., STGCN]
REPORT: dict[str, Any] = {
    "num_classes": 6,
    "in_channels": 2,
    "layout": "body25",
    "order": "norm_ends",
    "residual": False,
    "data_norm": False,
    "edge_importance": False,
}
OPTIONS = {
    "plain": {"order": "norm_ends", "residual": False, "data_norm": False},
    "pre-activation": {"order": "pre_activation", "dropout": 0.2},
    "of one's own": {"order": ["relu", "graph", "norm", "temporal", "sum", "relu"]},
    "compat": {"order": "pre_activation", "kth_compat": True, "edge_importance": False},
    "compat, weighted": {"order": "norm_ends", "residual": False, "kth_compat": True},
}


def clip(n: int = 3, t: int = 20) -> Tensor:
    return torch.randn(n, 3, t, 21, 2)


def test_sizes_of_the_report() -> None:
    def parameters(**options: Any) -> int:
        return sum(p.numel() for p in STGCN(**(REPORT | {"partition": "uniform"} | options)).parameters())

    nine = parameters()
    assert nine == 2_585_994
    # Ten adjacencies of the code, learnt whether or not edge importance is asked for.
    assert parameters(kth_compat=True) == parameters(kth_compat=True, edge_importance=True) == nine + 10 * 625
    assert parameters(edge_importance=True) == nine + 10 * 625
    twelve = STGCN(**(REPORT | {"depth": 12, "width": 0.25}))
    assert twelve.config["channels"] == [16] * 4 + [32] * 4 + [64] * 4
    assert [i for i, stride in enumerate(twelve.config["strides"]) if stride == 2] == [4, 8]


def test_all_blocks_are_alike_but_in_the_standard_order(network: Network) -> None:
    standard, ordered = (network(order=order, dropout=0.5) for order in ("standard", "pre_activation"))
    assert [block.residual is None for block in standard.st_gcn_networks] == [True, False, False, False]
    assert not any(block.residual is None for block in ordered.st_gcn_networks)
    rates = [[m.p for m in model.modules() if isinstance(m, nn.Dropout)] for model in (standard, ordered)]
    assert rates == [[0.0, 0.5, 0.5, 0.5], [0.5] * 4]
    for order in ("standard", "norm_ends"):
        bare = network(order=order, residual=False)
        assert all(block.residual is None for block in bare.st_gcn_networks)


@pytest.mark.parametrize("kind", OPTIONS)
def test_configurations_and_checkpoints_rebuild_the_network(
    kind: str, network: Network, tmp_path: Path
) -> None:
    model, x = network(**OPTIONS[kind]), clip()
    config = json.loads(json.dumps(model.config))
    assert {name: config[name] for name in OPTIONS[kind]} == OPTIONS[kind]
    other = STGCN(**config).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    save_checkpoint(tmp_path / "kth", model)
    back, _ = load_checkpoint(tmp_path / "kth")
    assert back.config == model.config
    assert torch.equal(back(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize("kind", OPTIONS)
def test_features_and_the_eager_twin(kind: str, network: Network) -> None:
    model, x = network(**OPTIONS[kind]), clip()
    caught: list[Tensor] = []
    for block in model.st_gcn_networks:
        block.register_forward_hook(lambda module, args, out: caught.append(out))
    logits = model(x)
    features = model.extract_features(x)
    for value, out in zip(features.values(), caught):
        assert torch.equal(value.flatten(0, 1), out)
    pooled = features["block4"].mean((3, 4)).mean(1)
    torch.testing.assert_close(model.fcn(pooled[:, :, None, None]).flatten(1), logits, rtol=1e-4, atol=1e-5)
    eager, logits = EagerSTGCN(model)(x).detach(), logits.detach()
    assert float((eager - logits).abs().max() / logits.abs().max()) < 1e-3


@pytest.mark.parametrize("order", ["pre_activation", "norm_ends"])
def test_gradients_reach_every_parameter(order: str, network: Network) -> None:
    model = network(order=order).train()
    model(clip()).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad.any() for name, p in model.named_parameters() if name.endswith("weight"))


def twin_of(model: STGCN, inputs: int) -> nn.Module:
    """The study's own network with the weights of ours; it sums over the second index of its adjacency."""
    blocks = []
    for block, A in zip(model.st_gcn_networks, model.edge_importance or ()):
        (conv,) = (layer for layer in block.tcn if isinstance(layer, nn.Conv2d))
        (norm,) = (layer for layer in block.tcn if isinstance(layer, nn.BatchNorm2d))
        outputs, options = conv.out_channels, {"residual": block.residual is not None}
        twin = SpatialTemporalConv(inputs, outputs, A.detach().mT, 9, conv.stride[0], **options).to(A.dtype)
        parts = [(twin.batch_n, block.before[0]), (twin.spatialConv.W, block.gcn.conv)]
        parts += [(twin.temporalConv, conv), (twin.batch_n_2, norm)]
        if isinstance(block.residual, nn.Conv2d):
            parts.append((twin.apply_residual, block.residual))
        for theirs, ours in parts:
            theirs.load_state_dict(ours.state_dict())
        blocks.append(twin)
        inputs = outputs
    return nn.Sequential(*blocks)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("order", ["norm_ends", "pre_activation"])
def test_the_switch_gives_the_networks_of_the_code(order: str, weighted: bool) -> None:
    options = {"order": order, "residual": order == "pre_activation", "edge_importance": weighted}
    model = STGCN(**(REPORT | options), kth_compat=True, channels=(8, 8, 12)).double()
    blocks = twin_of(model, 2)
    x = torch.randn(4, 2, 12, 25, 1, dtype=torch.float64)
    y = blocks(x[..., 0])
    expected = nn.functional.linear(y.mean((2, 3)), model.fcn.weight.flatten(1), model.fcn.bias)
    logits = model(x)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-8)
    grad = torch.randn_like(logits)
    ours = torch.autograd.grad(logits, list(model.edge_importance), grad)
    theirs = torch.autograd.grad(expected, [block.spatialConv.A for block in blocks], grad)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(
            mine.transpose(1, 2), other, rtol=1e-4, atol=1e-9 * float(other.abs().max())
        )
    assert model.graph.normalization == "kth_code"
    start = model.graph.adjacency(torch.float64)
    jitter = max(float((A.detach() / start - 1).abs().max()) for A in model.edge_importance)
    assert 1e-3 < jitter < 1e-2 if weighted else jitter < 1e-6


def test_the_switch_leaves_a_named_normalisation_alone() -> None:
    small = {"channels": (4,), "kth_compat": True}
    assert STGCN(**(REPORT | small), normalization="column").graph.normalization == "column"
    options = {key: value for key, value in REPORT.items() if key != "layout"} | small
    graph = {"layout": "body25", "partition": "distance"}
    assert STGCN(**options, graph=graph).graph.normalization == "kth_code"
    assert STGCN(**options, graph=graph | {"normalization": "none"}).graph.normalization == "none"


@pytest.mark.parametrize("order", ["pre_activation", ["graph", "temporal", "relu", "sum"]])
def test_what_folds_layers_refuses_other_orders(order: Any, network: Network) -> None:
    model = network(order=order)
    for function in (stgcn_fast.optimize, StreamingSTGCN):
        with pytest.raises(ValueError, match=r"^optimize: order must be 'standard', .*, got ") as caught:
            function(model)
        assert str(caught.value).endswith(f"got {order!r}")


@pytest.mark.parametrize(
    "options", [{"data_norm": False}, {"kth_compat": True}, {"residual": False}], ids=str
)
def test_what_folds_layers_takes_the_other_options(options: dict[str, Any], network: Network) -> None:
    model, x = network(**options), clip()
    fast = stgcn_fast.optimize(model)
    with torch.no_grad():
        expected = model(x)
        limit = 1e-3 * float(expected.abs().max())
        torch.testing.assert_close(fast(x), expected, rtol=0, atol=limit)
        stream = StreamingSTGCN(model)
        for frame in x.unbind(2):
            stream(frame)
        torch.testing.assert_close(stream.finish(), expected, rtol=0, atol=limit)


def test_the_focus_of_stf_goes_with_any_order() -> None:
    plain = STGCN(4, layout="hand21", channels=(8, 8), order="pre_activation")
    model, x = STF.from_backbone(plain), torch.randn(2, 3, 12, 21, 1)
    torch.testing.assert_close(model.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": "residual"}, ValueError, "order must be one of standard, .*, got 'residual'"),
        ({"order": None}, TypeError, "order must be a name or a list of names of layers, got None"),
        ({"residual": "yes"}, TypeError, "residual must be a bool, got 'yes'"),
        ({"data_norm": 1}, TypeError, "data_norm must be a bool, got 1"),
        ({"kth_compat": None}, TypeError, "kth_compat must be a bool, got None"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^STGCN: {message}$"):
        STGCN(**(REPORT | {"channels": (4,)} | options))
