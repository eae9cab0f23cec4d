"""Small networks with weights of every sign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stgcn_fast.models import MSG3D, STGCN


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm moved from where it starts, so that no gradient vanishes by symmetry."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def stgcn() -> STGCN:
    torch.manual_seed(0)
    model = stirred(STGCN(num_classes=4, layout="ntu25", width=0.125))
    assert isinstance(model, STGCN)
    return model


@pytest.fixture(scope="module")
def msg3d() -> MSG3D:
    torch.manual_seed(0)
    model = stirred(MSG3D(num_classes=4, layout="ntu25", width=6, num_gcn_scales=4, num_g3d_scales=2))
    assert isinstance(model, MSG3D)
    return model


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """[N, C, T, V, M], two persons."""
    return torch.randn(3, 3, 16, 25, 2, generator=torch.Generator().manual_seed(1))
