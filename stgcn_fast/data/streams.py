"""Input streams: joints, bones and their motion (Shi et al., 2s-AGCN, CVPR 2019)."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stgcn_fast.graph import Layout, get_layout

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")

Array = TypeVar("Array", NDArray[np.float32], Tensor)


def list_streams() -> tuple[str, ...]:
    """Names that ``to_stream`` knows."""
    return STREAMS


def to_stream(
    x: Array,  # [..., C, T, V, M]
    layout: str | Layout,
    stream: str = "joint",
    *,
    has_confidence: bool = False,
    valid: NDArray[np.bool_] | Tensor | None = None,  # [..., T, V, M]
) -> Array:
    """Turns joint coordinates into one of the input streams.

    * ``joint``: the coordinates themselves.
    * ``bone``: child minus parent along ``layout.parents``; zero at the root.
    * ``joint_motion``, ``bone_motion``: x[t + 1] - x[t] of the joints or bones; zero in the last frame.

    A difference exists only where both of its ends do: with ``valid`` (or a confidence channel) given, a
    vector with a missing end is zero. Without either, missing joints enter as the zeros they are, as in the
    public code.

    A confidence channel is never subtracted: a bone, and each step of a motion, has the smaller confidence of
    its two ends. The root keeps its own confidence, and so does the last frame.

    Args:
        x: Float array or tensor [..., C, T, V, M] (any leading axes); it is not modified.
        layout: Joint layout of axis V, by name or itself.
        stream: One of ``list_streams()``.
        has_confidence: The last channel is a confidence, as in Kinetics-Skeleton (x, y, score).
        valid: Bool [..., T, V, M], true where the joint was seen. Taken from the confidence channel when not
            given.

    Returns:
        Array or tensor of x's shape and dtype.

    Raises:
        TypeError: If x is neither a numpy array nor a tensor of floats.
        ValueError: If the stream is unknown, or a shape does not fit the layout.
    """
    if stream not in STREAMS:
        raise ValueError(f"to_stream: stream must be one of {', '.join(STREAMS)}, got {stream!r}")
    if isinstance(x, Tensor):
        floating = x.is_floating_point()
    elif isinstance(x, np.ndarray):
        floating = x.dtype.kind == "f"
    else:
        raise TypeError(f"to_stream: x must be a numpy array or a torch tensor, got {type(x).__name__}")
    if not floating:
        raise TypeError(f"to_stream: x must be of a floating-point dtype, got {x.dtype}")
    layout = get_layout(layout) if isinstance(layout, str) else layout
    num_joints = len(layout.joints)
    if x.ndim < 4 or x.shape[-2] != num_joints:
        raise ValueError(
            f"to_stream: x must be [..., C, T, {num_joints}, M] for layout {layout.name!r}, "
            f"got shape {list(x.shape)}"
        )
    if has_confidence and x.shape[-4] < 2:
        raise ValueError(
            f"to_stream: x must have C >= 2 with a confidence channel, got shape {list(x.shape)}"
        )
    expected = [*x.shape[:-4], *x.shape[-3:]]
    if valid is not None and list(valid.shape) != expected:
        raise ValueError(
            f"to_stream: valid must be [..., T, V, M] = {expected}, got shape {list(valid.shape)}"
        )
    if stream == "joint":
        return x

    coordinates = x[..., :-1, :, :, :] if has_confidence else x
    confidence = x[..., -1, :, :, :] if has_confidence else None  # [..., T, V, M]
    seen: Any = confidence > 0 if valid is None and confidence is not None else valid

    if stream.startswith("bone"):
        parents = np.asarray(layout.parents)
        index = torch.tensor(parents, device=x.device) if isinstance(x, Tensor) else parents
        coordinates = coordinates - coordinates[..., index, :]
        confidence = None if confidence is None else _smaller(confidence, confidence[..., index, :])
        if seen is not None:
            seen = seen & seen[..., index, :]
            coordinates = coordinates * seen[..., None, :, :, :]
    if stream.endswith("motion"):
        coordinates = _step(coordinates)
        if seen is not None:
            both = seen[..., 1:, :, :] & seen[..., :-1, :, :]
            coordinates[..., :-1, :, :] *= both[..., None, :, :, :]
        if confidence is not None:
            step = _smaller(confidence[..., 1:, :, :], confidence[..., :-1, :, :])
            confidence = _join([step, confidence[..., -1:, :, :]], axis=-3)
    if confidence is None:
        return coordinates
    return _join([coordinates, confidence[..., None, :, :, :]], axis=-4)


def _step(x: Array) -> Array:
    """x[t + 1] - x[t] along the frames of [..., T, V, M], zero in the last frame."""
    out = torch.zeros_like(x) if isinstance(x, Tensor) else np.zeros_like(x)
    out[..., :-1, :, :] = x[..., 1:, :, :] - x[..., :-1, :, :]
    return out


def _smaller(a: Array, b: Array) -> Array:
    return torch.minimum(a, b) if isinstance(a, Tensor) else np.minimum(a, b)


def _join(parts: list[Array], axis: int) -> Array:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, dim=axis)
    return np.concatenate(parts, axis=axis)
