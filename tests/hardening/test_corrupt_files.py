"""Damaged files: a clip or one clear sentence, never a crash, a hang or another exception."""

from __future__ import annotations

import random
import resource
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import damage

from stgcn_fast.data import FormatError, Skeleton, read, read_dataset
from stgcn_fast.data.store import SkeletonStore

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]


def outcome(path: Path, format: str) -> str:
    """What a user gets: a sound clip, or the one error of the readers."""
    try:
        if format in ("pyskl", "natops"):
            clips = list(read_dataset(path, format))
        else:
            clips = [read(path, format)]
    except FormatError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert str(path) in sentence
        return "refused"
    for clip in clips:
        assert isinstance(clip, Skeleton)
        assert np.isfinite(clip.keypoints).all()
        assert clip.keypoints.dtype == np.float32
    return "read"


@pytest.mark.parametrize(
    "name", ["ntu", "kinetics", "openpose", "pyskl", "utd_mhad", "nw_ucla", "natops", "arrays", "arrays_npy"]
)
@pytest.mark.timeout(3600)
def test_damaged_clips(
    name: str, originals: dict[str, Path], tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    original = originals[name]
    assert outcome(original, name.removesuffix("_npy")) == "read"
    content = original.read_bytes()
    path = tmp_path / original.name
    seen: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of numpy or scipy would reach the user as noise
        for seed in range(rounds(60, 1200)):
            path.write_bytes(damage(content, random.Random(seed)))
            seen[outcome(path, name.removesuffix("_npy"))] += 1
    assert seen["refused"] > 0
    figure(f"{seen.total()} files: {seen['refused']} refused, {seen['read']} read")


@pytest.mark.timeout(3600)
def test_no_file_makes_a_reader_take_the_memory(
    originals: dict[str, Path], tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    """A header may promise any size; what is allocated follows what the file holds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, original in originals.items():
        path = tmp_path / original.name
        content = original.read_bytes()
        for seed in range(10_000, 10_000 + rounds(10, 300)):
            path.write_bytes(damage(content, random.Random(seed)))
            outcome(path, name.removesuffix("_npy"))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200 * 1024
    figure(f"{len(originals) * rounds(10, 300)} files: {grown_kib / 1024:.1f} MB more memory at most")


@pytest.mark.timeout(3600)
def test_damaged_stores(originals: dict[str, Path], tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    store = tmp_path / "clips"
    SkeletonStore.build(store, [read(originals["ntu"], "ntu"), read(originals["arrays"])], layout="ntu25")
    files = {path: path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}
    assert len(SkeletonStore(store)) == 2
    refused = 0
    for seed in range(rounds(60, 1200)):
        rng = random.Random(seed)
        path = rng.choice(list(files))
        path.write_bytes(damage(files[path], rng))
        sentence = ""
        try:
            opened = SkeletonStore(store)
            clips = [opened[index] for index in range(len(opened))]
            assert all(isinstance(clip, Skeleton) for clip in clips)
        except ValueError as error:
            sentence = str(error)
        assert "\n" not in sentence
        refused += bool(sentence)
        path.write_bytes(files[path])
    assert refused > 0
    figure(f"{rounds(60, 1200)} stores: {refused} refused")
