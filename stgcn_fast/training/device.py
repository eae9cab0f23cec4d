"""Which device a run uses."""

from __future__ import annotations

import torch

from stgcn_fast.training.errors import ConfigError

__all__ = ["resolve_device"]


def resolve_device(name: str) -> str:
    """``auto`` becomes ``cuda`` where there is one, else ``cpu``; a device that is not there is refused."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise ConfigError(f"training.device must be a device of this machine, got {name!r}")
    return name
