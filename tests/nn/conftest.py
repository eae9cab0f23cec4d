"""Counts the package's operators, and lets blocks fuse with or without compiled kernels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from stgcn_fast.nn import _fusion


class Calls(TorchDispatchMode):
    """Counts the package's operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "stgcn_fast":
            self.count[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def fusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks fuse wherever they may, be it on the operators' references."""

    def always(op: str, device: str) -> bool:
        return True

    always._dynamo_marked_constant = True  # type: ignore[attr-defined]
    monkeypatch.setattr(_fusion, "compiled", always)
