"""Ten nearest neighbours among activations, by bounds (the better of two runs) and by brute force (one).

    OMP_NUM_THREADS=2 python benchmarks/neighbours_once.py 1000 75 6400 8

takes sequences, frames, features and window (0: none) for the activations of `test_dtw_knn.py`; compares the
results bit for bit and prints seconds, processor seconds and their ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import test_dtw_knn
from stgcn_fast import dtw


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("count", "frames", "features", "window"):
        parser.add_argument(name, type=int)
    parser.add_argument("--neighbours", type=int, default=test_dtw_knn.NEIGHBOURS)
    options = parser.parse_args()
    radius = options.window or None
    shape = options.count, options.frames, options.features, radius
    test_dtw_knn.WORKS["activations"] = shape, shape
    clips = test_dtw_knn.collection("activations")
    x = dtw.Sequences(np.concatenate(clips), np.arange(len(clips) + 1) * options.frames)
    del clips  # gigabytes
    k = min(options.neighbours, options.count - 1)
    few = x.select(0, k + 1)
    found, seconds = {}, {}
    for method in ("auto", "auto", "brute"):
        for kind in ("brute", "bound"):  # compilation is no part of it
            dtw.dtw_knn(few, None, 1, radius, method=kind)
        start, before = time.perf_counter(), time.process_time()
        *found[method], how = dtw.dtw_knn(x, None, k, radius, method=method, info=True)
        now = time.perf_counter() - start, time.process_time() - before
        print(f"{method}: {now[0]:.2f} s, {now[1]:.2f} s of processors; {how}")
        seconds[method] = min(seconds.get(method, now), now)
    for ours, plain in zip(found["auto"], found["brute"]):
        np.testing.assert_array_equal(ours, plain)
    wall, work = (b / a for a, b in zip(seconds["auto"], seconds["brute"]))
    print(f"the same bits; {wall:.2f} times as fast as brute force ({work:.2f} in processor time)")


if __name__ == "__main__":
    main()
