"""Parity with the public ST-GCN, rebuilt here from its description in plain PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import _native
from stgcn_fast.graph import Graph
from stgcn_fast.models import STGCN

NTU_PARENTS = [1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11]
OPENPOSE_PARENTS = [1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15]
SKELETONS = {"ntu25": (NTU_PARENTS, 20), "openpose18": (OPENPOSE_PARENTS, 1)}
TOLERANCE = 1e-5
LEVELS = [64, 64, 64, 64, 128, 128, 128, 256, 256, 256]


def public_adjacency(layout: str) -> Tensor:
    """[3, V, V]: neighbours split by capped hop distance to the hub, unit columns in total."""
    parents, hub = SKELETONS[layout]
    size = len(parents)
    linked = torch.eye(size, dtype=torch.float64)
    for child, parent in enumerate(parents):
        linked[child, parent] = linked[parent, child] = 1
    scaled = linked / linked.sum(0)
    hub_distance = torch.where(linked[hub] > 0, 1.0, float("inf"))
    hub_distance[hub] = 0
    nearer = hub_distance[:, None] < hub_distance[None]
    own = torch.eye(size, dtype=torch.bool)
    parts = [own, ~own & ~nearer, ~own & nearer]
    return torch.stack([scaled * part for part in parts]).float()


class PlainUnit(nn.Module):
    """One block: 1x1 convolution to K copies, einsum over the graph, convolution over frames."""

    def __init__(self, width_in: int, width: int, parts: int, step: int, p: float, skip: str) -> None:
        super().__init__()
        self.gcn = nn.Module()
        self.gcn.conv = nn.Conv2d(width_in, parts * width, 1)
        over_frames = nn.Conv2d(width, width, (9, 1), (step, 1), (4, 0))
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), over_frames, nn.BatchNorm2d(width), nn.Dropout(p)
        )
        self.skip = skip
        if skip == "projection":
            self.residual = nn.Sequential(nn.Conv2d(width_in, width, 1, (step, 1)), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        copies = self.gcn.conv(x).unflatten(1, (weights.shape[0], -1))
        y = self.tcn(torch.einsum("nkctv,kvw->nctw", copies, weights))
        if self.skip == "identity":
            y = y + x
        elif self.skip == "projection":
            y = y + self.residual(x)
        return torch.relu(y)


class PlainSTGCN(nn.Module):
    """The whole network, contiguous, one einsum per block."""

    def __init__(
        self, layout: str, classes: int, coordinates: int = 3, importance: bool = True, p: float = 0.0
    ) -> None:
        super().__init__()
        matrices = public_adjacency(layout)
        parts, joints = matrices.shape[:2]
        self.register_buffer("A", matrices)
        self.data_bn = nn.BatchNorm1d(coordinates * joints)
        units = []
        for i, width in enumerate(LEVELS):
            before = LEVELS[i - 1] if i else coordinates
            skip = "none" if i == 0 else "identity" if before == width else "projection"
            units.append(
                PlainUnit(before, width, parts, 2 if skip == "projection" else 1, p if i else 0.0, skip)
            )
        self.st_gcn_networks = nn.ModuleList(units)
        if importance:
            self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones_like(matrices)) for _ in LEVELS)
        self.importance = importance
        self.fcn = nn.Conv2d(LEVELS[-1], classes, 1)

    def features(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        y = x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        y = self.data_bn(y).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for i, unit in enumerate(self.st_gcn_networks):
            y = unit(y, self.A * self.edge_importance[i] if self.importance else self.A)
        return y.view(n, m, *y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x).flatten(0, 1)
        y = F.avg_pool2d(y, y.shape[2:]).view(len(x), x.shape[4], -1, 1, 1).mean(1)
        return self.fcn(y).flatten(1)


def lively(model: nn.Module) -> nn.Module:
    """Weights of trained size: nothing is zero, one, or the same in two joints."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or name.startswith("edge_importance"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif "num_batches" not in name and name != "A" and tensor.dim() == 1:
            tensor.add_(torch.empty_like(tensor).normal_(0, 0.2, generator=generator))
    return model


