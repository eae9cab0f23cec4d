"""Real recordings through the network: errors beside float64, nothing timed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from side_by_side import networks
from side_by_side.measure import Context, autocast, no_grad, within
from stgcn_fast import ops
from stgcn_fast.cli.timing import EagerSTGCN, difference, gradient, gradient_difference
from stgcn_fast.models import STGCN

# Of the largest logit, float32: the bound of the fast temporal algorithm in one layer.
LIMIT = 1e-5
GRADIENT_CLIPS, GRADIENT_FRAMES = 2, 100
WAYS = ("ours", "ours direct", "ours unoptimised", "eager")


def _logits(model: STGCN, dtype: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """The network in all ways that users run it."""
    half = dtype == "bfloat16"
    optimised = networks.optimise(model, dtype)

    def direct(x: Tensor) -> Tensor:
        with ops.options(fast_temporal=False):
            return optimised(x)

    ways = {"ours": optimised, "ours direct": direct, "ours unoptimised": model, "eager": EagerSTGCN(model)}
    if not half:
        return ways

    def cast(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: autocast(lambda: way(x))()

    return {name: cast(way) if way in (model, ways["eager"]) else way for name, way in ways.items()}


def _row(name: str, errors: dict[str, float], dtype: str, context: Context, note: str) -> dict[str, Any]:
    ours = {way: error for way, error in errors.items() if way != "eager"}
    limit = LIMIT if dtype == "float32" else max(networks.BFLOAT16_AGREEMENT, 2 * errors["eager"])
    for way, error in ours.items():
        within(f"{name}, {way}", error, limit)
    return {
        "name": name,
        "unit": "ms",
        "values": {},
        "errors": errors,
        "dtype": dtype,
        "threads": context.threads,
        "note": f"eager's error {errors['eager']:.0e}{note}",
    }


def recordings(
    context: Context, *, shape: str, dtype: str, frames: int | None = None
) -> list[dict[str, Any]]:
    """Logits of all recordings of a kind beside float64, at their own lengths and as one padded batch.

    Args:
        context: Settings.
        shape: "ntu" or "kinetics".
        dtype: "float32" or "bfloat16".
        frames: T of the padded batch and the most of a single clip; the network's own by default.

    Raises:
        Unavailable: There are no recordings.
        Disagreement: An error is above the limit.
    """
    sizes = networks.SHAPES[shape]
    model = networks.network(sizes).eval()
    x = networks.recordings(frames or sizes.frames, kind=shape)
    exact = EagerSTGCN(copy.deepcopy(model).double()).eval()
    ways = _logits(model, dtype)
    there = (x != 0).flatten(3).any(3).any(1)  # [N, T]
    lengths = [int(row.nonzero().max()) + 1 for row in there]
    rows = []
    for name, batches in (
        ("own lengths", [clip[None, :, :length] for clip, length in zip(x, lengths)]),
        (f"padded to T {x.shape[2]}", [x]),
    ):
        found: dict[str, list[Tensor]] = {way: [] for way in (*WAYS, "exact")}
        for batch in batches:
            found["exact"].append(no_grad(lambda b=batch: exact(b.double()))())
            for way, call in ways.items():
                found[way].append(no_grad(lambda b=batch, c=call: c(b))().double())
        logits = {way: torch.cat(parts) for way, parts in found.items()}
        errors = {way: difference(logits[way], logits["exact"]) for way in WAYS}
        same = int((logits["ours"].argmax(1) == logits["exact"].argmax(1)).sum())
        rows.append(_row(name, errors, dtype, context, f"; the same class in {same} of {len(x)}"))
    return rows


def gradients(context: Context, *, shape: str) -> dict[str, Any]:
    """The gradient of a training step on recordings, without dropout, in float32 beside float64; of norms."""
    sizes = networks.SHAPES[shape]
    model = networks.network(sizes).train()
    x = networks.recordings(GRADIENT_FRAMES, kind=shape)[-GRADIENT_CLIPS:].contiguous()
    labels = torch.arange(len(x)) % sizes.classes

    def found(network: nn.Module, model: STGCN, x: Tensor) -> list[Tensor]:
        def loss() -> Tensor:
            return nn.functional.cross_entropy(network(x), labels)

        return [value.double() for value in gradient(loss, list(model.parameters()))]

    double = copy.deepcopy(model).double()
    exact = found(EagerSTGCN(double), double, x.double())
    plain, direct = copy.deepcopy(model), copy.deepcopy(model)
    with ops.options(fast_temporal=False):
        errors = {"ours direct": gradient_difference(found(direct, direct, x), exact)}
    errors["ours"] = gradient_difference(found(model, model, x), exact)
    errors["eager"] = gradient_difference(found(EagerSTGCN(plain), plain, x), exact)
    name = f"recordings {shape} gradients"
    for way in ("ours", "ours direct"):
        within(f"{name}, {way}", errors[way], networks.GRADIENT_AGREEMENT)
    row: dict[str, Any] = {"unit": "ms", "values": {}, "errors": errors, "dtype": "float32"}
    return row | {"threads": context.threads, "note": f"eager's error {errors['eager']:.0e}"}
