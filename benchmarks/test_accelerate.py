"""Layers of the public families, plain and accelerated, in evaluation and in training; networks optimised."""

from __future__ import annotations

import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from side_by_side import families, peers
from side_by_side.measure import Context

LAYERS = families.CASES
QUICK_LAYERS = list({case.family: case for case in families.CASES}.values())


@cache
def errors(layer: families.Case) -> tuple[float, float]:
    """Of outputs in float32 and of gradients in float64, found once for the rows of a layer."""
    return families.differences(families.pair(layer))[0], families.exact_difference(layer)


@pytest.mark.parametrize("work", ["inference", "training"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_family(benchmark: Any, layer: families.Case, way: str, work: str) -> None:
    both = families.pair(layer)
    assert both.taken, str(layer)
    output, exact = errors(layer)
    assert output < families.OUTPUT_LIMIT
    assert exact < families.EXACT_LIMIT
    module = (both.fast if way == "ours" else both.plain).train(work == "training")
    run = families.train if work == "training" else families.infer
    benchmark.group = f"accelerate {layer} {work}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["taken"] = both.taken
    benchmark(partial(run, module, both.inputs))


@pytest.mark.parametrize("way", ["ours", "eager", "onnxruntime", "openvino"])
@pytest.mark.parametrize("network", families.NETWORKS, ids=str)
def test_network(benchmark: Any, network: families.Case, way: str, tmp_path: Path) -> None:
    plain, fast, inputs = families.optimised(network)
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
