"""Data loaders whose workers use native ops and the compiled warping engine: no deadlock, equal numbers.

A forked worker inherits thread pools without their threads; a spawned one loads everything anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]

PROGRAM = """
import sys
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from stgcn_fast import dtw, ops

class Clips(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        x = torch.randn(1, 3, 64, 5, generator=torch.Generator().manual_seed(i))
        y = ops.graph_conv(x, torch.ones(2, 6, 3), torch.ones(2, 5, 5))
        z = ops.temporal_conv(y, torch.ones(6, 6, 9, 1), padding=4)
        clips = x[0].permute(1, 0, 2).reshape(4, 16, 15).numpy()
        return z.sum() + float(dtw.dtw_pairwise_distance(clips, n_jobs=2).sum())

if __name__ == "__main__":
    torch.set_num_threads(2)
    clips = Clips()
    want = torch.stack([clips[i] for i in range(8)])  # the pools of this process have run before it forks
    dtw.dtw_pairwise_distance(np.random.default_rng(0).normal(size=(40, 50, 3)), n_jobs=2)
    for _ in range(int(sys.argv[2])):
        loader = DataLoader(clips, 2, num_workers=2, multiprocessing_context=sys.argv[1], timeout=100)
        assert torch.equal(torch.cat(list(loader)), want)
    print("equal")
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.timeout(1800)
def test_workers(start: str, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(program), start, str(rounds(1, 20))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.stdout.strip() == "equal", done.stderr
    figure(f"{rounds(1, 20)} passes of two workers, started by {start}: equal")
