"""A DTW matrix on disk against the same one in memory, in turns.

    OMP_NUM_THREADS=2 python benchmarks/disk_overhead.py 4000 3

takes the number of sequences (20 to 100 frames, D = 75, window 10, float32) and of rounds; prints the least
seconds and processor seconds of each form, its excess over memory, the peak of memory, and what N = 50,000
would take at that rate.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from stgcn_fast import dtw

FORMS = {
    "memory": None,
    "npy": ("m.npy", False),
    "zarr": ("m.zarr", False),
    "npy, condensed": ("m.npy", True),
    "zarr, condensed": ("m.zarr", True),
}
WINDOW = 10
LARGE = 50_000


def sequences(count: int) -> dtw.Sequences:
    """The data of `test_dtw_large.py`."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 101, count)
    frames = rng.normal(size=(lengths.sum(), 75)).astype(np.float32)
    return dtw.Sequences(frames, np.concatenate([[0], np.cumsum(lengths)]))


def compute(x: dtw.Sequences, form: tuple[str, bool] | None) -> None:
    """One matrix, thrown away."""
    if form is None:
        dtw.dtw_pairwise_distance(x, WINDOW)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        dtw.dtw_pairwise_distance(x, WINDOW, out=folder / form[0], condensed=form[1])
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, help="sequences")
    parser.add_argument("rounds", type=int, help="matrices of each form")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    small = sequences(64)
    for form in options.forms:  # compilation and imports are no part of it
        compute(small, FORMS[form])
    x = sequences(options.count)
    wall = dict.fromkeys(options.forms, np.inf)
    work = dict(wall)
    for _ in range(options.rounds):
        for form in options.forms:
            run = partial(compute, x, FORMS[form])
            start, before = time.perf_counter(), time.process_time()
            run()
            wall[form] = min(wall[form], time.perf_counter() - start)
            work[form] = min(work[form], time.process_time() - before)
    first = options.forms[0]
    for form in options.forms:
        share = 100 * (work[form] / work[first] - 1)
        elapsed = 100 * (wall[form] / wall[first] - 1)
        line = f"{wall[form]:8.2f} s ({elapsed:+.1f} %) {work[form]:8.2f} s of processors ({share:+.1f} %)"
        print(f"{form:16} {line}")
    pairs = options.count * (options.count + 1) / 2
    hours = wall[first] / pairs * LARGE * (LARGE + 1) / 2 / 3600
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak {peak:.0f} MiB; {1e6 * work[first] / pairs:.3f} microseconds of a core a pair")
    print(f"N = {LARGE:,} at that rate: {hours:.2f} h")


if __name__ == "__main__":
    main()
