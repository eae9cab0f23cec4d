"""Building without a compiler, without CMake or without torch gives a pure-Python package and one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import setuptools

CHECKOUT = Path(__file__).resolve().parent.parent
LINE = "stgcn_fast: compiled kernels not built: "


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a build reads, without the sources of the kernels."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        if (CHECKOUT / name).exists():
            shutil.copy(CHECKOUT / name, tmp_path)
    (tmp_path / "README.md").touch()
    package = tmp_path / "stgcn_fast"
    package.mkdir()
    for name in ("__init__.py", "_version.py", "_native.py", "py.typed"):
        shutil.copy(CHECKOUT / "stgcn_fast" / name, package)
    return tmp_path


def build(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STGCN_FAST_")}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build"],
        cwd=checkout,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def built(checkout: Path) -> set[str]:
    return {path.name for path in (checkout / "build").glob("lib*/stgcn_fast/*")}


def test_without_a_compiler_the_package_is_pure_python(checkout: Path) -> None:
    done = build(checkout, CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith(LINE)] == [
        f"{LINE}no C++ compiler was found (looked for /nonexistent/c++); "
        "the pure-Python package works without them"
    ]
    assert (checkout / "build" / "lib" / "stgcn_fast").is_dir()
    assert built(checkout) >= {"__init__.py", "_native.py", "py.typed"}
    assert not any(name.startswith("_C") for name in built(checkout))


def test_a_compiler_that_does_not_work_leaves_a_package(checkout: Path) -> None:
    if shutil.which("cmake") is None or importlib.util.find_spec("pybind11") is None:
        pytest.skip("CMake and pybind11 are needed to get as far as the compiler")
    done = build(checkout, CXX=shutil.which("false") or "false")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(LINE) == 1
    assert "'cmake -S' failed" in done.stdout
    assert "__init__.py" in built(checkout)
    assert not any(name.startswith("_C") for name in built(checkout))


def test_native_makes_it_an_error(checkout: Path) -> None:
    done = build(checkout, CXX="/nonexistent/c++", STGCN_FAST_BACKEND="native")
    assert done.returncode != 0
    assert LINE in done.stderr


class TestWhatIsMissing:
    """What setup.py hands to setuptools."""

    @pytest.fixture
    def modules(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
        received: dict[str, Any] = {}
        monkeypatch.setattr(setuptools, "setup", lambda **arguments: received.update(arguments))
        monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
        monkeypatch.delenv("STGCN_FAST_BACKEND", raising=False)
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.10.0+cpu")

        def run() -> list[str]:
            runpy.run_path(str(CHECKOUT / "setup.py"))
            return [module.name for module in received["ext_modules"]]

        return run

    def test_nothing(self, modules: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
        assert modules() == ["stgcn_fast._C"]
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("name", ["torch", "pybind11"])
    def test_package(
        self,
        name: str,
        modules: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else object())
        assert modules() == []
        printed = capsys.readouterr().out
        assert printed.startswith(f"{LINE}{name} was not found")
        assert printed.count("\n") == 1

    def test_cmake(
        self,
        modules: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "cmake" else name)
        assert modules() == []
        assert capsys.readouterr().out.startswith(f"{LINE}CMake was not found")

    def test_old_torch(
        self,
        modules: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.1+cu128")
        assert modules() == []
        assert capsys.readouterr().out.startswith(f"{LINE}torch 2.9.1+cu128 is older than 2.10")
