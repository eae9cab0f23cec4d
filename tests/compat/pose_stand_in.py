"""Stand-ins with the interfaces of rtmlib and OpenCV: people are grey blocks, found without a network."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import pytest

ADDRESS = "https://models.example/onnx_sdk/{}_{}-1a2b.zip"
GREYS = (100, 160, 220)  # of persons; compression keeps them apart


class Tool:
    """rtmlib's tools take a file, or an address that they fetch."""

    reachable = False

    def __init__(self, onnx_model: str, model_input_size: tuple[int, int], backend: str, device: str) -> None:
        assert (backend, device) == ("onnxruntime", "cpu")
        assert model_input_size == (32, 32)
        if not os.path.exists(onnx_model):
            assert onnx_model.startswith("https://")
            if not self.reachable:
                raise URLError("no network")
            print(f'Downloading: "{onnx_model}"', file=sys.stderr)
        elif Path(onnx_model).read_text() != "network":
            raise RuntimeError("Protobuf parsing failed\n")
        print(f"load {onnx_model} with onnxruntime backend")


class Detector(Tool):
    """YOLOX: boxes [M, 4], none where nobody is; in no order of persons."""

    calls = 0

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        self.calls += 1
        boxes = []
        for grey in GREYS:
            y, x = np.nonzero(abs(picture[..., 0].astype(int) - grey) < 25)
            if len(y) > 60:
                boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
        return np.array(boxes[:: (-1) ** self.calls], float).reshape(-1, 4)


class Estimator(Tool):
    """RTMPose: takes the whole picture for a person where there is no box."""

    def __call__(self, image: np.ndarray, bboxes: Any = ()) -> tuple[np.ndarray, np.ndarray]:
        if len(bboxes) == 0:
            bboxes = [[0, 0, image.shape[1], image.shape[0]]]
        boxes = np.array(bboxes)[:, None]
        share = np.linspace(0, 1, 17)[None, :, None]
        keypoints = boxes[..., :2] + share * (boxes[..., 2:] - boxes[..., :2])
        scores = 0.5 + 0.4 * share[..., 0] + 0 * boxes[..., 0]
        return keypoints, scores


class Body:
    """As rtmlib.Body, of two stages."""

    MODE: ClassVar = {
        mode: {
            "det": ADDRESS.format("yolox", mode),
            "det_input_size": (32, 32),
            "pose": ADDRESS.format("rtmpose", mode),
            "pose_input_size": (32, 32),
        }
        for mode in ("performance", "lightweight", "balanced")
    }

    def __init__(
        self,
        det: str | None = None,
        det_input_size: tuple[int, int] = (640, 640),
        pose: str | None = None,
        pose_input_size: tuple[int, int] = (288, 384),
        mode: str = "balanced",
        to_openpose: bool = False,
        backend: str = "onnxruntime",
        device: str = "cpu",
    ) -> None:
        self.det_model = Detector(det or self.MODE[mode]["det"], det_input_size, backend, device)
        self.pose_model = Estimator(pose or self.MODE[mode]["pose"], pose_input_size, backend, device)


class VideoCapture:
    """Of camera 0, which shows ``FILM``, and of files that numpy wrote."""

    FILM: np.ndarray = np.zeros((0, 1, 1, 3), np.uint8)

    def __init__(self, source: int | str) -> None:
        try:
            self.film = list(self.FILM if source == 0 else np.load(str(source)))
        except (OSError, ValueError):
            self.film = []
        self.opened = bool(self.film)

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.film.pop(0)) if self.film else (False, None)

    def release(self) -> None:
        self.opened = False


def film(frames: int, *, begin: int = 0) -> np.ndarray:
    """Two people [T, 96, 128, 3]: the first walks to the right, the second comes late and stands."""
    pictures = np.zeros((frames, 96, 128, 3), np.uint8)
    for t in range(begin, frames):
        pictures[t, 20:80, 8 + t : 32 + t] = GREYS[0]
        if t >= begin + 3:
            pictures[t, 30:62, 96:112] = GREYS[1]
    return pictures


def install(
    monkeypatch: pytest.MonkeyPatch, cache: Path, *, opencv: bool = True, networks: bool = True
) -> Path:
    """Puts the stand-ins where imports find them; gives the folder of rtmlib's networks."""
    monkeypatch.setenv("TORCH_HOME", str(cache))
    rtmlib = types.ModuleType("rtmlib")
    rtmlib.Body = Body  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rtmlib", rtmlib)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    if opencv:
        cv2 = types.ModuleType("cv2")
        cv2.VideoCapture = VideoCapture  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cv2", cv2)
    folder = cache / "hub" / "checkpoints"
    if networks:
        folder.mkdir(parents=True)
        for part in ("yolox", "rtmpose"):
            (folder / f"{part}_lightweight-1a2b.onnx").write_text("network")
    return folder
