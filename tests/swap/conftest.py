"""A small public network, and layers that are taken on machines without kernels too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stgcn_fast.nn import _fusion
from twins import st_gcn
from twins.common import lively


@pytest.fixture(autouse=True)
def swapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are taken wherever they may be, be it on the operators' references."""

    def always(op: str, device: str) -> bool:
        return True

    always._dynamo_marked_constant = True  # type: ignore[attr-defined]
    monkeypatch.setattr(_fusion, "compiled", always)


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """Makes the public ST-GCN with three narrow blocks and weights that matter."""

    def make(**options: object) -> nn.Module:
        sizes = {"classes": 4, "joints": 11, "widths": (16, 16, 24), "taps": 5, **options}
        return lively(st_gcn.Model(3, **sizes))

    return make


@pytest.fixture
def clips() -> Tensor:
    """``[N, C, T, V, M]``."""
    return torch.randn(3, 3, 13, 11, 2)
