"""What the layers of a network look at: layer-wise Grad-CAM, importance of joints, how far to trust it."""

from stgcn_fast.explain.cam import CAMResult, STGGradCAM
from stgcn_fast.explain.captum_maps import unfold_attribution
from stgcn_fast.explain.contrast import contrastivity
from stgcn_fast.explain.faithfulness import (
    Curve,
    Faithfulness,
    Occlusion,
    deletion_curve,
    faithfulness,
    insertion_curve,
    occlude,
)
from stgcn_fast.explain.importance import class_importance, joint_time_map, node_importance, valid_frames
from stgcn_fast.explain.layers import find_blocks
from stgcn_fast.explain.normalise import normalise_maps

__all__ = [
    "CAMResult",
    "Curve",
    "Faithfulness",
    "Occlusion",
    "STGGradCAM",
    "class_importance",
    "contrastivity",
    "deletion_curve",
    "faithfulness",
    "find_blocks",
    "insertion_curve",
    "joint_time_map",
    "node_importance",
    "normalise_maps",
    "occlude",
    "unfold_attribution",
    "valid_frames",
]
