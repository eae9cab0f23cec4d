"""What the twins share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NTU_BONES = [1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11]


def adjacency(joints: int = 25, partitions: int = 3) -> Tensor:
    """[K, V, V]: identity, inward and outward bones, columns that sum to one; a chain beyond the skeleton.

    K other than 3 repeats them with other weights.
    """
    parents = NTU_BONES if joints == 25 else [max(0, j - 1) for j in range(joints)]
    inward = torch.zeros(joints, joints)
    for child, parent in enumerate(parents):
        if child != parent:
            inward[child, parent] = 1
    parts = [torch.eye(joints), inward, inward.T]
    parts = [part / part.sum(0).clamp_min(1) for part in parts]
    return torch.stack([parts[k % 3] / (1 + k // 3) for k in range(partitions)])


def nothing(x: Tensor) -> int:
    """A residual that is not there."""
    return 0


def same(x: Tensor) -> Tensor:
    """A residual that is the input."""
    return x


def lively(module: nn.Module) -> nn.Module:
    """Weights of trained size: nothing is zero, one, or the same in two joints."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point() or name.endswith("eyes"):  # DC-GCN's constants
            continue
        values = tensor.data
        if "running_var" in name:
            values.uniform_(0.5, 1.5)
        elif "running_mean" in name or (values.dim() < 2 and "bias" in name):
            values.normal_(0, 0.2)
        elif values.dim() < 2:
            values.uniform_(0.5, 1.5)
        elif values.dim() < 4 and values.shape[-1] == values.shape[-2]:
            values.add_(torch.randn_like(values) * 0.1 * (values != 0))
            values.add_(torch.randn_like(values) * 0.05 * (values.requires_grad or tensor.requires_grad))
        else:
            values.normal_(0, (values[0].numel()) ** -0.5)
    return module
