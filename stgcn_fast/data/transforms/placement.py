"""Transforms that bring clips to a common place, direction and size. None of them draws random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.transforms.base import Transform, register_transform
from stgcn_fast.data.transforms.motion import (
    FloatArray,
    Motion,
    body_of,
    has_trunk,
    joint_index,
    layout_of,
    mean_point,
    track,
)
from stgcn_fast.graph import Layout

AXES = ("x", "y", "z")
_SPECIAL_JOINTS = ("centre", "hips", "shoulders", "body")
# Below this a direction is noise, not a direction (coordinates are metres or pixels).
_SHORTEST = 1e-6


def _track_of(motion: Motion, joint: int | str, owner: str) -> tuple[FloatArray, NDArray[np.bool_]] | None:
    """Path [T, C] of a joint, of the middle of hips or shoulders, or of the mean of all joints."""
    if joint == "body":
        valid: NDArray[np.bool_] = np.any(motion.valid, axis=(0, 2))  # [T]
        count = np.maximum(motion.valid.sum(axis=(0, 2)), 1)[:, None]
        total = motion.keypoints.sum(axis=(0, 2), dtype=np.float64)  # missing joints are zero
        return ((total / count).astype(np.float32), valid) if valid.any() else None
    layout = layout_of(motion)
    if joint == "centre":
        return track(motion, (layout.centre,))
    if joint == "hips":
        body = body_of(layout, owner)
        return track(motion, (body.left_hip, body.right_hip))
    if joint == "shoulders":
        body = body_of(layout, owner)
        return track(motion, (body.left_shoulder, body.right_shoulder))
    return track(motion, (joint_index(layout, joint, owner),))


def _check_joint(layout: Layout, joint: int | str, owner: str) -> None:
    if joint in ("hips", "shoulders"):
        body_of(layout, owner)
    elif joint not in _SPECIAL_JOINTS:
        joint_index(layout, joint, owner)


@register_transform
@dataclass(frozen=True)
class Centre(Transform):
    """Moves the origin to a joint of the first person who shows it.

    All persons move together, so their distances stay. Where that joint is missing its place is interpolated
    in time; where it is never seen, the mean of all joints takes its part.

    Attributes:
        joint: ``centre`` (of the layout), ``hips``, ``shoulders``, ``body`` (mean of all joints), a joint's
            name or index.
        reference: ``first`` (the place in the first frame that shows the joint), ``mean`` (its mean over the
            clip) or ``frame`` (its place in each frame, which removes the walk through the room).
    """

    joint: int | str = "centre"
    reference: str = "first"

    def _check(self) -> None:
        if isinstance(self.joint, bool) or not isinstance(self.joint, (int, str)):
            raise self._wrong_type("joint", "a joint's name or index", self.joint)
        self._choice("reference", ("first", "mean", "frame"))

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if the layout has no such joint."""
        _check_joint(layout, self.joint, "Centre")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        path = _track_of(motion, self.joint, "Centre") or _track_of(motion, "body", "Centre")
        if path is None:
            return motion
        place, seen = path
        if self.reference == "first":
            origin: FloatArray = place[np.argmax(seen)]
        elif self.reference == "mean":
            origin = place[seen].mean(axis=0, dtype=np.float64).astype(np.float32)
        else:
            times = np.arange(len(seen))
            origin = np.stack([np.interp(times, times[seen], axis[seen]) for axis in place.T], axis=-1)
            origin = origin.astype(np.float32)[:, None, :]  # [T, 1, C]
        return motion.moved(motion.keypoints - origin)


