"""Noise on the input against label smoothness and accuracy.

Source: Das, Shekkizhar and Ortega, arXiv 2312.07777.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stgcn_fast.geometry.depth import DepthStudy, smoothness_by_depth
from stgcn_fast.geometry.features import Batches, Progress

SNRS = (float("inf"), 40.0, 30.0, 20.0, 10.0, 0.0)


@dataclass(frozen=True)
class NoiseStudy:
    """Outcome of :func:`noise_study`; S levels of noise, R repeats, L layers.

    Attributes:
        layers: Names of the layers.
        snr_db: The levels, ``[S]``; infinity for clean clips.
        accuracy: ``[S, R]``.
        smoothness: ``[S, R, L]``, random-walk errors.
    """

    layers: list[str]
    snr_db: list[float]
    accuracy: NDArray[np.float64]
    smoothness: NDArray[np.float64]

    @property
    def change(self) -> NDArray[np.float64]:
        """Mean smoothness error less that of the first level, ``[S, L]``."""
        mean = self.smoothness.mean(1)
        return np.asarray(mean - mean[:1])


def noise_study(
    model: nn.Module,
    batches: Callable[[float, int], Batches],
    snr_db: Sequence[float] = SNRS,
    repeats: int = 3,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> NoiseStudy:
    """Label smoothness of every layer, and accuracy, at each level of noise.

    Args:
        model: From ``[N, C, T, V, M]`` to scores.
        batches: Makes the batches of a level in decibels (infinity: no noise) and a repeat (0, 1, ...).
        snr_db: Levels.
        repeats: Draws of the noise; clean clips are looked at once.
        progress: Called with runs done and their number.
        **options: For :func:`smoothness_by_depth`.

    Raises:
        ValueError: No levels or repeats, or as :func:`smoothness_by_depth`.
    """
    levels = [float(level) for level in snr_db]
    if not levels or any(np.isnan(levels)):
        raise ValueError(f"noise_study: snr_db must be at least one number, got {list(snr_db)}")
    if repeats < 1:
        raise ValueError(f"noise_study: repeats must be at least 1, got {repeats}")
    total = sum(1 if np.isinf(level) else repeats for level in levels)
    done = 0
    studies: list[list[DepthStudy]] = []
    for level in levels:
        row: list[DepthStudy] = []
        for repeat in range(1 if np.isinf(level) else repeats):
            row.append(smoothness_by_depth(model, batches(level, repeat), embed=False, **options))
            done += 1
            if progress is not None:
                progress(done, total)
        studies.append(row * (repeats // len(row)))
    return NoiseStudy(
        studies[0][0].layers,
        levels,
        np.array([[study.predicted.accuracy for study in row] for row in studies]),
        np.array([[study.curve() for study in row] for row in studies]),
    )
