"""Nearest neighbours under DTW for a camera that training never saw, by how clips are placed before.

    python examples/unseen_view.py PATH/TO/nw_ucla/all_sqe

Northwestern-UCLA: clips of views 1 and 2 are the references, those of view 3 are labelled by the nearest of
them. Printed is the share that is right, of joints and of bones. Needs `pip install "stgcn_fast[dtw]"`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stgcn_fast import data, dtw

FRAMES, WINDOW = 32, 3
CENTRE = {"name": "Centre", "joint": "hip_centre", "reference": "first"}
ALIGN = {"name": "AlignView", "up": "y", "side": "both", "reference": "mean"}
PLACEMENTS = {
    "centred": [CENTRE],
    "and turned": [CENTRE, ALIGN],
    "turned, boxed": [ALIGN, "NormalizeBox"],
}


def matrices(clips: list[data.Skeleton], entries: list[object], stream: str) -> list[np.ndarray]:
    """Each clip as `[T, D]`."""
    resample = {"name": "Resample", "frames": FRAMES}
    transform = data.build_transform([resample, *entries], clips[0].layout)
    samples = data.SkeletonDataset(clips, None, transform=transform, stream=stream, frames=FRAMES, persons=1)
    return [samples[i][0].numpy().swapaxes(0, 1).reshape(FRAMES, -1) for i in range(len(samples))]


def main() -> None:
    """Prints one line for each placement."""
    parser = argparse.ArgumentParser(description="Nearest neighbours across views.")
    parser.add_argument("directory", type=Path)
    clips = list(data.read_dataset(parser.parse_args().directory, "nw_ucla"))
    views = np.array([clip.camera for clip in clips])
    labels = np.array([clip.label for clip in clips])
    seen, unseen = np.flatnonzero(views != 3), np.flatnonzero(views == 3)
    for name, entries in PLACEMENTS.items():
        right = []
        for stream in ("joint", "bone"):
            series = matrices(clips, entries, stream)
            distances = dtw.dtw_cdist([series[i] for i in unseen], [series[i] for i in seen], window=WINDOW)
            right.append(np.mean(labels[seen][distances.argmin(1)] == labels[unseen]))
        print(f"{name:14} joint {100 * right[0]:.1f} %  bone {100 * right[1]:.1f} %")


if __name__ == "__main__":
    main()