@register_transform
@dataclass(frozen=True)
class AlignView(Transform):
    """Turns a 3-D clip so that the body faces one way, about the origin; usually after ``Centre``.

    The line from the left to the right side of the body (shoulders, hips or both) becomes +x. With
    ``mode="full"`` the trunk, from hips to shoulders, becomes +``up`` exactly and the side line keeps its
    component across it, as the pre-normalisation of 2s-AGCN and MS-G3D does (there ``up`` is z and the side
    line the shoulders). With ``mode="yaw"`` the clip only turns about the ``up`` axis, so that leaning and
    lying bodies stay so.

    One rotation serves the whole clip and all persons. It is taken from the first person who shows the
    joints; a clip that never shows them passes unchanged.

    Attributes:
        mode: ``full`` or ``yaw``.
        up: Axis that points up, ``y`` (Kinect cameras, most data sets) or ``z``. In ``yaw`` mode the data
            must have it so.
        side: ``shoulders``, ``hips`` or ``both`` (the sum of the two lines).
        reference: ``first`` (first frame that shows the joints) or ``mean`` (mean over the clip, steadier
            against noise).
    """

    mode: str = "full"
    up: str = "z"
    side: str = "shoulders"
    reference: str = "first"

    def _check(self) -> None:
        self._choice("mode", ("full", "yaw"))
        self._choice("up", ("y", "z"))
        self._choice("side", ("shoulders", "hips", "both"))
        self._choice("reference", ("first", "mean"))

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if the layout lacks shoulders or hips."""
        body_of(layout, "AlignView")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        if motion.dimensions != 3:
            raise ValueError(f"AlignView: clip must have 3 dimensions, got {motion.dimensions}")
        body = body_of(layout_of(motion), "AlignView")
        corners = (body.left_shoulder, body.right_shoulder, body.left_hip, body.right_hip)
        seen: NDArray[np.bool_] = np.all(motion.valid[:, :, list(corners)], axis=2)  # [M, T]
        if not seen.any():
            return motion
        person = int(np.argmax(seen.any(axis=1)))
        frames = np.flatnonzero(seen[person])
        frames = frames[:1] if self.reference == "first" else frames
        points = motion.keypoints[person][frames][:, list(corners)].astype(np.float64).mean(axis=0)  # [4, 3]
        left_shoulder, right_shoulder, left_hip, right_hip = points
        across = np.zeros(3)
        if self.side != "hips":
            across += right_shoulder - left_shoulder
        if self.side != "shoulders":
            across += right_hip - left_hip
        up = np.zeros(3)
        up[AXES.index(self.up)] = 1.0
        trunk = (left_shoulder + right_shoulder - left_hip - right_hip) / 2 if self.mode == "full" else up
        rotation = _frame_to_axes(across, trunk, self.up)
        if rotation is None:
            return motion
        return motion.moved(motion.keypoints.astype(np.float64) @ rotation.T)


def _frame_to_axes(
    across: NDArray[np.float64], trunk: NDArray[np.float64], up: str
) -> NDArray[np.float64] | None:
    """Rotation [3, 3] that takes ``trunk`` to the up axis and ``across``, made normal to it, to x."""
    height = np.linalg.norm(trunk)
    if height < _SHORTEST:
        return None
    e_up = trunk / height
    side = across - (across @ e_up) * e_up
    width = np.linalg.norm(side)
    if width < _SHORTEST:
        return None
    e_x = side / width
    if up == "z":
        return np.stack([e_x, np.cross(e_up, e_x), e_up])
    return np.stack([e_x, e_up, np.cross(e_x, e_up)])


@register_transform
@dataclass(frozen=True)
class NormalizeScale(Transform):
    """Divides a clip by a length of its own, so that tall and near bodies equal short and far ones.

    Attributes:
        by: ``auto`` (``torso`` where the layout has shoulders and hips, else ``std``), ``torso`` (median
            distance from the middle of the hips to the middle of the shoulders), ``height`` (median extent of
            the joints along y) or ``std`` (standard deviation of the joints about their mean).
        target: The length that one becomes.
    """

    by: str = "auto"
    target: float = 1.0

    def _check(self) -> None:
        self._choice("by", ("auto", "torso", "height", "std"))
        self._number("target", above=0.0)

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if the layout lacks the torso asked for."""
        if self.by == "torso":
            body_of(layout, "NormalizeScale")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        length = self._length(motion)
        if length < _SHORTEST:
            return motion
        return motion.moved(motion.keypoints * np.float32(self.target / length))

    def _length(self, motion: Motion) -> float:
        layout = layout_of(motion)
        if self.by == "std" or (self.by == "auto" and not has_trunk(layout)):
            points = motion.points().astype(np.float64)
            return float(np.sqrt(np.mean((points - points.mean(axis=0)) ** 2))) if len(points) else 0.0
        if self.by == "height":
            y, valid = motion.keypoints[..., 1], motion.valid
            high = np.where(valid, y, -np.inf).max(axis=2)[valid.any(axis=2)]
            low = np.where(valid, y, np.inf).min(axis=2)[valid.any(axis=2)]
            return float(np.median(high - low)) if len(high) else 0.0
        body = body_of(layout, "NormalizeScale")
        corners = [body.left_shoulder, body.right_shoulder, body.left_hip, body.right_hip]
        seen = motion.valid[:, :, corners].all(axis=2)  # [M, T]
        if not seen.any():
            return 0.0
        corner = motion.keypoints[:, :, corners][seen]  # [P, 4, C]
        torso = (corner[:, 0] + corner[:, 1] - corner[:, 2] - corner[:, 3]) / 2
        return float(np.median(np.linalg.norm(torso, axis=1)))


@register_transform
@dataclass(frozen=True)
class NormalizeBox(Transform):
    """Brings the box around all joints of a clip to the middle of [-1, 1]; it takes the place of ``Centre``.

    One box serves the whole clip and all persons. Its middle goes to the origin and its longest side becomes
    2; with ``per_axis`` every side does, as in CTR-GCN's input of Northwestern-UCLA, where a clip's own
    proportions are lost. A side of no length keeps its length.

    Attributes:
        per_axis: Give each axis a factor of its own.
    """

    per_axis: bool = False

    def _check(self) -> None:
        self._flag("per_axis")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        points = motion.points().astype(np.float64)
        if len(points) == 0:
            return motion
        low, high = points.min(axis=0), points.max(axis=0)
        side = high - low
        if not self.per_axis:
            side[:] = side.max()
        half = np.where(side < _SHORTEST, 1.0, side / 2)
        return motion.moved((motion.keypoints - (low + high) / 2) / half)


@register_transform
@dataclass(frozen=True)
class NormalizeImage(Transform):
    """Maps pixels to fractions of the image with the origin in its middle: x / width - 0.5, y / height - 0.5.

    This is the form of Kinetics-Skeleton. A third coordinate stays as it is.

    Attributes:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """

    width: float
    height: float

    def _check(self) -> None:
        self._number("width", above=0.0)
        self._number("height", above=0.0)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        scaled = motion.keypoints.copy()
        scaled[..., 0] = scaled[..., 0] / self.width - 0.5
        scaled[..., 1] = scaled[..., 1] / self.height - 0.5
        return motion.moved(scaled)


def pivot_of(motion: Motion, about: str) -> FloatArray:
    """float32 [C]: the point a spatial transform turns about, the mean of all joints seen or the origin."""
    return mean_point(motion) if about == "body" else np.zeros(motion.dimensions, dtype=np.float32)
