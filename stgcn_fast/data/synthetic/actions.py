"""The six actions of the KTH data set as joint angles over time, in the style of one performer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stgcn_fast.data.synthetic.body import (
    SIDES,
    Array,
    Pose,
    Proportions,
    pointing_direction,
    swing_direction,
)

GAITS = ("walking", "jogging", "running")
KTH_CLASSES = (*GAITS, "boxing", "handwaving", "handclapping")
"""Class names; the label of a clip is its position here."""


@dataclass(frozen=True)
class Style:
    """How one person moves; standard normal deviations unless a range is given.

    Attributes:
        tempo: Factor on every frequency, around 1.
        vigour: Shifts the whole scale from walking to running, so that one jogs as another runs.
        reach: Factor on the amplitude of legs and arms, around 1.
        bend: How much the elbows are bent.
        lean: Forward lean.
        handed: 1 if the left arm leads, -1 if the right does.
        straight: Clapping and waving with straight arms, in [0, 1].
        height: Height of the arms.
        stance: Width of the stance.
    """

    tempo: float
    vigour: float
    reach: float
    bend: float
    lean: float
    handed: float
    straight: float
    height: float
    stance: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Style:
        """Draws a performer."""
        z = rng.standard_normal(7)
        return cls(
            tempo=float(np.exp(0.08 * z[0])),
            vigour=float(0.11 * z[1]),
            reach=float(np.exp(0.07 * z[2])),
            bend=float(z[3]),
            lean=float(z[4]),
            handed=1.0 if rng.random() < 0.5 else -1.0,
            straight=float(rng.random()),
            height=float(z[5]),
            stance=float(z[6]),
        )

    def varied(self, rng: np.random.Generator) -> Style:
        """The same person on another occasion."""
        z = rng.standard_normal(7)
        return Style(
            tempo=self.tempo * float(np.exp(0.04 * z[0])),
            vigour=self.vigour + float(0.05 * z[1]),
            reach=self.reach * float(np.exp(0.04 * z[2])),
            bend=self.bend + float(0.4 * z[3]),
            lean=self.lean + float(0.4 * z[4]),
            handed=self.handed,
            straight=float(np.clip(self.straight + 0.12 * z[5], 0, 1)),
            height=self.height + float(0.4 * z[6]),
            stance=self.stance,
        )


@dataclass(frozen=True)
class Performance:
    """What an action does to a body.

    Attributes:
        pose: Angles over T frames.
        speed: Metres per second forward, 0 for actions on the spot.
        tempo: Repetitions per second (strides, punches of one arm, waves, claps).
    """

    pose: Pose
    speed: float
    tempo: float


def perform(
    action: str, body: Proportions, style: Style, times: Array, rng: np.random.Generator
) -> Performance:
    """Angles of one action at the given times [T] in seconds."""
    if action in GAITS:
        return _gait(GAITS.index(action), body, style, times, rng)
    on_the_spot = {"boxing": _boxing, "handwaving": _handwaving, "handclapping": _handclapping}
    return on_the_spot[action](body, style, times, rng)


def _cycle(tempo: float, times: Array, rng: np.random.Generator) -> Array:
    """Phase [T] in cycles, from a random start, with a tempo that wavers by a few per cent."""
    waver = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.3) * times + rng.random()))
    step = np.diff(times, prepend=times[0])
    return rng.random() + np.cumsum(tempo * (1 + waver) * step)


def _pulse(phase: Array, centre: float, width: float) -> Array:
    """A smooth bump of height 1 in every cycle; ``width`` is its standard deviation in cycles."""
    return np.exp((np.cos(2 * np.pi * (phase - centre)) - 1) / (2 * np.pi * width) ** 2)


def _sway(times: Array, size: float, rng: np.random.Generator) -> Array:
    """Slow random movement of about the given size."""
    total = np.zeros_like(times)
    for frequency in (0.2, 0.45, 0.9):
        total += np.sin(2 * np.pi * (frequency * rng.uniform(0.8, 1.2) * times + rng.random())) * rng.normal()
    return size * total / 2


def _deg(value: float | Array) -> Array:
    return np.asarray(np.radians(value), dtype=np.float64)


def _gait(kind: int, body: Proportions, style: Style, times: Array, rng: np.random.Generator) -> Performance:
    # 0 is a walk, 1 a jog, 2 a run; people differ along this scale and overlap.
    vigour = float(np.clip((0.0, 1.0, 1.85)[kind] + style.vigour, -0.2, 2.3))
    running = float(np.clip(vigour, 0, 1))

    def between(walk: float, jog: float, run: float) -> float:
        return float(np.interp(vigour, [-0.2, 0, 1, 2, 2.3], [walk, walk, jog, run, run + 0.3 * (run - jog)]))

    # Long legs swing slower.
    tempo = between(0.90, 1.28, 1.62) * style.tempo * float(np.sqrt(0.86 / body.leg))
    thigh = between(21, 27, 38) * style.reach
    phase = _cycle(tempo, times, rng)
    hip, knee, foot, upper, fore, spread = {}, {}, {}, {}, {}, {}
    for side, sign in SIDES.items():
        own = phase + (0.0 if sign > 0 else 0.5)  # 0 at heel strike
        hip[side] = _deg(between(4, 9, 13) + thigh * np.cos(2 * np.pi * (own - between(0.95, 0.9, 0.88))))
        knee[side] = _deg(
            between(4, 12, 15)
            + between(54, 70, 92) * style.reach * _pulse(own, between(0.73, 0.69, 0.67), 0.1)
            + between(10, 20, 24) * _pulse(own, 0.14, 0.07)
        )
        foot[side] = _deg(
            between(14, 6, 3) * _pulse(own, 0.97, 0.07)
            - between(32, 45, 58) * _pulse(own, between(0.62, 0.55, 0.53), 0.1)
        )
        spread[side] = _deg(np.full_like(times, 2.0))
        # The arm swings against the leg of its side.
        swing = -np.cos(2 * np.pi * (own - between(0.95, 0.9, 0.88)))
        elbow = between(18, 62, 80) + 14 * style.bend
        reach = between(17, 22, 36) * style.reach
        forward = _deg(between(-4, -12, -14) + reach * swing)
        flex = _deg(np.maximum(elbow + between(9, 10, 16) * swing, 3))
        upper[side] = swing_direction(forward, sign * _deg(np.full_like(times, 9.0)))
        fore[side] = swing_direction(forward + flex, -sign * _deg(np.full_like(times, between(-4, 14, 10))))
    twice = np.cos(4 * np.pi * (phase - 0.3))
    pose = Pose(
        lean=_deg(between(3, 6, 9) + 2.5 * style.lean + 1.2 * twice) + _sway(times, 0.015, rng),
        roll=_deg(1.5 * np.sin(2 * np.pi * phase)),
        twist=_deg(between(5, 8, 11) * np.cos(2 * np.pi * (phase - 0.95))),
        pelvis=_deg(-between(4, 5, 7) * np.cos(2 * np.pi * (phase - 0.95))),
        nod=_deg(-between(0, 3, 6)) + _sway(times, 0.04, rng),
        hip=hip,
        spread=spread,
        knee=knee,
        foot=foot,
        upper=upper,
        fore=fore,
        bounce=running * between(0, 0.05, 0.085) * (0.5 - 0.5 * np.cos(4 * np.pi * (phase - 0.13))),
    )
    stride = 2 * 2 * body.leg * float(np.sin(np.radians(thigh))) * between(1.0, 1.3, 1.55)
    return Performance(pose, tempo * stride, tempo)


def _standing(times: Array, style: Style, rng: np.random.Generator, width: float = 4.0) -> Pose:
    """A body at rest with hanging arms, shifting its weight a little."""
    still = np.zeros_like(times)
    half = _deg(still + max(width + 1.5 * style.stance, 1.0))
    arms = {
        side: swing_direction(_deg(still + 4) + _sway(times, 0.02, rng), sign * _deg(still + 8))
        for side, sign in SIDES.items()
    }
    return Pose(
        lean=_deg(still + 1 + style.lean) + _sway(times, 0.015, rng),
        roll=_sway(times, 0.012, rng),
        twist=_sway(times, 0.03, rng),
        pelvis=still.copy(),
        nod=_sway(times, 0.05, rng),
        hip={side: _deg(still + 1.5) + _sway(times, 0.01, rng) for side in SIDES},
        spread=dict.fromkeys(SIDES, half),
        knee={side: _deg(still + 4) + np.abs(_sway(times, 0.02, rng)) for side in SIDES},
        foot={side: still.copy() for side in SIDES},
        upper=arms,
        fore={side: arms[side] + np.array([0.15, 0.0, 0.0]) for side in SIDES},
        bounce=still.copy(),
    )


def _boxing(body: Proportions, style: Style, times: Array, rng: np.random.Generator) -> Performance:
    tempo = float(rng.uniform(0.8, 1.25)) * style.tempo
    phase = _cycle(tempo, times, rng)
    pose = _standing(times, style, rng, width=5.0)
    still = np.zeros_like(times)
    lead = "left" if style.handed > 0 else "right"
    twist = still.copy()
    level = 5.0 * style.height
    for side, sign in SIDES.items():
        shift = 0.0 if side == lead else rng.uniform(0.42, 0.58)
        punch = _pulse(phase + shift, 0.5, 0.085 + 0.01 * style.reach) * (1 + 0.1 * _sway(times, 1.0, rng))
        punch = np.clip(punch, 0, 1)[:, None]
        guard = pointing_direction(sign * _deg(still + 12), _deg(still - 62 + 4 * style.bend))
        guard_fore = pointing_direction(-sign * _deg(still + 22), _deg(still + 52 - 5 * style.bend))
        out = pointing_direction(-sign * _deg(still + 4), _deg(still - 8 + level))
        out_fore = pointing_direction(-sign * _deg(still + 9), _deg(still + 2 + level))
        pose.upper[side] = guard + punch * (out - guard)
        pose.fore[side] = guard_fore + punch * (out_fore - guard_fore)
        twist -= sign * _deg(17 * style.reach) * punch[:, 0]
        ahead = 1.0 if side == lead else -1.0
        hop = _deg(3.0) * np.sin(4 * np.pi * phase)
        pose.hip[side] = _deg(still + 9 + ahead * 11) + hop
        pose.knee[side] = _deg(still + 18 - ahead * 2) + 2 * hop
        pose.foot[side] = _deg(still - (0.0 if ahead > 0 else 10.0))
    pose.twist += twist
    pose.pelvis += 0.4 * twist
    pose.lean += _deg(5.0)
    return Performance(pose, 0.0, tempo)


def _handwaving(body: Proportions, style: Style, times: Array, rng: np.random.Generator) -> Performance:
    tempo = float(rng.uniform(0.5, 0.8)) * style.tempo
    phase = _cycle(tempo, times, rng)
    pose = _standing(times, style, rng)
    low, high = 28 + 18 * float(rng.random()) + 6 * style.height, 150 + 6 * style.height
    for side, sign in SIDES.items():
        late = 0.015 * rng.normal()
        lift = 0.5 - 0.5 * np.cos(2 * np.pi * (phase + late))
        angle = low + (high - low) * lift * style.reach**0.5  # from hanging, sideways
        bend = (1 - style.straight) * (12 + 28 * lift)
        ahead = _deg(6 + 8 * (1 - style.straight))
        pose.upper[side] = _sideways(_deg(angle), sign, ahead)
        pose.fore[side] = _sideways(_deg(np.minimum(angle + bend, 205)), sign, ahead)
    return Performance(pose, 0.0, tempo)


def _sideways(angle: Array, sign: float, ahead: Array) -> Array:
    """Directions [T, 3] in the frontal plane: 0 hangs, pi / 2 points outward, pi up; a little forward."""
    return np.stack(
        [np.sin(ahead) + 0 * angle, sign * np.sin(angle) * np.cos(ahead), -np.cos(angle) * np.cos(ahead)],
        axis=-1,
    )


def _handclapping(body: Proportions, style: Style, times: Array, rng: np.random.Generator) -> Performance:
    tempo = float(rng.uniform(0.85, 1.35)) * style.tempo
    phase = _cycle(tempo, times, rng)
    pose = _standing(times, style, rng)
    still = np.zeros_like(times)
    wide = 1 - (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** 0.8  # 0 when the hands meet
    open_by = (34 + 34 * style.straight) * style.reach
    upper_raise = _deg(still - 50 + 34 * style.straight + 6 * style.height)
    fore_raise = _deg(still + 14 - 18 * style.straight + 6 * style.height)
    for side, sign in SIDES.items():
        azimuth = _deg(10 - 18 * style.straight + open_by * wide)
        elbow = body.shoulder + body.upper_arm * np.cos(upper_raise) * np.sin(azimuth)
        # The forearm azimuth at which the wrist would reach the middle of the body.
        inward = np.arcsin(np.clip((0.03 - elbow) / (body.forearm * np.cos(fore_raise)), -1, 1))
        outward = _deg(open_by * 0.9)
        pose.upper[side] = pointing_direction(sign * azimuth, upper_raise)
        pose.fore[side] = pointing_direction(sign * (inward + wide * (outward - inward)), fore_raise)
    return Performance(pose, 0.0, tempo)
