"""The emulated CUDA kernels of a block at inference beside the reference in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Draw = Callable[..., Tensor]

# N, C, T, V, W, O, K, kernel, stride. Channels around 16 bytes and around a tile, joints that do not divide
# a tile.
SHAPES = [
    (2, 3, 11, 5, 5, 8, 3, 9, 1),
    (1, 16, 9, 25, 25, 16, 3, 9, 1),
    (2, 8, 10, 7, 7, 20, 1, 3, 2),
    (1, 70, 13, 18, 18, 70, 2, 5, 1),
    (1, 5, 8, 4, 6, 9, 2, 1, 3),
]
OPERANDS = ("graph_bias", "scale1", "shift1", "temporal_bias", "scale2", "shift2")


def block(
    draw: Draw, shape: tuple[int, ...], given: set[str], residual: str, last: bool = False
) -> dict[str, Any]:
    """The arguments of the operator, those of `given` among the optional ones."""
    n, c, t, v, w, o, k, kernel, stride = shape
    sizes = dict.fromkeys(OPERANDS, (o,)) | {"graph_bias": (k, o)}
    extras = {name: draw(*sizes[name]) if name in given else None for name in OPERANDS}
    convolved = residual == "convolution"
    return {
        "x": draw(n, c, t, v, channels_last=last),
        "graph_weight": draw(k, o, c) / c**0.5,
        "graph_bias": extras["graph_bias"],
        "adjacency": draw(1, k, 1, v, w) / v**0.5,
        "scale1": extras["scale1"],
        "shift1": extras["shift1"],
        "temporal_weight": draw(o, o, kernel, 1) / (o * kernel) ** 0.5,
        "temporal_bias": extras["temporal_bias"],
        "scale2": extras["scale2"],
        "shift2": extras["shift2"],
        "residual_weight": draw(o, c) / c**0.5 if convolved else None,
        "residual_shift": draw(o) if convolved and "shift2" in given else None,
        "residual": residual != "none",
        "stride": stride,
        "fast": False,
        "frames": None,
        "rest": None,
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_agree_with_the_reference(
    emulated: Any, kind: str, draw: Draw, shape: tuple[int, ...]
) -> None:
    _, c, _, v, w, o, _, _, stride = shape
    plain = "identity" if c == o and v == w and stride == 1 else "convolution" if v == w else "none"
    emulated.check("st_block", kind, *block(draw, shape, set(OPERANDS), plain, last=True).values())


@pytest.mark.parametrize("residual", ["none", "identity", "convolution"])
@pytest.mark.parametrize(
    "given",
    [set(), {"scale1", "shift2"}, {"graph_bias", "shift1", "scale2"}],
    ids=lambda given: "+".join(sorted(given)) or "none",
)
def test_every_choice_of_operands(emulated: Any, given: set[str], residual: str) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, channels_last: bool = False) -> Tensor:
        return torch.randn(shape, generator=generator)

    emulated.library.stgcn_fast_emulation_tf32(False)
    arguments = block(draw, (2, 12, 7, 5, 5, 12, 3, 3, 1), given, residual)
    emulated.check("st_block", "float32", *arguments.values())


def test_weights_in_float32_beside_bfloat16(emulated: Any) -> None:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int, channels_last: bool = False) -> Tensor:
        return torch.randn(shape, generator=generator)

    arguments = block(draw, (1, 16, 6, 5, 5, 16, 2, 3, 1), set(OPERANDS), "identity")
    arguments["x"] = arguments["x"].bfloat16()
    (out,) = emulated("st_block", *arguments.values())
    assert out.dtype == torch.bfloat16
    (want,) = emulated.reference("st_block", *arguments.values())
    assert (out.double() - want).abs().max() <= 8e-3 * want.abs().max()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (9, 1), (9, 2)])
def test_frames_of_a_known_clip_are_taken_from_it(emulated: Any, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int, channels_last: bool = False) -> Tensor:
        return torch.randn(shape, generator=generator)

    emulated.library.stgcn_fast_emulation_tf32(False)
    arguments = block(draw, (4, 4, 40, 3, 3, 8, 2, kernel, stride), set(OPERANDS), "convolution")
    arguments["frames"] = torch.tensor([0, 1, 17, 40])
    arguments["rest"] = torch.randn(1, 8, -(-40 // stride), 3, generator=generator)
    emulated.check("st_block", "float32", *arguments.values())


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 3, 0, 4)], ids=str)
def test_nothing_gives_nothing(emulated: Any, shape: tuple[int, ...]) -> None:
    n, c, t, v = shape
    arguments = block(
        lambda *s, channels_last=False: torch.randn(s), (1, c, 1, v, v, 6, 2, 3, 1), set(), "none"
    )
    arguments["x"] = torch.randn(n, c, t, v)
    (out,) = emulated("st_block", *arguments.values())
    assert out.shape == (n, 6, t, v)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 4, 5)}, "x must be [N, C, T, V], got [2, 4, 5]"),
        ({"stride": 0}, "stride must be between 1 and 2147483647, got 0"),
        ({"graph_weight": torch.randn(2, 6, 5)}, "graph_weight must be [K, O, C] with C = 4, got [2, 6, 5]"),
        (
            {"temporal_weight": torch.randn(6, 6, 2, 1)},
            "temporal_weight must be [O, O, Γ, 1] with O = 6, Γ odd",
        ),
        ({"scale1": torch.randn(5)}, "scale1 must be [O] with O = 6, got [5]"),
        ({"residual": True}, "residual_weight must be given unless C = O and stride = 1, got None"),
        ({"frames": torch.tensor([1])}, "rest must be given where the other of frames and rest is, got None"),
        (
            {"frames": torch.tensor([1]), "rest": torch.randn(1, 6, 4, 4)},
            "rest must be [1, O, T_out, W] = [1, 6, 5, 4], got [1, 6, 4, 4]",
        ),
    ],
)
def test_bad_input_is_said(emulation: ctypes.CDLL, change: dict[str, Any], message: str) -> None:
    def draw(*shape: int, channels_last: bool = False) -> Tensor:
        return torch.randn(shape)

    arguments = block(draw, (1, 4, 5, 4, 4, 6, 2, 3, 1), set(), "none") | change
    with pytest.raises(RuntimeError) as raised:
        torch.ops.stgcn_fast_emulated.st_block(*arguments.values())
    assert f"st_block: {message}" in str(raised.value)
