"""What can be fused to the convolutions' loads and stores, beside plain PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Draw = Callable[..., Tensor]

# Bounds as in conftest, for sums of a few terms more.
ROUNDING = {"float32": 4e-6, "bfloat16": 1.6e-2}


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * scale[:, None, None] + shift[:, None, None]


def expected(
    convolve: Callable[[Tensor], Tensor], x: Tensor, extras: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The result, and what its statistics are of."""
    x, wide = x.double(), {k: v.double() if isinstance(v, Tensor) else v for k, v in extras.items()}
    if wide["in_scale"] is not None:
        x = affine(x, wide["in_scale"], wide["in_shift"])
    y = convolve(x.relu() if wide["in_relu"] else x)
    if wide["scale"] is not None:
        y = affine(y, wide["scale"], wide["shift"])
    out = y
    if wide["residual"] is not None:
        added = wide["residual"]
        if wide["residual_scale"] is not None:
            added = affine(added, wide["residual_scale"], wide["residual_shift"])
        out = out + added
    return (out.relu() if wide["relu"] else out), y


def extras_of(draw: Draw, n: int, c: int, o: int, t: int, v: int, chosen: str) -> dict[str, Any]:
    """`chosen` names what is there: n(ormalise), l(oad relu), s(cale), r(esidual), a(ffine), z (relu)."""

    def pair(wanted: bool, channels: int) -> tuple[Tensor | None, Tensor | None]:
        values = [draw(channels) for _ in range(2)] if wanted else [None, None]
        return tuple(value if value is None else 1 + value / 4 for value in values)  # type: ignore[return-value]

    out: dict[str, Any] = {}
    out["in_scale"], out["in_shift"] = pair("n" in chosen, c)
    out["in_relu"] = "l" in chosen
    out["scale"], out["shift"] = pair("s" in chosen, o)
    out["residual"] = draw(n, o, t, v, channels_last=True) if "r" in chosen else None
    out["residual_scale"], out["residual_shift"] = pair("a" in chosen, o)
    out["relu"] = "z" in chosen
    return out


def close(got: Tensor, want: Tensor, kind: str) -> None:
    error = (got.double() - want).abs().max() / want.abs().max()
    assert error <= ROUNDING[kind], float(error)


def merged(statistics: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all rows from those of tiles, by Chan's formula."""
    statistics, counts = statistics.double(), torch.tensor(rows, dtype=torch.float64)[:, None]
    mean = (statistics[:, 0] * counts).sum(0) / counts.sum()
    squares = statistics[:, 1].sum(0) + (counts * (statistics[:, 0] - mean) ** 2).sum(0)
    return mean, squares / counts.sum()


@pytest.fixture
def namespace(emulated: Any) -> Any:
    library = emulated.library
    if not hasattr(library, "fused"):
        tail = "Tensor? in_scale, Tensor? in_shift, bool in_relu, Tensor? scale, Tensor? shift,"
        tail += " Tensor? residual, Tensor? residual_scale, Tensor? residual_shift, bool relu)"
        tail += " -> (Tensor, Tensor)"
        library.namespace.define(f"fused_temporal(Tensor x, Tensor weight, {tail}")
        library.namespace.define(f"fused_graph(Tensor x, Tensor weight, Tensor adjacency, {tail}")
        library.fused = True
    return emulated


@pytest.mark.parametrize("kind", ROUNDING, indirect=True)
@pytest.mark.parametrize("chosen", ["nl", "nlsraz", "rz"])
@pytest.mark.parametrize("size", [(2, 9, 12, 11, 5), (1, 8, 16, 43, 25)], ids=str)
def test_temporal_agrees(namespace: Any, kind: str, draw: Draw, size: tuple[int, ...], chosen: str) -> None:
    n, c, o, t, v = size
    x, weight = draw(n, c, t, v), draw(o, c, 9, 1)
    extras = extras_of(draw, n, c, o, t, v, chosen)
    out, statistics = namespace("fused_temporal", x, weight, *extras.values())
    want, measured = expected(
        lambda x: torch.nn.functional.conv2d(x, weight.double(), None, 1, (4, 0)), x, extras
    )
    close(out, want, kind)
    tiles = statistics.shape[0] // n
    tile = next(rows for rows in (128, 256) if -(-t * v // rows) == tiles)
    rows = [min(tile, t * v - start) for start in range(0, t * v, tile)] * n
    mean, variance = merged(statistics, rows)
    close(mean, measured.mean((0, 2, 3)), kind)
    close(variance, measured.var((0, 2, 3), unbiased=False), kind)


@pytest.mark.parametrize("kind", ROUNDING, indirect=True)
@pytest.mark.parametrize("chosen", ["l", "nlsraz"])
@pytest.mark.parametrize("size", [(1, 8, 70, 23, 25), (1, 150, 12, 7, 9)], ids=str)
def test_graph_agrees(namespace: Any, kind: str, draw: Draw, size: tuple[int, ...], chosen: str) -> None:
    n, c, o, t, v = size
    x, weight, adjacency = draw(n, c, t, v), draw(3, o, c), draw(1, 3, 1, v, v)
    extras = extras_of(draw, n, c, o, t, v, chosen)
    out, statistics = namespace("fused_graph", x, weight, adjacency, *extras.values())
    want, measured = expected(
        lambda x: torch.einsum("koc,nctv,kvw->notw", weight.double(), x, adjacency[0, :, 0].double()),
        x,
        extras,
    )
    close(out, want, kind)
    # Frames of a tile: as many as fit its rows.
    frames = next(f for f in (128 // v, 256 // v) if -(-n * t // f) == statistics.shape[0])
    rows = [min(frames, n * t - start) * v for start in range(0, n * t, frames)]
    mean, variance = merged(statistics, rows)
    close(mean, measured.mean((0, 2, 3)), kind)
    close(variance, measured.var((0, 2, 3), unbiased=False), kind)
