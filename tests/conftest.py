"""Shared fixtures: where the real data is, and a quiet, reproducible torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Directory of real recordings: STGCN_FAST_TEST_DATA, else ../shared/data beside the checkout."""
    directory = Path(os.environ.get("STGCN_FAST_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
    if not directory.is_dir():
        pytest.skip(f"no real data at {directory}: set STGCN_FAST_TEST_DATA to run this test")
    return directory


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
