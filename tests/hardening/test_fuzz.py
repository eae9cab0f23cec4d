"""Readers under the fuzzer, where atheris is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import FAMILIES

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.timeout(7200)
def test_readers(name: str, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    pytest.importorskip("atheris", reason='needs pip install "stgcn_fast[fuzz]"')
    runs = rounds(300, 10_000)
    command = [sys.executable, Path(__file__).parent / "fuzz.py", name, f"-runs={runs}", "-seed=1"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"], capture_output=True, text=True, timeout=7000
    )
    assert done.returncode == 0, done.stderr[-4000:]
    branches = re.findall(r"cov: (\d+)", done.stderr)[-1]
    figure(f"{runs} files, {branches} branches: none broke it")


def test_an_unknown_family_is_named() -> None:
    command = [sys.executable, Path(__file__).parent / "fuzz.py", "gltf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 1
    assert done.stderr.startswith("fuzz: FAMILY must be one of ntu, ")
