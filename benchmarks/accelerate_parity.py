"""The public ST-GCN trained twice from one seed, plain and accelerated, on the same clips in the same order.

    python benchmarks/accelerate_parity.py UTD_MHAD_FOLDER [--steps 200] [--threads 1]

prints the loss of both every 20 steps, the largest gap between the curves, and the time of the steps. The
folder holds UTD-MHAD's ``aA_sS_tT_skeleton.mat`` files; odd subjects train.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "compat"))

from stgcn_fast import data, swap
from stgcn_fast.data import transforms
from stgcn_fast.graph import Graph
from twins import st_gcn

FRAMES, BATCH, CLASSES, LAYOUT = 32, 8, 27, "utd20"


def clips(folder: Path) -> tuple[Tensor, Tensor]:
    """The training clips ``[N, C, T, V, M]``, centred and resampled, and their labels."""
    prepare = transforms.Compose([transforms.Centre(), transforms.Resample(FRAMES)])
    rng = np.random.default_rng(0)
    inputs, labels = [], []
    for skeleton in data.read_dataset(folder, "utd_mhad"):
        if skeleton.subject is not None and skeleton.subject % 2:
            ready = prepare(skeleton, rng)
            inputs.append(torch.from_numpy(ready.keypoints).permute(3, 1, 2, 0))
            labels.append(skeleton.label)
    return torch.stack(inputs), torch.tensor(labels)


def network() -> nn.Module:
    """The public ST-GCN of ten blocks on the skeleton of UTD-MHAD."""
    torch.manual_seed(0)
    graph = Graph(LAYOUT, partition="spatial", normalization="column", hop_cap=True)
    model = st_gcn.Model(3, CLASSES, graph.num_joints)
    model.A.copy_(graph.adjacency(torch.float32))
    return model


def curve(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> tuple[list[float], float]:
    """The loss of every step of SGD, and the time of the process that the steps took."""
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
    model.train()
    losses = []
    start = time.process_time()
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,), generator=generator)
        optimiser.zero_grad()
        loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    inputs, labels = clips(arguments.folder)
    plain = network()
    fast = copy.deepcopy(plain)
    report = swap.accelerate(fast)
    print(f"{len(inputs)} clips; {len(report.taken)} of {len(report.rows)} layers accelerated")
    expected, plain_time = curve(plain, inputs, labels, arguments.steps)
    found, fast_time = curve(fast, inputs, labels, arguments.steps)
    gaps = [abs(a - b) for a, b in zip(expected, found)]
    for i in range(0, len(gaps), 20):
        print(f"step {i:4d}  plain {expected[i]:.6f}  accelerated {found[i]:.6f}")
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    print(f"last      plain {expected[-1]:.6f}  accelerated {found[-1]:.6f}")
    print(f"largest gap {gaps[worst]:.2e} at step {worst}, where the loss is {expected[worst]:.4f}")
    print(
        f"mean over the last 20: plain {np.mean(expected[-20:]):.4f}, accelerated {np.mean(found[-20:]):.4f}"
    )
    print(f"time {plain_time:.1f} s and {fast_time:.1f} s: {plain_time / fast_time:.2f} times as fast")


if __name__ == "__main__":
    main()
