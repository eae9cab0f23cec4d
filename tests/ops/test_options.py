"""Switches: environment, process, block of code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stgcn_fast import ops

CHECKOUT = Path(__file__).resolve().parents[2]
SHOW = "from stgcn_fast import ops; o = ops.get_options(); print(o.fast_temporal, o.fused_blocks)"


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
    return subprocess.run(
        [sys.executable, "-c", SHOW], env=variables, capture_output=True, text=True, timeout=240
    )


def test_a_block_of_code_sets_switches_and_puts_them_back() -> None:
    before = ops.get_options()
    other = not before.fast_temporal
    with ops.options(fast_temporal=other):
        assert ops.get_options().fast_temporal is other
        assert ops.get_options().fused_blocks is before.fused_blocks
        with ops.options(fused_blocks=not before.fused_blocks):
            assert ops.get_options().fast_temporal is other
            assert ops.get_options().fused_blocks is not before.fused_blocks
        assert ops.get_options().fused_blocks is before.fused_blocks
    assert ops.get_options() == before


def test_switches_go_back_behind_an_error() -> None:
    before = ops.get_options()

    def fail() -> None:
        with ops.options(fast_temporal=not before.fast_temporal):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ops.get_options() == before


def test_the_process_keeps_what_is_set() -> None:
    before = ops.get_options()
    try:
        ops.set_options(fused_blocks=not before.fused_blocks)
        assert ops.get_options().fused_blocks is not before.fused_blocks
        assert ops.get_options().fast_temporal is before.fast_temporal
    finally:
        ops.set_options(fused_blocks=before.fused_blocks)


@pytest.mark.parametrize(
    "use", [ops.set_options, lambda **switches: ops.options(**switches).__enter__()], ids=["set", "with"]
)
def test_values_that_are_no_switch(use: object) -> None:
    before = ops.get_options()
    with pytest.raises(TypeError, match="set_options: fast_temporal must be a bool or None, got str"):
        use(fused_blocks=False, fast_temporal="fast")
    assert ops.get_options() == before


def test_the_environment_gives_the_first_values() -> None:
    assert run(STGCN_FAST_TEMPORAL="direct", STGCN_FAST_FUSED="0").stdout.split() == ["False", "False"]
    assert run(STGCN_FAST_TEMPORAL="fast", STGCN_FAST_FUSED="").stdout.split() == ["True", "True"]
    refused = run(STGCN_FAST_FUSED="yes")
    assert refused.returncode != 0
    assert "STGCN_FAST_FUSED must be '0' or '1', got 'yes'" in refused.stderr
