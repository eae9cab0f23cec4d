"""Builds the compiled kernels with CMake; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 10)
BUILD_COMMANDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "install", "develop"}


class CMakeBuild(build_ext):
    """Configure and build `stgcn_fast._C`; a build that cannot succeed leaves a pure-Python package."""

    @staticmethod
    def missing() -> str | None:
        """Say what the kernels lack to be built, or None."""
        if os.environ.get("STGCN_FAST_BACKEND") == "reference":
            return "STGCN_FAST_BACKEND is 'reference'"
        if sys.platform == "win32":
            return "they need GCC or Clang"
        compiler = shlex.split(os.environ.get("CXX", ""))[:1] or ["c++", "g++", "clang++"]
        if not any(shutil.which(name) for name in compiler):
            return f"no C++ compiler was found (looked for {', '.join(compiler)})"
        if shutil.which("cmake") is None:
            return "CMake was not found"
        if importlib.util.find_spec("pybind11") is None:
            return "pybind11 was not found"
        if importlib.util.find_spec("torch") is None:
            return "torch was not found while building (install it first, then use --no-build-isolation)"
        version = importlib.metadata.version("torch")
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
            return f"torch {version} is older than {'.'.join(map(str, OLDEST_TORCH))}"
        return None

    @staticmethod
    def report(reason: str) -> None:
        """Print the one line, or stop when the kernels were asked for with STGCN_FAST_BACKEND=native."""
        line = f"stgcn_fast: compiled kernels not built: {reason}; the pure-Python package works without them"
        if os.environ.get("STGCN_FAST_BACKEND") == "native":
            raise SystemExit(line)
        print(line, flush=True)

    def build_extension(self, ext: Extension) -> None:
        """Run CMake for the one extension."""
        import pybind11

        spec = importlib.util.find_spec("torch")
        assert spec is not None
        assert spec.origin is not None
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        settings = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": build / "lib",
            "Python_EXECUTABLE": sys.executable,
            "STGCN_FAST_SANITIZE": os.environ.get("STGCN_FAST_SANITIZE", ""),
            "TORCH_ROOT": Path(spec.origin).parent,
            "TORCH_VERSION": importlib.metadata.version("torch"),
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        configure = ["cmake", "-S", str(ROOT), "-B", str(build)]
        configure += [f"-D{name}={value}" for name, value in settings.items()]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        try:
            subprocess.run(configure, check=True)
            parallel = ["--parallel", str(os.cpu_count() or 1)]
            subprocess.run(["cmake", "--build", str(build), *parallel], check=True)
        except subprocess.CalledProcessError as error:
            self.report(f"'{shlex.join(error.cmd[:2])}' failed, see the messages above")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # A running process may have the old module mapped: replace the file, never overwrite it.
        partial = target.with_suffix(".partial")
        shutil.copyfile(build / "lib" / target.name, partial)
        os.replace(partial, target)


missing = CMakeBuild.missing()
if missing is not None and BUILD_COMMANDS.intersection(sys.argv[1:]):
    CMakeBuild.report(missing)
setup(
    ext_modules=[] if missing else [Extension("stgcn_fast._C", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
