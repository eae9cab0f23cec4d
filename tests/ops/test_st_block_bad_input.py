"""Bad arguments of st_block: one line that names the argument, the rule and the value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import zeros

from stgcn_fast import ops

ST_BLOCK: dict[str, Any] = {
    "x": zeros(2, 3, 8, 5),
    "graph_weight": zeros(2, 6, 3),
    "adjacency": zeros(2, 5, 5),
    "temporal_weight": zeros(6, 6, 9, 1),
}
KNOWN: dict[str, Any] = {"frames": zeros(2, dtype=torch.int64), "rest": zeros(1, 6, 8, 5)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, r"x must be a torch.Tensor, got list"),
        ({"x": zeros(2, 3, 8)}, ValueError, r"x must be \[N, C, T, V\] with C, V >= 1, got \[2, 3, 8\]"),
        (
            {"graph_weight": zeros(2, 6, 4)},
            ValueError,
            r"graph_weight must be \[K, O, C\] with C = 3, got \[2, 6, 4\]",
        ),
        (
            {"graph_weight": zeros(2, 6, 3).double()},
            TypeError,
            r"graph_weight must be of the dtype of x, torch.float32, got torch.float64",
        ),
        (
            {"x": zeros(2, 3, 8, 5).bfloat16(), "graph_weight": zeros(2, 6, 3).half()},
            TypeError,
            r"graph_weight must be of the dtype of x, torch.bfloat16 or torch.float32, got torch.float16",
        ),
        (
            {"adjacency": zeros(2, 4, 5)},
            ValueError,
            r"adjacency must be \[K, V, W\] or \[1, K, 1, V, W\] with K = 2, V = 5, got \[2, 4, 5\]",
        ),
        ({"adjacency": zeros(2, 2, 5, 5)}, ValueError, r"adjacency must be .*, got \[2, 2, 5, 5\]"),
        (
            {"temporal_weight": zeros(6, 6, 4, 1)},
            ValueError,
            r"temporal_weight must be \[O, O, Γ, 1\] with O = 6, Γ odd, got \[6, 6, 4, 1\]",
        ),
        ({"graph_bias": zeros(6)}, ValueError, r"graph_bias must be \[K, O\] = \[2, 6\], got \[6\]"),
        ({"scale1": zeros(5)}, ValueError, r"scale1 must be \[O\] with O = 6, got \[5\]"),
        ({"shift2": 1.0}, TypeError, r"shift2 must be a torch.Tensor, got float"),
        ({"stride": 0}, ValueError, r"stride must be at least 1, got 0"),
        ({"residual": 1}, TypeError, r"residual must be a bool, got int"),
        ({"fast": "yes"}, TypeError, r"fast must be a bool, got str"),
        (
            {"residual": True},
            ValueError,
            r"residual_weight must be given unless C = O and stride = 1, got None with C = 3, O = 6",
        ),
        (
            {"residual_weight": zeros(6, 3)},
            ValueError,
            r"residual_weight must be None without a residual, got \[6, 3\]",
        ),
        (
            {"residual": True, "residual_weight": zeros(3, 6)},
            ValueError,
            r"residual_weight must be \[O, C\] = \[6, 3\], got \[3, 6\]",
        ),
        (
            {"residual_shift": zeros(6)},
            ValueError,
            r"residual_shift must be None without residual_weight, got \[6\]",
        ),
        (
            {"residual": True, "residual_weight": zeros(6, 3), "adjacency": zeros(2, 5, 4)},
            ValueError,
            r"adjacency must be \[K, V, V\] with V = 5 where there is a residual, got W = 4",
        ),
        (
            {"frames": KNOWN["frames"]},
            ValueError,
            r"rest must be given where the other of frames and rest is, got None",
        ),
        (
            KNOWN | {"frames": zeros(2)},
            TypeError,
            r"frames must be an int64 tensor, got torch.float32",
        ),
        (
            KNOWN | {"frames": zeros(3, dtype=torch.int64)},
            ValueError,
            r"frames must be \[N\] = \[2\] on the device of x, got \[3\] on cpu",
        ),
        (
            KNOWN | {"rest": zeros(1, 6, 4, 5)},
            ValueError,
            r"rest must be \[1, O, T_out, W\] = \[1, 6, 8, 5\] on the device of x, got \[1, 6, 4, 5\] on cpu",
        ),
        (
            KNOWN | {"rest": zeros(1, 6, 8, 5).double()},
            TypeError,
            r"rest must be of the dtype of x, torch.float32, got torch.float64",
        ),
    ],
)
def test_st_block_says_what_is_wrong_in_one_line(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^st_block: {message}") as raised:
        ops.st_block(**(ST_BLOCK | changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("differ", [-1, 9])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_frames_are_those_of_the_clip(on_backend: Any, backend: str, differ: int) -> None:
    message = rf"^st_block: frames must be in \[0, T\] with T = 8, got {differ}"
    with on_backend(backend), pytest.raises((RuntimeError, ValueError), match=message):
        ops.st_block(**ST_BLOCK, frames=torch.tensor([0, differ]), rest=KNOWN["rest"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1], 8, 9), TypeError, "frames must be an int64 tensor, got list"),
        ((zeros(2), 8, 9), TypeError, "frames must be an int64 tensor, got torch.float32"),
        ((KNOWN["frames"], -1, 9), ValueError, "length must be at least 0, got -1"),
        ((KNOWN["frames"], 8, 0), ValueError, "kernel_size must be at least 1, got 0"),
        ((KNOWN["frames"], 8, 9, 1.0), TypeError, "stride must be an int, got float"),
    ],
)
def test_st_block_frames_says_what_is_wrong(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^st_block_frames: {message}$"):
        ops.st_block_frames(*arguments)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("x", zeros(2, 3, 8)),
        ("x", zeros(2, 3, 8, 0)),
        ("graph_weight", zeros(2, 6, 4)),
        ("graph_weight", zeros(2, 6, 3).double()),
        ("graph_bias", zeros(2, 5)),
        ("adjacency", zeros(2, 2, 1, 5, 5)),
        ("adjacency", zeros(1, 2, 1, 4, 5)),
        ("scale1", zeros(7)),
        ("shift1", zeros(6, 1)),
        ("temporal_weight", zeros(6, 6, 4, 1)),
        ("temporal_weight", zeros(6, 5, 3, 1)),
        ("temporal_bias", zeros(5)),
        ("scale2", zeros(6).double()),
        ("shift2", zeros(5)),
        ("residual_weight", zeros(6, 4)),
        ("residual_weight", None),
        ("residual_shift", zeros(5)),
        ("residual", False),
        ("stride", 0),
        ("stride", 2**62),
        ("frames", zeros(2)),
        ("frames", zeros(3, dtype=torch.int64)),
        ("frames", torch.tensor([0, 9])),
        ("frames", None),
        ("rest", zeros(1, 6, 7, 5)),
        ("rest", zeros(1, 6, 8, 5).double()),
        ("rest", None),
    ],
)
def test_the_kernel_checks_what_reaches_it_directly(on_backend: Any, argument: str, value: Any) -> None:
    arguments: dict[str, Any] = {
        "x": ST_BLOCK["x"],
        "graph_weight": ST_BLOCK["graph_weight"],
        "graph_bias": zeros(2, 6),
        "adjacency": zeros(1, 2, 1, 5, 5),
        "scale1": zeros(6),
        "shift1": zeros(6),
        "temporal_weight": ST_BLOCK["temporal_weight"],
        "temporal_bias": zeros(6),
        "scale2": zeros(6),
        "shift2": zeros(6),
        "residual_weight": zeros(6, 3),
        "residual_shift": zeros(6),
        "residual": True,
        "stride": 1,
        "fast": True,
        **KNOWN,
    }
    torch.ops.stgcn_fast.st_block(**arguments)
    # What is missing may be said of its partner.
    name = r"\w+" if value is None or argument == "residual" else argument
    with on_backend("native"), pytest.raises(RuntimeError, match=f"^st_block: {name} must be .*, got .*"):
        torch.ops.stgcn_fast.st_block(**(arguments | {argument: value}))
