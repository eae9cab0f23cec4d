"""Joints of one layout found in another by their names."""

from __future__ import annotations

from stgcn_fast.graph.layout import Layout
from stgcn_fast.graph.layouts import get_layout

__all__ = ["joint_mapping"]


def joint_mapping(source: str | Layout, target: str | Layout) -> tuple[int, ...]:
    """Where the joints of a layout lie in another one.

    ``x[..., joint_mapping("kinect20", "utd20")]`` puts the joints of Northwestern-UCLA, [..., V], into the
    order of UTD-MHAD: both are the 20 joints of Kinect v1.

    Args:
        source: layout of the data, or its name.
        target: layout to bring them to, or its name.

    Returns:
        For each joint of the target, its index in the source.

    Raises:
        ValueError: the source lacks a joint of the target, or there is no layout of a name.
    """
    have = get_layout(source) if isinstance(source, str) else source
    want = get_layout(target) if isinstance(target, str) else target
    missing = [joint for joint in want.joints if joint not in have.joints]
    if missing:
        raise ValueError(
            f"joint_mapping: source must have every joint of {want.name!r}, "
            f"got {have.name!r} without {', '.join(missing)}"
        )
    return tuple(have.joints.index(joint) for joint in want.joints)
