"""How hard to try: a quick form in every test run, the long one behind ``make hardening``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import sample_files

LONG = os.environ.get("STGCN_FAST_HARDENING", "") == "long"


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """``rounds(quick, long)``: how many times this run tries."""
    return lambda quick, long: long if LONG else quick


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file of every readable format, by the format's name."""
    return sample_files(tmp_path_factory.mktemp("originals"))
