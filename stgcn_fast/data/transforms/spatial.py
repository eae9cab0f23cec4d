"""Random changes of place, direction and size; one draw serves the whole clip and all persons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.transforms.base import RandomTransform, register_transform
from stgcn_fast.data.transforms.motion import Motion, layout_of
from stgcn_fast.data.transforms.placement import AXES, pivot_of

_PIVOTS = ("body", "origin")


def plane_rotation(degrees: float, axis: int, dimensions: int) -> NDArray[np.float64]:
    """Rotation [C, C] by an angle: in the image plane for C = 2, right-handed about an axis for C = 3."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    if dimensions == 2:
        return np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = cos
    matrix[a, b], matrix[b, a] = -sin, sin
    return matrix


def apply_matrix(motion: Motion, matrix: NDArray[np.float64], about: str = "origin") -> Motion:
    """Applies a linear map [C, C] to every joint, about the origin or the mean of the joints seen."""
    pivot = pivot_of(motion, about)
    turned = (motion.keypoints - pivot) @ matrix.T.astype(np.float32) + pivot
    return motion.moved(turned)


@register_transform
@dataclass(frozen=True)
class RandomRotate(RandomTransform):
    """Turns a clip by a random angle, uniform up to a limit either way.

    Attributes:
        degrees: Limit in degrees. 2-D: one number, in the image plane. 3-D: one number for all three axes, or
            [x, y, z] (Euler angles, applied about x first, then y, then z); a 2-D clip then takes the last.
        about: ``body`` (mean of the joints seen) or ``origin``.
    """

    degrees: float | tuple[float, float, float] = 15.0
    about: str = "body"

    def _check(self) -> None:
        if isinstance(self.degrees, (list, tuple)):
            self._numbers("degrees", [3])
        else:
            self._number("degrees")
        if min(self._limits()) < 0 or max(self._limits()) > 180:
            raise self._wrong("degrees", "must be in [0, 180]", self.degrees)
        self._choice("about", _PIVOTS)

    def _limits(self) -> tuple[float, float, float]:
        return self.degrees if isinstance(self.degrees, tuple) else (self.degrees,) * 3

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        x, y, z = self._limits()
        if motion.dimensions == 2:
            return apply_matrix(motion, plane_rotation(rng.uniform(-z, z), 2, 2), self.about)
        matrix = np.eye(3)
        for axis, limit in enumerate((x, y, z)):
            matrix = plane_rotation(rng.uniform(-limit, limit), axis, 3) @ matrix
        return apply_matrix(motion, matrix, self.about)


@register_transform
@dataclass(frozen=True)
class RandomScale(RandomTransform):
    """Multiplies a clip by a random factor.

    Attributes:
        factor: Smallest and largest factor, above 0.
        per_axis: Draw one factor for each axis instead of one for all.
        about: ``body`` (mean of the joints seen) or ``origin``.
    """

    factor: tuple[float, float] = (0.9, 1.1)
    per_axis: bool = False
    about: str = "body"

    def _check(self) -> None:
        self._interval("factor", above=0.0)
        self._flag("per_axis")
        self._choice("about", _PIVOTS)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        count = motion.dimensions if self.per_axis else 1
        factors = np.broadcast_to(rng.uniform(*self.factor, size=count), motion.dimensions)
        return apply_matrix(motion, np.diag(factors), self.about)


@register_transform
@dataclass(frozen=True)
class RandomShear(RandomTransform):
    """Multiplies by a matrix with ones on the diagonal and random numbers beside it.

    Attributes:
        amount: Limit of those numbers, uniform either way.
        about: ``body`` (mean of the joints seen) or ``origin``.
    """

    amount: float = 0.2
    about: str = "body"

    def _check(self) -> None:
        self._number("amount", 0.0)
        self._choice("about", _PIVOTS)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        size = motion.dimensions
        matrix = rng.uniform(-self.amount, self.amount, size=(size, size))
        np.fill_diagonal(matrix, 1.0)
        return apply_matrix(motion, matrix, self.about)


@register_transform
@dataclass(frozen=True)
class RandomTranslate(RandomTransform):
    """Moves a clip by a random vector, uniform up to a limit either way, in the unit of the coordinates.

    Attributes:
        amount: One limit for all axes, or one for each.
    """

    amount: float | tuple[float, ...] = 0.1

    def _check(self) -> None:
        if isinstance(self.amount, (list, tuple)):
            limits = self._numbers("amount", [2, 3])
        else:
            self._number("amount")
            limits = (float(self.amount),)
        if min(limits) < 0:
            raise self._wrong("amount", "must be >= 0", self.amount)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        limits = np.asarray(self.amount, dtype=np.float64)
        if limits.ndim == 1 and len(limits) != motion.dimensions:
            raise ValueError(
                f"RandomTranslate: amount must have {motion.dimensions} numbers, got {len(limits)}"
            )
        shift = rng.uniform(-1.0, 1.0, size=motion.dimensions) * limits
        return motion.moved(motion.keypoints + shift.astype(np.float32))


def flip(motion: Motion, axis: int, swap: bool, about: str) -> Motion:
    """Mirrors one axis and, with ``swap``, lets left and right joints change places."""
    pivot = pivot_of(motion, about)[axis]
    keypoints = motion.keypoints.copy()
    keypoints[..., axis] = 2 * pivot - keypoints[..., axis]
    mirrored = motion.moved(keypoints)
    if not swap:
        return mirrored
    order = np.asarray(layout_of(motion).mirror)
    return Motion(mirrored.keypoints[:, :, order], mirrored.confidence[:, :, order], motion.layout)


@register_transform
@dataclass(frozen=True)
class RandomFlip(RandomTransform):
    """Mirrors a clip and swaps left and right joints, so that a person stays a person.

    Not for classes that differ by the hand they use or the direction they go.

    Attributes:
        axis: ``x``, ``y`` or ``z``: the axis whose sign changes.
        swap: Swap left and right joints by the layout's ``mirror``.
        about: ``body`` (mean of the joints seen) or ``origin``.
        p: Chance of flipping; 0.5 unless given.
    """

    axis: str = "x"
    swap: bool = True
    about: str = "body"
    p: float = field(default=0.5, kw_only=True)

    def _check(self) -> None:
        self._choice("axis", AXES)
        self._flag("swap")
        self._choice("about", _PIVOTS)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        axis = AXES.index(self.axis)
        if axis >= motion.dimensions:
            raise ValueError(f"RandomFlip: axis must be x or y for a 2-D clip, got {self.axis}")
        return flip(motion, axis, self.swap, self.about)
