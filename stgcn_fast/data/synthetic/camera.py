"""From joints in the room to what a pose estimator would report: pixels, confidence, jitter and drop-outs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.synthetic.body import LAYOUT, Array
from stgcn_fast.graph import get_layout

WIDTH, HEIGHT = 160, 120
"""Image size of KTH in pixels."""

_DISTANCE = 9.0  # metres from the camera to the middle of the scene
_AVERAGE = 1.74  # metres; a person of this height has the zoom's height in pixels
_JOINTS = get_layout(LAYOUT).joints
_FACE = [i for i, name in enumerate(_JOINTS) if name.endswith(("eye", "ear")) or name == "nose"]
# How far each joint looks to the left (+) or right (-), for what turns away from the camera.
_LOOKS_LEFT = np.array([float(n.startswith("left")) - float(n.startswith("right")) for n in _JOINTS])
_BASE = np.array(
    [0.62 if "toe" in n or "heel" in n else 0.74 if "wrist" in n or "ankle" in n else 0.84 for n in _JOINTS]
)


@dataclass(frozen=True)
class Scene:
    """How a scenario looks and how well poses are found in it.

    Attributes:
        zoom: Height in pixels of an average person, smallest and largest.
        zooming: The zoom changes over the clip, once across the range.
        turn: Largest deviation of the view from straight, degrees.
        jitter: Standard deviation of a joint's place, as a part of the person's height in pixels.
        lost: Chance that a visible joint is not found.
        blind: Chance that nobody is found in a frame.
        sure: Added to every confidence.
    """

    zoom: tuple[float, float]
    zooming: bool
    turn: float
    jitter: float
    lost: float
    blind: float
    sure: float


SCENES = {
    1: Scene((70, 92), False, 10, 0.007, 0.025, 0.01, 0.0),
    2: Scene((46, 104), True, 28, 0.009, 0.035, 0.015, -0.04),
    3: Scene((70, 92), False, 12, 0.011, 0.10, 0.02, -0.08),
    4: Scene((78, 98), False, 12, 0.008, 0.035, 0.01, 0.02),
}
"""The four scenarios of KTH: outdoors, outdoors with scale variation, outdoors in other clothes, indoors."""


def focal_length(zoom: Array | float) -> Array:
    """Focal length in pixels at which an average person in the middle of the scene has the given height."""
    return np.asarray(zoom, dtype=np.float64) * _DISTANCE / _AVERAGE


def visible_half_width(zoom: float) -> float:
    """Metres from the middle of the scene to the edge of the image."""
    return WIDTH / 2 / zoom * _AVERAGE


def project(world: Array, zoom: Array, centre: tuple[float, float]) -> Array:
    """Pixels [T, V, 2] of points [T, V, 3] in the room (right, away from the camera, up).

    Args:
        world: Points in metres, origin on the ground in the middle of the scene.
        zoom: [T] height in pixels of an average person.
        centre: Pixel of a point one metre above the origin.
    """
    scale = focal_length(zoom)[:, None] / (_DISTANCE + world[..., 1])
    return np.stack([centre[0] + scale * world[..., 0], centre[1] - scale * (world[..., 2] - 1.0)], axis=-1)


def visibility(heading: Array) -> Array:
    """How well each joint faces the camera, [T, V] in [0, 1], for headings [T] (0 right, pi / 2 away)."""
    toward = -np.sin(heading)[:, None]  # 1 when the body faces the camera
    # The left side of a body that goes to the right lies away from the camera.
    side = np.cos(heading)[:, None] * -_LOOKS_LEFT
    seen = np.where(side < 0, 1 + 0.45 * side, 1.0)
    face = 1 / (1 + np.exp(-7 * (toward + 1.35 * side + 0.35)))
    nose = 1 / (1 + np.exp(-8 * (toward + 0.55)))
    seen[:, _FACE] = face[:, _FACE]
    seen[:, _JOINTS.index("nose")] = nose[:, 0]
    return seen


def detect(
    pixels: Array, seen: Array, zoom: Array, scene: Scene, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints float32 [T, V, 2] and confidence float32 [T, V] as a pose estimator would report them.

    A joint that is hidden, lost or out of the image has confidence 0 and zero coordinates.
    """
    frames, joints = seen.shape
    steps = np.arange(1, frames + 1)[:, None]
    wander = np.cumsum(rng.standard_normal((frames, joints)), axis=0) / np.sqrt(steps)
    confidence = _BASE + scene.sure + 0.05 * wander + 0.06 * rng.standard_normal((frames, joints))
    confidence -= 0.5 * (1 - seen)
    # Losses come in runs: a hidden limb stays hidden for a while.
    bursts = np.repeat(rng.random((frames // 5 + 1, joints)), 5, axis=0)[:frames]
    lost = (bursts < scene.lost * (1 + 3 * (1 - seen))) | (rng.random((frames, joints)) < scene.lost / 3)
    lost |= rng.random((frames, 1)) < scene.blind
    noise = rng.standard_normal((frames, joints, 2))
    noise[1:] = 0.8 * noise[1:] + 0.6 * noise[:-1]
    spread = scene.jitter * zoom[:, None] * (1 + 1.5 * (1 - seen))
    places = pixels + spread[..., None] * noise
    inside = ((places >= 0) & (places < [WIDTH, HEIGHT])).all(axis=-1)
    found = inside & ~lost & (confidence > 0.25)
    confidence = np.where(found, np.clip(confidence, 0.05, 0.98), 0)
    places = np.where(found[..., None], places, 0)
    return places.astype(np.float32), confidence.astype(np.float32)
