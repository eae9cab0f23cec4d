"""Maps on a common scale."""

from __future__ import annotations

import torch
from torch import Tensor

NORMALISATIONS = (None, "map", "layer", "class")


def normalise_maps(maps: Tensor, mode: str | None, classes: Tensor | None = None) -> Tensor:
    """Maps of one layer brought to [0, 1], the smallest value to 0 and the largest to 1.

    Args:
        maps: ``[N, M, T, V]`` or ``[N, Q, M, T, V]``.
        mode: ``"map"``: each map by itself; ``"layer"``: all together; ``"class"``: those of one class
            together; None: as they are.
        classes: ``[N]`` or ``[N, Q]``, the class of each map; needed for ``"class"``.

    Returns:
        As ``maps``; a group of equal values becomes zeros.

    Raises:
        ValueError: An unknown mode, or classes that do not fit.
    """
    owner = "normalise_maps"
    if mode not in NORMALISATIONS:
        known = ", ".join(map(str, NORMALISATIONS))
        raise ValueError(f"{owner}: mode must be one of {known}, got {mode!r}")
    if mode is None or maps.numel() == 0:
        return maps
    rows = maps.reshape(-1, maps.shape[-3] * maps.shape[-2] * maps.shape[-1])
    low, high = rows.amin(1), rows.amax(1)  # of each map
    if mode == "layer":
        low, high = low.min().expand_as(low), high.max().expand_as(high)
    elif mode == "class":
        if classes is None or classes.shape != maps.shape[:-3]:
            found = None if classes is None else list(classes.shape)
            raise ValueError(f"{owner}: classes must have shape {list(maps.shape[:-3])}, got {found}")
        groups, each = torch.unique(classes.flatten(), return_inverse=True)
        low = torch.full((len(groups),), torch.inf, dtype=low.dtype, device=low.device).scatter_reduce(
            0, each, low, "amin"
        )[each]
        high = torch.full((len(groups),), -torch.inf, dtype=high.dtype, device=high.device).scatter_reduce(
            0, each, high, "amax"
        )[each]
    span = (high - low)[:, None]
    scaled = torch.where(span > 0, (rows - low[:, None]) / torch.where(span > 0, span, 1), 0)
    return scaled.reshape(maps.shape)
