"""The table of families in `docs/accelerate.md`: how much faster the accelerated layers are, and how close.

    python benchmarks/accelerate_table.py [words of a family ...] [--rounds 7] [--compile]

Each line: family, layer, adapters, times as fast as eager at inference and in training (forward and
backward), and the largest errors against float64 (eager's own beside them); with `--compile` also times
as fast as `torch.compile`. One thread; contenders alternate, and the best time of the process counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from side_by_side import families


def best(contenders: list[Callable[[], object]], rounds: int) -> list[float]:
    """Least CPU time of each contender, in alternation."""
    times = [float("inf")] * len(contenders)
    for _ in range(rounds):
        for i, contender in enumerate(contenders):
            start = time.process_time()
            contender()
            times[i] = min(times[i], time.process_time() - start)
    return times


def line(case: families.Case, rounds: int, compiled: bool) -> str:
    """One row of the table."""
    both = families.pair(case)
    errors = families.differences(both)
    cells = [case.family, case.layer, ", ".join(both.taken) or "none"]
    for training in (False, True):
        run: Callable[..., object] = families.train if training else families.infer
        contenders: list[nn.Module] = [both.fast.train(training), both.plain.train(training)]
        if compiled:
            torch.compiler.reset()
            contenders.append(torch.compile(case.build().train(training)))
            run(contenders[-1], both.inputs)
        ours, *others = best([partial(run, module, both.inputs) for module in contenders], rounds)
        cells += [f"{other / ours:.2f}" for other in others]
    return "| " + " | ".join([*cells, *(f"{error:.0e}" for error in errors)]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = ["eager", "torch.compile"] if arguments.compile else ["eager"]
    ratios = [f"{work}, {way}" for work in ("inference", "training") for way in ways]
    head = ["family", "layer", "adapters", *ratios, "outputs", "gradients", "gradients of eager"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for case in families.CASES:
        if not arguments.words or any(word.lower() in str(case).lower() for word in arguments.words):
            print(line(case, arguments.rounds, arguments.compile), flush=True)


if __name__ == "__main__":
    main()
