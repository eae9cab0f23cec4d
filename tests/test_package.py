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
from pathlib import Path

import pytest

from stgcn_fast import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
SMOKE = """
import sys
import numpy as np
import torch
import stgcn_fast
from stgcn_fast import dtw, info, models

assert stgcn_fast.__file__.startswith(sys.argv[1]), stgcn_fast.__file__
model = models.STGCN(4, channels=[8, 8]).eval()
x = torch.randn(1, 3, 16, 25, 1)
with torch.no_grad():
    assert torch.allclose(stgcn_fast.optimize(model)(x), model(x), atol=1e-4)
assert dtw.dtw_pairwise_distance(np.random.rand(3, 9, 2)).shape == (3, 3)
info.main([])
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and the wheel built from it where there is no compiler."""
    folder = tmp_path_factory.mktemp("packages")
    source = folder / "source"
    left_out = shutil.ignore_patterns(
        "build", "dist", "runs", ".*", "*.egg-info", "__pycache__", "*.so", "tests", "benchmarks", "docs"
    )
    shutil.copytree(CHECKOUT, source, ignore=left_out)
    environment = os.environ | {"CXX": "/nonexistent/c++", "STGCN_FAST_BACKEND": ""}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
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


def test_the_wheel_works_in_an_environment_of_its_own(packages: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    wheel = packages / f"stgcn_fast-{__version__}-py3-none-any.whl"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (packages_of,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # What it depends on, from here; an editable install of the package itself is not seen this way.
    (packages_of / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("STGCN_", "PYTHON"))
    }
    command = [str(python), "-W", "ignore", "-c", SMOKE, str(packages_of)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert re.search(r"reference", done.stdout)
    command = [str(tmp_path / "env" / "bin" / "stgcn-fast"), "--version"]
    said = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert __version__ in said.stdout


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
