"""Layers of the public families, plain and accelerated, in evaluation and in training; networks optimised.

`--quick` has one layer of each family, and two networks.
"""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from side_by_side import families, peers
from side_by_side.measure import Context

LAYERS = families.CASES
QUICK_LAYERS = list({case.family: case for case in families.CASES}.values())
NETWORKS = families.NETWORKS
QUICK_NETWORKS = [case for case in NETWORKS if case.family in ("ST-GCN++", "CTR-GCN")]

# Enough to see a layer by; a claim's ratio comes from `accelerate_table.py`, whose contenders alternate.
brief = pytest.mark.benchmark(max_time=0.1, min_rounds=3, warmup=True, warmup_iterations=1)


@lru_cache(1)
def checked(layer: families.Case) -> families.Pair:
    """A layer, and itself accelerated: outputs compared in float32, gradients in float64.

    The rows of a layer come one after another, so one is kept.
    """
    both = families.pair(layer)
    assert both.taken, str(layer)
    assert families.output_difference(both) < families.OUTPUT_LIMIT
    assert families.exact_difference(layer) < families.EXACT_LIMIT
    return both


@lru_cache(1)
def optimised(network: families.Case) -> tuple[torch.nn.Module, torch.nn.Module, tuple[torch.Tensor, ...]]:
    """A network, what `optimize` makes of it after they were compared, and an input."""
    return families.optimised(network)


@brief
@pytest.mark.parametrize("work", ["inference", "training"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_family(benchmark: Any, layer: families.Case, way: str, work: str) -> None:
    both = checked(layer)
    module = (both.fast if way == "ours" else both.plain).train(work == "training")
    run = families.train if work == "training" else families.infer
    benchmark.group = f"accelerate {layer} {work}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["taken"] = both.taken
    benchmark(partial(run, module, both.inputs))


@brief
@pytest.mark.parametrize("way", ["ours", "eager", "onnxruntime", "openvino"])
def test_network(benchmark: Any, network: families.Case, way: str, tmp_path: Path) -> None:
    plain, fast, inputs = optimised(network)
    threads = torch.get_num_threads()
    context = Context(threads, peers=(way,) if way != "ours" else ())
    if peers.missing(context):
        pytest.skip(f"{way} is not installed")
    call = partial(families.infer, fast, inputs)
    if way != "ours":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter
            given = {"contiguous": (plain, inputs)}
            found = peers.inference(given, "float32", context, tmp_path, thorough=False)
        call = found[0].call
    benchmark.group = f"optimize {network}"
    benchmark.extra_info["threads"] = threads
    benchmark(call)
