"""Files from strangers run nothing and write nowhere else; nothing reaches the network unasked."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damage

from stgcn_fast import load_checkpoint, models
from stgcn_fast.cli import main
from stgcn_fast.data import FormatError, Skeleton, read, read_dataset
from stgcn_fast.data.store import SkeletonStore

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]


class Payload:
    """What a pickle runs when it is loaded carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def checkpoints(folder: Path, marker: Path) -> list[Path]:
    """The payload in every container that a checkpoint comes in."""
    payload = {"state_dict": {"weight": Payload(marker)}}
    paths = [folder / name for name in ("new.pth", "old.pt", "plain.pkl", "named.safetensors")]
    torch.save(payload, paths[0])
    torch.save(payload, paths[1], _use_new_zipfile_serialization=False)
    paths[2].write_bytes(pickle.dumps(payload, 2))
    paths[3].write_bytes(pickle.dumps(payload))
    return paths


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for path in checkpoints(tmp_path, marker):
        with pytest.raises((ValueError, FileNotFoundError), match=path.stem) as raised:
            load_checkpoint(path)
        assert "\n" not in str(raised.value)
        assert not marker.exists(), path


def test_a_data_set_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "set.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps([{"frame_dir": "a", "keypoint": Payload(marker)}], protocol))
        with pytest.raises(FormatError):
            list(read_dataset(path, "pyskl"))
    np.savez(tmp_path / "clip.npz", keypoints=np.array([Payload(marker)], dtype=object))
    with pytest.raises(FormatError):
        read(tmp_path / "clip.npz")
    assert not marker.exists()


def test_an_archive_writes_nothing_anywhere(tmp_path: Path) -> None:
    """Member names that climb out of the archive are names that no key has; nothing is ever unpacked."""
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 25, 3)))
    path = tmp_path / "inside" / "clip.npz"
    path.parent.mkdir()
    for name in ("../../evil.npy", "/evil.npy", "keypoints/../../evil.npy"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("keypoints.npy", buffer.getvalue())
            archive.writestr(name, buffer.getvalue())
        with pytest.raises(FormatError, match="keys must be keypoints and any of"):
            read(path)
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


@pytest.mark.timeout(3600)
def test_damaged_checkpoints(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    path, old = tmp_path / "model.safetensors", tmp_path / "model.pth"
    model = models.STGCN(3, channels=[4])
    models.save_checkpoint(path, model, {"classes": ["a", "b", "c"]})
    torch.save(model.state_dict(), old)
    files = {file: file.read_bytes() for file in sorted(tmp_path.iterdir())}
    refused = 0
    for seed in range(rounds(30, 600)):
        rng = random.Random(seed)
        file = rng.choice(list(files))
        file.write_bytes(damage(files[file], rng))
        sentence = ""
        try:
            load_checkpoint(old if file == old else path)
        except ValueError as error:
            sentence = str(error)
        assert "\n" not in sentence
        refused += bool(sentence)
        file.write_bytes(files[file])
    assert refused > 0
    figure(f"{rounds(30, 600)} checkpoints: {refused} refused")


OFFLINE = """
import pathlib, socket, sys


def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for: {arguments}")


for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

from stgcn_fast.cli import main

folder = pathlib.Path(sys.argv[1])
(folder / "run.yaml").write_text(
    f"data: {{source: {sys.argv[2]}, frames: 8}}\\nmodel: {{options: {{channels: [4, 4]}}}}\\n"
    f"training: {{epochs: 1, batch_size: 8}}\\noutput: {{dir: {folder / 'run'}}}\\n"
)
weights = str(folder / "run" / "last.safetensors")
for words in (
    ["info"],
    ["train", str(folder / "run.yaml")],
    ["test", weights],
    ["dtw", sys.argv[2], "--out", str(folder / "m.npy")],
    ["explain", weights, "--part", "all", "--out", str(folder / "why")],
):
    assert main(words) == 0, words
print("offline")
"""


def test_no_command_asks_for_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(12):
        keypoints = rng.normal(size=(9, 25, 3)).astype("f4")
        np.savez(clips / f"clip{i:02d}.npz", keypoints=keypoints, label=i % 2, subject=i // 3 + 1)
    program = tmp_path / "program.py"
    program.write_text(OFFLINE)
    command = [sys.executable, "-W", "ignore", str(program), str(tmp_path), str(clips)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert done.stdout.splitlines()[-1:] == ["offline"], done.stderr


def test_names_of_clips_lead_nowhere(tmp_path: Path) -> None:
    """A clip may be called anything; no file is named after it outside the directory of the results."""
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    keypoints = np.random.default_rng(0).normal(size=(1, 5, 25, 3)).astype("f4")
    names = ["../../evil", "/evil", "a/b", "..", "new line"]
    clips = [Skeleton(keypoints, layout="ntu25", name=name, label=i % 2) for i, name in enumerate(names)]
    SkeletonStore.build(work / "store", clips)
    assert main(["dtw", str(work / "store"), "--out", str(work / "m.npy")]) == 0
    outside = {path.name for path in tmp_path.rglob("*") if work not in [path, *path.parents]}
    assert outside == {"a", "b"}
