"""Ours beside eager, torch.compile, ONNX Runtime and OpenVINO: one table, and the numbers as JSON.

    python benchmarks/run.py                        everything
    python benchmarks/run.py --quick                a row of each kind, without compiling peers: minutes
    python benchmarks/run.py --only 'ntu N 1 '      rows whose name the expression finds; --list shows names

Contenders are called in turn in one process, in reversed order every other round, after their results were
checked to agree. A row's ratio is the median time of the fastest peer over the median of ours. `compare.py`
sets two runs side by side; docs/benchmarks.md says how to read the table.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from side_by_side import cases, floor, machine, peers, table
from side_by_side.measure import Context, Disagreement, Unavailable

SCHEMA = 1
RESULTS = Path(__file__).resolve().parent / "results"
QUICK_PEERS = ("eager", "onnxruntime", "openvino")
QUICK_SECONDS, SECONDS = 1.0, 6.0
Rows = list[dict[str, Any]]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rows, short, without torch.compile")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose name this regular expression finds")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--json", metavar="OUT", type=Path, help="default benchmarks/results/DATE.json")
    parser.add_argument("--seconds", type=float, help=f"budget of one row's rounds (default {SECONDS:g})")
    parser.add_argument("--threads", type=int, help="of torch and the peers (default: torch's choice)")
    parser.add_argument("--peers", nargs="+", choices=sorted(peers.TOOLS), help="who takes part (all)")
    parser.add_argument(
        "--peak", metavar="F32,BF16", help="GFLOP/s of all threads' registers instead of measuring them"
    )
    parser.add_argument(
        "--default-allocator", action="store_true", help="leave malloc as users get it, in every row"
    )
    parser.add_argument(
        "--statistic", choices=table.STATISTICS, default="median", help="what the table shows"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.peers = tuple(options.peers or (QUICK_PEERS if options.quick else peers.TOOLS))
    options.threads = options.threads or torch.get_num_threads()
    return options


def parse_peak(text: str) -> dict[str, float]:
    """Operations a second from `--peak`.

    Raises:
        ValueError: It is not two positive numbers.
    """
    try:
        values = [1e9 * float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(floor.DTYPES) or min(values) <= 0:
        raise ValueError(f"--peak must be two positive numbers, got {text!r}")
    return dict(zip(floor.DTYPES, values))


def measure(case: cases.Case, context: Context) -> Rows:
    """Rows of one case; what went wrong is a row, too."""
    torch.manual_seed(0)
    torch._dynamo.reset()  # the limit of recompilations is one of a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the peers' exporters and compilers
            found = case.function(context, **case.arguments)
    except Exception as error:
        traceback.print_exc()
        kinds = {Disagreement: "disagrees", Unavailable: "unavailable"}
        return [failure(case, kinds.get(type(error), "failed"), str(error) or type(error).__name__)]
    rows = found if isinstance(found, list) else [found]
    many = isinstance(found, list)
    return [
        row | {"name": f"{case.name}: {row['name']}" if many else case.name, "status": "ok"} for row in rows
    ]


def failure(case: cases.Case, status: str, message: str) -> dict[str, Any]:
    """The row of a case that gave none."""
    return {"name": case.name, "status": status, "message": message.strip().splitlines()[-1], "values": {}}


def child(path: Path) -> None:
    """Measure the cases that a file names, and append each row to it as soon as it is there."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    context = Context(plan["threads"], plan["seconds"], tuple(plan["peers"]), plan["peak"])
    torch.set_num_threads(context.threads)
    chosen = {case.name: case for case in cases.every()}
    with open(path.with_suffix(".rows"), "a", encoding="utf-8") as out:
        for name in plan["cases"]:
            print(name, file=sys.stderr, flush=True)
            for row in measure(chosen[name], context):
                print(json.dumps(row), file=out, flush=True)


def spawn(group: list[cases.Case], options: argparse.Namespace, peak: dict[str, float]) -> Rows:
    """Measure cases in a process of their own."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    for name in machine.TUNED_ALLOCATOR:
        environment.pop(name, None)
    if group[0].tuned and not options.default_allocator:
        environment |= machine.TUNED_ALLOCATOR
    plan = {
        "cases": [case.name for case in group],
        "threads": options.threads,
        "seconds": options.seconds,
        "peers": options.peers,
        "peak": peak,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        done = subprocess.run([sys.executable, __file__, "--child", str(path)], env=environment)
        rows = []
        with contextlib.suppress(FileNotFoundError):
            rows = [json.loads(line) for line in path.with_suffix(".rows").read_text("utf-8").splitlines()]
    for case in group:
        if not any(row["name"].startswith(case.name) for row in rows):
            rows.append(failure(case, "failed", f"its process ended with {done.returncode}"))
    for row in rows:
        row["allocator"] = "tuned" if "MALLOC_MMAP_MAX_" in environment else "default"
    return rows


def footer(about: dict[str, Any], absent: dict[str, str]) -> str:
    """What the table's reader must know, in a few lines."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    reached = ", ".join(f"{key} {value:.0f}" for key, value in about["peak_gflops"].items())
    lines = [
        f"{about['processor']}, {about['kernels']}, {about['allocator']} allocator",
        f"{versions}; {about['date']}, commit {about['commit']}",
        f"register peak, GFLOP/s: {reached or 'unknown (no C compiler; see --peak)'}",
        "columns of peers: their time over ours; floor: the direct algorithms' arithmetic over our time",
    ]
    lines += [f"{title} did not take part: {how}" for title, how in absent.items()]
    return "\n".join(lines)


def write(path: Path, document: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def grouped(chosen: Iterable[cases.Case]) -> list[list[cases.Case]]:
    """Neighbours that share a process."""
    return [list(group) for _, group in itertools.groupby(chosen, lambda case: (case.process, case.tuned))]


def main(words: list[str] | None = None) -> int:
    """Measure, print, write; 1 where a row has no result."""
    options = parse(words)
    if options.child:
        child(options.child)
        return 0
    try:
        chosen = cases.select(options.only, options.quick)
        peak = parse_peak(options.peak) if options.peak else {}
    except ValueError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    peak = peak or floor.measure_peak(options.threads)
    torch.set_num_threads(options.threads)
    command = ["python", "benchmarks/run.py", *(sys.argv[1:] if words is None else words)]
    about = machine.describe(command, options.threads, not options.default_allocator, peak)
    rows: Rows = []
    for group in grouped(chosen):
        rows += spawn(group, options, peak)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = options.json or RESULTS / f"{stamp}.json"
    absent = peers.missing(Context(options.threads, peers=options.peers))
    write(path, {"schema": SCHEMA, "about": about, "missing": absent, "rows": rows})
    print(table.markdown(rows, options.statistic))
    print(f"\n{footer(about, absent)}\n{path}")
    return int(any(row["status"] in ("disagrees", "failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
