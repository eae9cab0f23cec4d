"""Layers of the public families: plain and accelerated, in evaluation and in training."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from side_by_side import families

LAYERS = families.CASES
QUICK_LAYERS = list({case.family: case for case in families.CASES}.values())


@pytest.mark.parametrize("work", ["inference", "training"])
@pytest.mark.parametrize("way", ["ours", "eager"])
def test_family(benchmark: Any, layer: families.Case, way: str, work: str) -> None:
    both = families.pair(layer)
    assert both.taken, str(layer)
    assert families.differences(both)[0] < families.OUTPUT_LIMIT
    assert families.exact_difference(layer) < families.EXACT_LIMIT
    module = (both.fast if way == "ours" else both.plain).train(work == "training")
    run = families.train if work == "training" else families.infer
    benchmark.group = f"accelerate {layer} {work}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["taken"] = both.taken
    benchmark(partial(run, module, both.inputs))
