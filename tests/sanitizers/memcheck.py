"""The compiled module under valgrind: loaded, every kernel called, unloaded at the end of the process.

    python tests/sanitizers/memcheck.py

Counts errors and lost memory whose stack holds the module; those of Python, torch and OpenMP alone are not
counted. Ends with one line, and status 1 where there is any. Takes minutes. valgrind knows no AVX-512: the
kernels are those of AVX2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

PROGRAM = """
import torch

torch.set_num_threads(2)
from stgcn_fast import _native, ops
from stgcn_fast.nn import STGCNBlock

status = _native.load()
assert status.loaded, status.reason
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    x = torch.randn(2, 18, 20, 5).to(dtype).requires_grad_()
    weight = torch.randn(2, 20, 18).to(dtype).requires_grad_()
    adjacency = torch.rand(2, 5, 5).to(dtype).requires_grad_()
    kernel = torch.randn(20, 20, 9, 1).to(dtype).requires_grad_()
    y = ops.graph_conv(x, weight, adjacency)
    ops.temporal_conv(y, kernel, padding=4).float().sum().backward()
    ops.temporal_conv(y.detach(), kernel, stride=2, padding=4).float().sum().backward()
block = STGCNBlock(6, 6, num_partitions=2)
adjacency = torch.rand(2, 5, 5)
block(torch.randn(2, 6, 12, 5), adjacency).sum().backward()
with torch.no_grad():
    block.eval()(torch.randn(2, 6, 12, 5), adjacency)
print("kernels:", status.capability["kernels"])
"""


def check(module: Path) -> tuple[str, Counter[str]]:
    """What the program said, and how many errors of each kind the module has a part in.

    Raises:
        RuntimeError: The program did not get to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40"]
        command = ["valgrind", "--xml=yes", f"--xml-file={report}", *options, sys.executable, "-c", PROGRAM]
        # Every allocation of Python's is one of malloc's; threads that wait do not spin.
        variables = {"PYTHONMALLOC": "malloc", "OMP_WAIT_POLICY": "PASSIVE", "STGCN_FAST_BACKEND": "native"}
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"status {done.returncode}: {done.stdout}{done.stderr}")
        root = ElementTree.parse(report).getroot()
    kinds: Counter[str] = Counter()
    for error in root.iter("error"):
        if any(frame.findtext("obj", "").endswith(module.name) for frame in error.iter("frame")):
            kinds[error.findtext("kind", "")] += 1
            print(ElementTree.tostring(error, "unicode"), file=sys.stderr)
    kinds["elsewhere"] = sum(1 for _ in root.iter("error")) - kinds.total()
    return done.stdout.strip(), kinds


def main() -> int:
    """Checks, and says so in a line."""
    found = find_spec("stgcn_fast._C")
    if shutil.which("valgrind") is None or found is None or found.origin is None:
        print("memcheck: needs valgrind and the compiled kernels")
        return 2
    said, kinds = check(Path(found.origin))
    elsewhere = kinds.pop("elsewhere")
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no error, nothing lost"
    print(f"memcheck: {listed} in {Path(found.origin).name} ({said}; {elsewhere} in other libraries)")
    return 1 if kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
