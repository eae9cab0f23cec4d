"""Contrastivity: how different what a layer looks at is from class to class.

Source: Das and Ortega (ICASSP 2022); the three measures are those of the authors' released scripts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

KINDS = ("1-corr", "rms", "hamming")


def contrastivity(importance: ArrayLike, kind: str = "1-corr", *, threshold: float = 0.5) -> float:
    """Mean difference between the classes' importances, over all pairs of classes.

    Args:
        importance: ``[K, V]``, of :func:`class_importance`; rows of NaN (classes without clips) are left out.
        kind: ``"1-corr"``, one minus Pearson's correlation, in [0, 2] (a row of equal values correlates with
            none: 1); ``"rms"``, root mean square difference; ``"hamming"``, share of joints on different
            sides of the threshold.
        threshold: Of ``"hamming"``: a joint counts where its importance is at least this.

    Returns:
        The mean over pairs.

    Raises:
        ValueError: An unknown kind, or fewer than two classes with clips.

    Examples:
        >>> contrastivity([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], "hamming")
        0.6666666666666666
    """
    if kind not in KINDS:
        raise ValueError(f"contrastivity: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    rows = np.asarray(importance, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"contrastivity: importance must have shape [K, V], got {list(rows.shape)}")
    rows = rows[~np.isnan(rows).any(1)]
    if len(rows) < 2:
        raise ValueError(f"contrastivity: importance must hold at least two classes, got {len(rows)}")
    first, second = np.triu_indices(len(rows), 1)
    if kind == "rms":
        return float(np.sqrt(((rows[first] - rows[second]) ** 2).mean(1)).mean())
    if kind == "hamming":
        marked = rows >= threshold
        return float((marked[first] != marked[second]).mean())
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    # Rounding leaves a trace of variance in a row of equal values.
    flat = norms <= 1e-12 * np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=~flat)
    return float((1 - np.clip((unit @ unit.T)[first, second], -1, 1)).mean())
