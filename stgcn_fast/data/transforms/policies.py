"""Augmentations that published work names: two of four (KTH), random move (ST-GCN on Kinetics)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.transforms.base import RandomTransform, register_transform
from stgcn_fast.data.transforms.motion import Motion
from stgcn_fast.data.transforms.placement import AXES
from stgcn_fast.data.transforms.spatial import apply_matrix, flip, plane_rotation

_KINDS = ("flip", "rotation", "translation", "scaling")


@register_transform
@dataclass(frozen=True)
class TwoOfFour(RandomTransform):
    """With chance p, applies two different ones of: horizontal flip, rotation, translation, scaling.

    Amounts are drawn from lists chosen beforehand; the whole sequence shares one draw. Rotation, scaling and
    flip are about the mean of the joints. This is the augmentation of the KTH study with ST-GCN; the lists
    are those of its code, for pixel coordinates. A transform that centres the clip undoes the translation: it
    belongs in front of this one.

    Attributes:
        degrees: Angles to choose from, in the image plane (2-D) or about ``axis`` (3-D).
        factors: Scale factors to choose from.
        shifts: Translations to choose from, each along the first axes of the coordinates, in their unit.
        axis: Axis of rotation of a 3-D clip.
        swap: Swap left and right joints when flipping.
        kinds: What is drawn from, at least two of ``flip``, ``rotation``, ``translation``, ``scaling``.
            Classes that differ by side or direction must not be flipped.
        kth_compat: Repeats what the code of the KTH study does instead: both draws may be the same,
            translations do nothing, and the others are about the origin, with no joints swapped.
        p: Chance of augmenting at all; 0.5 unless given.
    """

    degrees: tuple[float, ...] = (-15.0, -10.0, -5.0, 5.0, 10.0, 15.0)
    factors: tuple[float, ...] = (0.95, 1.05, 1.1)
    shifts: tuple[tuple[float, ...], ...] = ((5.0, 5.0), (0.0, 5.0), (5.0, 0.0))
    axis: str = "z"
    swap: bool = True
    kinds: tuple[str, ...] = _KINDS
    kth_compat: bool = False
    p: float = field(default=0.5, kw_only=True)

    def _check(self) -> None:
        self._numbers("degrees")
        if min(self._numbers("factors")) <= 0:
            raise self._wrong("factors", "must be > 0", list(self.factors))
        self._check_shifts()
        self._choice("axis", AXES)
        self._flag("swap")
        self._flag("kth_compat")
        kinds: Any = self.kinds
        if (
            isinstance(kinds, str)
            or not isinstance(kinds, Sequence)
            or not all(isinstance(kind, str) for kind in kinds)
        ):
            raise self._wrong_type("kinds", "a list of names", kinds)
        if len(set(kinds)) < max(2, len(kinds)) or not set(kinds) <= set(_KINDS):
            raise self._wrong("kinds", f"must be at least two of {', '.join(_KINDS)}", list(kinds))
        self._set("kinds", tuple(kind for kind in _KINDS if kind in kinds))

    def _check_shifts(self) -> None:
        given: Any = self.shifts
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise self._wrong_type("shifts", "a list of vectors", given)
        if len(given) == 0:
            raise self._wrong("shifts", "must not be empty", [])
        vectors = []
        for position, shift in enumerate(given):
            if isinstance(shift, str) or not isinstance(shift, Sequence):
                raise self._wrong_type(f"shifts[{position}]", "a list of 2 or 3 numbers", shift)
            vector = tuple(self._to_float(f"shifts[{position}][{i}]", x) for i, x in enumerate(shift))
            if len(vector) not in (2, 3):
                raise self._wrong(f"shifts[{position}]", "must have 2 or 3 numbers", list(vector))
            vectors.append(vector)
        self._set("shifts", tuple(vectors))

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        drawn = sorted(rng.choice(len(self.kinds), size=2, replace=self.kth_compat).tolist())
        if self.kth_compat:
            return self._apply_compat(motion, {self.kinds[index] for index in drawn}, rng)
        for kind in (self.kinds[index] for index in drawn):
            if kind == "flip":
                motion = flip(motion, 0, self.swap, "body")
            elif kind == "rotation":
                motion = apply_matrix(motion, self._rotation(motion, rng), "body")
            elif kind == "translation":
                shift = np.zeros(motion.dimensions, dtype=np.float32)
                chosen = self.shifts[rng.integers(len(self.shifts))][: motion.dimensions]
                shift[: len(chosen)] = chosen
                motion = motion.moved(motion.keypoints + shift)
            else:
                motion = apply_matrix(motion, np.eye(motion.dimensions) * self._factor(rng), "body")
        return motion

    def _apply_compat(self, motion: Motion, kinds: set[str], rng: np.random.Generator) -> Motion:
        matrix = np.eye(motion.dimensions)
        if "flip" in kinds:
            matrix[0, 0] = -1
        if "scaling" in kinds:
            matrix = matrix * self._factor(rng)
        if "rotation" in kinds:
            matrix = self._rotation(motion, rng) @ matrix
        return apply_matrix(motion, matrix, "origin")

    def _rotation(self, motion: Motion, rng: np.random.Generator) -> NDArray[np.float64]:
        angle = self.degrees[rng.integers(len(self.degrees))]
        return plane_rotation(angle, AXES.index(self.axis), motion.dimensions)

    def _factor(self, rng: np.random.Generator) -> float:
        return self.factors[rng.integers(len(self.factors))]


@register_transform
@dataclass(frozen=True)
class RandomMove(RandomTransform):
    """Turns, scales and shifts in the x-y plane by amounts that change linearly over the clip.

    The random move of ST-GCN on Kinetics-Skeleton (Yan et al., AAAI 2018), for coordinates centred on the
    image. A third coordinate stays. Missing joints stay missing (the public code moves their zeros too).

    Attributes:
        degrees: Angles to choose from.
        factors: Scale factors to choose from.
        shifts: Shifts to choose from, for x and y apart.
        segments: Number of linear pieces over the clip; amounts are drawn at their ends.
    """

    degrees: tuple[float, ...] = (-10.0, -5.0, 0.0, 5.0, 10.0)
    factors: tuple[float, ...] = (0.9, 1.0, 1.1)
    shifts: tuple[float, ...] = (-0.2, -0.1, 0.0, 0.1, 0.2)
    segments: int = 1

    def _check(self) -> None:
        self._numbers("degrees")
        if min(self._numbers("factors")) <= 0:
            raise self._wrong("factors", "must be > 0", list(self.factors))
        self._numbers("shifts")
        self._integer("segments", 1)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        knots = np.linspace(0, motion.frames - 1, self.segments + 1)
        times = np.arange(motion.frames)

        def path(candidates: tuple[float, ...]) -> NDArray[np.float64]:
            drawn: NDArray[np.float64] = rng.choice(candidates, size=self.segments + 1)
            return np.interp(times, knots, drawn)

        angle, factor = np.radians(path(self.degrees)), path(self.factors)
        shift_x, shift_y = path(self.shifts), path(self.shifts)
        cos, sin = (np.cos(angle) * factor)[:, None], (np.sin(angle) * factor)[:, None]  # [T, 1]
        x, y = motion.keypoints[..., 0], motion.keypoints[..., 1]  # [M, T, V]
        moved = motion.keypoints.astype(np.float64)
        moved[..., 0] = cos * x - sin * y + shift_x[:, None]
        moved[..., 1] = sin * x + cos * y + shift_y[:, None]
        return motion.moved(moved)
