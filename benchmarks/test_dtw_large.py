"""A DTW matrix on disk against the same one in memory: equal bits first, then the times.

    OMP_NUM_THREADS=2 python -m pytest benchmarks/test_dtw_large.py --benchmark-group-by=group

600 sequences by default; `STGCN_FAST_BENCH=full` takes 4,000.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from stgcn_fast import dtw

COUNT = 4000 if os.environ.get("STGCN_FAST_BENCH") == "full" else 600
WINDOW = 10
FORMS = {
    "memory": None,
    "npy": ("m.npy", False),
    "zarr": ("m.zarr", False),
    "npy_condensed": ("m.npy", True),
    "zarr_condensed": ("m.zarr", True),
}


@pytest.fixture(scope="module")
def sequences() -> dtw.Sequences:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 101, COUNT)
    frames = rng.normal(size=(lengths.sum(), 75)).astype(np.float32)
    return dtw.Sequences(frames, np.concatenate([[0], np.cumsum(lengths)]))


@pytest.fixture(scope="module")
def reference(sequences):
    return dtw.dtw_pairwise_distance(sequences, WINDOW)


@pytest.mark.parametrize("form", FORMS)
def test_large(benchmark, sequences, reference, tmp_path, form):
    number = itertools.count()

    def compute():
        if FORMS[form] is None:
            return dtw.dtw_pairwise_distance(sequences, WINDOW)
        name, condensed = FORMS[form]
        folder = tmp_path / str(next(number))
        folder.mkdir()
        return dtw.dtw_pairwise_distance(sequences, WINDOW, out=folder / name, condensed=condensed)

    got = np.asarray(compute()[...])
    want = reference[np.triu_indices(COUNT, 1)] if got.ndim == 1 else reference
    np.testing.assert_array_equal(got, want)
    benchmark.group = f"{COUNT} sequences"
    benchmark.pedantic(compute, rounds=3, warmup_rounds=0)
