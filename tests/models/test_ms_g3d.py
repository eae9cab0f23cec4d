"""MSG3D: the public network's numbers, parameters and keys."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from stgcn_fast.graph import get_layout
from stgcn_fast.models import MSG3D, build, load_checkpoint, save_checkpoint
from twins import ms_g3d as twin
from twins.common import lively

SMALL = {"num_gcn_scales": 4, "num_g3d_scales": 3, "width": 12}


def plain(classes: int, layout: str = "ntu25", **options: int) -> nn.Module:
    bones = torch.zeros(len(get_layout(layout).joints), len(get_layout(layout).joints))
    for child, parent in get_layout(layout).edges:
        bones[child, parent] = bones[parent, child] = 1
    return twin.Model(bones, classes, **options)


@pytest.mark.parametrize(
    ("classes", "layout", "scales", "count"),
    [
        (60, "ntu25", (13, 6), 3_194_595),
        (120, "ntu25", (13, 6), 3_217_695),
        (400, "openpose18", (8, 8), 3_144_328),
    ],
)
def test_public_parameters(classes: int, layout: str, scales: tuple[int, int], count: int) -> None:
    model = MSG3D(classes, layout=layout, num_gcn_scales=scales[0], num_g3d_scales=scales[1])
    assert sum(p.numel() for p in model.parameters()) == count
    public = plain(classes, layout, num_gcn_scales=scales[0], num_g3d_scales=scales[1]).state_dict()
    ours = model.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in public.items()}


@pytest.mark.parametrize("frames", [8, 9])
def test_equals_the_plain_network(frames: int) -> None:
    other = lively(plain(5, **SMALL)).double()
    model = MSG3D.from_state_dict(other.state_dict()).double()
    assert model.config["num_g3d_scales"] == 3
    x = torch.randn(2, 3, frames, 25, 2).double()
    for training in (False, True):
        results = []
        for network in (other, model):
            network.train(training).zero_grad()
            leaf = x.clone().requires_grad_()
            y = network(leaf)
            y.square().sum().backward()
            results.append((y, leaf.grad, {n: p.grad for n, p in network.named_parameters()}))
        # The twin normalises its maps in float32.
        assert_close(results[1][0], results[0][0], 1e-5)
        assert_close(results[1][1], results[0][1], 1e-4)
        for name, gradient in results[0][2].items():
            if float(gradient.abs().max()) > 1e-6:  # else a bias in front of BatchNorm
                assert_close(results[1][2][name], gradient, 1e-4)
    ours = dict(model.named_buffers())
    for name, buffer in other.named_buffers():
        assert_close(ours[name].double(), buffer.double(), 1e-5)


def assert_close(found: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
    """Largest difference relative to the largest value."""
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= limit * float(expected.abs().max())


def test_checkpoints(tmp_path: Path) -> None:
    model = MSG3D(4, **SMALL).eval()
    save_checkpoint(tmp_path / "net", model)
    again = load_checkpoint(tmp_path / "net")[0].eval()
    x = torch.randn(1, 3, 8, 25, 2)
    torch.testing.assert_close(again(x), model(x))
    assert build("ms_g3d", **model.config).config == model.config
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of six, got 10"):
        MSG3D(4, width=10)
    with pytest.raises(ValueError, match="window_sizes must be odd numbers, got \\[4\\]"):
        MSG3D(4, window_sizes=[4])
    with pytest.raises(TypeError, match="num_classes must be an integer"):
        MSG3D(4.0)
    with pytest.raises(ValueError, match="must have the keys of MS-G3D"):
        MSG3D.from_state_dict({"fc.weight": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"x must be \[N, 3, T, 25, 2\], got \[1, 3, 8, 25, 1\]"):
        MSG3D(4, **SMALL)(torch.zeros(1, 3, 8, 25, 1))
