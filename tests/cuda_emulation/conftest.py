"""The CUDA kernels compiled for the CPU, as ops of the namespace `stgcn_fast_emulated`."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from stgcn_fast import ops as _ops  # noqa: F401  (defines the schemas)
from stgcn_fast.ops._library import decompositions

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
TORCH = Path(torch.__file__).parent
# Also told to play a device without tensor cores: there 16-bit types are multiplied plainly.
SANITIZED = [
    "-fsanitize=address",
    "-fno-omit-frame-pointer",
    "-DSTGCN_FAST_FEW_TYPES",
    "-DSTGCN_FAST_EMULATED_ARCH=700",
]
# Operators that do not decompose into PyTorch's own.
OPAQUE = ("dtw_distance", "dtw_pairwise_distance", "dtw_cdist")
# Forwards and by chance. Races are looked for without the sanitizer, which switches threads slowly.
ORDERS = (1,) if os.environ.get("STGCN_FAST_EMULATION_SANITIZE") else (0, 7)


def compiler() -> list[str]:
    """The C++ compiler and the flags that every source of the emulation takes."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if found is None:
        pytest.skip("the emulation needs GCC")
    flags = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-psabi", "-Wno-unknown-pragmas", "-DSTGCN_FAST_EMULATION"]
    flags += ["-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{CHECKOUT / 'csrc'}", f"-I{HERE}"]
    flags += ["-isystem", str(TORCH / "include")]
    if os.environ.get("STGCN_FAST_EMULATION_SANITIZE"):
        flags += SANITIZED
    return [found, *flags]


def build(folder: Path, sources: list[Path], name: str) -> Path:
    """Compile the sources side by side and link them to a shared library."""
    base = compiler()

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.parent.name}_{source.stem}.o"
        run([*base, "-x", "c++", "-c", str(source), "-o", str(target)])
        return target

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / name
    run([*base, "-shared", *map(str, objects), "-o", str(library), f"-L{TORCH / 'lib'}", "-ltorch_cpu"])
    return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def self_test(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("self_test")
    library = build(folder, [HERE / "emulation.cpp", HERE / "self_test.cpp"], "libself_test.so")
    loaded = ctypes.CDLL(str(library))
    loaded.run_self_test.restype = ctypes.c_char_p
    loaded.half_to_float.restype = ctypes.c_float
    for name in ("float_to_half", "float_to_bfloat16", "float_to_tf32"):
        getattr(loaded, name).argtypes = [ctypes.c_float]
    return loaded


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library; its ops are `torch.ops.stgcn_fast_emulated`."""
    folder = tmp_path_factory.mktemp("emulation")
    sources = [
        *sorted((CHECKOUT / "csrc").glob("*/cuda.cu")),
        HERE / "emulation.cpp",
        HERE / "fused.cpp",
        HERE / "module.cpp",
    ]
    library = ctypes.CDLL(str(build(folder, sources, "libemulation.so")))
    namespace = torch.library.Library("stgcn_fast_emulated", "DEF")
    named = [getattr(torch.ops.stgcn_fast, name).default for name in OPAQUE]
    for op in [*decompositions(), *named]:
        namespace.define(str(op._schema).split("::", 1)[1])
    library.namespace = namespace  # keeps it defined
    return library


class Emulated:
    """Runs an emulated op in every order of threads, and its reference in float64."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __call__(self, name: str, *arguments: Any) -> tuple[torch.Tensor, ...]:
        op = getattr(torch.ops.stgcn_fast_emulated, name)
        results = []
        for order in ORDERS:
            self.library.stgcn_fast_emulation_order(order)
            out = op(*arguments)
            results.append(out if isinstance(out, tuple) else (out,))
        for other in results[1:]:
            for first, second in zip(results[0], other):
                same = torch.equal(first.nan_to_num(), second.nan_to_num())
                assert same, f"{name}: the order of threads shows, there is a race"
        return results[0]

    @staticmethod
    def reference(name: str, *arguments: Any) -> tuple[torch.Tensor, ...]:
        wide = [
            value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for value in arguments
        ]
        out = decompositions()[getattr(torch.ops.stgcn_fast, name).default](*wide)
        return out if isinstance(out, tuple) else (out,)

    def check(
        self, name: str, kind: str, *arguments: Any, roundings: float = 1.0
    ) -> tuple[torch.Tensor, ...]:
        """Compare with the reference, within so many roundings of `kind`; returns the results."""
        got, expected = self(name, *arguments), self.reference(name, *arguments)
        fake = getattr(torch.ops.stgcn_fast, name).default
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
            shapes = fake(*arguments)
        shapes = shapes if isinstance(shapes, tuple) else (shapes,)
        for index, (out, want, shape) in enumerate(zip(got, expected, shapes)):
            assert out.shape == want.shape, (name, index)
            assert out.numel() == 0 or out.stride() == shape.stride(), (name, index)
            if out.numel() == 0:
                continue
            error = (out.double() - want).abs().max() / want.abs().max().clamp_min(1e-30)
            assert error <= roundings * ROUNDING[kind], (name, index, float(error))
        return got


# tf32 is float32 with products in tf32.
KINDS = ("float32", "float64", "bfloat16", "float16", "tf32")
ROUNDING = {"float32": 2e-6, "float64": 1e-13, "bfloat16": 8e-3, "float16": 1e-3, "tf32": 2e-3}


@pytest.fixture
def emulated(emulation: ctypes.CDLL) -> Iterator[Emulated]:
    # New tensors hold NaN: what a kernel leaves unwritten, or reads before it is written, shows.
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield Emulated(emulation)
    torch.use_deterministic_algorithms(was)
    emulation.stgcn_fast_emulation_order(0)
    emulation.stgcn_fast_emulation_tf32(False)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, emulation: ctypes.CDLL) -> str:
    """A dtype; `tf32` is float32 where torch allows tf32."""
    emulation.stgcn_fast_emulation_tf32(request.param == "tf32")
    return str(request.param)


@pytest.fixture
def draw(kind: str) -> Callable[..., torch.Tensor]:
    """Random tensors of the kind's dtype, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)

    def normal(*shape: int, channels_last: bool = False) -> torch.Tensor:
        out = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return out.contiguous(memory_format=torch.channels_last) if channels_last else out

    return normal
