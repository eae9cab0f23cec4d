"""The table of families in `docs/accelerate.md`: how much faster the accelerated layers are, and how close.

    python benchmarks/accelerate_table.py [words of a family ...] [--rounds 7] [--compile] [--networks]

Each line: family, layer, adapters, times as fast as eager at inference and in training (forward and
backward), and the largest errors against float64 (eager's own beside them); with `--compile` also times
as fast as `torch.compile`, or why that fails. `--networks` has whole networks at inference in place of
layers: what `optimize` makes of them, as many times as fast as eager, `torch.compile` (with `--compile`),
ONNX Runtime and OpenVINO where they are installed, and as `accelerate`. One thread; contenders alternate,
and the best time of the process counts.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from side_by_side import families, peers
from side_by_side.measure import Context
from stgcn_fast import swap

_PEERS = tuple(title for _, title in peers.TOOLS.values())


def best(contenders: list[Callable[[], object]], rounds: int) -> list[float]:
    """Least CPU time of each contender, in alternation."""
    times = [float("inf")] * len(contenders)
    for _ in range(rounds):
        for i, contender in enumerate(contenders):
            start = time.process_time()
            contender()
            times[i] = min(times[i], time.process_time() - start)
    return times


def calls(case: families.Case, both: families.Pair, training: bool) -> list[Callable[[], object]]:
    """Ours and eager, called once."""
    run: Callable[..., object] = families.train if training else families.infer
    modules = (both.fast.train(training), both.plain.train(training))
    found: list[Callable[[], object]] = [partial(run, module, both.inputs) for module in modules]
    for call in found:
        call()
    return found


def compiled(case: families.Case, inputs: tuple[Tensor, ...], training: bool) -> tuple[Any, str]:
    """The layer under `torch.compile`, called twice, and where its graph breaks; or None, and why not."""
    run: Callable[..., object] = families.train if training else families.infer
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    call = partial(run, torch.compile(case.build().train(training)), inputs)
    try:
        for _ in range(2):
            call()
    except Exception as error:  # whatever a compiler raises is the answer
        return None, f"fails: {type(error).__name__}"
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    return call, f" ({breaks} graph breaks)" if breaks else ""


def line(case: families.Case, rounds: int, with_compile: bool) -> str:
    """One row of the table."""
    both = families.pair(case)
    errors = families.differences(both)
    cells = [case.family, case.layer, ", ".join(both.taken) or "none"]
    for training in (False, True):
        contenders, note, peer = calls(case, both, training), "", None
        if with_compile:
            peer, note = compiled(case, both.inputs, training)
            contenders += [peer] if peer else []
        ours, *others = best(contenders, rounds)
        cells += [f"{other / ours:.2f}" for other in others]
        if peer:
            cells[-1] += note
        elif note:
            cells.append(note)
    return "| " + " | ".join([*cells, *(f"{error:.0e}" for error in errors)]) + " |"


def network(case: families.Case, context: Context, rounds: int) -> str:
    """One row of the table of networks."""
    plain, fast, inputs = families.optimised(case)
    accelerated = copy.deepcopy(plain)
    swap.accelerate(accelerated, "inference")
    calls = {"ours": partial(families.infer, fast, inputs)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers' exporters and compilers
        found = peers.inference(
            {"contiguous": (plain, inputs)}, "float32", context, Path(folder), thorough=False
        )
        calls |= {contender.name: contender.call for contender in found}
        calls["accelerate"] = partial(families.infer, accelerated, inputs)
        for call in calls.values():
            call()
        ours, *others = best(list(calls.values()), rounds)
    times = dict(zip(list(calls)[1:], others))
    cells = [str(case), f"{1e3 * ours:.1f}"]
    cells += [f"{times[name] / ours:.2f}" if name in times else "" for name in (*_PEERS, "accelerate")]
    fastest = min(time for name, time in times.items() if name != "accelerate")
    return "| " + " | ".join([*cells, f"{fastest / ours:.2f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--networks", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    words = [word.lower() for word in arguments.words]
    if arguments.networks:
        tools = tuple(name for name in peers.TOOLS if name != "compile" or arguments.compile)
        context = Context(1, peers=tools)
        head = ["network", "ms", *_PEERS, "accelerate", "the fastest peer"]
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for case in families.NETWORKS:
            if not words or any(word in str(case).lower() for word in words):
                print(network(case, context, arguments.rounds), flush=True)
        return
    ways = ["eager", "torch.compile"] if arguments.compile else ["eager"]
    ratios = [f"{work}, {way}" for work in ("inference", "training") for way in ways]
    head = ["family", "layer", "adapters", *ratios, "outputs", "gradients", "gradients of eager"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for case in families.CASES:
        if not words or any(word in str(case).lower() for word in words):
            print(line(case, arguments.rounds, arguments.compile), flush=True)


if __name__ == "__main__":
    main()
