"""ST-GCN whole, beside the eager composition: inference and a training step with dropout."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch

from side_by_side import networks
from stgcn_fast.cli.timing import EagerSTGCN, difference

BATCHES, QUICK_BATCHES = (1, 8, 16), (1,)


class Network(NamedTuple):
    """A shape of `side_by_side.networks.SHAPES`."""

    shape: str

    def __str__(self) -> str:
        return self.shape


LAYERS = [Network("ntu"), Network("kinetics")]
QUICK_LAYERS = LAYERS[:1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_inference(benchmark: Any, layer: Network, batch: int, dtype: str, way: str) -> None:
    sizes = networks.SHAPES[layer.shape]
    model = networks.network(sizes).eval()
    x = networks.clips(model, batch, sizes.frames)
    eager = EagerSTGCN(model).eval()
    ours = networks.optimise(model, dtype)
    benchmark.group = f"network inference {dtype} {layer} N{batch}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    with torch.no_grad():
        reference = eager(x)
        limit = networks.AGREEMENT if dtype == "float32" else networks.BFLOAT16_LIMIT
        assert difference(ours(x), reference) < limit
        half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16" and way == "eager")
        with half:
            benchmark(partial(ours if way == "ours" else eager, x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_training(benchmark: Any, layer: Network, batch: int, dtype: str, way: str) -> None:
    if batch > 8:
        pytest.skip("a step of 16 clips takes eager as long as two of 8, and twice the memory")
    sizes = networks.SHAPES[layer.shape]
    model = networks.network(sizes, networks.DROPOUT)
    x = networks.clips(model, batch, sizes.frames)
    labels = torch.arange(batch) % sizes.classes
    networks.check_training(str(layer), model, x[:2], labels[:2], dtype)
    step = networks.Step(model, EagerSTGCN if way == "eager" else lambda m: m, x, labels, dtype)
    benchmark.group = f"network training {dtype} {layer} N{batch}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark(step)
