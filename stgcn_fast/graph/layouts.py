"""The layouts that come with the package, and the register of the user's own.

Joint orders are those of the data: NTU RGB+D (Kinect v2), COCO keypoints, OpenPose COCO and BODY_25 output,
Kinect SDK v1 (Northwestern-UCLA), UTD-MHAD's own order, NATOPS, MediaPipe pose and MediaPipe hand.
"Left" is the person's own left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stgcn_fast.graph.layout import Layout

_REGISTER: dict[str, Layout] = {}


def register_layout(
    name: str,
    joints: Sequence[str],
    edges: Sequence[tuple[int, int]],
    centre: int,
    left: Sequence[int] = (),
    right: Sequence[int] = (),
) -> Layout:
    """Adds a layout, so that its name can be used wherever a layout is asked for.

    Registering the same definition twice is allowed and changes nothing.

    Args:
        name: the new name.
        joints: V joint names in the order of the data.
        edges: bones as ``(child, parent)``; see :class:`Layout`.
        centre: index of the joint at the centre of the body.
        left: joints of the left side.
        right: their mirror images, in the same order.

    Returns:
        The layout.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the definition is not valid, or the name stands for another layout already.

    Examples:
        >>> register_layout("arm3", ["shoulder", "elbow", "wrist"], [(1, 0), (2, 1)], centre=0).num_joints
        3
    """
    layout = Layout(name, tuple(joints), tuple(edges), centre, tuple(left), tuple(right))
    if _REGISTER.setdefault(name, layout) != layout:
        raise ValueError(f"register_layout: name must be new, got {name!r}, which is another layout")
    return _REGISTER[name]


def restore_layout(config: Mapping[str, Any]) -> Layout:
    """Registers a layout from the definition that a store or a checkpoint carries, unless it is known.

    Args:
        config: :attr:`Layout.config`.

    Returns:
        The layout.

    Raises:
        TypeError: a field of the definition has the wrong type.
        ValueError: the definition is not valid, or its name stands for another layout here.
    """
    layout = Layout.from_config(config)
    if _REGISTER.setdefault(layout.name, layout) != layout:
        rule = f"definition of {layout.name!r} must be the one registered under that name"
        raise ValueError(f"restore_layout: {rule}, got another")
    return _REGISTER[layout.name]


def carried_definition(layout: str | Layout) -> dict[str, Any] | None:
    """The definition that a file must carry for a layout to be known elsewhere.

    Args:
        layout: a layout or the name of one.

    Returns:
        None for a layout that every installation has.

    Raises:
        ValueError: there is no layout of this name.
    """
    found = get_layout(layout) if isinstance(layout, str) else layout
    return None if found.name in BUILT_IN and found == _REGISTER[found.name] else found.config


def get_layout(name: str) -> Layout:
    """The layout of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _REGISTER:
        raise ValueError(f"get_layout: name must be one of {', '.join(list_layouts())}, got {name!r}")
    return _REGISTER[name]


def list_layouts() -> list[str]:
    """Names of all layouts, sorted."""
    return sorted(_REGISTER)


def _tree(parents: Sequence[int]) -> list[tuple[int, int]]:
    return [(child, parent) for child, parent in enumerate(parents) if child != parent]


def _sides(joints: Sequence[str]) -> tuple[list[int], list[int]]:
    left = [i for i, joint in enumerate(joints) if joint.startswith("left_")]
    return left, [joints.index("right_" + joints[i][len("left_") :]) for i in left]


def _built_in(
    name: str, joints: str, parents: Sequence[int], centre: int, extra: Sequence[tuple[int, int]] = ()
) -> None:
    names = joints.split()
    left, right = _sides(names)
    register_layout(name, names, _tree(parents) + list(extra), centre, left, right)


# Hand tips hang on the thumbs, as in the public ST-GCN's graph, so that its adjacency is reproduced.
_built_in(
    "ntu25",
    """spine_base spine_mid neck head
    left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow right_wrist right_hand
    left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot
    spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb""",
    (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11),
    centre=20,
)

_built_in(
    "coco17",
    """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow
    left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle""",
    (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    centre=0,
)

# Hips hang on the shoulders, as in the public ST-GCN's graph.
_built_in(
    "openpose18",
    """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
    right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear""",
    (1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
    centre=1,
)

_built_in(
    "body25",
    """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
    mid_hip right_hip right_knee right_ankle left_hip left_knee left_ankle
    right_eye left_eye right_ear left_ear
    left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel""",
    (1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
    centre=1,
)

_built_in(
    "kinect20",
    """hip_centre spine shoulder_centre head
    left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow right_wrist right_hand
    left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot""",
    (1, 2, 2, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
    centre=2,
)

_built_in(
    "utd20",
    """head shoulder_centre spine hip_centre
    left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow right_wrist right_hand
    left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot""",
    (1, 1, 1, 2, 1, 4, 5, 6, 1, 8, 9, 10, 3, 12, 13, 14, 3, 16, 17, 18),
    centre=1,
)

# No joint of the trunk is recorded: the link between the elbows stands for it.
_built_in(
    "natops8",
    "left_hand_tip right_hand_tip left_elbow right_elbow left_wrist right_wrist left_thumb right_thumb",
    (4, 5, 2, 2, 2, 3, 4, 5),
    centre=2,
)

# MediaPipe draws face and body apart: the nose joins them here, as in coco17.
_built_in(
    "mediapipe33",
    """nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer
    left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder left_elbow right_elbow
    left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb
    left_hip right_hip left_knee right_knee left_ankle right_ankle
    left_heel right_heel left_foot_index right_foot_index""",
    (
        0, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16,
        11, 12, 23, 24, 25, 26, 27, 28, 29, 30,
    ),
    centre=0,
    extra=((10, 9), (12, 11), (24, 23), (19, 17), (20, 18), (31, 27), (32, 28)),
)  # fmt: skip

_built_in(
    "hand21",
    """wrist thumb_cmc thumb_mcp thumb_ip thumb_tip
    index_mcp index_pip index_dip index_tip middle_mcp middle_pip middle_dip middle_tip
    ring_mcp ring_pip ring_dip ring_tip pinky_mcp pinky_pip pinky_dip pinky_tip""",
    (0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19),
    centre=0,
)

BUILT_IN = frozenset(_REGISTER)
"""Names of the layouts that every installation has."""
