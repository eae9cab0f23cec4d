"""Transforms of motion clips: small dataclasses that take their randomness from outside, listable in YAML."""

from stgcn_fast.data.transforms.base import (
    Compose,
    FieldError,
    FieldTypeError,
    RandomTransform,
    Transform,
    build_transform,
    list_transforms,
    register_transform,
)
from stgcn_fast.data.transforms.corruption import DropFrames, DropJoints, JitterNoise
from stgcn_fast.data.transforms.motion import Motion
from stgcn_fast.data.transforms.placement import (
    AlignView,
    Centre,
    NormalizeBox,
    NormalizeImage,
    NormalizeScale,
)
from stgcn_fast.data.transforms.policies import RandomMove, TwoOfFour
from stgcn_fast.data.transforms.spatial import (
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomShear,
    RandomTranslate,
)
from stgcn_fast.data.transforms.temporal import (
    CropResize,
    FillMissing,
    PadLoop,
    PadZero,
    RandomCrop,
    Resample,
    TrimEmpty,
    UniformSample,
)

__all__ = [
    "Motion",
    "Transform",
    "RandomTransform",
    "Compose",
    "build_transform",
    "list_transforms",
    "register_transform",
    "FieldError",
    "FieldTypeError",
    "Centre",
    "AlignView",
    "NormalizeScale",
    "NormalizeBox",
    "NormalizeImage",
    "Resample",
    "CropResize",
    "UniformSample",
    "RandomCrop",
    "PadLoop",
    "PadZero",
    "TrimEmpty",
    "FillMissing",
    "RandomRotate",
    "RandomScale",
    "RandomShear",
    "RandomTranslate",
    "RandomFlip",
    "JitterNoise",
    "DropJoints",
    "DropFrames",
    "TwoOfFour",
    "RandomMove",
]
