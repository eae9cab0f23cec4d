"""A jointed body: segment lengths, and the forward kinematics that place the 25 joints of OpenPose BODY_25.

Body coordinates are forward, left, up, in metres. Angles are radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.graph import get_layout

Array = NDArray[np.float64]

LAYOUT = "body25"
_NUM_JOINTS = len(get_layout(LAYOUT).joints)
_INDEX = {name: index for index, name in enumerate(get_layout(LAYOUT).joints)}
SIDES = {"left": 1.0, "right": -1.0}
"""Sign of the left axis for each side."""


@dataclass(frozen=True)
class Proportions:
    """Segment lengths of one person, metres.

    Attributes:
        height: Body height, which the other lengths follow (Drillis and Contini, 1966) with personal
            deviations.
        trunk: Middle of the hips to the neck.
        shoulder: Neck to shoulder, sideways.
        hip: Middle of the hips to a hip.
        upper_arm: Shoulder to elbow.
        forearm: Elbow to wrist.
        thigh: Hip to knee.
        shank: Knee to ankle.
        head: Size of the head relative to the average.
        foot: Length of the foot relative to the average.
    """

    height: float
    trunk: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    thigh: float
    shank: float
    head: float
    foot: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Proportions:
        """Draws a person between about 1.5 m and 2.0 m tall."""
        height = float(np.clip(rng.normal(1.74, 0.09), 1.5, 2.0))
        shares = {
            "trunk": 0.300,
            "shoulder": 0.118,
            "hip": 0.056,
            "upper_arm": 0.186,
            "forearm": 0.150,
            "thigh": 0.245,
            "shank": 0.246,
        }
        deviation = 1 + 0.04 * rng.standard_normal(len(shares) + 2)
        lengths = {name: share * float(d) * height for (name, share), d in zip(shares.items(), deviation)}
        return cls(height=height, **lengths, head=float(deviation[-2]), foot=float(deviation[-1]))

    @property
    def leg(self) -> float:
        """Hip to ankle of a straight leg."""
        return self.thigh + self.shank


@dataclass
class Pose:
    """Angles of a body over T frames; every array is [T], directions are [T, 3] in trunk coordinates.

    Attributes:
        lean: Trunk forward, from upright.
        roll: Trunk to the left.
        twist: Shoulders about the spine, left shoulder backward.
        pelvis: Hips about the spine, left hip backward.
        nod: Head forward, on top of the trunk's lean.
        hip: Flexion of the left and right hip, thigh forward.
        spread: Abduction of each hip, outward.
        knee: Flexion of each knee, heel to the back.
        foot: Pitch of each foot against the ground, toes up.
        upper: Direction of each upper arm.
        fore: Direction of each forearm.
        bounce: Height added to the standing body, metres.
    """

    lean: Array
    roll: Array
    twist: Array
    pelvis: Array
    nod: Array
    hip: dict[str, Array]
    spread: dict[str, Array]
    knee: dict[str, Array]
    foot: dict[str, Array]
    upper: dict[str, Array]
    fore: dict[str, Array]
    bounce: Array


def place_joints(body: Proportions, pose: Pose) -> Array:
    """Joints [T, 25, 3] of a body standing on the ground (its lowest point has height ``bounce``)."""
    frames = len(pose.lean)
    joints = np.zeros((frames, _NUM_JOINTS, 3))

    def put(name: str, place: Array) -> None:
        joints[:, _INDEX[name]] = place

    trunk = _trunk_frame(pose.lean, pose.roll, np.zeros(frames))
    shoulders = _trunk_frame(pose.lean, pose.roll, pose.twist)
    hips = _trunk_frame(np.zeros(frames), np.zeros(frames), pose.pelvis)
    head = _trunk_frame(0.5 * pose.lean + pose.nod, 0.5 * pose.roll, 0.3 * pose.twist)

    neck = _turn(trunk, [0.0, 0.0, body.trunk])
    put("neck", neck)
    size = body.head * body.height / 1.74
    for name, offset in (
        ("nose", [0.115, 0.0, 0.17]),
        ("left_eye", [0.095, 0.033, 0.205]),
        ("right_eye", [0.095, -0.033, 0.205]),
        ("left_ear", [0.0, 0.078, 0.18]),
        ("right_ear", [0.0, -0.078, 0.18]),
    ):
        put(name, neck + _turn(head, size * np.array(offset)))

    for side, sign in SIDES.items():
        shoulder = neck + _turn(shoulders, [0.0, sign * body.shoulder, -0.02])
        elbow = shoulder + body.upper_arm * _turn(trunk, _unit(pose.upper[side]))
        put(f"{side}_shoulder", shoulder)
        put(f"{side}_elbow", elbow)
        put(f"{side}_wrist", elbow + body.forearm * _turn(trunk, _unit(pose.fore[side])))

        hip = _turn(hips, [0.0, sign * body.hip, -0.03])
        out = sign * pose.spread[side]
        knee = hip + body.thigh * swing_direction(pose.hip[side], out)
        ankle = knee + body.shank * swing_direction(pose.hip[side] - pose.knee[side], out)
        put(f"{side}_hip", hip)
        put(f"{side}_knee", knee)
        put(f"{side}_ankle", ankle)
        sole = _trunk_frame(-pose.foot[side], np.zeros(frames), np.zeros(frames))
        length = body.foot * body.height / 1.74
        for name, place in (
            ("big_toe", [0.17, -0.02 * sign, -0.06]),
            ("small_toe", [0.14, 0.045 * sign, -0.06]),
            ("heel", [-0.05, 0.0, -0.065]),
        ):
            put(f"{side}_{name}", ankle + _turn(sole, length * np.array(place)))

    joints[..., 2] += (pose.bounce - joints[..., 2].min(axis=1))[:, None]
    return joints


def swing_direction(forward: Array, left: Array) -> Array:
    """Unit vectors [T, 3] that hang down, swung forward and to the left by angles [T]."""
    return np.stack(
        [np.sin(forward) * np.cos(left), np.sin(left) + 0 * forward, -np.cos(forward) * np.cos(left)], axis=-1
    )


def pointing_direction(azimuth: Array, elevation: Array) -> Array:
    """Unit vectors [T, 3] that point forward, turned to the left and raised by angles [T]."""
    return np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation) + 0 * azimuth,
        ],
        axis=-1,
    )


def _unit(vectors: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _trunk_frame(lean: Array, roll: Array, twist: Array) -> Array:
    """Rotations [T, 3, 3]: twist about up, then lean forward, then roll to the left; columns are the axes."""
    cl, sl = np.cos(lean), np.sin(lean)
    cr, sr = np.cos(roll), np.sin(roll)
    ct, st = np.cos(twist), np.sin(twist)
    zero, one = np.zeros_like(lean), np.ones_like(lean)
    turn = np.array([[ct, -st, zero], [st, ct, zero], [zero, zero, one]])
    pitch = np.array([[cl, zero, sl], [zero, one, zero], [-sl, zero, cl]])
    tilt = np.array([[one, zero, zero], [zero, cr, sr], [zero, -sr, cr]])
    frame: Array = np.einsum("ijt,jkt,klt->til", tilt, pitch, turn)
    return frame


def _turn(frame: Array, vector: list[float] | Array) -> Array:
    """Rotates one vector [3] or one per frame [T, 3] by [T, 3, 3]."""
    vectors = np.broadcast_to(np.asarray(vector, dtype=np.float64), (len(frame), 3))
    turned: Array = np.einsum("tij,tj->ti", frame, vectors)
    return turned
