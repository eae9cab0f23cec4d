"""Spatio-temporal focus: which joints in which frames the score of a class comes from.

    Q[t,v] = ReLU( sum_c (1/Z) ( sum_t' sum_v' d score / d X[c,t',v'] ) X[c,t,v] ),  Z = T V

for each sample and person, X being the features of a layer.

Source: Ke, Peng and Lyu, "Towards To-a-T Spatio-Temporal Focus for Skeleton-Based Action Recognition" (AAAI
2022). Z, the range and the projection to the input are not stated there and are chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FOCUS_GRAD = ("full", "detach_weights")
_SMALL = 1e-6  # beside the largest focus, so that a focus of zeros stays one
_SHARPNESS, _THRESHOLD = 10.0, 0.5  # of the soft threshold


def focus(
    score: Tensor,
    features: Sequence[Tensor],
    persons: int = 1,
    *,
    focus_grad: str = "full",
    create_graph: bool = False,
) -> list[Tensor]:
    """The focus at several layers, from one backward pass.

    The scores of all samples are added up before they are differentiated, which is exact where samples do not
    meet (in evaluation mode); BatchNorm in training mode lets each see a little of the others.

    Args:
        score: ``[N]``, the score (logit) of one class for each sample.
        features: of each layer ``[N * M, C, T, V]``, which ``score`` was computed from.
        persons: M.
        focus_grad: ``"full"`` differentiates the pooled gradients too (a second derivative of all that lies
            behind the layer), ``"detach_weights"`` takes them for constants. They differ with
            ``create_graph`` only.
        create_graph: whether the result can be differentiated.

    Returns:
        For each layer ``[N, M, T, V]``, not negative.

    Raises:
        ValueError: ``focus_grad`` is unknown, or a shape does not fit.

    Source: Ke et al. (2022), "Extract spatio-temporal focus in Grad-CAM manner".
    """
    if focus_grad not in FOCUS_GRAD:
        raise ValueError(f"focus: focus_grad must be one of {', '.join(FOCUS_GRAD)}, got {focus_grad!r}")
    if score.dim() != 1:
        raise ValueError(f"focus: score must be [N], got {list(score.shape)}")
    for x in features:
        if x.dim() != 4 or x.shape[0] != len(score) * persons:
            rule = f"[N * M, C, T, V] with N = {len(score)}, M = {persons}"
            raise ValueError(f"focus: features must be {rule}, got {list(x.shape)}")
    twice = create_graph and focus_grad == "full"
    gradients = torch.autograd.grad(
        score.sum(), list(features), create_graph=twice, retain_graph=True, materialize_grads=True
    )
    results = []
    for x, gradient in zip(features, gradients):
        pooled = gradient.mean((2, 3))  # [N * M, C]
        results.append(weighted(x if create_graph else x.detach(), pooled, persons))
    return results


def weighted(features: Tensor, weights: Tensor, persons: int = 1) -> Tensor:
    """ReLU of the features' sum over channels with weights.

    Args:
        features: ``[N * M, C, T, V]``.
        weights: ``[N * M, C]``.
        persons: M.

    Returns:
        ``[N, M, T, V]``.
    """
    samples, _, frames, joints = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(samples, frames * joints, -1)
    return F.relu(rows @ weights[:, :, None]).view(-1, persons, frames, joints)


def last_focus(features: Tensor, classifier: Tensor, classes: Tensor, persons: int = 1) -> Tensor:
    """The focus of the last features of a network that averages and classifies linearly, in closed form.

    There the gradient of the score of class y is ``classifier[y] / (M T V)`` everywhere.

    Args:
        features: ``[N * M, C, T, V]``, averaged over frames, joints and persons for the classifier.
        classifier: its weight ``[classes, C]``.
        classes: y of each sample, int64 ``[N]``.
        persons: M.

    Returns:
        ``[N, M, T, V]``.
    """
    _, _, frames, joints = features.shape
    weights = classifier[classes] / (persons * frames * joints)
    return weighted(features, weights.repeat_interleave(persons, 0), persons)


def scaled(q: Tensor, threshold: bool = False) -> Tensor:
    """A focus with largest value one, over all persons of a sample; the largest is taken for a constant.

    Args:
        q: ``[N, M, T, V]``.
        threshold: whether a sigmoid at half of the largest value follows, as Li et al. 2018 (GAIN) have it.

    Returns:
        ``[N, M, T, V]`` in [0, 1]; a focus of zeros stays one.
    """
    if q.numel() == 0:
        return q
    out = q / (q.detach().amax((1, 2, 3), keepdim=True) + _SMALL)
    return torch.sigmoid(_SHARPNESS * (out - _THRESHOLD)) if threshold else out


def resampled(q: Tensor, frames: int) -> Tensor:
    """Linear interpolation along frames; joints stay what they are.

    Args:
        q: ``[..., T, V]``.
        frames: T'.

    Returns:
        ``[..., T', V]``.
    """
    length = q.shape[-2]
    if length == frames:
        return q
    # A product with a matrix: its derivative, unlike interpolate's, sums in one order on every device.
    middle = (torch.arange(frames, device=q.device) + 0.5) * (length / frames) - 0.5
    places = torch.arange(length, device=q.device)
    near = 1 - (middle.clamp(0, length - 1)[:, None] - places).abs()
    return near.clamp_min(0).to(q.dtype) @ q


def present(x: Tensor) -> Tensor:
    """Which persons are there: ``[N, C, T, V, M]`` to ``[N, M]``, one for a person with a value but zero."""
    return (x.detach() != 0).permute(0, 4, 1, 2, 3).flatten(2).any(2).to(x.dtype)
