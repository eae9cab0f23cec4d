"""Every row that can be measured, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from side_by_side import accuracy, blocks, layers, memory, networks, scaling

DTYPES = ("float32", "bfloat16")
BLOCKS = ((64, 64, 300, 1), (128, 128, 150, 1), (256, 256, 75, 1), (64, 128, 300, 2))
TRAINED_BLOCKS = BLOCKS[:3]
ODD_FRAMES = (31, 77, 149, 299, 301)
ODD_JOINTS = (17, 18, 20, 21, 33)
ODD_CHANNELS = (3, 48, 96, 100)
PER_CLIPS = ((1, 300), (2, 300), (4, 300), (8, 300), (16, 300))
PER_FRAMES = ((2, 75), (2, 150), (2, 300), (2, 600))
# (C, O, T, V) of blocks, each beside its neighbours.
UNUSUAL = {
    "T": tuple((64, 64, t, 25) for t in (30, 31, 32, 75, 77, 80, 149, 150, 151, 299, 300, 301)),
    "V": tuple((64, 64, 150, v) for v in (17, 18, 20, 21, 25, 33)),
    "C": ((3, 64, 150, 25), *((c, c, 150, 25) for c in (48, 64, 96, 100, 128))),
}
# Sizes for checking the way, not the speed.
TINY = {"frames": 24, "joints": 8, "batch": 2}
TINY_SIZES = ((1, 24), (2, 24))


@dataclass(frozen=True)
class Case:
    """One comparison, or a few that are measured together.

    Attributes:
        name: Unique; the first word is the kind of work.
        function: Called with the context and `arguments`; returns a row, or several with names of their own.
        arguments: Of the function.
        process: Cases of equal value share a process.
        quick: Whether `--quick` includes it.
        tuned: Whether the process keeps freed memory; else malloc does as users get it.
        hidden: Whether only its exact name selects it.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    process: str
    quick: bool = False
    tuned: bool = True
    hidden: bool = False


def _networks() -> list[Case]:
    found = []

    def add(name: str, function: Any, quick: bool = False, tuned: bool = True, **arguments: Any) -> None:
        found.append(Case(name, function, arguments, name, quick, tuned))

    for dtype in DTYPES:
        for shape, batches in (("ntu", (1, 8, 16)), ("kinetics", (1, 8))):
            for batch in batches:
                name, quick = f"network {shape} N {batch} inference {dtype}", batch == 1 and shape == "ntu"
                add(name, networks.inference, quick=quick, shape=shape, batch=batch, dtype=dtype)
    for batch in (1, 8):
        name = f"network ntu N {batch} inference float32, default allocator"
        add(name, networks.inference, tuned=False, shape="ntu", batch=batch, dtype="float32", users=True)
    for dtype in DTYPES:
        for batch in (1, 4, 8):
            name, quick = f"network ntu N {batch} training {dtype}", batch == 1
            add(name, networks.training, quick=quick, shape="ntu", batch=batch, dtype=dtype)
    for dtype in DTYPES:
        add(f"network padded NTU recordings N 10 inference {dtype}", networks.padded, batch=10, dtype=dtype)
    for shape in networks.RECORDINGS:
        for dtype in DTYPES:
            name = f"accuracy {shape} recordings inference {dtype}"
            add(name, accuracy.recordings, shape=shape, dtype=dtype)
    add("accuracy ntu recordings training float32", accuracy.gradients, shape="ntu")
    name = "memory ntu N 8 training float32"
    add(name, memory.training, tuned=False, shape="ntu", batch=8, dtype="float32")
    a = {"shape": "tiny", "batch": 2, "dtype": "float32"}
    found.append(Case("tiny network inference", networks.inference, a, "tiny", hidden=True))
    found.append(Case("tiny network training", networks.training, a, "tiny", hidden=True))
    found.append(Case("tiny network memory", memory.training, a, "tiny", hidden=True))
    return found


