"""Where clips come from: stores, directories, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stgcn_fast import data
from stgcn_fast.training import ConfigError, open_source, split_source
from stgcn_fast.training.config import DataConfig, SplitConfig
from stgcn_fast.training.source import built_from, chosen_protocol


def write_clips(directory: Path, count: int = 4, label: bool = True) -> None:
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        fields = {"label": np.int64(i % 2), "subject": np.int64(i // 2 + 1)} if label else {}
        np.savez(directory / f"clip{i}.npz", keypoints=rng.normal(size=(1, 9, 25, 3)), **fields)


def test_a_store_is_opened_as_it_is(store_path: Path, tmp_path: Path) -> None:
    store = open_source(DataConfig(source=str(store_path)), tmp_path / "unused")
    assert len(store) == 24
    assert not (tmp_path / "unused").exists()


def test_a_directory_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    config = DataConfig(source=str(tmp_path / "clips"), format="arrays")
    target = tmp_path / "run" / "store"
    seen: list[int] = []
    assert len(open_source(config, target, lambda done, total=None: seen.append(done))) == 4
    assert seen == [1, 2, 3, 4]
    assert built_from(config, target)
    open_source(config, target, lambda done, total=None: seen.append(done))
    assert len(seen) == 4
    write_clips(tmp_path / "clips", 5)
    assert not built_from(config, target)
    assert len(open_source(config, target)) == 5
    other = DataConfig(source=str(tmp_path / "clips"), format="arrays", options={"limit": 2})
    assert len(open_source(other, target)) == 2


def test_a_source_that_breaks_and_is_mended_is_read_again(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    config = DataConfig(source=str(tmp_path / "clips"), format="arrays")
    target = tmp_path / "run" / "store"
    open_source(config, target)
    np.savez(tmp_path / "clips" / "clip9.npz", keypoints=np.zeros((9, 7, 3)))
    with pytest.raises(data.FormatError, match="clip9"):
        open_source(config, target)
    write_clips(tmp_path / "clips", 6)
    (tmp_path / "clips" / "clip9.npz").unlink()
    assert len(open_source(config, target)) == 6


def test_a_note_vouches_for_no_other_store(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    config = DataConfig(source=str(tmp_path / "clips"), format="arrays")
    store = open_source(config, tmp_path / "store")
    data.SkeletonStore.build(tmp_path / "store", [store[0]])  # as a run killed before it wrote its note
    assert not built_from(config, tmp_path / "store")
    assert len(open_source(config, tmp_path / "store")) == 4


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    with pytest.raises(ConfigError, match=r"data\.store must be free"):
        open_source(DataConfig(source=str(tmp_path / "clips"), store=str(taken)), tmp_path / "unused")
    assert [file.name for file in taken.iterdir()] == ["file"]


def test_a_source_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none: data\.source must exist"):
        open_source(DataConfig(source=str(tmp_path / "none")), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_splits_are_disjoint_and_seeded(store_path: Path) -> None:
    store = data.SkeletonStore(store_path)
    config = SplitConfig(protocol="cross_subject", options={"train": "odd"}, validation_fraction=0.25)
    parts = split_source(store, config, 3)
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(24))
    assert {name: len(part) for name, part in parts.items()} == {"train": 9, "val": 3, "test": 12}
    again = split_source(store, config, 3)
    assert all((parts[name] == again[name]).all() for name in parts)
    assert any((parts[name] != split_source(store, config, 4)[name]).any() for name in ("train", "val"))


def test_without_a_protocol_performers_take_turns(store_path: Path) -> None:
    store = data.SkeletonStore(store_path)
    parts = split_source(store, SplitConfig(), 0)
    assert set(store.subjects[parts["train"]].tolist()) == {1, 3}
    assert set(store.subjects[parts["test"]].tolist()) == {2, 4}


def store_of(path: Path, format: str, **columns: list[int]) -> data.SkeletonStore:
    """A store of tiny clips that says it was read from ``format``."""
    clips = [
        data.Skeleton(np.ones((1, 2, 8, 3), np.float32), "natops8", label=0, **dict(zip(columns, row)))
        for row in zip(*columns.values())
    ]
    store = data.SkeletonStore.build(path, clips)
    store.source_format = format
    return store


@pytest.mark.parametrize(
    ("format", "columns", "protocol"),
    [
        ("utd_mhad", {"subject": [1, 2, 3, 8]}, "utd_mhad"),
        ("utd_mhad", {"subject": [1, 3, 5, 7]}, "cross_subject"),  # nobody would test
        ("nw_ucla", {"subject": [1, 2, 1], "camera": [1, 2, 3]}, "nw_ucla"),
        ("nw_ucla", {"subject": [1, 2, 1], "camera": [1, 3, 3]}, "cross_subject"),  # no view 2
        ("ntu", {"subject": [1, 3, 40]}, "ntu60_xsub"),
        ("ntu", {"subject": [1, 3, 41]}, "cross_subject"),  # a performer of the larger data set
        ("arrays", {"subject": [1, 2, 3, 8]}, "cross_subject"),
    ],
)
def test_published_protocols_are_the_default_where_every_clip_fits(
    tmp_path: Path, format: str, columns: dict[str, list[int]], protocol: str
) -> None:
    store = store_of(tmp_path / "store", format, **columns)
    assert chosen_protocol(store, SplitConfig(), 0)[0] == protocol
    if protocol == format:
        expected = data.split(store, protocol)
        assert split_source(store, SplitConfig(), 0)["test"].tolist() == expected["test"].tolist()
    assert chosen_protocol(store, SplitConfig(protocol="random"), 0) == ("random", {})


def test_a_store_knows_the_format_it_was_read_from(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    store = open_source(DataConfig(source=str(tmp_path / "clips")), tmp_path / "store")
    assert store.source_format == data.SkeletonStore(tmp_path / "store").source_format == "arrays"
    assert data.SkeletonStore.build(tmp_path / "own", [store[0]]).source_format is None


def test_a_share_of_the_training_set(store_path: Path) -> None:
    store = data.SkeletonStore(store_path)
    parts = split_source(store, SplitConfig(train_fraction=0.5), 0)
    assert len(parts["train"]) == 6
    assert len(parts["test"]) == 12


def test_protocols_that_do_not_fit_say_so(store_path: Path, tmp_path: Path) -> None:
    store = data.SkeletonStore(store_path)
    with pytest.raises(ConfigError, match=r"data\.split: split: protocol must be one of"):
        split_source(store, SplitConfig(protocol="by_weather"), 0)
    with pytest.raises(ConfigError, match=r"data\.split: "):
        split_source(store, SplitConfig(protocol="cross_subject", options={"trian": [1]}), 0)
    write_clips(tmp_path / "clips", label=False)
    unlabelled = open_source(DataConfig(source=str(tmp_path / "clips")), tmp_path / "store")
    with pytest.raises(ConfigError, match=r"every train clip must have a label, got none for clip"):
        split_source(unlabelled, SplitConfig(protocol="random"), 0)
