"""Attributions of other libraries in the shape of our maps."""

from __future__ import annotations

from torch import Tensor

_REDUCTIONS = ("sum", "mean", "abs")


def unfold_attribution(attribution: Tensor, samples: int | None = None, reduction: str = "sum") -> Tensor:
    """Takes persons out of the batch and channels away.

    captum's methods on a layer give ``[N * M, C, T, V]`` (``LayerGradCam`` C = 1), for persons are folded
    into the batch there; its methods on the input give ``[N, C, T, V, M]``.

    Args:
        attribution: ``[N * M, C, T, V]`` or ``[N, C, T, V, M]``.
        samples: N, needed for the first; checked for the second.
        reduction: Over channels: ``"sum"``, ``"mean"``, or ``"abs"``, the sum of absolute values.

    Returns:
        ``[N, M, T, V]``.

    Raises:
        TypeError: The attribution is no tensor.
        ValueError: An unknown reduction, or a shape that does not fit the samples.

    Examples:
        >>> import torch
        >>> unfold_attribution(torch.ones(4, 8, 5, 25), samples=2).shape
        torch.Size([2, 2, 5, 25])
    """
    owner = "unfold_attribution"
    if not isinstance(attribution, Tensor):
        raise TypeError(f"{owner}: attribution must be a tensor, got {type(attribution).__name__}")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{owner}: reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")
    shape = list(attribution.shape)
    if attribution.dim() == 5:
        if samples is not None and samples != len(attribution):
            raise ValueError(f"{owner}: attribution must be [{samples}, C, T, V, M], got {shape}")
        persons = attribution.permute(0, 4, 1, 2, 3)  # [N, M, C, T, V]
    elif attribution.dim() == 4:
        if samples is None or samples < 1 or len(attribution) % samples:
            raise ValueError(
                f"{owner}: samples must divide the {len(attribution)} rows of [N * M, C, T, V], got {samples}"
            )
        persons = attribution.reshape(samples, -1, *attribution.shape[1:])
    else:
        raise ValueError(f"{owner}: attribution must be [N * M, C, T, V] or [N, C, T, V, M], got {shape}")
    if reduction == "mean":
        return persons.mean(2)
    return persons.abs().sum(2) if reduction == "abs" else persons.sum(2)
