"""Generated calls of the ops, sound and unsound: the reference's numbers, or one clear sentence.

Shapes with one extent off, mixed dtypes, transposed, flipped, expanded and overlapping tensors, empty axes,
missing and extra arguments. A crash ends the process, so that passing is the proof that there was none.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import plain_ops
import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class Draw:
    """Random choices of one call, most of them sound."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.unsound = self.rng.random() < 0.5
        self.dtype = self.rng.choice(DTYPES[:3])

    def extent(self, most: int) -> int:
        sizes = [0, 1, 1, 2, 3, most] if self.unsound else [self.rng.randint(1, most)]
        return self.rng.choice(sizes)

    def tensor(self, *shape: int) -> Tensor:
        """Of that shape and any strides; unsound calls now and then get another shape or dtype."""
        extents = list(shape)
        dtype = self.dtype
        if self.unsound and self.rng.random() < 0.15:
            at = self.rng.randrange(len(extents))
            change = self.rng.randrange(4)
            if change == 0:
                extents.pop(at)
            elif change == 1:
                extents.insert(at, self.rng.randint(0, 3))
            else:
                extents[at] = max(0, extents[at] + self.rng.choice([-1, 1, 7]))
        if self.unsound and self.rng.random() < 0.08:
            dtype = self.rng.choice(DTYPES)
        values = torch.randn(extents, generator=self.generator, dtype=torch.float64)
        kind = self.rng.randrange(7)
        if kind == 0 and len(extents) == 4:
            return values.to(dtype).contiguous(memory_format=torch.channels_last)
        if kind == 1 and len(extents) > 1:
            return values.transpose(0, -1).to(dtype).contiguous().transpose(0, -1)
        if kind == 2 and extents:
            return values.repeat_interleave(2, -1).to(dtype)[..., ::2]
        if kind == 3 and extents:
            return torch.cat([values, values], 0).to(dtype)[len(values) :]
        if kind == 4 and extents and extents[0]:
            return values[:1].to(dtype).expand(extents)
        if kind == 5 and extents and values.numel():
            return values.flip(-1).to(dtype)
        return values.to(dtype)

    def maybe(self, *shape: int) -> Tensor | None:
        return self.tensor(*shape) if self.rng.random() < 0.5 else None


def graph_conv(draw: Draw) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    n, c, t, v, w = (draw.extent(most) for most in (3, 20, 9, 26, 26))
    k, o = draw.extent(4), draw.extent(20)
    form = draw.rng.randrange(5)
    shape = [(k, v, w), (n, k, v, w), (k, 1, v, w), (n, k, o, v, w), (n, t, k, v, w)][form]
    return ops.graph_conv, {
        "x": draw.tensor(n, c, t, v),
        "weight": draw.tensor(k, o, c),
        "adjacency": draw.tensor(*shape),
        "bias": draw.maybe(k, o),
        "mask": draw.maybe(k, v, w) if form == 0 else None,
        "groups": 1 if form == 2 else None,
        "per_frame": form == 4,
    }


def temporal_conv(draw: Draw) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    n, c, t, v, o = (draw.extent(most) for most in (3, 20, 20, 26, 20))
    taps = draw.rng.choice([1, 3, 5, 9, 9])
    low = -1 if draw.unsound else 1
    return ops.temporal_conv, {
        "x": draw.tensor(n, c, t + 8, v),
        "weight": draw.tensor(o, c, taps, 1),
        "bias": draw.maybe(o),
        "stride": draw.rng.randint(low, 3),
        "padding": draw.rng.randint(low, 5),
        "dilation": draw.rng.randint(low, 4) if taps == 3 else 1,
        "fast": draw.rng.choice([None, True, False]),
    }


def window_graph_conv(draw: Draw) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    n, c, t, v, o, k = (draw.extent(most) for most in (3, 12, 12, 18, 12, 3))
    window = draw.rng.choice([1, 3, 5, *([2] if draw.unsound else [])])
    return ops.window_graph_conv, {
        "x": draw.tensor(n, c, t, v),
        "weight": draw.tensor(k, o, c),
        "adjacency": draw.tensor(k, window * v, window * v),
        "bias": draw.maybe(o),
        "window": window,
        "stride": draw.rng.randint(1, 2),
        "dilation": draw.rng.randint(1, 2),
    }


