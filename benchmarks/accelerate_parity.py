"""The public ST-GCN trained from one seed, plain and accelerated, on the same clips in the same order.

    python benchmarks/accelerate_parity.py UTD_MHAD_FOLDER [--steps 200] [--threads 1] [--double]

prints the loss of both every 20 steps, the largest gap between the curves, and the time of the steps. A third
run, plain with weights moved by their rounding (1e-7, or 1e-15), shows the gap that rounding alone makes by
then. The folder holds UTD-MHAD's ``aA_sS_tT_skeleton.mat`` files; odd subjects train.
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
    optimiser = torch.optim.SGD(model.parameters(), 0.005, momentum=0.9, nesterov=True, weight_decay=1e-4)
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
    parser.add_argument("--double", action="store_true", help="in float64, where rounding stays small")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    inputs, labels = clips(arguments.folder)
    plain = network()
    if arguments.double:
        inputs, plain = inputs.double(), plain.double()
    fast = copy.deepcopy(plain)
    report = swap.accelerate(fast)
    print(f"{len(inputs)} clips; {len(report.taken)} of {len(report.rows)} layers accelerated")
    moved = copy.deepcopy(plain)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1 + (1e-15 if arguments.double else 1e-7))
    expected, plain_time = curve(plain, inputs, labels, arguments.steps)
    found, fast_time = curve(fast, inputs, labels, arguments.steps)
    natural, _ = curve(moved, inputs, labels, arguments.steps)
    for i in [*range(0, arguments.steps, 20), arguments.steps - 1]:
        print(f"step {i:4d}  plain {expected[i]:.6f}  accelerated {found[i]:.6f}  moved {natural[i]:.6f}")
    for name, other in (("accelerated", found), ("moved", natural)):
        gaps = [abs(a - b) for a, b in zip(expected, other)]
        worst = max(range(len(gaps)), key=gaps.__getitem__)
        print(f"{name}: largest gap {gaps[worst]:.2e} at step {worst} (loss {expected[worst]:.4f})", end=", ")
        print(f"in the first 50 steps {max(gaps[:50]):.2e}, mean of the last 20 {np.mean(other[-20:]):.4f}")
    print(f"plain: mean of the last 20 {np.mean(expected[-20:]):.4f}")
    print(f"time {plain_time:.1f} s and {fast_time:.1f} s: {plain_time / fast_time:.2f} times as fast")


if __name__ == "__main__":
    main()
