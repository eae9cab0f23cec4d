"""Clips as model input: a torch data set over a store, with transforms and one stream."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.streams import STREAMS, to_stream
from stgcn_fast.data.transforms import Motion, PadLoop, PadZero, Resample, Transform, build_transform

FITS = {"resample": Resample, "loop": PadLoop, "zero": PadZero}


class SkeletonSource(Protocol):
    """Anything that gives clips by position: a ``SkeletonStore`` or a list of ``Skeleton``."""

    def __len__(self) -> int:
        """Number of clips."""

    def __getitem__(self, index: SupportsIndex, /) -> Skeleton:
        """The clip at a position."""


class SkeletonDataset(Dataset[tuple[Tensor, int, int]]):
    """Model input made from clips.

    An item is ``(x, label, index)``: float32 [C, T, V, M]; the class index, -1 for a clip without one; and
    the clip's position in the source, by which its name is found.

    Every random draw of an item comes from a generator seeded by (seed, epoch, index), so an item does not
    depend on the order of access or on the worker that makes it. ``set_epoch`` reaches workers that live on
    between epochs too.

    A clip with fewer persons than ``persons`` gets absent ones, all zero; of more, the first are taken.

    Args:
        source: Clips by position.
        indices: Positions in the source that belong to the data set, in order; all of them when None.
        transform: A transform, or specs as for ``build_transform``; applied before the stream is made.
        stream: One of ``list_streams()``.
        frames: T of every item; None leaves each clip its own length (then batches need equal lengths).
        persons: M of every item.
        seed: Seed of the random draws.
        fit: How a clip that leaves the transforms with other than T frames gets T: ``resample`` (linear
            interpolation), ``loop`` (repeat from the start) or ``zero`` (empty frames). The last two cut
            longer clips after T frames.
        confidence: Append the confidence as last channel, as ST-GCN takes Kinetics-Skeleton (x, y, score).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the source is empty.
    """

    def __init__(
        self,
        source: SkeletonSource,
        indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        transform: Transform | Sequence[Any] | None = None,
        stream: str = "joint",
        frames: int | None = None,
        persons: int = 1,
        seed: int = 0,
        *,
        fit: str = "resample",
        confidence: bool = False,
    ) -> None:
        count = len(source)
        chosen = np.arange(count) if indices is None else np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(
                "SkeletonDataset: indices must be a list of ints, "
                f"got {chosen.dtype} of shape {list(chosen.shape)}"
            )
        if chosen.size == 0:
            raise ValueError("SkeletonDataset: indices must name at least one clip, got none")
        if chosen.min() < 0 or chosen.max() >= count:
            bad = chosen[(chosen < 0) | (chosen >= count)][0]
            raise ValueError(f"SkeletonDataset: indices must be in [0, {count}), got {bad}")
        if stream not in STREAMS:
            raise ValueError(f"SkeletonDataset: stream must be one of {', '.join(STREAMS)}, got {stream!r}")
        if fit not in FITS:
            raise ValueError(f"SkeletonDataset: fit must be one of {', '.join(FITS)}, got {fit!r}")
        self.source = source
        self.indices: NDArray[np.int64] = chosen.astype(np.int64)
        self.transform = transform if isinstance(transform, Transform) else build_transform(transform)
        self.stream = stream
        self.frames = None if frames is None else _at_least("frames", frames, 1)
        self.persons = _at_least("persons", persons, 1)
        self.seed = _at_least("seed", seed, 0)
        self.fit = fit
        self.confidence = bool(confidence)
        self._to_length = None if self.frames is None else FITS[fit](self.frames)
        # Shared memory, because workers that outlive an epoch hold their own copy of everything else.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: SupportsIndex) -> tuple[Tensor, int, int]:
        index = int(self.indices[operator.index(position)])
        clip = self.source[index]
        motion = Motion.of(clip)
        rng = self.generator(index) if self.transform.is_random else None
        motion = self.transform(motion, rng)
        if self._to_length is not None and self.frames is not None and motion.frames != self.frames:
            motion = self._to_length(motion)
            if motion.frames > self.frames:
                motion = motion.at(np.arange(self.frames))
        x = self.to_input(motion)
        return torch.from_numpy(x), -1 if clip.label is None else clip.label, index

    def to_input(self, motion: Motion) -> NDArray[np.float32]:
        """The chosen stream of a motion with the chosen number of persons, float32 [C, T, V, M]."""
        keypoints, confidence = motion.keypoints[: self.persons], motion.confidence[: self.persons]
        x = keypoints.transpose(3, 1, 2, 0)  # [C, T, V, M]
        seen = confidence.transpose(1, 2, 0)  # [T, V, M]
        if self.confidence:
            x = np.concatenate([x, seen[None]])
        x = to_stream(x, motion.layout, self.stream, has_confidence=self.confidence, valid=seen > 0)
        absent = self.persons - x.shape[3]
        if absent:
            x = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, absent)))
        # A copy, because a joint stream without transforms would otherwise be a view of the source.
        return np.array(x, dtype=np.float32, order="C")

    def generator(self, index: int) -> np.random.Generator:
        """The generator that the transforms of one clip get in the present epoch."""
        return np.random.default_rng((self.seed, self.epoch, index))

    @property
    def epoch(self) -> int:
        """Number of the epoch that random draws depend on."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Makes the random draws those of another epoch, here and in living workers.

        Raises:
            TypeError: If the epoch is not an int.
            ValueError: If it is negative.
        """
        self._epoch[0] = _at_least("epoch", epoch, 0)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [len(self)]: class index of each item, -1 for a clip without one."""
        known = getattr(self.source, "labels", None)
        if known is not None:
            return np.asarray(known, dtype=np.int64)[self.indices]
        found = (self.source[int(index)].label for index in self.indices)
        return np.array([-1 if label is None else label for label in found], dtype=np.int64)


def _at_least(name: str, value: SupportsIndex, low: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"SkeletonDataset: {name} must be an int, got {type(value).__name__}") from None
    if number < low:
        raise ValueError(f"SkeletonDataset: {name} must be >= {low}, got {number}")
    return number
