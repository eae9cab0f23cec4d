"""The package as it is handed on: sdist and wheel build and are whole, and the wheel works by itself."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stgcn_fast import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
SMOKE = """
import sys
import numpy as np
import torch
import stgcn_fast
from stgcn_fast import _native, dtw, info, models

assert stgcn_fast.__file__.startswith(sys.argv[1]), stgcn_fast.__file__
model = models.STGCN(4, channels=[8, 8]).eval()
x = torch.randn(1, 3, 16, 25, 1)
with torch.no_grad():
    assert torch.allclose(stgcn_fast.optimize(model)(x), model(x), atol=1e-4)
if sys.argv[2] == "reference":  # its engine is compiled on first use, whichever the kernels: once will do
    assert dtw.dtw_pairwise_distance(np.random.rand(3, 9, 2)).shape == (3, 3)
assert _native.load().loaded == (sys.argv[2] == "native")
info.main([])
"""


LIBRARY = next(iter((CHECKOUT / "stgcn_fast").glob(f"_C*{EXTENSION_SUFFIXES[0]}")), None)
# What this process was told about Python and the package is not for the environments made here.
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("STGCN_", "PYTHON"))}


def run(*command: object, folder: Path | None = None, **variables: str) -> str:
    """Output of a command that must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=CLEAN | variables, cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and the wheel built from it where there is no compiler."""
    folder = tmp_path_factory.mktemp("packages")
    source = folder / "source"
    left_out = shutil.ignore_patterns(
        "build", "dist", "runs", ".*", "*.egg-info", "__pycache__", "*.so", "tests", "benchmarks", "docs"
    )
    shutil.copytree(CHECKOUT, source, ignore=left_out)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    run(*build, source, CXX="/nonexistent/c++")
    if LIBRARY is not None:
        run(*build, "--wheel", source, STGCN_FAST_PREBUILT=str(LIBRARY.parent))
    return folder


def test_the_sdist_holds_all_that_a_build_needs(packages: Path) -> None:
    with tarfile.open(packages / f"stgcn_fast-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        str(path.relative_to(CHECKOUT))
        for folder in ("csrc", "stgcn_fast")
        for path in (CHECKOUT / folder).rglob("*")
        if path.suffix in {".py", ".cpp", ".h", ".cu", ".cuh", ".typed"} and "__pycache__" not in path.parts
    }
    assert tracked | {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md"} <= names


def test_the_wheel_without_a_compiler_fits_every_machine(packages: Path) -> None:
    with zipfile.ZipFile(packages / f"stgcn_fast-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    assets = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "stgcn_fast/report/assets").iterdir()}
    assert {"stgcn_fast/py.typed", "stgcn_fast/report/assets/main.js"} | assets <= names
    assert not [name for name in names if not name.startswith("stgcn_fast")]
    assert not [name for name in names if name.endswith((".so", ".cpp"))]


@pytest.mark.parametrize("kernels", ["reference", "native"])
def test_the_wheel_works_in_an_environment_of_its_own(packages: Path, tmp_path: Path, kernels: str) -> None:
    if kernels == "native" and LIBRARY is None:
        pytest.skip("the compiled kernels are not built")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (wheel,) = packages.glob("*-none-any.whl" if kernels == "reference" else "*linux*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", wheel)
    (packages_of,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # What it depends on, from here; an editable install of the package itself is not seen this way.
    (packages_of / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    variables = {"STGCN_FAST_BACKEND": kernels} if kernels == "native" else {}
    said = run(python, "-W", "ignore", "-c", SMOKE, packages_of, kernels, folder=tmp_path, **variables)
    assert re.search(kernels, said)
    assert __version__ in run(tmp_path / "env" / "bin" / "stgcn-fast", "--version", folder=tmp_path)
    assert "No broken requirements" in run(*pip, "check", folder=tmp_path)


def test_what_is_installed_is_what_the_extras_ask_for(packages: Path) -> None:
    """Every requirement has bounds, and what is here of them keeps within."""
    with zipfile.ZipFile(packages / f"stgcn_fast-{__version__}-py3-none-any.whl") as wheel:
        text = wheel.read(f"stgcn_fast-{__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    extras = metadata.get_all("Provides-Extra", [])
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert {"all", "dev", "pose", "fuzz"} <= set(extras)
    checked = 0
    for requirement in asked:
        if requirement.name.replace("-", "_") == "stgcn_fast":
            assert requirement.extras <= set(extras), requirement
            continue
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in ["", *extras]):
            continue
        assert requirement.specifier, f"{requirement} has no bounds"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement}: {installed}"
        checked += 1
    assert checked >= 20


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
