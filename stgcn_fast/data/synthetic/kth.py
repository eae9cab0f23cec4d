"""Synthetic clips of the six KTH actions. Nothing here is a recording: bodies are simulated and filmed."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.synthetic.actions import GAITS, KTH_CLASSES, Style, perform
from stgcn_fast.data.synthetic.body import LAYOUT, Array, Proportions, place_joints
from stgcn_fast.data.synthetic.camera import (
    HEIGHT,
    SCENES,
    WIDTH,
    detect,
    project,
    visibility,
    visible_half_width,
)

KTH_SUBJECTS = tuple(range(1, 26))
"""Numbers of the 25 synthetic performers."""
KTH_SCENARIOS = tuple(SCENES)
"""Numbers of the four scenarios: outdoors, with zoom, other clothes, indoors."""

FRAMES_PER_SECOND = 25.0
_OUT_OF_SIGHT = 0.45  # metres beyond the edge of the image at which a runner turns round
# Keep the draws of performers and of clips apart.
_PERFORMER, _CLIP = 1, 2


@dataclass(frozen=True)
class SimulatedMotion:
    """A clip before it is filmed.

    Attributes:
        joints: float64 [T, 25, 3], metres: right of the camera, away from it, up.
        heading: float64 [T], direction the body faces: 0 to the right, pi / 2 away from the camera.
        zoom: float64 [T], height in pixels of an average person.
        tempo: Repetitions per second.
        speed: Metres per second.
    """

    joints: Array
    heading: Array
    zoom: Array
    tempo: float
    speed: float


def generate_kth(
    seed: int = 0,
    *,
    subjects: Iterable[int] = KTH_SUBJECTS,
    actions: Sequence[str] = KTH_CLASSES,
    scenarios: Iterable[int] = KTH_SCENARIOS,
    frames: tuple[int, int] = (60, 120),
) -> Iterator[Skeleton]:
    """Generates synthetic clips in the manner of the KTH action data set (Schüldt et al., ICPR 2004).

    Each of 25 simulated performers, with a body, tempo and style of their own, does six actions in four
    scenarios: 600 clips of several repetitions at 25 frames per second. Walking, jogging and running cross
        the image from side to
    side, leave it and come back; between passes nobody is seen. Boxing, hand waving and hand clapping are
    done on the spot. A clip depends on (seed, subject, action, scenario) only, not on which others are
    generated.

    Args:
        seed: Seed of all performers and clips, at least 0.
        subjects: Performers, of 1 to 25.
        actions: Names, of ``KTH_CLASSES``.
        scenarios: 1 outdoors, 2 with scale variation, 3 in other clothes (more joints lost), 4 indoors.
        frames: Smallest and largest number of frames of a clip.

    Yields:
        Clips [1, T, 25, 2] in pixels of a 160 x 120 image with confidence, layout ``body25``, by subject,
        action and scenario. ``label`` is the position in ``KTH_CLASSES``, ``setup`` the scenario, ``name``
        such as ``person03_running_d2``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range.
    """
    seed = _integer("seed", seed, 0, None)
    between = _frame_range(frames)
    people = [_integer("subjects", subject, 1, 25) for subject in subjects]
    labels = [_label(action) for action in actions]
    places = [_integer("scenarios", scenario, 1, 4) for scenario in scenarios]
    keys = itertools.product(people, labels, places)
    return (_clip(seed, subject, label, scenario, between) for subject, label, scenario in keys)


def _clip(seed: int, subject: int, label: int, scenario: int, frames: tuple[int, int]) -> Skeleton:
    rng = np.random.default_rng((seed, _CLIP, subject, label, scenario))
    motion = _simulate(seed, subject, label, scenario, frames, rng)
    centre = (WIDTH / 2 + rng.uniform(-8, 8), HEIGHT / 2 + rng.uniform(0, 8))
    pixels = project(motion.joints, motion.zoom, centre)
    keypoints, confidence = detect(pixels, visibility(motion.heading), motion.zoom, SCENES[scenario], rng)
    return Skeleton(
        keypoints[None],
        LAYOUT,
        confidence[None],
        name=f"person{subject:02d}_{KTH_CLASSES[label]}_d{scenario}",
        label=label,
        label_name=KTH_CLASSES[label],
        subject=subject,
        setup=scenario,
    )


def simulate_kth(
    subject: int, action: str, scenario: int, seed: int = 0, frames: tuple[int, int] = (60, 120)
) -> SimulatedMotion:
    """The three-dimensional motion behind the synthetic clip with the same arguments.

    Args:
        subject: Performer, 1 to 25.
        action: One of ``KTH_CLASSES``.
        scenario: 1 to 4.
        seed: Seed of all performers and clips.
        frames: Smallest and largest number of frames.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range.
    """
    seed = _integer("seed", seed, 0, None)
    subject, scenario = _integer("subject", subject, 1, 25), _integer("scenario", scenario, 1, 4)
    label, between = _label(action), _frame_range(frames)
    rng = np.random.default_rng((seed, _CLIP, subject, label, scenario))
    return _simulate(seed, subject, label, scenario, between, rng)


def _simulate(
    seed: int, subject: int, label: int, scenario: int, frames: tuple[int, int], rng: np.random.Generator
) -> SimulatedMotion:
    performer = np.random.default_rng((seed, _PERFORMER, subject))
    body, style = Proportions.random(performer), Style.random(performer).varied(rng)
    count = int(rng.integers(frames[0], frames[1] + 1))
    times = np.arange(count) / FRAMES_PER_SECOND
    action, scene = KTH_CLASSES[label], SCENES[scenario]
    performance = perform(action, body, style, times, rng)
    joints = place_joints(body, performance.pose)

    low, high = scene.zoom
    if scene.zooming:
        near = rng.uniform(0.4 * low + 0.6 * high, high)
        far = rng.uniform(low, 0.6 * low + 0.4 * high)
        zoom = np.linspace(near, far, count)
        zoom = zoom if rng.random() < 0.5 else zoom[::-1]
    else:
        zoom = np.full(count, rng.uniform(low, high))
    turn = np.radians(rng.uniform(-scene.turn, scene.turn))
    if action in GAITS:
        edge = visible_half_width(float(zoom.min())) + _OUT_OF_SIGHT
        travelled = rng.uniform(0, 4 * edge) + performance.speed * times
        lap = np.mod(travelled, 4 * edge)
        leftward = lap > 2 * edge
        along = np.where(leftward, 3 * edge - lap, lap - edge)
        heading = turn + np.pi * leftward
        root = np.stack([along * np.cos(turn), along * np.sin(turn) * 0.5, 0 * along], axis=-1)
    else:
        # Boxers stand sideways, more or less; the others face the camera.
        facing = rng.choice([0.0, -np.pi]) + rng.uniform(-0.25, 0.25) if action == "boxing" else -np.pi / 2
        drift = 0.03 * np.sin(2 * np.pi * (0.15 * times + rng.random()))
        heading = facing + turn + drift
        root = np.stack([rng.uniform(-0.25, 0.25) + drift, 0 * drift, 0 * drift], axis=-1)
    return SimulatedMotion(
        _into_room(joints, heading) + root[:, None], heading, zoom, performance.tempo, performance.speed
    )


def _into_room(joints: Array, heading: Array) -> Array:
    """Turns body coordinates [T, V, 3] (forward, left, up) into room coordinates (right, away, up)."""
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    forward, left, up = np.moveaxis(joints, -1, 0)
    return np.stack([cos * forward - sin * left, sin * forward + cos * left, up], axis=-1)


def _integer(name: str, value: Any, low: int, high: int | None) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"generate_kth: {name} must be an int, got {type(value).__name__}") from None
    if number < low or (high is not None and number > high):
        rule = f">= {low}" if high is None else f"in {low} to {high}"
        raise ValueError(f"generate_kth: {name} must be {rule}, got {number}")
    return number


def _label(action: str) -> int:
    if action not in KTH_CLASSES:
        raise ValueError(f"generate_kth: actions must be of {', '.join(KTH_CLASSES)}, got {action!r}")
    return KTH_CLASSES.index(action)


def _frame_range(frames: Any) -> tuple[int, int]:
    if isinstance(frames, str) or not isinstance(frames, Sequence) or len(frames) != 2:
        raise TypeError(f"generate_kth: frames must be [smallest, largest], got {frames!r}")
    low, high = (_integer("frames", value, 1, None) for value in frames)
    if low > high:
        raise ValueError(f"generate_kth: frames must be [smallest, largest], got [{low}, {high}]")
    return low, high
