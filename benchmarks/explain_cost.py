"""What maps of all layers cost beside a plain pass, and NNK graphs beside each other: CPU time, one thread.

python benchmarks/explain_cost.py [--frames 150] [--nodes 5000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from stgcn_fast.explain import STGGradCAM
from stgcn_fast.geometry import nnk_graph
from stgcn_fast.models import STGCN


def best(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Shortest CPU time of each, in seconds; they take turns."""
    times = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, call in contenders.items():
            started = time.process_time()
            call()
            times[name] = min(times[name], time.process_time() - started)
    return times


def maps(frames: int, rounds: int) -> None:
    torch.manual_seed(0)
    model = STGCN(num_classes=60, layout="ntu25").eval()
    x, labels = torch.randn(2, 3, frames, 25, 2), torch.tensor([1, 2])
    cam = STGGradCAM(model)

    def plain(training: bool) -> None:
        model.train(training).zero_grad(set_to_none=True)
        F.cross_entropy(model(x), labels).backward()
        model.eval()

    with torch.no_grad():
        assert torch.allclose(cam(x).scores, model(x), atol=1e-4)
    times = best(
        {
            "forward and backward": lambda: plain(False),
            "the same in training": lambda: plain(True),
            "maps of ten layers": lambda: cam(x),
            "maps of two classes": lambda: cam(x, "top2"),
        },
        rounds,
    )
    for name, seconds in times.items():
        print(f"{name:24} {1e3 * seconds:8.1f} ms  x {seconds / times['forward and backward']:.2f}")


def graphs(nodes: int, k: int = 50) -> None:
    points = np.random.default_rng(0).normal(size=(nodes, 16))
    norms = (points**2).sum(1)
    distances = np.sqrt(np.maximum(norms[:, None] + norms - 2 * points @ points.T, 0))
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0)
    small = distances[: 2 * k, : 2 * k]
    assert (nnk_graph(small, k).errors <= nnk_graph(small, k, solver="pruned").errors + 1e-9).all()
    for name, seconds in best(
        {
            "exact": lambda: nnk_graph(distances, k),
            "pruned": lambda: nnk_graph(distances, k, solver="pruned"),
        },
        2,
    ).items():
        print(f"NNK {name:8} N {nodes}, k {k}: {seconds:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    maps(given.frames, given.rounds)
    graphs(given.nodes)
