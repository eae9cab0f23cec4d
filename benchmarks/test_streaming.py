"""ST-GCN frame by frame, beside running the clip again for every frame.

    python -m pytest benchmarks/test_streaming.py     a clip's frames through the stream, and the clip once
    python benchmarks/test_streaming.py               what a frame costs beside a clip, alternating, CPU time

The clip model is `stgcn_fast.optimize`, the fastest way to run it; scores are compared first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stgcn_fast
from side_by_side import networks
from stgcn_fast.cli.timing import EagerSTGCN, difference

FRAMES = 300
ROUNDS = 7
LIMIT = 1e-5


def contenders(shape: str = "ntu") -> tuple[dict[str, Callable[[], Any]], int]:
    """Ways to score a clip, checked to agree, and the number of its frames."""
    model = networks.network(networks.SHAPES[shape]).eval()
    clip = networks.clips(model, 1, FRAMES)
    frames = clip.unbind(2)
    stream, fast, eager = (
        stgcn_fast.StreamingSTGCN(model),
        stgcn_fast.optimize(model),
        EagerSTGCN(model).eval(),
    )

    def play() -> Tensor:
        for frame in frames:
            stream(frame)
        return stream.finish()

    with torch.no_grad():
        expected = eager(clip)
        assert difference(play(), expected) < LIMIT
        assert difference(fast(clip), expected) < LIMIT
    ways = {"stream": play, "clip": lambda: fast(clip), "eager clip": lambda: eager(clip)}
    return ways, FRAMES


@pytest.mark.parametrize("way", ["stream", "clip"])
def test_clip(benchmark: Any, way: str) -> None:
    ways, frames = contenders()
    benchmark.group = f"streaming, {frames} frames: one pass of each way"
    benchmark.extra_info["frames"] = frames
    benchmark.extra_info["threads"] = torch.get_num_threads()
    with torch.no_grad():
        benchmark(ways[way])


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for shape in ("ntu", "kinetics"):
        ways, frames = contenders(shape)
        best = dict.fromkeys(ways, float("inf"))
        with torch.no_grad():
            for _ in range(ROUNDS):
                for way, run in ways.items():
                    start = time.process_time()
                    run()
                    best[way] = min(best[way], time.process_time() - start)
        frame = best["stream"] / frames
        print(f"{shape}, {frames} frames, one thread: {1e3 * frame:.2f} ms a frame;", end=" ")
        print(f"the clip again {best['clip'] / frame:.0f} times as long,", end=" ")
        print(f"eagerly {best['eager clip'] / frame:.0f}")


if __name__ == "__main__":
    main()
