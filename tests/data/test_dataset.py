"""The torch data set: shapes, order of access, workers, epochs."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stgcn_fast.data.dataset import SkeletonDataset
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.store import SkeletonStore
from stgcn_fast.data.streams import list_streams, to_stream
from stgcn_fast.data.transforms import Motion, Resample

AUGMENT = [
    {"name": "Centre"},
    {"name": "CropResize", "frames": 16},
    {"name": "RandomRotate", "degrees": 20},
    {"name": "JitterNoise", "sigma": 0.01},
]


def make_clips(count: int = 12, persons: int = 1, dimensions: int = 3) -> list[Skeleton]:
    clips = []
    for index in range(count):
        rng = np.random.default_rng(index)
        frames = int(rng.integers(5, 40))
        keypoints = rng.standard_normal((persons, frames, 20, dimensions)).astype(np.float32)
        confidence = rng.uniform(0.1, 1, (persons, frames, 20)).astype(np.float32)
        confidence[:, :, 4] = 0
        keypoints[:, :, 4] = 0
        clips.append(
            Skeleton(
                keypoints, "kinect20", confidence, name=f"clip{index}", label=index % 3 if index else None
            )
        )
    return clips


def everything(loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    parts = list(loader)
    return tuple(torch.cat([part[i] for part in parts]) for i in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("stream", list_streams())
@pytest.mark.parametrize("confidence", [False, True])
def test_an_item_is_the_stream_of_the_clip(stream: str, confidence: bool) -> None:
    clips = make_clips(persons=2)
    items = SkeletonDataset(clips, [7, 3], None, stream, frames=16, persons=3, confidence=confidence)
    x, label, index = items[1]
    motion = Resample(16)(Motion.of(clips[3]))
    expected = motion.keypoints.transpose(3, 1, 2, 0)
    if confidence:
        expected = np.concatenate([expected, motion.confidence.transpose(1, 2, 0)[None]])
    valid = motion.valid.transpose(1, 2, 0)
    expected = to_stream(expected, "kinect20", stream, has_confidence=confidence, valid=valid)
    assert (x.dtype, label, index) == (torch.float32, 0, 3)
    assert x.shape == (3 + confidence, 16, 20, 3)
    assert x.is_contiguous()
    np.testing.assert_array_equal(x[..., :2].numpy(), expected)
    assert not x[..., 2].any()
    assert len(items) == 2


def test_items_do_not_share_memory_with_the_source() -> None:
    clips = make_clips()
    before = clips[2].keypoints.copy()
    SkeletonDataset(clips)[2][0].fill_(7)
    np.testing.assert_array_equal(clips[2].keypoints, before)


def test_items_do_not_depend_on_the_order_of_access_but_on_seed_and_epoch() -> None:
    clips = make_clips()
    one, two = (SkeletonDataset(clips, None, AUGMENT, frames=16, seed=5) for _ in range(2))
    first = one[4][0]
    for position in (9, 0, 3):
        two[position]
    assert torch.equal(two[4][0], first)
    part = SkeletonDataset(clips, [4], AUGMENT, frames=16, seed=5)
    assert torch.equal(part[0][0], first)
    one.set_epoch(1)
    assert one.epoch == 1
    assert not torch.equal(one[4][0], first)
    one.set_epoch(0)
    assert torch.equal(one[4][0], first)
    assert not torch.equal(SkeletonDataset(clips, None, AUGMENT, frames=16, seed=6)[4][0], first)


def test_workers_give_what_the_main_process_gives_in_every_epoch() -> None:
    items = SkeletonDataset(make_clips(), None, AUGMENT, frames=16, seed=1)
    alone = DataLoader(items, batch_size=5)
    crew = DataLoader(items, batch_size=5, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 2):
        items.set_epoch(epoch)
        expected, found = everything(alone), everything(crew)
        for left, right in zip(expected, found, strict=True):
            assert torch.equal(left, right)
        epochs.append(found[0])
    assert not torch.equal(epochs[0], epochs[1])
    assert expected[1].tolist() == [-1, *(index % 3 for index in range(1, 12))]
    assert expected[2].tolist() == list(range(12))


def test_a_store_serves_as_source(tmp_path: Path) -> None:
    clips = make_clips()
    SkeletonStore.build(tmp_path / "store", clips)
    store = SkeletonStore(tmp_path / "store")
    items = SkeletonDataset(store, None, AUGMENT, frames=16)
    assert items.labels.tolist() == SkeletonDataset(clips).labels.tolist()
    expected = everything(DataLoader(SkeletonDataset(clips, None, AUGMENT, frames=16), batch_size=4))
    found = everything(DataLoader(items, batch_size=4, num_workers=1))
    for left, right in zip(expected, found, strict=True):
        assert torch.equal(left, right)


def test_it_pickles() -> None:
    items = SkeletonDataset(make_clips(3), None, AUGMENT, frames=8)
    assert torch.equal(pickle.loads(pickle.dumps(items))[2][0], items[2][0])


@pytest.mark.parametrize("fit", ["resample", "loop", "zero"])
def test_every_fit_gives_the_number_of_frames(fit: str) -> None:
    clips = make_clips()
    items = SkeletonDataset(clips, frames=20, fit=fit)
    assert {tuple(items[i][0].shape) for i in range(len(items))} == {(3, 20, 20, 1)}
    short = min(range(12), key=lambda i: clips[i].frames)
    x, frames = items[short][0], clips[short].frames
    if fit == "zero":
        assert not x[:, frames:].any()
    if fit == "loop":
        assert torch.equal(x[:, frames], x[:, 0])
    long = max(range(12), key=lambda i: clips[i].frames)
    last = clips[long].keypoints[0, -1 if fit == "resample" else 19]
    np.testing.assert_array_equal(items[long][0][:, -1, :, 0].numpy(), last.T)


def test_labels_and_lengths() -> None:
    items = SkeletonDataset(make_clips(), [0, 5, 4])
    assert items.labels.tolist() == [-1, 2, 1]
    assert items[1][0].shape[1] == make_clips()[5].frames


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"indices": [0, 12]}, ValueError, r"indices must be in \[0, 12\), got 12"),
        ({"indices": []}, ValueError, r"indices must name at least one clip, got none"),
        ({"indices": [0.5]}, TypeError, r"indices must be a list of ints, got float64 of shape \[1\]"),
        ({"stream": "limb"}, ValueError, r"stream must be one of joint, .*, got 'limb'"),
        ({"frames": 0}, ValueError, r"frames must be >= 1, got 0"),
        ({"frames": 2.0}, TypeError, r"frames must be an int, got float"),
        ({"persons": 0}, ValueError, r"persons must be >= 1, got 0"),
        ({"seed": -1}, ValueError, r"seed must be >= 0, got -1"),
        ({"fit": "cut"}, ValueError, r"fit must be one of resample, loop, zero, got 'cut'"),
    ],
)
def test_errors_name_the_argument(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^SkeletonDataset: {message}$"):
        SkeletonDataset(make_clips(), **arguments)
    items = SkeletonDataset(make_clips())
    with pytest.raises(ValueError, match=r"^SkeletonDataset: epoch must be >= 0, got -1$"):
        items.set_epoch(-1)
    with pytest.raises(IndexError):
        items[12]
