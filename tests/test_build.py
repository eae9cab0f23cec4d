"""Building without a compiler, without CMake or without torch gives a pure-Python package and one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import types
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


class TestCuda:
    """Which libraries are built where torch has CUDA, and where it does not."""

    @pytest.fixture
    def modules(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
        received: dict[str, Any] = {}
        monkeypatch.setattr(setuptools, "setup", lambda **arguments: received.update(arguments))
        monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
        for name in (
            "STGCN_FAST_BACKEND",
            "STGCN_FAST_CUDA",
            "STGCN_FAST_SANITIZE",
            "CXX",
            "CUDA_HOME",
            "CUDA_PATH",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.11.0")

        def run(cuda: str, nvcc: bool, wanted: str | None = None) -> list[str]:
            (tmp_path / "version.py").write_text(f"__version__ = '2.11.0'\ncuda: Optional[str] = {cuda}\n")
            found = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
            monkeypatch.setattr(
                shutil, "which", lambda name: None if name == "nvcc" and not nvcc else f"/bin/{name}"
            )
            exists = Path.exists
            monkeypatch.setattr(Path, "exists", lambda path: path.name != "nvcc" and exists(path))
            if wanted is not None:
                monkeypatch.setenv("STGCN_FAST_CUDA", wanted)
            runpy.run_path(str(CHECKOUT / "setup.py"))
            return [module.name for module in received["ext_modules"]]

        return run

    @pytest.mark.parametrize(
        ("cuda", "nvcc", "wanted", "built"),
        [
            ("'13.0'", True, None, True),
            ("'13.0'", True, "0", False),
            ("'13.0'", False, None, False),
            ("None", True, None, False),
            ("None", True, "1", True),
        ],
    )
    def test_what_is_built(
        self,
        modules: Callable[..., list[str]],
        capsys: pytest.CaptureFixture[str],
        cuda: str,
        nvcc: bool,
        wanted: str | None,
        built: bool,
    ) -> None:
        names = modules(cuda, nvcc, wanted)
        assert names == ["stgcn_fast._C", *(["stgcn_fast._cuda"] if built else [])]
        # Said only where someone could expect otherwise.
        said = capsys.readouterr().out.count("stgcn_fast: CUDA kernels not built: ")
        assert said == (cuda != "None" and not built)

    def test_asked_for_and_impossible_is_an_error(self, modules: Callable[..., list[str]]) -> None:
        with pytest.raises(SystemExit, match="CUDA kernels not built: nvcc was not found"):
            modules("None", False, "1")

    def test_a_wrong_switch_is_an_error(self, modules: Callable[..., list[str]]) -> None:
        with pytest.raises(SystemExit, match="STGCN_FAST_CUDA must be 0 or 1, got 'yes'"):
            modules("None", True, "yes")


PTXAS = """\
ptxas info    : Compiling entry function '_ZN10stgcn_fast4cuda4copyIfEEvPT_' for 'sm_80'
ptxas info    : Function properties for _ZN10stgcn_fast4cuda4copyIfEEvPT_
    {stack} bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used 70 registers, used 1 barriers, {stack} bytes cumulative stack size, 16 bytes smem
"""


class TestCudaCheck:
    """`make cuda-check`, with what the compiler says replaced."""

    @pytest.fixture
    def check(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
        script = runpy.run_path(str(CHECKOUT / "csrc" / "cuda_check.py"))
        main = script["main"]

        def run(text: str, status: int = 0) -> int:
            real = subprocess.run

            def compile_or_run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
                if "nvcc" not in command[0]:
                    return real(command, **options)
                return subprocess.CompletedProcess(command, status, "", text)

            monkeypatch.setitem(main.__globals__, "nvcc", lambda: "/nowhere/nvcc")
            monkeypatch.setattr(subprocess, "run", compile_or_run)
            return int(main([]))

        return run

    def test_clean_kernels_pass(self, check: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        assert check(PTXAS.format(stack=0, spilled=0)) == 0
        printed = capsys.readouterr().out
        assert "0 keep values in memory; none was run" in printed
        assert " 80         70      16      0        0" in printed
        assert " 90         70      16      0        0" in printed

    @pytest.mark.parametrize("text", [PTXAS.format(stack=0, spilled=8), PTXAS.format(stack=16, spilled=0)])
    def test_spills_and_stacks_fail(self, check: Callable[..., int], text: str) -> None:
        assert check(text) == 1

    def test_what_does_not_compile_fails(
        self, check: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check("cuda.cu(3): error: expected a declaration", status=1) == 1
        assert "expected a declaration" in capsys.readouterr().out
