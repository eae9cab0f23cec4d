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
from stgcn_fast.explain.files import load_explanation, save_explanation
from stgcn_fast.explain.importance import class_importance, joint_time_map, node_importance, valid_frames
from stgcn_fast.explain.layers import find_blocks
from stgcn_fast.explain.normalise import normalise_maps
from stgcn_fast.explain.study import Explanation, explain_clips

__all__ = [
    "CAMResult",
    "Curve",
    "Explanation",
    "Faithfulness",
    "Occlusion",
    "STGGradCAM",
    "class_importance",
    "contrastivity",
    "deletion_curve",
    "explain_clips",
    "faithfulness",
    "find_blocks",
    "insertion_curve",
    "joint_time_map",
    "load_explanation",
    "node_importance",
    "normalise_maps",
    "occlude",
    "save_explanation",
    "unfold_attribution",
    "valid_frames",
]