def close(actual: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the size of what is expected."""
    torch.testing.assert_close(
        actual, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()) + 1e-12
    )


CASES = [("ntu25", 3, True), ("openpose18", 3, True), ("openpose18", 2, False)]


def pair(
    layout: str, coordinates: int, importance: bool, frames: int = 22
) -> tuple[STGCN, PlainSTGCN, Tensor]:
    twin = lively(PlainSTGCN(layout, 12, coordinates, importance))
    model = STGCN.from_state_dict(twin.state_dict())
    x = torch.randn(2, coordinates, frames, len(SKELETONS[layout][0]), 2)
    x[1, ..., 1] = 0  # an absent second person
    return model, twin, x


@pytest.mark.parametrize(("layout", "coordinates", "importance"), CASES)
def test_parity_in_evaluation(layout: str, coordinates: int, importance: bool) -> None:
    model, twin, x = pair(layout, coordinates, importance)
    with torch.no_grad():
        close(model.eval()(x), twin.eval()(x))
        features = model.extract_features(x)
    close(features["block10"], twin.features(x).detach())
    assert model.layout.name == layout


@pytest.mark.parametrize(("layout", "coordinates", "importance"), CASES)
def test_parity_of_a_training_step(layout: str, coordinates: int, importance: bool) -> None:
    model, twin, x = pair(layout, coordinates, importance, frames=12)
    model.double().train()
    twin.double().train()
    inputs = [x.double().requires_grad_() for _ in range(2)]
    labels = torch.tensor([3, 7])
    for network, clip in zip((model, twin), inputs):
        loss = F.cross_entropy(network(clip), labels)
        loss.backward()
    close(inputs[0].grad, inputs[1].grad)
    expected = dict(twin.named_parameters())
    assert list(expected) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        close(parameter.grad, expected[name].grad)
    buffers = dict(twin.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])


def test_parity_of_float32_gradients() -> None:
    model, twin, x = pair("ntu25", 3, True, frames=12)
    grads = []
    for network in (model.eval(), twin.eval()):
        clip = x.clone().requires_grad_()
        network(clip).square().sum().backward()
        grads.append([clip.grad, *(p.grad for p in network.parameters())])
    for ours, public in zip(*grads):
        close(ours, public)


@pytest.mark.parametrize(
    ("layout", "classes", "count"), [("ntu25", 60, 3_098_832), ("openpose18", 400, 3_177_140)]
)
def test_state_dicts_are_interchangeable(layout: str, classes: int, count: int) -> None:
    twin = PlainSTGCN(layout, classes)
    model = STGCN(classes, layout=layout)
    ours, public = model.state_dict(), twin.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in public.items()}
    assert sum(p.numel() for p in model.parameters()) == count
    twin.load_state_dict(ours)
    model.load_state_dict(public)


@pytest.mark.parametrize("layout", SKELETONS)
def test_the_public_graph_is_rebuilt(layout: str) -> None:
    graph = Graph(layout, partition="spatial", normalization="column", hop_cap=True)
    torch.testing.assert_close(graph.adjacency(), public_adjacency(layout), rtol=0, atol=1e-7)


def test_wrapped_and_half_precision_checkpoints_load() -> None:
    twin = PlainSTGCN("openpose18", 5)
    wrapped = {f"module.{key}": value for key, value in twin.state_dict().items()}
    model = STGCN.from_state_dict(wrapped)
    close(model.fcn.weight.detach(), twin.fcn.weight.detach())
    halves = {k: v.half() if v.is_floating_point() else v for k, v in twin.state_dict().items()}
    assert STGCN.from_state_dict(halves, layout="openpose18").fcn.weight.dtype == torch.float32


def test_dropout_is_everywhere_but_in_the_first_block() -> None:
    rates = [block.tcn[4].p for block in STGCN(5, dropout=0.5).st_gcn_networks]
    assert rates == [0.0] + [0.5] * 9


def test_initial_weights_have_the_public_spread() -> None:
    model = STGCN(60)
    weight = model.st_gcn_networks[8].tcn[2].weight
    assert abs(float(weight.detach().std()) - 0.02) < 1e-3
    assert abs(float(weight.detach().mean())) < 1e-3
    scales = torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(float(scales.mean()) - 1) < 5e-3
    assert abs(float(scales.std()) - 0.02) < 2e-3
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)


@pytest.mark.skipif(not _native.load().loaded, reason="this run is on the reference already")
def test_parity_without_the_extension() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "parity_in or float32",
    ]
    environment = {**os.environ, "STGCN_FAST_BACKEND": "reference"}
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "passed" in run.stdout
