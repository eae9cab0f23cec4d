"""Contenders called in turn in one process, and the row that comes of it."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stgcn_fast.cli.timing import difference

OURS = "ours"
TURN = 0.02  # seconds of calls a turn: shorter functions are called several times
MOST_CALLS = 200
PAUSE = 0.003  # between turns: a pool's workers that still spin are not charged to the next contender
LEAST_ROUNDS, MOST_ROUNDS = 5, 41
SCREENING = 2  # calls of each variant of one peer, before the faster one goes on


class Disagreement(RuntimeError):
    """Two contenders do not compute the same."""


class Unavailable(RuntimeError):
    """What a comparison needs is not there."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: Column of the table; ours start with "ours".
        call: Does it once.
        variant: How, where the same peer has several ways, of which only the fastest is compared.
        result: Turns what `call` returns into the tensor that must agree; None where it is checked elsewhere.
    """

    name: str
    call: Callable[[], Any]
    variant: str = ""
    result: Callable[[Any], Tensor] | None = field(default=lambda value: value)

    @property
    def ours(self) -> bool:
        """Whether it is the package's."""
        return self.name.startswith(OURS)


@dataclass
class Context:
    """Settings of a run that every comparison needs.

    Attributes:
        threads: Of torch and of the peers.
        seconds: Budget of one comparison's rounds, exceeded where five rounds take longer.
        peers: Names of the tools that take part.
        peak: Operations a second by element type; empty where unknown.
    """

    threads: int
    seconds: float = 6.0
    peers: tuple[str, ...] = ("eager", "compile", "onnxruntime", "openvino")
    peak: dict[str, float] = field(default_factory=dict)


def check(name: str, results: dict[str, Tensor], reference: Tensor, limit: float) -> dict[str, float]:
    """Error of each result against a reference, over its largest magnitude.

    Raises:
        Disagreement: A result is further away than the limit, or not a number.
    """
    errors = {key: difference(value.to(reference.dtype), reference) for key, value in results.items()}
    for key, error in errors.items():
        within(f"{name}, {key}", error, limit)
    return errors


def within(name: str, error: float, limit: float) -> float:
    """Return an error; Disagreement where it is above the limit or not a number."""
    if not error <= limit:
        raise Disagreement(
            f"{name}: results must agree within {limit:.2g} before they are timed, got {error:.2g}"
        )
    return error


def _turn(call: Callable[[], Any], calls: int) -> float:
    if calls > 1:
        call()  # caches hold the last contender's data
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def screen(contenders: list[Contender]) -> list[Contender]:
    """Of several variants with one name, the fastest."""
    best: dict[str, tuple[float, Contender]] = {}
    names = [contender.name for contender in contenders]
    for contender in contenders:
        taken = 0.0
        if names.count(contender.name) > 1:
            contender.call()
            taken = min(_turn(contender.call, 1) for _ in range(SCREENING))
        if contender.name not in best or taken < best[contender.name][0]:
            best[contender.name] = (taken, contender)
    return [contender for _, contender in best.values()]


def alternate(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of a call, turn by turn: every function once a round, in reversed order every other round."""
    counts: dict[str, int] = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, min(MOST_CALLS, math.ceil(TURN / max(_turn(call, 1), 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        for number in range(MOST_ROUNDS):
            order = list(calls) if number % 2 == 0 else list(calls)[::-1]
            for name in order:
                time.sleep(PAUSE)
                times[name].append(_turn(calls[name], counts[name]))
            if number + 1 >= LEAST_ROUNDS and time.perf_counter() - started > seconds:
                break
    finally:
        gc.enable()
    return times


def summary(samples: list[float], scale: float = 1e3) -> dict[str, Any]:
    """What a row keeps of one contender."""
    scaled = [scale * value for value in samples]
    return {"median": statistics.median(scaled), "minimum": min(scaled), "samples": scaled}


def compare(
    name: str,
    contenders: list[Contender],
    context: Context,
    *,
    reference: Tensor | None = None,
    limit: float = math.inf,
    errors: dict[str, float] | None = None,
    flop: float | None = None,
    dtype: str = "float32",
    note: str = "",
) -> dict[str, Any]:
    """Check, then time: the row of one comparison.

    Args:
        name: Of the row, for a disagreement.
        contenders: Ours (several, if their names differ) and the peers.
        context: Settings.
        reference: What every result must be, within `limit` of its largest magnitude.
        limit: See `reference`.
        errors: Differences that were found before, by contender.
        flop: Operations of the direct algorithms, for the floor.
        dtype: Whose peak makes the floor: "float32" or "bfloat16".
        note: A remark for the table.

    Raises:
        Disagreement: A contender's result is not the reference.
    """
    found = dict(errors or {})
    if reference is not None:
        results = {
            f"{c.name} ({c.variant})" if c.variant else c.name: c.result(c.call()).detach()
            for c in contenders
            if c.result is not None
        }
        found |= check(name, results, reference, limit)
        del results
    chosen = screen(contenders)
    times = alternate({contender.name: contender.call for contender in chosen}, context.seconds)
    row: dict[str, Any] = {
        "unit": "ms",
        "values": {key: summary(samples) for key, samples in times.items()},
        "variants": {c.name: c.variant for c in chosen if c.variant},
        "errors": found,
        "dtype": dtype,
        "threads": context.threads,
        "note": note,
    }
    if flop is not None:
        row["gflop"] = flop / 1e9
        if dtype in context.peak:
            row["floor"] = 1e3 * flop / context.peak[dtype]
    return row


def autocast(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same under bfloat16 autocast."""

    def wrapped() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return call()

    return wrapped


def no_grad(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same without a graph of gradients."""

    def wrapped() -> Any:
        with torch.no_grad():
            return call()

    return wrapped
