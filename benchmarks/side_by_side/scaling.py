"""Cost by number of clips and of frames: linear, or not; by unusual sizes: without cliffs, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from side_by_side import floor
from side_by_side.blocks import inputs, make, step
from side_by_side.measure import Context, alternate, no_grad, summary
from side_by_side.networks import PERSONS, SHAPES, clips, network, optimise

# An operation at an unusual size may take so many times as long as at the sizes next to it. Channels fill
# vectors of 16 and panels of 32: 100 of them are paid for as 112 to 128.
CLIFF = 1.35


def inference(
    context: Context, *, shape: str, sizes: Sequence[tuple[int, int]], dtype: str = "float32"
) -> list[dict[str, Any]]:
    """One row a size, which says what a frame costs compared with the first size.

    Args:
        context: Settings.
        shape: Key of SHAPES.
        sizes: (N, T), all of them called in turn.
        dtype: "float32".
    """
    model = network(SHAPES[shape]).eval()
    optimised = optimise(model, dtype)
    inputs = {f"N {n}, T {t}": clips(model, n, t) for n, t in sizes}
    calls = {name: no_grad(lambda x=x: optimised(x)) for name, x in inputs.items()}
    times = alternate(calls, context.seconds)
    rows = []
    for (n, t), (name, samples) in zip(sizes, times.items()):
        flop = floor.network_flop(model, n * PERSONS, t)
        values = summary(samples)
        row: dict[str, Any] = {
            "name": name,
            "unit": "ms",
            "values": {"ours": values},
            "errors": {},
            "dtype": dtype,
            "threads": context.threads,
            "gflop": flop / 1e9,
        }
        if dtype in context.peak:
            row["floor"] = 1e3 * flop / context.peak[dtype]
        first = rows[0]["values"]["ours"]["median"] / (sizes[0][0] * sizes[0][1]) if rows else None
        per_frame = values["median"] / (n * t)
        row["note"] = "1.00 a frame" if first is None else f"{per_frame / first:.2f} a frame"
        rows.append(row)
    return rows


def unusual(
    context: Context, *, shapes: Sequence[tuple[int, int, int, int]], train: bool, batch: int = 2
) -> list[dict[str, Any]]:
    """One row a shape of a block: its time for an operation, beside that of the shapes next to it.

    Args:
        context: Settings.
        shapes: (C, O, T, V), in an order in which neighbours are alike; all of them are called in turn.
        train: Forward and backward rather than inference.
        batch: N * M.
    """
    flops, calls = {}, {}
    for c, o, frames, joints in shapes:
        name = f"{c}-{o} T{frames} V{joints}"
        block = make(c, o, 1, joints, residual=c == o)[0].train(train)
        x = inputs(batch, c, frames, joints)["channels_last"]
        flops[name] = (3 if train else 1) * floor.block_flop(block.block, block.adjacency, batch, frames)
        call = step(block, x.requires_grad_(), half=False) if train else lambda b=block, x=x: b(x)
        calls[name] = call if train else no_grad(call)
    times = alternate(calls, context.seconds)
    rows = []
    for name, samples in times.items():
        row: dict[str, Any] = {
            "name": name,
            "unit": "ms",
            "values": {"ours": summary(samples)},
            "errors": {},
            "dtype": "float32",
            "threads": context.threads,
            "gflop": flops[name] / 1e9,
        }
        if "float32" in context.peak:
            row["floor"] = 1e3 * flops[name] / context.peak["float32"]
        rows.append(row)
    slowness = [row["values"]["ours"]["median"] / row["gflop"] for row in rows]
    for i, row in enumerate(rows):
        near = [slowness[j] for j in (i - 1, i + 1) if 0 <= j < len(rows)]
        found = slowness[i] * len(near) / sum(near)
        mark = ", a cliff" if found > CLIFF else ""
        row["note"] = f"{found:.2f} an operation beside its neighbours{mark}"
    return rows
