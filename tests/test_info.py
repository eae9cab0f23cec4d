"""The report of `python -m stgcn_fast.info`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stgcn_fast import _native, info, ops
from stgcn_fast._version import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
OPS = {
    "graph_conv",
    "graph_conv_backward",
    "temporal_conv",
    "temporal_conv_grad_input",
    "temporal_conv_grad_weight",
}


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return info.collect()


def test_facts_survive_json(facts: dict[str, Any]) -> None:
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["stgcn_fast"] == __version__
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["cpu"]["threads"] == torch.get_num_threads()


def test_every_op_is_listed_for_every_device(facts: dict[str, Any]) -> None:
    listed = {(row["op"], row["device"]) for row in facts["kernels"]}
    assert listed >= {(op, device) for op in OPS for device in ("cpu", "cuda")}
    for row in facts["kernels"]:
        assert (row["runs"] == "native") == (row["why"] == "")


def test_cpu_rows_follow_the_extension(facts: dict[str, Any]) -> None:
    runs = {row["runs"] for row in facts["kernels"] if row["device"] == "cpu" and row["op"] in OPS}
    assert runs == {"native" if facts["extension"]["loaded"] else "reference"}


def test_cuda_without_a_device_runs_nothing(facts: dict[str, Any]) -> None:
    if facts["cuda"]["available"]:
        pytest.skip("a CUDA device is here")
    rows = [row for row in facts["kernels"] if row["device"] == "cuda"]
    assert {row["runs"] for row in rows} == {"nothing"}
    assert {row["why"] for row in rows} == {facts["cuda"]["reason"]}


def test_main_prints_the_report(facts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([]) == 0
    printed = capsys.readouterr().out
    assert printed == info.format_report(info.collect()) + "\n"
    for row in facts["kernels"]:
        assert row["op"] in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_report_without_the_extension_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    status = _native.NativeStatus(False, "the compiled kernels are not built")
    monkeypatch.setattr(_native, "load", lambda: status)
    report = info.format_report(info.collect())
    assert "not loaded: the compiled kernels are not built" in report
    assert "capability" not in report


def test_report_says_how_the_cuda_kernels_were_built(monkeypatch: pytest.MonkeyPatch) -> None:
    build = {"nvcc": "13.0.88", "architectures": "8.0 9.0+PTX", "build_torch": "2.11.0"}
    build_info = {
        "compiler": "GCC",
        "build_torch": "2.11.0",
        "torch_target": "2.10",
        "capabilities": ["default"],
    }
    capability = {"detected": "default", "used": "default", "kernels": "default", "problem": ""}
    status = _native.NativeStatus(True, "", capability, build_info, _native.CudaStatus(True, "", build))
    monkeypatch.setattr(_native, "load", lambda: status)
    facts = info.collect()
    assert facts["cuda"]["kernels"] == {"loaded": True, "reason": "", **build}
    assert "nvcc 13.0.88, for 8.0 9.0+PTX, against torch 2.11.0" in info.format_report(facts)
    missing = _native.NativeStatus(
        True, "", capability, build_info, _native.CudaStatus(False, "they are away")
    )
    monkeypatch.setattr(_native, "load", lambda: missing)
    assert "not loaded: they are away" in info.format_report(info.collect())


def test_reference_backend_in_a_fresh_process() -> None:
    environment = {**os.environ, "STGCN_FAST_BACKEND": "reference", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "stgcn_fast.info", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert not facts["extension"]["loaded"]
    assert facts["environment"]["STGCN_FAST_BACKEND"] == "reference"
    cpu = [row for row in facts["kernels"] if row["device"] == "cpu"]
    assert {row["compiled"] for row in cpu} == {False}
    engine = [row for row in cpu if row["op"].startswith("dtw_")]
    assert {(row["runs"], row["why"]) for row in engine} == {
        ("engine", "compiled by numba at the first call")
    }
    others = [row for row in cpu if row not in engine]
    assert {row["runs"] for row in others} == {"reference"}
    assert all("STGCN_FAST_BACKEND=reference" in row["why"] for row in others)


def test_options_are_shown() -> None:
    with ops.options(fast_temporal=False, fused_blocks=False):
        report = info.format_report(info.collect())
    assert "temporal    direct" in report
    assert "blocks      layer by layer" in report
