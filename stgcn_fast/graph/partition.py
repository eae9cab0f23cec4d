"""Partitioning strategies: splitting the D-neighbourhood of a joint into K subsets.

Every function returns a boolean array ``[K, V, W]``: entry ``[k, v, w]`` says that source joint v belongs to
subset k of target joint w's neighbourhood. Subsets are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stgcn_fast.graph.layout import Layout


def hop_distances(layout: Layout, cap: int | None = None) -> NDArray[np.float64]:
    """Length of the shortest path between any two joints.

    Args:
        layout: a skeleton of V joints.
        cap: distances beyond it are infinite.

    Returns:
        ``[V, V]``, symmetric, zero on the diagonal.
    """
    num_joints = layout.num_joints
    linked = np.eye(num_joints, dtype=bool)
    for child, parent in layout.edges:
        linked[child, parent] = linked[parent, child] = True
    distances = np.full((num_joints, num_joints), np.inf)
    reached = np.eye(num_joints, dtype=bool)
    distances[reached] = 0
    for hop in range(1, (num_joints if cap is None else cap + 1)):
        further = (reached @ linked) & ~reached
        distances[further] = hop
        reached |= further
    return distances


def uniform(layout: Layout, max_distance: int) -> NDArray[np.bool_]:
    """Uni-labelling: the joint and its D-neighbourhood in one subset, K = 1 (Yan et al. 2018)."""
    return (hop_distances(layout) <= max_distance)[None]


def distance(layout: Layout, max_distance: int) -> NDArray[np.bool_]:
    """Distance partitioning: subset k holds the joints k hops away, K = D + 1 (Yan et al. 2018)."""
    hops = hop_distances(layout)
    return np.stack([hops == hop for hop in range(max_distance + 1)])


def spatial(
    layout: Layout,
    max_distance: int,
    joint_distances: NDArray[np.float64] | None = None,
    hop_cap: bool = False,
) -> NDArray[np.bool_]:
    """Spatial configuration partitioning, K = 2 D + 1 (Yan et al. 2018).

    Subset 0 is the joint itself. For each hop d = 1..D follow the neighbours that lie at least as far from
    the centre as the joint (subset 2 d - 1) and those that lie nearer to it (subset 2 d).

    Args:
        layout: a skeleton of V joints.
        max_distance: D.
        joint_distances: ``[V]``, distance of each joint to the centre of gravity; None takes hops to
            ``layout.centre``.
        hop_cap: hops to the centre beyond D count as infinite, hence as equal, as in the public code.
    """
    hops = hop_distances(layout)
    if joint_distances is not None:
        radius = joint_distances
    elif hop_cap:
        radius = hop_distances(layout, max_distance)[layout.centre]
    else:
        radius = hops[layout.centre]
    outward = radius[:, None] >= radius[None, :]
    subsets = [hops == 0]
    for hop in range(1, max_distance + 1):
        subsets += [(hops == hop) & outward, (hops == hop) & ~outward]
    return np.stack(subsets)


def symmetric(layout: Layout, max_distance: int) -> NDArray[np.bool_]:
    """Symmetrical distance partitioning, K = D + 1.

    As :func:`distance`, and a joint is also reached through its mirror image on the other side of the body:
    with m the mirror, subset k >= 1 holds the joints v with
    ``min(hop(v, w), max(1, hop(m(v), w)), max(1, hop(v, m(w)))) = k``; subset 0 is the joint itself.
    For D = 1 these are the neighbours, the mirrors of the neighbours and the joint's own mirror (Nagy,
    Panesar and Qian, "Spatial-temporal graph convolutional networks for skeleton-based action recognition").

    Raises:
        ValueError: the layout has no mirrored joints.
    """
    if not layout.left:
        raise ValueError(
            f"Graph: layout must have left and right joints for the symmetric partition, got {layout.name!r}"
        )
    hops = hop_distances(layout)
    across = np.minimum(hops[layout.mirror], hops[:, layout.mirror])
    reach = np.minimum(hops, np.maximum(across, 1))
    return np.stack([reach == hop for hop in range(max_distance + 1)])


def mean_joint_distances(
    keypoints: ArrayLike | Iterable[Any], valid: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Mean distance r of each joint to the centre of gravity of its frame, over a training set.

    Clips are consumed one at a time, so a generator over a large set needs the memory of one clip.

    Args:
        keypoints: coordinates ``[..., T, V, C]`` as one array, or an iterable of such arrays (T may vary), or
            an iterable of tuples ``(keypoints, valid)``.
        valid: ``[..., T, V]``, true where a joint was seen, for one array of keypoints. None counts every
            joint whose coordinates are finite; data that write missing joints as zeros need the mask.

    Returns:
        ``[V]`` float64, in the unit of the data. The centre of a frame is the mean of its valid joints.

    Raises:
        ValueError: shapes disagree, or a joint was never valid.

    Examples:
        >>> mean_joint_distances([[[0.0, 0.0], [2.0, 0.0]]])
        array([1., 1.])
    """
    if valid is not None or (isinstance(keypoints, (np.ndarray, list)) and not _holds_clips(keypoints)):
        keypoints = [(keypoints, valid)]
    total: NDArray[np.float64] | None = None
    count: NDArray[np.int64] | None = None
    for clip in keypoints:  # type: ignore[union-attr]
        coordinates, mask = clip if isinstance(clip, tuple) else (clip, None)
        distances, seen = _distances_to_centre(coordinates, mask)
        if total is None or count is None:
            total, count = distances, seen
        elif len(total) != len(distances):
            raise ValueError(
                f"mean_joint_distances: keypoints must all have {len(total)} joints, got {len(distances)}"
            )
        else:
            total, count = total + distances, count + seen
    if total is None or count is None:
        raise ValueError("mean_joint_distances: keypoints must hold at least one clip, got none")
    if not count.all():
        missing = ", ".join(map(str, np.flatnonzero(count == 0)))
        raise ValueError(
            f"mean_joint_distances: valid must be true once for every joint, got never for {missing}"
        )
    return total / count


def _holds_clips(keypoints: Any) -> bool:
    return (
        isinstance(keypoints, list) and len(keypoints) > 0 and isinstance(keypoints[0], (tuple, np.ndarray))
    )


def _distances_to_centre(keypoints: ArrayLike, valid: ArrayLike | None) -> tuple[NDArray[np.float64], Any]:
    points = np.asarray(keypoints, dtype=np.float64)
    if points.ndim < 3:
        raise ValueError(
            f"mean_joint_distances: keypoints must have shape [..., T, V, C], got {points.shape}"
        )
    seen: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(points), axis=-1)
    if valid is not None:
        mask = np.asarray(valid, dtype=bool)
        if mask.shape != points.shape[:-1]:
            raise ValueError(
                f"mean_joint_distances: valid must have shape {points.shape[:-1]}, got {mask.shape}"
            )
        seen &= mask
    points = np.where(seen[..., None], points, 0.0)
    centre = points.sum(-2, keepdims=True) / np.maximum(seen.sum(-1), 1)[..., None, None]
    distances = np.linalg.norm(points - centre, axis=-1) * seen
    frames = tuple(range(distances.ndim - 1))
    return distances.sum(frames), seen.sum(frames)
