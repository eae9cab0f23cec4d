"""Live labels of what a person does, from a camera or from a recorded keypoint file, frame by frame.

    python examples/webcam.py CHECKPOINT                    the first camera
    python examples/webcam.py CHECKPOINT --file CLIP        a recording in any format that the package reads

CHECKPOINT is one that `stgcn-fast train` wrote, of an ST-GCN; for the camera one of 17 COCO keypoints
(layout coco17). The camera needs `pip install "stgcn_fast[pose]"`; --download lets rtmlib fetch its networks,
at the first start. Press q in the picture, or Ctrl-C, to stop.

The network sees each frame once and keeps what it needs of the last ones (`stgcn_fast.StreamingSTGCN`),
so labels come some frames late. A line is printed whenever the likeliest class changes, and at the end
what the network says to the clip as a whole. Transforms of the checkpoint that stretch or cut a clip in
time have no place here; those in space see the first frame and the present one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import stgcn_fast
from stgcn_fast import data
from stgcn_fast.data.pose import PoseNetwork, Tracks
from stgcn_fast.data.transforms import temporal
from stgcn_fast.training import Predictor

CAMERA_LAYOUT = "coco17"
STREAMS = ("joint", "bone")  # those of single frames
Frame = tuple[NDArray[np.float32], NDArray[np.float32]]  # keypoints [M, V, C], confidence [M, V]


def recorded(path: Path, layout: str, options: dict[str, Any]) -> Iterator[Frame]:
    """Frames of a keypoint file."""
    format = options.pop("format") or data.detect_format(path)
    if format == "arrays":
        options["default_layout"] = layout
    clip = data.read(path, format, **options)
    if clip.layout != layout:
        raise SystemExit(f"{path}: layout must be {layout!r} as in the checkpoint, got {clip.layout!r}")
    seen = clip.valid.astype(np.float32) if clip.confidence is None else clip.confidence
    for t in range(clip.frames):
        yield clip.keypoints[:, t], seen[:, t]


def filmed(number: int, show: bool, download: bool) -> Iterator[Frame]:
    """Frames of a camera: COCO keypoints of everybody in the picture, persons in the order they came."""
    try:
        network = PoseNetwork(download=download)
    except (ImportError, OSError) as error:
        raise SystemExit(str(error)) from None
    import cv2
    import rtmlib

    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        raise SystemExit(f"--camera: number must be that of a camera, got {number}")
    tracks = Tracks()
    try:
        while True:
            there, picture = camera.read()
            if not there:
                return
            keypoints, scores = network(picture)
            if show:
                cv2.imshow("stgcn_fast", rtmlib.draw_skeleton(picture, keypoints, scores, kpt_thr=0.3))
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    return
            order = np.argsort(tracks(keypoints))
            yield keypoints[order], scores[order]
    finally:
        camera.release()


class Live:
    """A checkpoint on single frames.

    Args:
        checkpoint: as `stgcn-fast train` writes it.
        window: frames that the live label is taken from, or None for all.
    """

    def __init__(self, checkpoint: Path, window: int | None) -> None:
        self.predictor = Predictor(checkpoint)
        spec = self.predictor.config.data
        if spec.stream not in STREAMS:
            raise SystemExit(f"{checkpoint}: stream must be one of {', '.join(STREAMS)}, got {spec.stream!r}")
        model: Any = self.predictor.model
        self.stream = stgcn_fast.StreamingSTGCN(model, window)
        entries = self.predictor.config.transforms.eval or []
        self.transforms = [entry for entry in entries if not changes_time(entry)]
        self.spec = spec
        self.first: Frame | None = None

    def input(self, frame: Frame) -> Tensor:
        """Network input [1, C, V, M] of a frame."""
        persons = self.spec.persons
        keypoints, seen = padded(frame, persons)
        if self.first is None and seen.any():
            self.first = keypoints, seen
        first = self.first or (keypoints, seen)
        clip = data.Skeleton(
            keypoints=np.stack([first[0], keypoints], 1),
            confidence=np.stack([first[1], seen], 1),
            layout=self.predictor.layout,
            name="live",
        )
        pair = data.SkeletonDataset(
            [clip],
            transform=self.transforms,
            stream=self.spec.stream,
            persons=persons,
            confidence=self.spec.confidence,
        )
        return pair[0][0][None, :, 1]

    def label(self, scores: Tensor) -> tuple[str, float]:
        """The likeliest class and its probability."""
        likely = scores[0].softmax(0)
        best = int(likely.argmax())
        return self.predictor.class_names[best], float(likely[best])


def changes_time(entry: Any) -> bool:
    """Whether a transform, by name or as a mapping with its name, works along time."""
    name = entry if isinstance(entry, str) else entry["name"]
    return getattr(temporal, name, None) is not None


def padded(frame: Frame, persons: int) -> Frame:
    """A frame with so many persons, absent ones all zero."""
    keypoints, seen = frame[0][:persons], frame[1][:persons]
    missing = persons - len(keypoints)
    return np.pad(keypoints, ((0, missing), (0, 0), (0, 0))), np.pad(seen, ((0, missing), (0, 0)))


def main() -> None:
    """Labels frames until they end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--camera", type=int, default=0, metavar="N", help="number of the camera (0)")
    parser.add_argument("--file", type=Path, metavar="CLIP", help="a recording instead of a camera")
    parser.add_argument("--format", help="format of the recording (detected)")
    parser.add_argument("--layout", help="layout of the recording's joints, where its format has several")
    parser.add_argument("--window", type=int, metavar="FRAMES", help="label the last so many frames (all)")
    parser.add_argument("--download", action="store_true", help="fetch the camera's networks, once")
    parser.add_argument("--no-picture", action="store_true", help="do not show the camera's picture")
    options = parser.parse_args()

    live = Live(options.checkpoint, options.window)
    layout = live.predictor.layout
    if options.file is None and layout != CAMERA_LAYOUT:
        parser.error(f"checkpoint must have layout {CAMERA_LAYOUT!r} for a camera, got {layout!r}")
    if options.file is None:
        frames = filmed(options.camera, not options.no_picture, options.download)
    else:
        reader = {"format": options.format}
        if options.layout:
            reader["layout"] = options.layout
        frames = recorded(options.file, layout, reader)
    print(f"labels come {live.stream.latency} frames late, every {live.stream.stride} frames")
    before, spent = "", 0.0
    try:
        for number, frame in enumerate(frames, start=1):
            x = live.input(frame)
            if live.first is None:
                continue  # nobody has come yet
            start = time.perf_counter()
            scores = live.stream(x)
            spent += time.perf_counter() - start
            if scores is not None:
                name, likely = live.label(scores)
                if name != before:
                    print(f"frame {number}: {name} ({likely:.0%})", flush=True)
                before = name
    except KeyboardInterrupt:
        print()
    count = live.stream.frames
    if count == 0:
        raise SystemExit("nobody was seen")
    name, likely = live.label(live.stream.finish())
    cost = f"{1e3 * spent / count:.1f} ms each in the network"
    print(f"{count} frames, {cost}; as a whole: {name} ({likely:.0%})")


if __name__ == "__main__":
    main()
