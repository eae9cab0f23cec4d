"""Transforms along time: resampling, cropping, padding and repairing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.transforms.base import RandomTransform, Transform, register_transform
from stgcn_fast.data.transforms.motion import Motion


def interpolate_frames(motion: Motion, positions: NDArray[np.float64]) -> Motion:
    """Motion at fractional frame positions, linear between neighbouring frames.

    Where one of the two neighbours lacks a joint, the nearer one decides: seen, its place stands; missing, so
    is the result. Confidence is interpolated the same way.

    Args:
        motion: Motion of T frames.
        positions: float64 [S] in [0, T - 1].

    Returns:
        Motion of S frames.
    """
    before = np.floor(positions).astype(np.intp)
    after = np.minimum(before + 1, motion.frames - 1)
    weight = (positions - before).astype(np.float32)[None, :, None]  # [1, S, 1]
    c0, c1 = motion.confidence[:, before], motion.confidence[:, after]  # [M, S, V]
    k0, k1 = motion.keypoints[:, before], motion.keypoints[:, after]  # [M, S, V, C]
    step = np.where((c1 > 0) & (c0 > 0), weight, (weight > 0.5).astype(np.float32))
    confidence = c0 + step * (c1 - c0)
    keypoints = k0 + step[..., None] * (k1 - k0)
    return Motion(keypoints, confidence, motion.layout).moved(keypoints)


def _spread(start: float, length: float, frames: int) -> NDArray[np.float64]:
    """``frames`` positions evenly over [start, start + length - 1]; the middle for a single one."""
    if frames == 1:
        return np.array([start + (length - 1) / 2])
    return np.linspace(start, start + length - 1, frames)


@register_transform
@dataclass(frozen=True)
class Resample(Transform):
    """Stretches or shrinks a clip to a number of frames by linear interpolation; first and last frame stay.

    Attributes:
        frames: Number of frames of the result.
    """

    frames: int

    def _check(self) -> None:
        self._integer("frames", 1)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        if motion.frames == self.frames:
            return motion
        return interpolate_frames(motion, _spread(0, motion.frames, self.frames))


@register_transform
@dataclass(frozen=True)
class CropResize(RandomTransform):
    """Takes a part of a clip and stretches it to a number of frames, as CTR-GCN's ``p_interval`` does.

    For training: ``ratio=[0.5, 1.0]``. For testing: ``ratio=[0.95, 0.95]`` with ``position="centre"``.

    Attributes:
        frames: Number of frames of the result.
        ratio: Smallest and largest part of the clip, each in (0, 1]; drawn uniformly between.
        min_frames: The part has at least so many frames, where the clip does (CTR-GCN: 64).
        position: ``random`` or ``centre``.
    """

    frames: int
    ratio: tuple[float, float] = (0.5, 1.0)
    min_frames: int = 1
    position: str = "random"

    def _check(self) -> None:
        self._integer("frames", 1)
        self._interval("ratio", above=0.0, high=1.0)
        self._integer("min_frames", 1)
        self._choice("position", ("random", "centre"))

    def _draws(self) -> bool:
        return self.position == "random" or self.ratio[0] < self.ratio[1]

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        low, high = self.ratio
        part = low if low == high else rng.uniform(low, high)
        length = min(max(int(part * motion.frames), self.min_frames, 1), motion.frames)
        slack = motion.frames - length
        start = slack // 2 if self.position == "centre" else int(rng.integers(slack + 1))
        return interpolate_frames(motion, _spread(start, length, self.frames))


@register_transform
@dataclass(frozen=True)
class UniformSample(RandomTransform):
    """Cuts a clip into equal segments and takes one frame of each (the sampling of PoseC3D and pyskl).

    Shorter clips repeat frames. Frames are taken, never interpolated.

    Attributes:
        frames: Number of segments.
        position: ``random`` place in each segment, or its ``centre``.
    """

    frames: int
    position: str = "random"

    def _check(self) -> None:
        self._integer("frames", 1)
        self._choice("position", ("random", "centre"))

    def _draws(self) -> bool:
        return self.position == "random"

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        offset = rng.random(self.frames) if self.position == "random" else np.full(self.frames, 0.5)
        index = np.floor((np.arange(self.frames) + offset) * (motion.frames / self.frames)).astype(np.intp)
        return motion.at(np.minimum(index, motion.frames - 1))


@register_transform
@dataclass(frozen=True)
class RandomCrop(RandomTransform):
    """Takes consecutive frames as they are; clips that are not longer pass unchanged.

    Attributes:
        frames: Number of frames to take.
        position: ``random`` or ``centre``.
    """

    frames: int
    position: str = "random"

    def _check(self) -> None:
        self._integer("frames", 1)
        self._choice("position", ("random", "centre"))

    def _draws(self) -> bool:
        return self.position == "random"

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        slack = motion.frames - self.frames
        if slack <= 0:
            return motion
        start = slack // 2 if self.position == "centre" else int(rng.integers(slack + 1))
        return motion.at(np.arange(start, start + self.frames))


@register_transform
@dataclass(frozen=True)
class PadLoop(Transform):
    """Repeats a clip from its beginning until it has enough frames; longer clips pass unchanged.

    Attributes:
        frames: Smallest number of frames of the result.
    """

    frames: int

    def _check(self) -> None:
        self._integer("frames", 1)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        if motion.frames >= self.frames:
            return motion
        return motion.at(np.arange(self.frames) % motion.frames)


@register_transform
@dataclass(frozen=True)
class PadZero(RandomTransform):
    """Appends empty frames, in which every joint is missing; longer clips pass unchanged.

    Attributes:
        frames: Smallest number of frames of the result.
        shift: Put the clip at a random place among the empty frames (the auto-padding of ST-GCN on Kinetics).
    """

    frames: int
    shift: bool = False

    def _check(self) -> None:
        self._integer("frames", 1)
        self._flag("shift")

    def _draws(self) -> bool:
        return self.shift

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        missing = self.frames - motion.frames
        if missing <= 0:
            return motion
        before = int(rng.integers(missing + 1)) if self.shift else 0
        room = (before, missing - before)
        return Motion(
            np.pad(motion.keypoints, ((0, 0), room, (0, 0), (0, 0))),
            np.pad(motion.confidence, ((0, 0), room, (0, 0))),
            motion.layout,
        )


@register_transform
@dataclass(frozen=True)
class TrimEmpty(Transform):
    """Removes frames in which nobody shows any joint; a clip that is empty altogether keeps one frame.

    Attributes:
        where: ``ends`` (before the first and after the last frame with a joint) or ``all``.
    """

    where: str = "ends"

    def _check(self) -> None:
        self._choice("where", ("ends", "all"))

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        kept = np.flatnonzero(motion.valid.any(axis=(0, 2)))
        if len(kept) == motion.frames:
            return motion
        if len(kept) == 0:
            return motion.at(np.zeros(1, dtype=np.intp))
        return motion.at(kept if self.where == "all" else np.arange(kept[0], kept[-1] + 1))


@register_transform
@dataclass(frozen=True)
class FillMissing(Transform):
    """Puts missing joints where linear interpolation in time sees them; no other transform does so.

    Before its first and after its last sighting a joint stays where it was seen. A joint that is never seen
    stays missing.

    Attributes:
        confidence: Confidence that a filled joint gets.
        max_gap: Longest run of missing frames that is filled; 0 fills any.
    """

    confidence: float = 0.1
    max_gap: int = 0

    def _check(self) -> None:
        self._number("confidence", above=0.0)
        self._integer("max_gap", 0)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        valid = motion.valid
        holes = ~valid & valid.any(axis=1, keepdims=True)
        if not holes.any():
            return motion
        keypoints, confidence = motion.keypoints.copy(), motion.confidence.copy()
        times = np.arange(motion.frames)
        for person, joint in np.argwhere(holes.any(axis=1)):
            seen = valid[person, :, joint]
            fill = ~seen
            if self.max_gap:
                fill = fill & (_run_lengths(fill) <= self.max_gap)
            for axis in range(motion.dimensions):
                path = keypoints[person, :, joint, axis]
                path[fill] = np.interp(times[fill], times[seen], path[seen])
            confidence[person, fill, joint] = self.confidence
        return Motion(keypoints, confidence, motion.layout)


def _run_lengths(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each element, the length of the run of equal flags it stands in."""
    edges = np.flatnonzero(np.diff(flags)) + 1
    bounds = np.concatenate(([0], edges, [len(flags)]))
    lengths = np.diff(bounds)
    return np.repeat(lengths, lengths)
