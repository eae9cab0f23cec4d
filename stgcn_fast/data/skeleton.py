"""The one type every reader returns: the keypoints of one clip, with what is known about it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.graph import get_layout

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_INT_FIELDS = ("label", "subject", "camera", "setup", "replication")
_TEXT_FIELDS = ("body_ids", "splits")


@dataclass(frozen=True, eq=False, repr=False)
class Skeleton:
    """Keypoints of one clip. Immutable by convention: write into a copy, never into the arrays.

    A joint that was not seen has all coordinates zero and, where ``confidence`` exists, confidence zero; see
    ``valid``.

    Attributes:
        keypoints: float32 [M, T, V, C], C = 2 (pixels or image fractions) or 3 (metres unless the data set
            says otherwise).
        layout: Name of the joint layout, known to ``stgcn_fast.graph.get_layout``; V must be its joint count.
        confidence: float32 [M, T, V], at least zero, or None where the data set has no scores.
        name: Name of the clip, usually its file name without the ending.
        label: Class index, counted from zero, or None.
        label_name: Name of the class, or None.
        subject: Number of the performer as the data set counts it, or None.
        camera: Number of the camera or view, or None.
        setup: Number of the set-up (NTU RGB+D) or scenario, or None.
        replication: Number of the repetition, or None.
        body_ids: One tracking identity per person, in the order of axis M; empty where there is none.
        splits: Names of the splits the data set itself puts the clip in, for example ``("train",)``.

    Raises:
        TypeError: If an array is not numeric or a field has the wrong type.
        ValueError: If a shape or a value breaks the rules above.
    """

    keypoints: FloatArray  # [M, T, V, C]
    layout: str
    confidence: FloatArray | None = None  # [M, T, V]
    name: str = ""
    label: int | None = None
    label_name: str | None = None
    subject: int | None = None
    camera: int | None = None
    setup: int | None = None
    replication: int | None = None
    body_ids: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keypoints = _float_array("keypoints", self.keypoints)
        if keypoints.ndim != 4 or 0 in keypoints.shape[:3] or keypoints.shape[3] not in (2, 3):
            raise ValueError(
                "Skeleton: keypoints must be [M, T, V, C] with M, T, V >= 1 and C = 2 or 3, "
                f"got shape {list(keypoints.shape)}"
            )
        _check_finite("keypoints", keypoints)
        object.__setattr__(self, "keypoints", keypoints)
        if not isinstance(self.layout, str):
            raise TypeError(f"Skeleton: layout must be a name, got {type(self.layout).__name__}")
        expected = len(get_layout(self.layout).joints)
        if keypoints.shape[2] != expected:
            raise ValueError(
                f"Skeleton: keypoints must be [M, T, {expected}, C] for layout {self.layout!r}, "
                f"got shape {list(keypoints.shape)}"
            )
        if self.confidence is not None:
            confidence = _float_array("confidence", self.confidence)
            if confidence.shape != keypoints.shape[:3]:
                raise ValueError(
                    f"Skeleton: confidence must be [M, T, V] = {list(keypoints.shape[:3])}, "
                    f"got shape {list(confidence.shape)}"
                )
            _check_finite("confidence", confidence)
            if (confidence < 0).any():
                raise ValueError(f"Skeleton: confidence must be at least 0, got {float(confidence.min()):g}")
            object.__setattr__(self, "confidence", confidence)
        for field in _INT_FIELDS:
            object.__setattr__(self, field, _optional_int(field, getattr(self, field)))
        if self.label is not None and self.label < 0:
            raise ValueError(f"Skeleton: label must be at least 0 or None, got {self.label}")
        for field in _TEXT_FIELDS:
            object.__setattr__(self, field, _text_tuple(field, getattr(self, field)))
        if self.body_ids and len(self.body_ids) != keypoints.shape[0]:
            raise ValueError(
                f"Skeleton: body_ids must be empty or {len(keypoints)} long, got {len(self.body_ids)}"
            )
        if not isinstance(self.name, str):
            raise TypeError(f"Skeleton: name must be a str, got {type(self.name).__name__}")
        if not (self.label_name is None or isinstance(self.label_name, str)):
            raise TypeError(
                f"Skeleton: label_name must be a str or None, got {type(self.label_name).__name__}"
            )

    @classmethod
    def trusted(cls, **fields: Any) -> Skeleton:
        """Builds a clip from fields that were checked before, by a store for example."""
        clip = object.__new__(cls)
        for field, default in cls.__dataclass_fields__.items():
            object.__setattr__(clip, field, fields.get(field, default.default))
        return clip

    @property
    def num_persons(self) -> int:
        """M, the number of persons."""
        return int(self.keypoints.shape[0])

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return int(self.keypoints.shape[1])

    @property
    def num_joints(self) -> int:
        """V, the number of joints."""
        return int(self.keypoints.shape[2])

    @property
    def num_coordinates(self) -> int:
        """C, 2 or 3."""
        return int(self.keypoints.shape[3])

    @property
    def valid(self) -> BoolArray:
        """Joints that were seen, bool [M, T, V]: confidence above zero or, without scores, not at zero."""
        if self.confidence is not None:
            return np.asarray(self.confidence > 0)
        return np.asarray((self.keypoints != 0).any(axis=-1))

    @property
    def present(self) -> BoolArray:
        """Bool [M, T]: frames in which a person has at least one valid joint."""
        return np.asarray(self.valid.any(axis=-1))

    def select_persons(self, persons: Sequence[int] | NDArray[np.integer[Any]]) -> Skeleton:
        """Returns the clip with only the given persons, in the given order.

        Args:
            persons: At least one index into axis M.

        Raises:
            ValueError: If there is no index or one is out of range.
        """
        order = [operator.index(person) for person in persons]
        if not order or any(not 0 <= person < self.num_persons for person in order):
            raise ValueError(
                f"Skeleton.select_persons: persons must be some of [0, {self.num_persons}), got {order}"
            )
        return replace(
            self,
            keypoints=self.keypoints[order],
            confidence=None if self.confidence is None else self.confidence[order],
            body_ids=tuple(self.body_ids[person] for person in order) if self.body_ids else (),
        )

    def select_frames(self, start: int, stop: int) -> Skeleton:
        """Returns the clip from frame ``start`` (included) to ``stop`` (excluded).

        Raises:
            ValueError: If the range is empty or leaves the clip.
        """
        if not 0 <= start < stop <= self.frames:
            raise ValueError(
                f"Skeleton.select_frames: 0 <= start < stop <= {self.frames} must hold, got [{start}, {stop})"
            )
        return replace(
            self,
            keypoints=self.keypoints[:, start:stop],
            confidence=None if self.confidence is None else self.confidence[:, start:stop],
        )

    def with_keypoints(self, keypoints: FloatArray, confidence: FloatArray | None = None) -> Skeleton:
        """Returns the clip with other keypoints [M, T, V, C] and confidence [M, T, V]; all else is kept.

        ``confidence=None`` means the new clip has no scores. ``body_ids`` are kept where the number of
        persons is.
        """
        same = len(keypoints) == self.num_persons
        return replace(
            self, keypoints=keypoints, confidence=confidence, body_ids=self.body_ids if same else ()
        )

    def with_label(self, label: int | None, label_name: str | None = None) -> Skeleton:
        """Returns the clip with another label; all else is kept."""
        return replace(self, label=label, label_name=label_name)

    def with_fields(self, **fields: Any) -> Skeleton:
        """Returns the clip with other values for any of the named fields; all else is kept."""
        return replace(self, **fields)

    def __repr__(self) -> str:
        m, t, v, c = self.keypoints.shape
        label = "" if self.label is None else f", label={self.label}"
        return f"Skeleton({self.name!r}, {self.layout!r}, M={m}, T={t}, V={v}, C={c}{label})"


def _float_array(field: str, value: Any) -> FloatArray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"Skeleton: {field} must be a float32 numpy array, got {kind}")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf and is named below
        return np.ascontiguousarray(value, dtype=np.float32)


def _check_finite(field: str, value: FloatArray) -> None:
    finite = np.isfinite(value)
    if not finite.all():
        raise ValueError(
            f"Skeleton: {field} must be finite, got {int((~finite).sum())} non-finite of {value.size} values"
        )


def _optional_int(field: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"Skeleton: {field} must be an int or None, got {type(value).__name__}") from None


def _text_tuple(field: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
        raise TypeError(f"Skeleton: {field} must be a sequence of str, got {value!r:.60}")
    return tuple(value)
