"""Options and names that the benchmarks share.

    pytest benchmarks                     every layer and network, one clip (two persons) and more
    pytest benchmarks --quick             one layer of each width, one clip
    pytest benchmarks --threads 1         with one thread

Groups put the package beside the eager composition. Ratios for claims come from `run.py`, whose contenders
alternate.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

QUICK_BATCHES = (2,)
BATCHES = (2, 16)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stgcn_fast")
    group.addoption("--quick", action="store_true", help="a small subset of the benchmarks")
    group.addoption("--threads", type=int, default=0, help="threads of torch (default: its own choice)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `layer`, `network` and `batch` what the module lists: LAYERS, NETWORKS, BATCHES."""
    quick = bool(metafunc.config.getoption("--quick"))
    for name in ("layer", "network"):
        if name in metafunc.fixturenames:
            listed = f"{name.upper()}S"
            cases = getattr(metafunc.module, f"QUICK_{listed}" if quick else listed)
            metafunc.parametrize(name, cases, ids=str)
    if "batch" in metafunc.fixturenames:
        name, usual = ("QUICK_BATCHES", QUICK_BATCHES) if quick else ("BATCHES", BATCHES)
        metafunc.parametrize("batch", getattr(metafunc.module, name, usual))


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--threads") or before)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
