"""The skeleton as most networks after ST-GCN take it: joints themselves, bones inwards, bones outwards."""

from __future__ import annotations

import torch
from torch import Tensor

from stgcn_fast.graph import Layout


def bone_graph(layout: Layout) -> Tensor:
    """Identity, bones towards the centre and away from it, columns of each divided by their sums.

    Args:
        layout: of the joints.

    Returns:
        ``[3, V, V]``, source joint first; in the second matrix a joint receives from its parent.
    """
    joints = layout.num_joints
    inward = torch.zeros(joints, joints)
    for child, parent in layout.edges:
        inward[parent, child] = 1
    parts = (torch.eye(joints), inward, inward.T)
    return torch.stack([part / part.sum(0).clamp_min(1) for part in parts])


def nothing(x: Tensor) -> int:
    """A residual connection that is not there."""
    return 0


def same(x: Tensor) -> Tensor:
    """A residual connection that is the input."""
    return x
