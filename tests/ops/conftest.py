"""Runs the operators on either backend within one process, and counts the calls below autograd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from stgcn_fast import _native, ops


class OnReference(TorchDispatchMode):
    """Sends every operator of the package to its pure-PyTorch reference, whatever is loaded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return ops.decompositions().get(func, func)(*args, **(kwargs or {}))


class Calls(TorchDispatchMode):
    """Counts the package's operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "stgcn_fast":
            self.count[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="session")
def on_backend() -> Callable[[str], AbstractContextManager[Any]]:
    """Enter with "reference", or with "native" (skips if the kernels are not built)."""

    def enter(name: str) -> AbstractContextManager[Any]:
        if name == "reference":
            return OnReference()
        if not _native.load().loaded:
            pytest.skip(f"no compiled kernels: {_native.load().reason}")
        return nullcontext()

    return enter


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture(scope="session")
def native() -> None:
    """What only the compiled kernels promise, such as equal bits for any number of threads."""
    if not _native.load().loaded:
        pytest.skip(f"no compiled kernels: {_native.load().reason}")
