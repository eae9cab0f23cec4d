"""Compile every CUDA source and show what each kernel takes: registers, shared memory, spills.

    python csrc/cuda_check.py [--arch 80 90] [--all]

No GPU is needed, and none is used: this says that the kernels compile, not that they run. Fails where a
kernel spills registers to memory or keeps an array there. Dynamic shared memory is asked for at launch and
not shown.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel."""

    source: str
    arch: str
    name: str
    registers: int
    shared: int
    stack: int
    spilled: int


def nvcc() -> str | None:
    """The CUDA compiler: that of CUDA_HOME, on PATH, or where its installer puts it."""
    places = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    for place in [*filter(None, places), "/usr/local/cuda"]:
        found = shutil.which("nvcc", path=str(Path(place) / "bin"))
        if found:
            return found
    return shutil.which("nvcc")


def compile_source(compiler: str, source: Path, arch: str, folder: Path) -> tuple[str, list[Kernel]]:
    """Compile one source for one architecture.

    Returns:
        The compiler's complaint, empty if there is none, and the kernels.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit("cuda-check: torch must be installed, got none (its headers are needed)")
    command = [
        compiler,
        "-std=c++17",
        "-O3",
        "-DNDEBUG",
        "-Xptxas",
        "-v",
        "-Werror",
        "cross-execution-space-call",
    ]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA", f"-I{CSRC}"]
    command += ["-isystem", str(Path(spec.origin).parent / "include"), "-Xcompiler", "-fPIC"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    command += ["-c", str(source), "-o", str(folder / f"{source.parent.name}_{arch}.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    return ("", parse(text, source.parent.name, arch)) if done.returncode == 0 else (text, [])


def parse(text: str, source: str, arch: str) -> list[Kernel]:
    """Read the output of `ptxas -v`."""
    kernels = []
    name, stack, spilled = "", 0, 0
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name, stack, spilled = found[1], 0, 0
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", line):
            stack, spilled = int(found[1]), int(found[2]) + int(found[3])
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            kernels.append(
                Kernel(source, arch, name, int(found[1]), int(shared[1]) if shared else 0, stack, spilled)
            )
    return kernels


def readable(names: list[str]) -> list[str]:
    """Demangled, without namespace and parameters."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None:
        return names
    done = subprocess.run([tool, *names], capture_output=True, text=True, check=True)
    out = []
    for line in done.stdout.splitlines():
        plain = line.replace("stgcn_fast::cuda::", "").replace("(anonymous namespace)::", "")
        found = re.match(r"(?:void )?([\w:]+(?:<.*?>)?)\(", plain)
        out.append(found[1] if found else plain)
    return out


def main(argv: list[str] | None = None) -> int:
    """Compile, print the table, and return 1 if a kernel spills or a source does not compile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", nargs="+", default=["80", "90"], help="architectures (default: 80 90)")
    parser.add_argument("--all", action="store_true", help="kernels of 64 registers and fewer too")
    arguments = parser.parse_args(argv)
    compiler = nvcc()
    if compiler is None:
        print("cuda-check: nvcc was not found (looked under CUDA_HOME, on PATH and in /usr/local/cuda)")
        return 1
    sources = sorted(CSRC.glob("*/cuda.cu"))
    jobs = [(source, arch) for source in sources for arch in arguments.arch]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(lambda job: compile_source(compiler, job[0], job[1], Path(folder)), jobs))
    failed = [text for text, _ in done if text]
    for text in failed:
        print(text)
    kernels = [kernel for _, found in done for kernel in found]
    if not kernels:
        return 1
    names = readable([kernel.name for kernel in kernels])
    width = max(map(len, names)) + 2
    print(f"{'kernel':<{width}}{'sm':>4}{'registers':>11}{'shared':>8}{'stack':>7}{'spilled':>9}")
    for name, kernel in sorted(zip(names, kernels), key=lambda row: (row[1].source, row[0], row[1].arch)):
        if arguments.all or kernel.registers > 64 or kernel.spilled or kernel.stack:
            print(
                f"{name:<{width}}{kernel.arch:>4}{kernel.registers:>11}{kernel.shared:>8}{kernel.stack:>7}"
                f"{kernel.spilled:>9}"
            )
    bad = [kernel for kernel in kernels if kernel.spilled or kernel.stack]
    print(f"cuda-check: {len(kernels)} kernels compile, {len(bad)} keep values in memory; none was run")
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
