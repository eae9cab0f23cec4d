"""Transforms that spoil a clip: noise, missing joints, missing frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stgcn_fast.data.transforms.base import RandomTransform, register_transform
from stgcn_fast.data.transforms.motion import Motion


@register_transform
@dataclass(frozen=True)
class JitterNoise(RandomTransform):
    """Adds independent Gaussian noise to every coordinate of the joints that were seen.

    Exactly one of the two strengths is given.

    Attributes:
        sigma: Standard deviation, in the unit of the coordinates.
        snr_db: Signal-to-noise ratio in decibels; the signal's power is the mean square of the coordinates of
            the clip about their mean.
    """

    sigma: float | None = None
    snr_db: float | None = None

    def _check(self) -> None:
        if (self.sigma is None) == (self.snr_db is None):
            raise self._wrong("sigma", "must be given if and only if snr_db is not", self.sigma)
        if self.sigma is not None:
            self._number("sigma", 0.0)
        else:
            self._number("snr_db")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        sigma = self.sigma
        if sigma is None:
            points = motion.points().astype(np.float64)
            power = float(np.mean((points - points.mean(axis=0)) ** 2)) if len(points) else 0.0
            sigma = float(np.sqrt(power / 10 ** ((self.snr_db or 0.0) / 10)))
        noise = rng.standard_normal(motion.keypoints.shape, dtype=np.float32) * np.float32(sigma)
        return motion.moved(motion.keypoints + noise)


@register_transform
@dataclass(frozen=True)
class DropJoints(RandomTransform):
    """Makes random joints missing; a person keeps at least one joint that was seen.

    Attributes:
        probability: Chance of each joint to go.
        per_frame: Draw anew in each frame; otherwise a joint goes for the whole clip.
    """

    probability: float = 0.1
    per_frame: bool = False

    def _check(self) -> None:
        self._number("probability", 0.0, 1.0)
        self._flag("per_frame")

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        persons, frames, joints = motion.confidence.shape
        draws = rng.random((persons, frames if self.per_frame else 1, joints))
        seen = motion.valid if self.per_frame else motion.valid.any(axis=1, keepdims=True)
        draws = np.where(seen, draws, -1.0)
        keep = (draws >= self.probability) | (draws == draws.max(axis=2, keepdims=True))
        return motion.kept(keep)


@register_transform
@dataclass(frozen=True)
class DropFrames(RandomTransform):
    """Makes all joints of random frames missing; one that shows somebody stays, and T does not change.

    Attributes:
        probability: Chance of each frame to go.
    """

    probability: float = 0.1

    def _check(self) -> None:
        self._number("probability", 0.0, 1.0)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        draws = np.where(motion.valid.any(axis=(0, 2)), rng.random(motion.frames), -1.0)
        keep = (draws >= self.probability) | (draws == draws.max())
        return motion.kept(keep[None, :, None])
