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
        if os.environ.get("STGCN_FAST_PREBUILT"):
            return None
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
    def report(reason: str, cuda: bool = False) -> None:
        """Print the one line; stop when those kernels were asked for by STGCN_FAST_BACKEND or _CUDA."""
        if cuda:
            line = f"stgcn_fast: CUDA kernels not built: {reason}; on CUDA the PyTorch reference runs"
            asked = os.environ.get("STGCN_FAST_CUDA") == "1"
        else:
            line = f"stgcn_fast: compiled kernels not built: {reason}; "
            line += "the pure-Python package works without them"
            asked = os.environ.get("STGCN_FAST_BACKEND") == "native"
        if asked:
            raise SystemExit(line)
        print(line, flush=True)

    @staticmethod
    def cuda_missing() -> str | None:
        """Say what the CUDA kernels lack to be built, or None.

        STGCN_FAST_CUDA is 1 to build them beside any torch, 0 never to; unset, torch decides.
        """
        wanted = os.environ.get("STGCN_FAST_CUDA", "")
        if wanted not in ("", "0", "1"):
            raise SystemExit(f"stgcn_fast: STGCN_FAST_CUDA must be 0 or 1, got {wanted!r}")
        if wanted == "0":
            return "STGCN_FAST_CUDA is 0"
        if os.environ.get("STGCN_FAST_PREBUILT"):
            return "STGCN_FAST_PREBUILT packs the CPU kernels"
        if os.environ.get("STGCN_FAST_SANITIZE"):
            return "the sanitizers are for the CPU kernels"
        if not wanted and CMakeBuild.torch_cuda() is None:
            return "this torch is built without CUDA"
        if CMakeBuild.nvcc() is None:
            return "nvcc was not found (looked on PATH and under CUDA_HOME)"
        return None

    @staticmethod
    def torch_cuda() -> str | None:
        """The CUDA version that the installed torch was built with."""
        spec = importlib.util.find_spec("torch")
        origin = getattr(spec, "origin", None)
        if origin is None:
            return None
        text = (Path(origin).parent / "version.py").read_text(encoding="utf-8")
        found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
        return found[1] if found else None

    @staticmethod
    def nvcc() -> str | None:
        """The CUDA compiler, that of CUDA_HOME first."""
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        places = [Path(home) / "bin" / "nvcc"] if home else []
        places.append(Path("/usr/local/cuda/bin/nvcc"))
        chosen = next((str(place) for place in places[:-1] if place.exists()), None)
        return chosen or shutil.which("nvcc") or (str(places[-1]) if places[-1].exists() else None)

    def build_extension(self, ext: Extension) -> None:
        """Run CMake for one extension: `_C`, or `_cuda` in a build folder of its own.

        STGCN_FAST_PREBUILT is a folder whose libraries, of an earlier build, are packed instead.
        """
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        if prebuilt := os.environ.get("STGCN_FAST_PREBUILT"):
            self.place(Path(prebuilt) / target.name, target)
            return
        import pybind11

        spec = importlib.util.find_spec("torch")
        assert spec is not None
        assert spec.origin is not None
        cuda = ext.name.endswith("._cuda")
        build = Path(self.build_temp).resolve() / ("cuda" if cuda else "")
        settings = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": build / "lib",
            "Python_EXECUTABLE": sys.executable,
            "STGCN_FAST_SANITIZE": os.environ.get("STGCN_FAST_SANITIZE", ""),
            "TORCH_ROOT": Path(spec.origin).parent,
            "TORCH_VERSION": importlib.metadata.version("torch"),
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        if cuda:
            settings |= {
                "STGCN_FAST_CUDA": "ON",
                "STGCN_FAST_CUDA_ARCHITECTURES": os.environ.get("TORCH_CUDA_ARCH_LIST", ""),
                "CMAKE_CUDA_COMPILER": self.nvcc(),
            }
        configure = ["cmake", "-S", str(ROOT), "-B", str(build)]
        configure += [f"-D{name}={value}" for name, value in settings.items()]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        try:
            subprocess.run(configure, check=True)
            parallel = ["--parallel", str(os.cpu_count() or 1)]
            name = ext.name.rpartition(".")[2]
            subprocess.run(["cmake", "--build", str(build), "--target", name, *parallel], check=True)
        except subprocess.CalledProcessError as error:
            self.report(f"'{shlex.join(error.cmd[:2])}' failed, see the messages above", cuda)
            return
        self.place(build / "lib" / target.name, target)

    @staticmethod
    def place(library: Path, target: Path) -> None:
        """Copy a built library to where it belongs."""
        if not library.is_file():
            raise SystemExit(
                f"stgcn_fast: STGCN_FAST_PREBUILT must hold {library.name}, got {library.parent}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        # A running process may have the old module mapped: replace the file, never overwrite it.
        partial = target.with_suffix(".partial")
        shutil.copyfile(library, partial)
        os.replace(partial, target)


missing = CMakeBuild.missing()
names = [] if missing else ["stgcn_fast._C"]
if BUILD_COMMANDS.intersection(sys.argv[1:]) and missing is not None:
    CMakeBuild.report(missing)
if not missing:
    cuda_missing = CMakeBuild.cuda_missing()
    if cuda_missing is None:
        names.append("stgcn_fast._cuda")
    elif os.environ.get("STGCN_FAST_CUDA") == "1" or CMakeBuild.torch_cuda() is not None:
        CMakeBuild.report(cuda_missing, cuda=True)
setup(
    ext_modules=[Extension(name, sources=[], optional=True) for name in names],
    cmdclass={"build_ext": CMakeBuild},
)
