"""A small ST-GCN whose outputs depend on its input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stgcn_fast.models import STGCN


def lively(**options: object) -> STGCN:
    """In evaluation mode, far from its initial weights."""
    model = STGCN(
        **{
            "num_classes": 4,
            "layout": "hand21",
            "channels": (16, 16, 32, 24),
            "temporal_kernel": 9,
            **options,
        }
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
    if model.edge_importance is not None:
        for factors in model.edge_importance:
            nn.init.uniform_(factors, 0.5, 1.5)
    return model.eval()


@pytest.fixture
def network() -> Callable[..., STGCN]:
    torch.manual_seed(0)
    return lively
