"""Figures of the CUDA kernels on one GPU, beside eager PyTorch and torch.compile. Part of benchmarks/gpu.sh.

    python benchmarks/gpu_suite.py [--seconds 220] [--json FILE]     # one table
    python benchmarks/gpu_suite.py --touch                           # every kernel once, for a sanitizer

Contenders alternate, times are medians between CUDA events, results are compared first. `GB/s` counts each
input read and each output written once; `floor` is the larger of that traffic and the products at the rates
of `PEAKS`, over our time. What torch.compile takes part in comes last, for it compiles for minutes: where the
seconds run out rows are missing, and it is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from stgcn_fast import _native, models, ops
from stgcn_fast import nn as package
from stgcn_fast.cli.timing import EagerSTGCN, eager_block
from stgcn_fast.graph import Graph

# Of an H200: bytes copied, and multiply-adds counted as two operations, a second.
BANDWIDTH = 4.3e12
PEAKS = {"float32": 67e12, "tf32": 395e12, "bfloat16": 790e12}
LAYERS = ((3, 64, 300), (64, 64, 300), (128, 128, 150), (256, 256, 75))
ROUNDS = 7


@dataclass
class Case:
    """One line of the table."""

    name: str
    contenders: dict[str, Callable[[], object]]  # ours first
    kind: str
    flops: float = 0.0
    bytes: float = 0.0
    allowed: float | None = None  # largest difference of results over the largest value; None: not compared
    memory: bool = False


@dataclass
class Row:
    """What was measured of a case: milliseconds of ours, the others as multiples of it."""

    name: str
    ours_ms: float
    ratios: dict[str, float]
    error: float | None = None
    bandwidth: float | None = None
    floor: float | None = None
    peak_mb: dict[str, float] = field(default_factory=dict)


def once(run: Callable[[], object]) -> float:
    """Milliseconds on the device of one call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def difference(first: object, second: object) -> float:
    """Largest difference of two results over the largest value."""
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    a, b = first.detach().double(), second.detach().double()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def peak_of(run: Callable[[], object]) -> float:
    """Megabytes at most allocated in a call, beyond what was there."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(case: Case) -> Row:
    """Compare the results, then time the contenders in turns."""
    ours, *others = case.contenders
    results = {name: run() for name, run in case.contenders.items()}
    error = None
    if case.allowed is not None and others:
        error = max(difference(results[ours], results[name]) for name in others)
        if error > case.allowed:
            raise SystemExit(
                f"gpu_suite: {case.name}: results must agree to {case.allowed:g}, got {error:.2g}"
            )
    del results
    for run in case.contenders.values():
        for _ in range(2):
            run()
    times: dict[str, list[float]] = {name: [] for name in case.contenders}
    for _ in range(ROUNDS):
        for name, run in case.contenders.items():
            times[name].append(once(run))
    medians = {name: statistics.median(values) for name, values in times.items()}
    seconds = medians[ours] / 1e3
    least = max(case.bytes / BANDWIDTH, case.flops / PEAKS[case.kind])
    row = Row(case.name, medians[ours], {name: medians[name] / medians[ours] for name in others}, error)
    row.bandwidth = case.bytes / seconds / 1e9 if case.bytes else None
    row.floor = least / seconds if least else None
    if case.memory:
        row.peak_mb = {name: peak_of(run) for name, run in case.contenders.items()}
    return row


def activations(n: int, c: int, t: int, v: int, dtype: torch.dtype) -> Tensor:
    """Random [N, C, T, V] in channels_last memory."""
    x = torch.randn(n, c, t, v, device="cuda", dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def layer_cases(kind: str, clips: int) -> Iterator[Case]:
    """Both convolutions of the network's layers, forward, beside torch's."""
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    rounding = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 3e-2}[kind]
    adjacency = torch.from_numpy(Graph("ntu25").A).cuda().to(dtype)
    samples, joints, size = 2 * clips, 25, torch.finfo(dtype).bits // 8
    for inputs, outputs, frames in LAYERS:
        x = activations(samples, inputs, frames, joints, dtype)
        weight = torch.randn(3, outputs, inputs, device="cuda", dtype=dtype) / inputs**0.5
        rows = samples * frames * joints

        def plain(x: Tensor = x, weight: Tensor = weight) -> Tensor:
            y = nn.functional.conv2d(x, weight.flatten(0, 1)[:, :, None, None])
            n, _, t, v = y.shape
            return torch.einsum("nkctv,kvw->nctw", y.view(n, 3, -1, t, v), adjacency)

        yield Case(
            f"graph {inputs}-{outputs} T {frames} N {clips} {kind}",
            {
                "ours": lambda x=x, weight=weight: ops.graph_conv(x, weight, adjacency),
                "eager": plain,
            },
            kind,
            2.0 * 3 * inputs * outputs * rows,
            (inputs + outputs) * rows * size,
            rounding,
        )
        if inputs != outputs:
            continue
        taps = torch.randn(outputs, outputs, 9, 1, device="cuda", dtype=dtype) / (9 * outputs) ** 0.5
        yield Case(
            f"temporal {outputs} T {frames} N {clips} {kind}",
            {
                "ours": lambda x=x, taps=taps: ops.temporal_conv(x, taps, None, 1, 4),
                "eager": lambda x=x, taps=taps: nn.functional.conv2d(x, taps, None, 1, (4, 0)),
            },
            kind,
            2.0 * 9 * outputs * outputs * rows,
            2 * outputs * rows * size,
            rounding,
        )


def train_block(eager: bool, block: package.STGCNBlock, x: Tensor, a: Tensor, mask: Tensor) -> None:
    """Forward and backward through a block; bfloat16 input runs under autocast."""
    block.zero_grad(set_to_none=True)
    x.grad = mask.grad = None
    with torch.autocast("cuda", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        out = eager_block(block, x, a * mask) if eager else block(x, a, mask)
    out.backward(out.detach())


def block_cases(kind: str, clips: int) -> Iterator[Case]:
    """Blocks in training, with dropout. `bytes` count what every pass reads and writes, see NOTES.md."""
    passes = 30  # activations
    adjacency = torch.from_numpy(Graph("ntu25").A).cuda()
    samples, joints, dtype = 2 * clips, 25, torch.bfloat16 if kind == "bfloat16" else torch.float32
    for inputs, outputs, frames in LAYERS:
        if inputs != outputs:
            continue
        block = package.STGCNBlock(inputs, outputs, 3, dropout=0.5).cuda()
        x = activations(samples, inputs, frames, joints, dtype).requires_grad_()
        values = outputs * samples * frames * joints
        operands = (block, x, adjacency, torch.ones_like(adjacency, requires_grad=True))
        yield Case(
            f"block {outputs} T {frames} N {clips} training {kind}",
            {"ours": partial(train_block, False, *operands), "eager": partial(train_block, True, *operands)},
            kind,
            3 * 2.0 * (3 * inputs + 9 * outputs) * values,
            passes * values * torch.finfo(dtype).bits / 8,
            memory=True,
        )


def network_cases(kind: str, clips: int, training: bool, compiled: bool) -> Iterator[Case]:
    """The official network on NTU clips of two bodies, the same weights on all sides."""
    torch.manual_seed(0)
    graph = Graph("ntu25", partition="spatial", normalization="column", hop_cap=True)
    ours = models.STGCN(60, graph=graph, dropout=0.5 if training else 0.0).cuda().train(training)
    plain = EagerSTGCN(ours).cuda().train(training)
    x = torch.randn(clips, 3, 300, 25, 2, device="cuda")
    label = torch.randint(60, (clips,), device="cuda")
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=kind == "bfloat16")

    def infer(network: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad(), autocast:
            return network(x).float()

    def step(network: Callable[[Tensor], Tensor], module: nn.Module) -> None:
        module.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(network(x).float(), label)
        loss.backward()

    sides: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
        "ours": (ours, ours),
        "eager": (plain, plain),
    }
    if compiled:
        sides["compile"] = (torch.compile(plain, mode="max-autotune"), plain)
    runs: dict[str, Callable[[], object]] = {}
    for name, (network, module) in sides.items():
        runs[name] = (lambda n=network, m=module: step(n, m)) if training else (lambda n=network: infer(n))
    what = "training step" if training else "inference"
    allowed = None if training else {"float32": 1e-4, "tf32": 5e-2, "bfloat16": 1e-1}[kind]
    flops = 30.4e9 * clips * (3 if training else 1)
    yield Case(f"network {what} N {clips} {kind}", runs, kind, flops, 0.0, allowed, memory=training)


def dtw_cases() -> Iterator[Case]:
    """Distance matrices; `flops` are a subtraction, a multiplication and an addition per cell and feature."""
    for count, frames, features, window in ((2000, 256, 1, None), (1000, 200, 75, 30), (200, 75, 6400, None)):
        x = torch.randn(count, frames, features, device="cuda").cumsum(1)
        cells = frames * min(frames, 2 * (window or frames) + 1) * count * (count + 1) / 2
        yield Case(
            f"dtw N {count} T {frames} D {features} ({cells * features / 1e12:.2f} T cells x D)",
            {"ours": lambda x=x, window=window: ops.dtw_pairwise_distance(x, window=window)},
            "float32",
            4.0 * cells * features,
        )


def cases() -> Iterator[Case]:
    """All of them, the weightiest first."""
    for kind in ("bfloat16", "tf32", "float32"):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        yield from network_cases(kind, 64, True, False)
        yield from network_cases(kind, 64, False, False)
        yield from block_cases(kind, 64)
        yield from layer_cases(kind, 64)
        if kind == "bfloat16":
            yield from dtw_cases()
            for clips in (16, 1):
                yield from network_cases(kind, clips, True, False)
                yield from network_cases(kind, clips, False, False)
    for clips, training in ((64, True), (64, False), (16, True), (1, False)):
        yield from network_cases("bfloat16", clips, training, True)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| case | ours, ms | over ours | error | GB/s | floor | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        others = ", ".join(f"{name} {ratio:.2f}" for name, ratio in row.ratios.items())
        memory = ", ".join(f"{name} {size:.0f}" for name, size in row.peak_mb.items())
        cells = (
            *(row.name, f"{row.ours_ms:.3g}", others, "" if row.error is None else f"{row.error:.1g}"),
            *(
                "" if row.bandwidth is None else f"{row.bandwidth:.0f}",
                "" if row.floor is None else f"{row.floor:.0%}",
            ),
            memory,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, rows: list[Row]) -> None:
    """The rows so far as JSON: a run that is stopped keeps what it has."""
    facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1), encoding="utf-8"
    )
    os.replace(partial, path)


def touch() -> None:
    """Every kernel once on a small problem."""
    for dtype in (torch.float32, torch.bfloat16):
        x = activations(2, 24, 20, 25, dtype).requires_grad_()
        weight = torch.randn(3, 40, 24, device="cuda", dtype=dtype, requires_grad=True)
        adjacency = torch.randn(3, 25, 25, device="cuda", dtype=dtype, requires_grad=True)
        y = ops.graph_conv(x, weight, adjacency, torch.randn(3, 40, device="cuda", dtype=dtype))
        taps = torch.randn(40, 40, 9, 1, device="cuda", dtype=dtype, requires_grad=True)
        ops.temporal_conv(y, taps, None, 2, 4).sum().backward()
        with torch.no_grad():
            ops.st_block(x, weight[:, :24], adjacency, taps[:24, :24], residual=True)
        network = models.STGCN(5, dropout=0.5, channels=(32, 32, 40), strides=(1, 1, 2)).cuda()
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = network(torch.randn(2, 3, 20, 25, 2, device="cuda"))
        logits.float().sum().backward()
    for features in (1, 3, 20):
        ops.dtw_pairwise_distance(torch.randn(9, 70, features, device="cuda"), window=9)
    torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=220.0, help="start no case after so many")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--touch", action="store_true", help="run every kernel once and stop")
    options = parser.parse_args()
    if not (torch.cuda.is_available() and _native.load().cuda.loaded):
        print(
            "gpu_suite: needs a GPU and the CUDA kernels, got neither; see python -m stgcn_fast.info",
            file=sys.stderr,
        )
        return 2
    if options.touch:
        touch()
        return 0
    rows: list[Row] = []
    start, left_out = time.monotonic(), 0
    for case in cases():
        if time.monotonic() - start > options.seconds:
            left_out += 1
            continue
        rows.append(measure(case))
        print(rows[-1].name, f"{rows[-1].ours_ms:.3g} ms", rows[-1].ratios, flush=True)
        if options.json:
            write(options.json, rows)
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n{table(rows)}")
    if left_out:
        print(f"\nleft out for want of time: {left_out} cases")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
