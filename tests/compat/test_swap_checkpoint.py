"""A public checkpoint in its network, plain and accelerated."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from stgcn_fast.swap import accelerate
from twins import pyskl


def test_the_hand_gestures_of_pyskl(test_data: Path, swapping: None) -> None:
    file = test_data / "checkpoints" / "pyskl_stgcnpp_hagrid.pth"
    content = torch.load(file, map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = content.get("state_dict", content)
    A = weights["backbone.gcn.0.gcn.A"]
    widths = [weights[f"backbone.gcn.{i}.gcn.bn.weight"].shape[0] for i in range(6)]
    classes = weights["cls_head.fc_cls.bias"].shape[0]
    plain = pyskl.STGCN(A, classes, 2, tuple(widths), plus=True).eval()
    plain.load_state_dict(weights)
    fast = copy.deepcopy(plain)
    report = accelerate(fast, "inference")
    assert {f"backbone.gcn.{i}.gcn" for i in range(6)} <= {row.name for row in report.taken}
    # Hands in the middle of the picture, as the recipe normalises them.
    clips = torch.rand(4, 2, 30, 21, 2) * 2 - 1
    with torch.no_grad():
        expected, found = plain(clips), fast(clips)
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert float(expected.std(0).max()) > 0.1  # the network sees its input
