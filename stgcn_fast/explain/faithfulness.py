"""Faithfulness: what occluding important joints does to the network, against unimportant and random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from stgcn_fast.explain.capture import evaluating
from stgcn_fast.explain.layers import unwrapped

FILLS = ("mean", "still", "centre", "zero")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Occlusion:
    """Figures of the network on clips with joints occluded.

    Attributes:
        accuracy: Share of clips whose likeliest class is the target.
        probability: Mean probability of the target.
        accuracy_drop: Accuracy of the untouched clips less this.
        probability_drop: Likewise.
    """

    accuracy: float
    probability: float
    accuracy_drop: float
    probability_drop: float


@dataclass(frozen=True)
class Faithfulness:
    """Outcome of :func:`faithfulness`.

    Attributes:
        accuracy: Of the untouched clips.
        probability: Mean probability of the target on them.
        most: With the k most important joints occluded.
        least: With the k least important ones.
        random: With k random ones, mean over the draws.
        k: Joints occluded.
    """

    accuracy: float
    probability: float
    most: Occlusion
    least: Occlusion
    random: Occlusion
    k: int


@dataclass(frozen=True)
class Curve:
    """Mean probability of the target while joints are taken away or come back.

    Attributes:
        probability: ``[V + 1]``, with 0 to V joints changed.
        area: Mean height of the curve (trapezoidal rule): low is good for deletion, high for insertion.
    """

    probability: Floats
    area: float


def occlude(x: Tensor, joints: Tensor, fill: str = "mean") -> Tensor:
    """Takes joints out of clips, over all frames and persons that are there.

    What stands in for a joint should tell nothing of the clip and yet be a place where the network has seen
    that joint: a body folded into the origin is like nothing it was trained on, and then any joint's loss
    ruins the score, be it important or not.

    Args:
        x: ``[N, C, T, V, M]``; a frame of zeros holds no body and stays as it is.
        joints: bool ``[N, V]``, those to occlude.
        fill: What an occluded joint becomes: ``"mean"``, its mean over all clips given; ``"still"``, its mean
            over the frames of the same body, which takes away its motion alone; ``"centre"``, the mean of all
            joints of the body in that frame; ``"zero"``.

    Returns:
        A changed copy.

    Raises:
        ValueError: An unknown fill, or shapes that do not fit.
    """
    if fill not in FILLS:
        raise ValueError(f"occlude: fill must be one of {', '.join(FILLS)}, got {fill!r}")
    if x.dim() != 5 or joints.shape != (x.shape[0], x.shape[3]):
        raise ValueError(
            f"occlude: x and joints must be [N, C, T, V, M] and [N, V], "
            f"got {list(x.shape)} and {list(joints.shape)}"
        )
    marked = joints[:, None, None, :, None]
    if fill == "zero":
        return torch.where(marked, torch.zeros_like(x[:1]), x)
    if fill == "centre":
        return torch.where(marked, x.mean(3, keepdim=True), x)
    there = (x != 0).any(3, keepdim=True).any(1, keepdim=True)  # [N, 1, T, 1, M]
    over = (0, 2, 4) if fill == "mean" else (2,)
    # Frames without a body add nothing to a sum.
    means = x.sum(over, keepdim=True) / there.sum(over, keepdim=True).clamp(min=1)
    return torch.where(marked & there, means, x)


def faithfulness(
    model: nn.Module,
    x: Tensor,
    importance: ArrayLike,
    target: Any,
    k: int = 3,
    *,
    fill: str = "mean",
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> Faithfulness:
    """Occludes the k most, least and random important joints of each clip.

    Args:
        model: From ``[N, C, T, V, M]`` to scores; evaluated in evaluation mode.
        x: Clips, ``[N, C, T, V, M]``.
        importance: ``[N, V]``, of :func:`stgcn_fast.explain.node_importance`.
        target: ``[N]``, class of each clip: the true or the predicted one.
        k: Joints to occlude, below V.
        fill: See :func:`occlude`.
        draws: Random choices of joints, for each clip anew.
        seed: Of the choices.
        batch_size: Clips in a pass.

    Raises:
        ValueError: Shapes do not fit, or a number is out of range.
    """
    (found,) = faithfulness_of_layers(
        model, x, [importance], target, k, fill=fill, draws=draws, seed=seed, batch_size=batch_size
    )
    return found


def faithfulness_of_layers(
    model: nn.Module,
    x: Tensor,
    importances: Sequence[ArrayLike],
    target: Any,
    k: int = 3,
    *,
    fill: str = "mean",
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Faithfulness]:
    """:func:`faithfulness` of several importances, which share the passes that do not depend on them.

    Args:
        model: See :func:`faithfulness`.
        x: See :func:`faithfulness`.
        importances: Of each layer ``[N, V]``.
        target: See :func:`faithfulness`.
        k: See :func:`faithfulness`.
        fill: See :func:`occlude`.
        draws: See :func:`faithfulness`.
        seed: See :func:`faithfulness`.
        batch_size: Clips in a pass.

    Raises:
        ValueError: As :func:`faithfulness`.
    """
    owner = "faithfulness"
    ranks = [_ranks(x, importance, owner) for importance in importances]
    joints = x.shape[3]
    if not 1 <= k < joints:
        raise ValueError(f"{owner}: k must be from 1 to {joints - 1} (joints less one), got {k}")
    if draws < 1:
        raise ValueError(f"{owner}: draws must be at least 1, got {draws}")
    classes = _targets(target, len(x), owner)

    def figures(chosen: Tensor) -> tuple[float, float]:
        return _figures(model, occlude(x, chosen, fill), classes, batch_size)

    accuracy, probability = _figures(model, x, classes, batch_size)

    def occlusion(found: tuple[float, float]) -> Occlusion:
        return Occlusion(*found, accuracy - found[0], probability - found[1])

    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        order = torch.from_numpy(generator.random((len(x), joints)).argsort(1).argsort(1)).to(x.device)
        drawn.append(figures(order < k))
    mean = np.mean(drawn, axis=0)
    random = occlusion((float(mean[0]), float(mean[1])))
    return [
        Faithfulness(
            accuracy, probability, occlusion(figures(r < k)), occlusion(figures(r >= joints - k)), random, k
        )
        for r in ranks
    ]


def deletion_curve(
    model: nn.Module,
    x: Tensor,
    importance: ArrayLike,
    target: Any,
    *,
    fill: str = "mean",
    batch_size: int = 64,
) -> Curve:
    """Probability of the target while joints go, the most important first.

    Args:
        model: See :func:`faithfulness`.
        x: See :func:`faithfulness`.
        importance: See :func:`faithfulness`.
        target: See :func:`faithfulness`.
        fill: See :func:`occlude`.
        batch_size: Clips in a pass.

    Raises:
        ValueError: Shapes do not fit.
    """
    return _curve(model, x, importance, target, fill, batch_size, "deletion_curve")


def insertion_curve(
    model: nn.Module,
    x: Tensor,
    importance: ArrayLike,
    target: Any,
    *,
    fill: str = "mean",
    batch_size: int = 64,
) -> Curve:
    """Probability of the target while joints come into an occluded clip, the most important first.

    Arguments and errors are those of :func:`deletion_curve`.
    """
    return _curve(model, x, importance, target, fill, batch_size, "insertion_curve")


def _curve(
    model: nn.Module, x: Tensor, importance: ArrayLike, target: Any, fill: str, batch_size: int, owner: str
) -> Curve:
    ranks = _ranks(x, importance, owner)
    classes = _targets(target, len(x), owner)
    heights = []
    for count in range(x.shape[3] + 1):
        joints = ranks >= count if owner == "insertion_curve" else ranks < count
        heights.append(_figures(model, occlude(x, joints, fill), classes, batch_size)[1])
    curve = np.array(heights)
    return Curve(curve, float(((curve[1:] + curve[:-1]) / 2).mean()))


def _ranks(x: Tensor, importance: ArrayLike, owner: str) -> Tensor:
    """``[N, V]``, 0 for the most important joint of a clip; among equals the first joint comes first."""
    values = np.asarray(importance, dtype=np.float64)
    if x.dim() != 5 or values.shape != (x.shape[0], x.shape[3]) or not len(x):
        raise ValueError(
            f"{owner}: x and importance must be [N, C, T, V, M] and [N, V], "
            f"got {list(x.shape)} and {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{owner}: importance must be finite, got NaN or infinity")
    return torch.from_numpy((-values).argsort(1, kind="stable").argsort(1)).to(x.device)


def _targets(target: Any, count: int, owner: str) -> Tensor:
    classes = torch.as_tensor(target)
    if classes.shape != (count,) or classes.is_floating_point() or (count and int(classes.min()) < 0):
        raise ValueError(f"{owner}: target must be {count} classes from 0 up, got {list(classes.shape)}")
    return classes.long()


@torch.no_grad()
def _figures(model: nn.Module, x: Tensor, classes: Tensor, batch_size: int) -> tuple[float, float]:
    """Accuracy and mean probability of the target."""
    correct, total = 0, 0.0
    with evaluating(unwrapped(model)):
        for start in range(0, len(x), batch_size):
            probabilities = model(x[start : start + batch_size]).float().softmax(1).cpu()
            wanted = classes[start : start + batch_size].cpu()
            correct += int((probabilities.argmax(1) == wanted).sum())
            total += float(probabilities.gather(1, wanted[:, None]).double().sum())
    return correct / len(x), total / len(x)
