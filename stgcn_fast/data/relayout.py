"""Clips of one joint layout seen as clips of another, joints matched by their names."""

from __future__ import annotations

from typing import Any, SupportsIndex

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph.mapping import joint_mapping

__all__ = ["LayoutView", "map_joints"]


def map_joints(clip: Skeleton, layout: str) -> Skeleton:
    """A clip in another layout: its joints reordered by name, those the layout has not left out.

    Args:
        clip: Any clip.
        layout: Name of the new layout.

    Raises:
        ValueError: The clip's layout lacks a joint of the new one.
    """
    if clip.layout == layout:
        return clip
    order = list(joint_mapping(clip.layout, layout))
    return clip.with_fields(
        keypoints=clip.keypoints[:, :, order],  # [M, T, V, C]
        confidence=None if clip.confidence is None else clip.confidence[:, :, order],
        layout=layout,
    )


class LayoutView:
    """A store whose clips come in another layout; everything else is the store's own.

    Args:
        store: A store, or anything with its attributes.
        layout: Name of the layout of the clips this view gives.

    Attributes:
        layout: That name.

    Raises:
        ValueError: The store's layout lacks a joint of the new one.
    """

    def __init__(self, store: Any, layout: str) -> None:
        joint_mapping(store.layout, layout)
        self._store = store
        self.layout = layout

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: SupportsIndex) -> Skeleton:
        return map_joints(self._store[index], self.layout)

    def __getattr__(self, name: str) -> Any:
        # Not for private names: unpickling asks for them before there is a store.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._store, name)
