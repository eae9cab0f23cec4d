"""Commands killed at random moments and started again end as an uninterrupted run does, with no file more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]

# Forks one small process that has loaded everything, so that a start costs no seconds. After each start comes
# a SIGKILL at a random moment, until a start gets to its end before it.
HARNESS = """
import contextlib, hashlib, json, os, pathlib, random, re, shutil, signal, sys, time, traceback, warnings

warnings.simplefilter("ignore")
import torch
import lightning.pytorch, safetensors.torch, torchmetrics
from stgcn_fast import dtw, training
from stgcn_fast.cli import main

torch.set_num_threads(1)
first, again, folder, keep, kills = sys.argv[1:]
first, again, keep, kills = json.loads(first), json.loads(again), json.loads(keep), int(kills)
folder = pathlib.Path(folder)


def start(words, seconds=None):
    pid = os.fork()
    if pid == 0:
        log = open(folder.parent / "log.txt", "w")
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                status = main(words)
            except SystemExit as error:
                status = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
                status = 99
        log.flush()
        os._exit(status)
    if seconds is not None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return 0
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit((folder.parent / "log.txt").read_text())
    return code


def digest():
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and any(path.match(pattern) for pattern in keep):
            content = re.sub(rb'"id": "[0-9a-f]+"', b"", path.read_bytes())  # a store's, drawn anew
            if path.suffix == ".safetensors":  # the weights; what stands beside them holds times
                tensors = safetensors.torch.load(content)
                content = b"".join(key.encode() + tensors[key].numpy().tobytes() for key in sorted(tensors))
            files[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return files, sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


folder.mkdir()
began = time.monotonic()
start(first)
whole = time.monotonic() - began
want, names = digest()
assert want, names
killed = starts = 0
random.seed(0)
while killed < kills:
    shutil.rmtree(folder)
    folder.mkdir()
    words = first
    while True:
        starts += 1
        if start(words, random.uniform(0, 1.2 * whole)) == 0:
            break
        killed += 1
        words = again
    got, left = digest()
    assert got == want, (killed, starts, set(got.items()) ^ set(want.items()))
    assert left == names, (killed, starts, set(left) ^ set(names))
print(json.dumps({"killed": killed, "starts": starts, "files": len(want)}))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of two classes and four subjects."""
    folder = tmp_path_factory.mktemp("kills") / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        keypoints = rng.normal(size=(30, 25, 3)).astype("f4")
        np.savez(folder / f"clip{i:02d}.npz", keypoints=keypoints, label=i % 2, subject=i // 6 + 1)
    return folder


def survive(folder: Path, first: list[str], again: list[str], keep: list[str], kills: int) -> dict[str, int]:
    """Counts of kills and starts, once every result was equal to the uninterrupted one's."""
    words = [json.dumps(first), json.dumps(again), str(folder), json.dumps(keep), str(kills)]
    command = [sys.executable, "-c", HARNESS, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7000)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


def told(counts: dict[str, int]) -> str:
    """The counts as a line."""
    return f"{counts['killed']} kills in {counts['starts']} starts: {counts['files']} files equal each time"


def write_recipe(path: Path, clips: Path, directory: Path) -> Path:
    """A run of seconds."""
    path.write_text(
        f"data: {{source: {clips}, format: arrays, frames: 8}}\n"
        "model: {options: {channels: [4]}}\n"
        "training: {epochs: 3, batch_size: 4, threads: 1}\n"
        f"output: {{tensorboard: false, dir: {directory}}}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.timeout(7200)
def test_prepare(clips: Path, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    folder = tmp_path / "work"
    words = ["prepare", str(clips), str(folder / "store")]
    counts = survive(folder, words, words, ["store/*"], rounds(2, 100))
    assert counts["killed"] >= rounds(2, 100)
    figure(told(counts))


@pytest.mark.timeout(7200)
def test_dtw(clips: Path, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    folder = tmp_path / "work"
    words = ["dtw", str(clips), "--out", str(folder / "m.npy"), "--window", "0.5"]
    counts = survive(folder, words, [*words, "--resume"], ["m.npy", "m.txt"], rounds(2, 100))
    assert counts["killed"] >= rounds(2, 100)
    figure(told(counts))


@pytest.mark.timeout(7200)
def test_train(clips: Path, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    folder = tmp_path / "work"
    recipe = write_recipe(tmp_path / "run.yaml", clips, folder / "run")
    words = ["train", str(recipe)]
    counts = survive(folder, words, [*words, "--resume"], ["run/*.safetensors"], rounds(2, 100))
    assert counts["killed"] >= rounds(2, 100)
    figure(told(counts))


@pytest.mark.timeout(7200)
def test_study(clips: Path, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    folder = tmp_path / "work"
    write_recipe(tmp_path / "base.yaml", clips, folder / "unused")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"base: base.yaml\noutput: {folder / 'study'}\nseeds: [0]\n"
        "axes: {stream: {joint: null, bone: {data.stream: bone}}}\n",
        encoding="utf-8",
    )
    words = ["study", str(study)]
    counts = survive(folder, words, words, ["*.safetensors"], rounds(2, 100))
    assert counts["killed"] >= rounds(2, 100)
    figure(told(counts))
