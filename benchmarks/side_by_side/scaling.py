"""Cost of the network by number of clips and of frames: linear, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from side_by_side import floor
from side_by_side.measure import Context, alternate, no_grad, summary
from side_by_side.networks import PERSONS, SHAPES, clips, network, optimise


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
