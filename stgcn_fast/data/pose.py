"""People in pictures as keypoints, by the networks of rtmlib (extra ``pose``)."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.graph import get_layout

__all__ = ["LAYOUTS", "MODES", "PoseNetwork", "Tracks", "in_layout"]

MODES = ("lightweight", "balanced", "performance")  # of rtmlib: from fast to exact
DETECTED = "coco17"
LAYOUTS = (DETECTED, "openpose18", "body25")
BETWEEN = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
REACH = 1.0  # heights of a body that it may move from one frame to the next and still be the same
PATIENCE = 30  # frames, a second of most videos, that an absent person's place is kept free

Floats = NDArray[np.float32]


class PoseNetwork:
    """Finds people in a picture, and the 17 COCO keypoints of each.

    Args:
        mode: ``"lightweight"``, ``"balanced"`` or ``"performance"``: the sizes that rtmlib offers.
        download: Fetch the two networks where this machine does not have them yet; rtmlib then names each on
            standard error. Nothing is fetched unasked.

    Raises:
        ValueError: There is no such mode.
        ImportError: rtmlib or ONNX Runtime is missing.
        OSError: The networks are not on this machine and were not to be fetched, or could not be.
    """

    def __init__(self, mode: str = "lightweight", download: bool = False) -> None:
        if mode not in MODES:
            raise ValueError(f"PoseNetwork: mode must be one of {', '.join(MODES)}, got {mode!r}")
        try:
            import onnxruntime  # noqa: F401
            from rtmlib import Body
        except ImportError as error:
            raise ImportError(
                f'keypoints from pictures need rtmlib: pip install "stgcn_fast[pose]" ({error})'
            ) from None
        files = {part: network_file(Body.MODE[mode][part]) for part in ("det", "pose")}
        absent = [file.name for file in files.values() if not file.is_file()]
        if absent and not download:
            raise OSError(
                f"PoseNetwork: {' and '.join(absent)} must lie in {files['det'].parent}, or be fetched with "
                "download (on the command line --download), got neither"
            )
        options: dict[str, Any] = {}
        for part, file in files.items():
            options[part] = str(file) if file.is_file() else Body.MODE[mode][part]
            options[f"{part}_input_size"] = Body.MODE[mode][f"{part}_input_size"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what it has loaded, for no one's pipe
                body = Body(**options, backend="onnxruntime", device="cpu")
        except OSError as error:
            said = " ".join(str(error).split())
            raise OSError(f"PoseNetwork: {' and '.join(absent)} must be within reach, got {said}") from None
        except Exception as error:  # ONNX Runtime's own kinds, where a file is damaged
            said, names = " ".join(str(error).split()), " and ".join(map(str, files.values()))
            raise OSError(f"PoseNetwork: {names} must be networks of rtmlib, got {said}") from None
        self._detect, self._estimate = body.det_model, body.pose_model

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Keypoints [M, V = 17, 2] in pixels and their scores [M, V] of the people in a picture.

        Args:
            picture: Blue, green, red [height, width, 3], as OpenCV reads it.
        """
        boxes = self._detect(picture)
        if len(boxes) == 0:  # rtmlib would take the whole picture for a person
            return np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32)
        keypoints, scores = self._estimate(picture, bboxes=boxes)
        return np.asarray(keypoints, np.float32), np.asarray(scores, np.float32)


def network_file(address: str) -> Path:
    """Where rtmlib keeps the network of an address."""
    cache = os.environ.get("TORCH_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME", "~/.cache"), "rtmlib"
    )
    folder = Path(os.path.expanduser(cache)) / "hub" / "checkpoints"
    return folder / f"{PurePosixPath(address).name.split('.')[0]}.onnx"


class Tracks:
    """Gives people of successive frames their places, so that a person keeps the same one.

    The nearest pair of a known person and one in the frame come together first, as long as they are less
    than a body's height apart; newcomers take a place that has long been empty, or a new one.
    """

    def __init__(self) -> None:
        self._last: list[Floats] = []
        self._absent: list[int] = []

    def __call__(self, keypoints: Sequence[Floats] | Floats) -> list[int]:
        """The place of each person [V, 2] of the next frame."""
        known = [place for place, absent in enumerate(self._absent) if absent <= PATIENCE]
        pairs = []
        for i, person in enumerate(keypoints):
            for place in known:
                before = self._last[place]
                height = max(float(np.ptp(before, axis=0).max()), 1.0)
                distance = float(np.linalg.norm(person.mean(0) - before.mean(0))) / height
                if distance < REACH:
                    pairs.append((distance, i, place))
        places: dict[int, int] = {}
        for _, i, place in sorted(pairs):
            if i not in places and place not in places.values():
                places[i] = place
        free = [place for place in range(len(self._last)) if place not in known]
        for i in range(len(keypoints)):
            if i not in places:
                places[i] = free.pop(0) if free else len(self._last)
                if places[i] == len(self._last):
                    self._last.append(keypoints[i])
                    self._absent.append(0)
        self._absent = [absent + 1 for absent in self._absent]
        for i, place in places.items():
            self._last[place], self._absent[place] = keypoints[i], 0
        return [places[i] for i in range(len(keypoints))]


def in_layout(keypoints: Floats, scores: Floats, layout: str) -> tuple[Floats, Floats]:
    """COCO keypoints [..., 17, 2] and scores [..., 17] as those of another layout.

    Neck and middle of the hips lie between shoulders and hips, with the lower of both scores; what no COCO
    keypoint tells (the feet of ``body25``) is not seen.

    Raises:
        ValueError: ``layout`` is none of ``LAYOUTS``.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"in_layout: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    have = get_layout(DETECTED).joints
    points, confidences = [], []
    for joint in get_layout(layout).joints:
        if joint in have or joint in BETWEEN:
            sources = [have.index(name) for name in BETWEEN.get(joint, (joint,))]
            points.append(keypoints[..., sources, :].mean(-2))
            confidences.append(scores[..., sources].min(-1))
        else:
            points.append(np.zeros_like(keypoints[..., 0, :]))
            confidences.append(np.zeros_like(scores[..., 0]))
    return np.stack(points, -2), np.stack(confidences, -1)