def st_block(draw: Draw) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    n, c, t, v, o, k = (draw.extent(most) for most in (3, 18, 20, 26, 18, 3))
    kind, stride = draw.rng.randrange(3), draw.rng.randint(1, 2)
    if kind == 1:
        o, stride = c, 1
    return ops.st_block, {
        "x": draw.tensor(n, c, t, v),
        "graph_weight": draw.tensor(k, o, c),
        "adjacency": draw.tensor(k, v, v),
        "temporal_weight": draw.tensor(o, o, draw.rng.choice([3, 5, 9]), 1),
        "graph_bias": draw.maybe(k, o),
        "scale1": draw.maybe(o),
        "shift1": draw.maybe(o),
        "scale2": draw.maybe(o),
        "shift2": draw.maybe(o),
        "residual": kind > 0,
        "residual_weight": draw.tensor(o, c) if kind == 2 else None,
        "residual_shift": draw.maybe(o) if kind == 2 else None,
        "stride": stride,
    }


def dtw(draw: Draw) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    n, t, d = (draw.extent(most) for most in (5, 12, 6))
    draw.dtype = draw.rng.choice(DTYPES[:2])
    window = draw.rng.choice([None, 0, 1, 0.2, *([-1, 1.5, 100] if draw.unsound else [])])
    return ops.dtw_pairwise_distance, {"X": draw.tensor(n, t, d), "window": window}


OPS = {entry.__name__: entry for entry in (graph_conv, temporal_conv, window_graph_conv, st_block, dtw)}


def answer_of(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The formula of an op."""
    plain: Callable[..., Tensor] = getattr(plain_ops, call.__name__)
    return plain


def check_gradients(call: Callable[..., Tensor], arguments: dict[str, Any], seed: int) -> None:
    """Gradients of every tensor, against those of the formula."""
    found: list[dict[str, Tensor]] = []
    for form in (call, answer_of(call)):
        leaves = {
            name: (value if form is call else value.double()).detach().requires_grad_()
            for name, value in arguments.items()
            if isinstance(value, Tensor)
        }
        out = form(**(arguments | leaves))
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        (out.double() * weights).sum().backward()
        found.append({name: leaf.grad.double() for name, leaf in leaves.items() if leaf.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, want in found[1].items():
        tolerance = TOLERANCE[arguments[name].dtype] * max(1.0, float(want.abs().max()))
        text = f"seed {seed}, gradient of {name}"
        assert float((found[0][name] - want).abs().max()) <= tolerance, text


@pytest.mark.parametrize("name", OPS)
@pytest.mark.timeout(3600)
def test_generated_calls(name: str, rounds: Rounds, figure: Figure) -> None:
    seen: Counter[str] = Counter()
    for seed in range(rounds(80, 2000)):
        draw = Draw(seed)
        call, arguments = OPS[name](draw)
        saved = {key: value.clone() for key, value in arguments.items() if isinstance(value, Tensor)}
        try:
            out = call(**arguments)
        except (TypeError, ValueError) as error:
            sentence = str(error)
            assert "\n" not in sentence, f"seed {seed}: {sentence}"
            assert sentence.startswith(f"{call.__name__}: "), f"seed {seed}: {sentence}"
            assert draw.unsound, f"seed {seed}: {sentence}"
            seen["refused"] += 1
            continue
        for key, value in saved.items():
            torch.testing.assert_close(arguments[key], value, rtol=0, atol=0)
        seen["answered"] += 1
        if not out.numel():  # plain convolutions refuse what has no frame
            continue
        wide = {
            key: value.double() if isinstance(value, Tensor) else value for key, value in arguments.items()
        }
        want = answer_of(call)(**wide)
        scale = max(1.0, float(want.abs().max()))
        assert float((out.double() - want).abs().max()) <= TOLERANCE[out.dtype] * scale, f"seed {seed}"
        if name != "dtw" and draw.dtype != torch.bfloat16 and seed % 3 == 0:
            check_gradients(call, arguments, seed)
            seen["differentiated"] += 1
    assert seen["answered"] > 0
    assert seen["refused"] > 0
    assert name == "dtw" or seen["differentiated"] > 0
    counts = ", ".join(f"{seen[key]} {key}" for key in ("answered", "refused", "differentiated"))
    figure(f"{rounds(80, 2000)} calls: {counts}")
