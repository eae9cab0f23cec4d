"""From maps to joints and classes: node importance, class importance, joint-time maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def node_importance(
    maps: Any,
    frames: ArrayLike | None = None,
    input_frames: int | None = None,
    *,
    person: int | None = 0,
) -> Floats:
    """Mean of each joint's map over the frames that are not padding.

    Args:
        maps: ``[N, M, T_l, V]``, array or tensor: maps of one layer.
        frames: ``[N]``, filled frames of each clip, counted in the network's input; all when None.
        input_frames: T of the network's input; needed with ``frames``.
        person: Whose maps count; None for the mean over all.

    Returns:
        ``[N, V]``. Of T_l frames, ``ceil(T_l * frames / input_frames)`` count.

    Raises:
        ValueError: Shapes or numbers of frames do not fit.
    """
    values, weights = _rows(maps, frames, input_frames, person, "node_importance")
    return np.asarray(np.einsum("ntv,nt->nv", values, weights) / weights.sum(1, keepdims=True))


def class_importance(
    importance: ArrayLike, classes: ArrayLike, num_classes: int, *, normalize: bool = True
) -> Floats:
    """Mean importance of each joint for each class.

    Args:
        importance: ``[N, V]``, of :func:`node_importance`.
        classes: ``[N]``, class of each clip; negative ones are left out.
        num_classes: K.
        normalize: Whether each class is scaled to [0, 1], its least important joint at 0.

    Returns:
        ``[K, V]``; NaN for a class without clips, zeros for one whose joints are all equal.

    Raises:
        ValueError: Shapes or classes do not fit.
    """
    values = np.asarray(importance, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"class_importance: importance must have shape [N, V], got {list(values.shape)}")
    means = _means(values, classes, num_classes, "class_importance")
    if not normalize:
        return means
    low, high = means.min(1, keepdims=True), means.max(1, keepdims=True)
    span = high - low
    scaled = np.divide(means - low, span, out=np.zeros_like(means), where=span > 0)
    return np.where(np.isnan(means), np.nan, scaled)


def joint_time_map(maps: Any, classes: ArrayLike, num_classes: int, *, person: int | None = 0) -> Floats:
    """Mean map of each class over all frames, padding included.

    Args:
        maps: ``[N, M, T_l, V]``, maps of one layer.
        classes: ``[N]``, class of each clip; negative ones are left out.
        num_classes: K.
        person: Whose maps count; None for the mean over all.

    Returns:
        ``[K, T_l, V]``; NaN for a class without clips.

    Raises:
        ValueError: Shapes or classes do not fit.
    """
    values, _ = _rows(maps, None, None, person, "joint_time_map")
    return _means(values, classes, num_classes, "joint_time_map")


def valid_frames(x: Any) -> NDArray[np.int64]:
    """Frames of each clip up to the last one that shows anybody.

    Args:
        x: Network input ``[N, C, T, V, M]``, zero where nobody is.

    Returns:
        ``[N]``, at least 1.
    """
    values = _array(x)
    if values.ndim != 5:
        raise ValueError(f"valid_frames: x must have shape [N, C, T, V, M], got {list(values.shape)}")
    seen = (values != 0).any((1, 3, 4))  # [N, T]
    last = values.shape[2] - np.argmax(seen[:, ::-1], axis=1)
    return np.where(seen.any(1), last, 1).astype(np.int64)


def _array(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def _rows(
    maps: Any, frames: ArrayLike | None, input_frames: int | None, person: int | None, owner: str
) -> tuple[Floats, Floats]:
    """One person's maps ``[N, T, V]`` and which frames count ``[N, T]``."""
    values = _array(maps).astype(np.float64)
    if values.ndim != 4 or 0 in values.shape[1:]:
        raise ValueError(f"{owner}: maps must have shape [N, M, T, V], got {list(values.shape)}")
    count, persons, length = values.shape[:3]
    if person is not None and not 0 <= person < persons:
        raise ValueError(f"{owner}: person must be in [0, {persons}), got {person}")
    chosen = values.mean(1) if person is None else values[:, person]
    weights = np.ones((count, length))
    if (frames is None) != (input_frames is None):
        raise ValueError(f"{owner}: frames and input_frames must come together, got one of them")
    if frames is not None and input_frames is not None:
        given = np.asarray(frames)
        if given.shape != (count,) or (given < 1).any() or (given > input_frames).any():
            raise ValueError(f"{owner}: frames must be {count} numbers from 1 to {input_frames}, got {given}")
        filled = np.ceil(length * given / input_frames)
        weights = (np.arange(length) < filled[:, None]).astype(np.float64)
    return chosen, weights


def _means(values: Floats, classes: ArrayLike, num_classes: int, owner: str) -> Floats:
    given = np.asarray(classes)
    if given.shape != (len(values),) or given.dtype.kind not in "iu":
        raise ValueError(f"{owner}: classes must be {len(values)} integers, got {given.dtype} {given.shape}")
    if len(given) and given.max() >= num_classes:
        raise ValueError(f"{owner}: classes must be below {num_classes}, got {given.max()}")
    out = np.full((num_classes, *values.shape[1:]), np.nan)
    for number in np.unique(given[given >= 0]):
        out[number] = values[given == number].mean(0)
    return out
