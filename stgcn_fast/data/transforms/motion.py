"""The array form transforms work on, and what they need to know about a body."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import Layout, get_layout

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Motion(NamedTuple):
    """Keypoints with their confidence. A joint with confidence 0 was not seen, and its coordinates are zero.

    The confidence tells a missing joint from one that merely lies at the origin, as the centre does after
    centring.

    Attributes:
        keypoints: float32 [M, T, V, C], C = 2 or 3.
        confidence: float32 [M, T, V], at least zero.
        layout: Name of the joint layout of axis V.
    """

    keypoints: FloatArray
    confidence: FloatArray
    layout: str

    @classmethod
    def of(cls, skeleton: Skeleton) -> Motion:
        """Array form of a clip. Without scores, the confidence is 1 where a joint is valid."""
        confidence = skeleton.confidence
        if confidence is None:
            return cls(skeleton.keypoints, skeleton.valid.astype(np.float32), skeleton.layout)
        return cls(skeleton.keypoints, confidence, skeleton.layout).moved(skeleton.keypoints)

    @property
    def valid(self) -> BoolArray:
        """Bool [M, T, V]: joints that were seen."""
        return self.confidence > 0

    @property
    def frames(self) -> int:
        """T."""
        return int(self.keypoints.shape[1])

    @property
    def dimensions(self) -> int:
        """C, 2 or 3."""
        return int(self.keypoints.shape[3])

    def moved(self, keypoints: NDArray[np.floating]) -> Motion:
        """The same joints at other places [M, T, V, C]; missing joints stay zero."""
        placed = np.where(self.valid[..., None], keypoints, 0)
        return Motion(placed.astype(np.float32, copy=False), self.confidence, self.layout)

    def kept(self, keep: BoolArray) -> Motion:
        """Only the joints where ``keep`` (broadcastable to [M, T, V]) is true; the rest become missing."""
        confidence = np.where(keep, self.confidence, np.float32(0))
        return Motion(
            np.where((confidence > 0)[..., None], self.keypoints, np.float32(0)), confidence, self.layout
        )

    def at(self, frames: NDArray[np.intp]) -> Motion:
        """The frames with these indices, in this order."""
        return Motion(self.keypoints[:, frames], self.confidence[:, frames], self.layout)

    def points(self) -> FloatArray:
        """Float32 [P, C]: every joint that was seen, of all persons and frames."""
        return self.keypoints[self.valid]


def mean_point(motion: Motion) -> FloatArray:
    """Float32 [C]: mean of the joints that were seen; zero without any."""
    points = motion.points()
    if len(points) == 0:
        return np.zeros(motion.dimensions, dtype=np.float32)
    mean: NDArray[np.float64] = points.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def track(motion: Motion, joints: tuple[int, ...]) -> tuple[FloatArray, BoolArray] | None:
    """Mean place of some joints over time, of the first person in whom they are all seen at least once.

    Returns:
        float32 [T, C] (zero where not seen) and bool [T], or None if no person ever shows them together.
    """
    columns = list(joints)
    seen: BoolArray = np.all(motion.valid[:, :, columns], axis=2)  # [M, T]
    for person in range(len(seen)):
        if seen[person].any():
            place = motion.keypoints[person][:, columns].mean(axis=1)  # [T, C]
            return np.where(seen[person][:, None], place, np.float32(0)), seen[person]
    return None


class Body(NamedTuple):
    """Indices of the joints that span the trunk."""

    left_shoulder: int
    right_shoulder: int
    left_hip: int
    right_hip: int


@lru_cache(maxsize=64)
def _body_of(layout: Layout) -> Body | None:
    def find(side: str, part: str) -> int | None:
        for index, joint in enumerate(layout.joints):
            words = joint.lower().replace("-", "_").replace(" ", "_").split("_")
            if sorted(words) == sorted((side, part)):
                return index
        return None

    found = [find(side, part) for part in ("shoulder", "hip") for side in ("left", "right")]
    if any(index is None for index in found):
        return None
    return Body(*(index for index in found if index is not None))


def has_trunk(layout: Layout) -> bool:
    """Whether a layout has left and right shoulders and hips."""
    return _body_of(layout) is not None


def body_of(layout: Layout, owner: str) -> Body:
    """Shoulders and hips of a layout, found by joint name (``left_shoulder``, ``hip right``, ...).

    Raises:
        ValueError: If the layout lacks one of them.
    """
    body = _body_of(layout)
    if body is None:
        raise ValueError(f"{owner}: layout must have left and right shoulders and hips, got {layout.name!r}")
    return body


def joint_index(layout: Layout, joint: int | str, owner: str) -> int:
    """Index of a joint given by index or name.

    Raises:
        ValueError: If the layout has no such joint.
    """
    if isinstance(joint, str):
        if joint not in layout.joints:
            raise ValueError(f"{owner}: joint must be one of {', '.join(layout.joints)}, got {joint!r}")
        return layout.joints.index(joint)
    if not 0 <= joint < len(layout.joints):
        raise ValueError(
            f"{owner}: joint must be in [0, {len(layout.joints)}) for {layout.name!r}, got {joint}"
        )
    return joint


def layout_of(motion: Motion) -> Layout:
    """The layout a motion names."""
    return get_layout(motion.layout)
