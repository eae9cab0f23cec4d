"""The kernels in several threads, under the thread sanitizer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def compiler_lacks_the_sanitizer(folder: Path) -> str:
    (folder / "probe.cpp").write_text("int main() {}\n")
    compiler = os.environ.get("CXX") or "c++"
    if shutil.which(compiler) is None or shutil.which("cmake") is None:
        return "no compiler or no CMake"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed"
    probe = folder / "probe"
    built = run(compiler, "-fsanitize=thread", folder / "probe.cpp", "-o", probe)
    if built.returncode != 0:
        return f"{compiler} has no thread sanitizer"
    return "" if run(probe).returncode == 0 else "programs under the thread sanitizer do not start here"


@pytest.mark.timeout(900)
def test_threads_do_not_race(tmp_path: Path) -> None:
    missing = compiler_lacks_the_sanitizer(tmp_path)
    if missing:
        pytest.skip(missing)
    import pybind11

    build = tmp_path / "build"
    settings = {
        "STGCN_FAST_SANITIZE": "thread",
        "Python_EXECUTABLE": sys.executable,
        "TORCH_ROOT": str(Path(torch.__file__).parent),
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    configured = run("cmake", "-S", CHECKOUT, "-B", build, *(f"-D{k}={v}" for k, v in settings.items()))
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", build, "--target", "threads", "--parallel", str(os.cpu_count() or 1))
    assert built.returncode == 0, built.stdout + built.stderr
    done = run(build / "threads")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "threads: the same results, no races\n"
