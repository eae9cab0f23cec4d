"""Dropout factors from a counter-based generator: a seed gives the same factors wherever they are made.

Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) keyed by the seed. An
element is known by its index in channels_last memory; it draws 16 bits. 128 elements take 16 counters:
element `128 * g + 16 * s + lane` takes half `s % 2` of word `s // 2` of counter `16 * g + lane`.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_RESOLUTION = 65536
_GROUP, _LANES = 128, 16


def _high_low(counter: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Both halves of a 32 by 32 bit product; 64-bit arithmetic wraps and keeps every bit."""
    product = counter * multiplier
    return (product >> 32) & _LOW, product & _LOW


def philox(counter: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words of 32 random bits for each counter.

    Args:
        counter: int64, any shape; the lower half of the 128-bit counter.
        seed: int64 scalar, the key.

    Returns:
        Four int64 tensors of the shape of `counter` with values in [0, 2^32).
    """
    key0, key1 = seed & _LOW, (seed >> 32) & _LOW
    words = (counter & _LOW, (counter >> 32) & _LOW, torch.zeros_like(counter), torch.zeros_like(counter))
    for _ in range(_ROUNDS):
        high0, low0 = _high_low(words[0], _MULTIPLIERS[0])
        high1, low1 = _high_low(words[2], _MULTIPLIERS[1])
        words = (high1 ^ words[1] ^ key0, low1, high0 ^ words[3] ^ key1, low0)
        key0, key1 = (key0 + _WEYL[0]) & _LOW, (key1 + _WEYL[1]) & _LOW
    return words


def threshold_of(dropout: float) -> int:
    """Draws below it, of 65,536, drop their element."""
    return round(dropout * _RESOLUTION)


def factors(shape: tuple[int, int, int, int], dropout: float, seed: Tensor, dtype: torch.dtype) -> Tensor:
    """Factors of dropout: 0, or what makes their expectation exactly 1 (unless everything is dropped).

    Args:
        shape: (N, C, T, V) of the tensor to multiply.
        dropout: probability of a zero, rounded to a multiple of 1/65,536.
        seed: int64 scalar.
        dtype: of the factors.

    Returns:
        [N, C, T, V], channels_last in memory.
    """
    samples, channels, frames, joints = shape
    count = samples * channels * frames * joints
    groups = (count + _GROUP - 1) // _GROUP
    counter = torch.arange(groups * _LANES, device=seed.device).view(-1, 1, _LANES)
    words = philox(counter, seed)
    bits = torch.cat([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=1)
    threshold = threshold_of(dropout)
    kept = bits.flatten()[:count].view(samples, frames, joints, channels) >= threshold
    scale = _RESOLUTION / (_RESOLUTION - threshold) if threshold < _RESOLUTION else 0.0
    return (kept.to(dtype) * scale).permute(0, 3, 1, 2)
