"""The losses of STF: where to look, and that classes look elsewhere.

Each takes focuses Q ``[N, M, T, V]`` scaled to [0, 1] (:func:`stgcn_fast.nn.focus.scaled`) and is a mean over
samples. For finite input it is finite, and so are its derivatives: a norm's is zero where the norm is zero.

Source: Ke, Peng and Lyu, "Towards To-a-T Spatio-Temporal Focus for Skeleton-Based Action Recognition" (AAAI
2022). Norms are divided by sqrt(T V), so that a loss does not grow with the clip; the paper does not say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast.nn.focus import resampled

EXPLORATION_SCORES = ("probability", "logit")


def masked(x: Tensor, q: Tensor) -> Tensor:
    """The input without what is focused on, ``X - Q * X``.

    Args:
        x: ``[N, C, T, V, M]``.
        q: in [0, 1], ``[N, M, T', V]``; interpolated along frames where T' is not T.

    Returns:
        ``[N, C, T, V, M]``.
    """
    _check("masked", q, (x.shape[0], x.shape[4], x.shape[3]), x)
    kept = 1 - resampled(q, x.shape[2])
    return x * kept.permute(0, 2, 3, 1)[:, None]


def exploration_loss(logits: Tensor, classes: Tensor, score: str = "probability") -> Tensor:
    """``L_e = g^y(X - Q * X)``: what is left of the predicted class without the focus.

    Args:
        logits: of the masked input, ``[N, classes]``.
        classes: y, predicted for the whole input, int64 ``[N]``.
        score: ``"probability"`` (softmax) or ``"logit"``.

    Returns:
        A scalar.

    Raises:
        ValueError: an unknown score.
    """
    if score not in EXPLORATION_SCORES:
        raise ValueError(
            f"exploration_loss: score must be one of {', '.join(EXPLORATION_SCORES)}, got {score!r}"
        )
    values = logits.softmax(1) if score == "probability" else logits
    return values.gather(1, classes[:, None]).mean()


def consistency_loss(earlier: Tensor, later: Tensor, symmetric: bool = False) -> Tensor:
    """``L_c = ||Q^i - Q^j||_2 / sqrt(T V)`` of two modules.

    Args:
        earlier: Q of module i, ``[N, M, T, V]``.
        later: Q of module j, ``[N, M, T', V]``; interpolated along frames where T' is not T.
        symmetric: whether the later focus learns too; by default it is the target, a constant ("later GCN:
            larger receptive field and better attention").

    Returns:
        A scalar.
    """
    _check("consistency_loss", later, (earlier.shape[0], earlier.shape[1], earlier.shape[3]), earlier)
    target = resampled(later if symmetric else later.detach(), earlier.shape[2])
    return _distance(earlier, target)


def divergence_loss(first: Tensor, second: Tensor) -> Tensor:
    """``L_d = -||Q^{y1} - Q^{y2}||_2`` of the focuses on the two highest classes, each of Frobenius norm one.

    Args:
        first: Q of the highest class, ``[N, M, T, V]``.
        second: Q of the second, ``[N, M, T, V]``.

    Returns:
        A scalar in [-sqrt(2), 0].
    """
    _check("divergence_loss", second, (first.shape[0], first.shape[1], first.shape[3]), first)
    a, b = (F.normalize(q.flatten(1), dim=1) for q in (first, second))
    return -_norms(a - b).mean()


def adjacency_loss(focuses: Sequence[Tensor], estimates: Sequence[Tensor]) -> Tensor:
    """``L_G = sum over modules of ||Q - beta(X)||_2 / sqrt(T V)``; Q is the teacher, a constant.

    Args:
        focuses: Q of each module, ``[N, M, T, V]``; interpolated to the estimate's frames.
        estimates: beta of each module, ``[N * M, T', V]``.

    Returns:
        A scalar.

    Raises:
        ValueError: there are no modules, or not as many estimates as focuses.
    """
    if not focuses or len(focuses) != len(estimates):
        raise ValueError(
            "adjacency_loss: focuses must be one for each of one or more estimates, "
            f"got {len(focuses)} for {len(estimates)}"
        )
    total = torch.zeros((), dtype=estimates[0].dtype, device=estimates[0].device)
    for q, estimate in zip(focuses, estimates):
        found = estimate.view(*q.shape[:2], *estimate.shape[1:])
        total = total + _distance(found, resampled(q.detach(), estimate.shape[1]))
    return total


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over samples of the norm over persons, frames and joints, divided by sqrt(T V)."""
    size: int = a.shape[2] * a.shape[3]
    return _norms((a - b).flatten(1)).mean() / math.sqrt(size)


def _norms(rows: Tensor) -> Tensor:
    out: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return out


def _check(function: str, q: Tensor, sizes: tuple[int, int, int], other: Tensor) -> None:
    """Raises unless ``q`` is [N, M, T, V] with these N, M and V."""
    if q.dim() != 4 or (q.shape[0], q.shape[1], q.shape[3]) != sizes:
        raise ValueError(
            f"{function}: q must be [N, M, T, V] with N, M, V = {', '.join(map(str, sizes))} "
            f"of {list(other.shape)}, got {list(q.shape)}"
        )