def _blocks() -> list[Case]:
    found = []
    for dtype in DTYPES:
        for c, o, t, stride in BLOCKS:
            name = f"block {c}-{o} T{t} V25 N 2 inference {dtype}"
            a = {"c": c, "o": o, "frames": t, "stride": stride, "joints": 25, "batch": 2, "dtype": dtype}
            quick = c == o and dtype == "float32"
            found.append(Case(name, blocks.inference, a | {"thorough": True}, f"block {dtype}", quick))
    for dtype in DTYPES:
        for batch in (2, 16):
            for c, o, t, stride in TRAINED_BLOCKS:
                name = f"block {c}-{o} T{t} V25 N {batch} training {dtype}"
                a = {
                    "c": c,
                    "o": o,
                    "frames": t,
                    "stride": stride,
                    "joints": 25,
                    "batch": batch,
                    "dtype": dtype,
                }
                quick = c == 64 and batch == 2 and dtype == "float32"
                found.append(Case(name, blocks.training, a, f"block training {dtype} {batch}", quick))
    odd = [(64, t, 25) for t in ODD_FRAMES]
    odd += [(64, 150, v) for v in ODD_JOINTS]
    odd += [(c, 150, 25) for c in ODD_CHANNELS]
    for c, t, v in [(64, 150, 25), *odd]:
        name = f"odd block {c}-{64 if c == 3 else c} T{t} V{v} N 2 inference float32"
        a = {"c": c, "o": 64 if c == 3 else c, "frames": t, "stride": 1, "joints": v, "batch": 2}
        a |= {"dtype": "float32", "thorough": False}
        found.append(Case(name, blocks.inference, a, "odd"))
    tiny = TINY | {"c": 16, "o": 16, "stride": 1, "dtype": "float32"}
    a = tiny | {"thorough": True}
    found.append(Case("tiny block inference", blocks.inference, a, "tiny", hidden=True))
    found.append(Case("tiny block training", blocks.training, tiny, "tiny", hidden=True))
    return found


def _layers() -> list[Case]:
    found = []
    for network, shapes in layers.SHAPES.items():
        for shape in shapes:
            for batch in (2, 16) if network == "ST-GCN" else (2,):
                for step, function in (("inference", layers.inference), ("training", layers.training)):
                    name = f"layer {network} {shape} N {batch} {step}"
                    quick = network == "ST-GCN" and batch == 2 and shape.c == 64 and step == "inference"
                    a = {"shape": shape, "batch": batch}
                    found.append(Case(name, function, a, f"layer {network} {step}", quick))
    return found


def _scaling() -> list[Case]:
    found = []
    for name, shape, sizes in (
        ("linear in N", "ntu", PER_CLIPS),
        ("linear in T", "ntu", PER_FRAMES),
        ("tiny network scaling", "tiny", TINY_SIZES),
    ):
        a = {"shape": shape, "sizes": sizes}
        found.append(Case(name, scaling.inference, a, name, hidden=shape == "tiny"))
    for axis, shapes in UNUSUAL.items():
        for train in (False, True):
            name = f"no cliff in {axis}, {'training' if train else 'inference'}"
            found.append(Case(name, scaling.unusual, {"shapes": shapes, "train": train}, name))
    tiny = {"shapes": ((3, 8, 12, 8), (8, 8, 12, 8), (9, 9, 12, 8))}
    for train in (False, True):
        name = f"tiny block scaling, {'training' if train else 'inference'}"
        found.append(Case(name, scaling.unusual, tiny | {"train": train}, "tiny", hidden=True))
    return found


def every() -> list[Case]:
    """All cases, in the order of the table."""
    return [*_networks(), *_blocks(), *_layers(), *_scaling()]


def select(pattern: str | None = None, quick: bool = False) -> list[Case]:
    """Cases whose name a regular expression finds; hidden ones by their whole name.

    Raises:
        ValueError: There is none, or the pattern is no regular expression.
    """
    try:
        finder = re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"--only must be a regular expression, got {pattern!r}: {error}") from error
    found = [
        case
        for case in every()
        if (case.name == pattern if case.hidden else finder.search(case.name)) and (case.quick or not quick)
    ]
    if not found:
        raise ValueError(f"--only must find a row (see --list), got {pattern!r}")
    return found
