"""What training minimises, by name."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from torch import Tensor, nn

__all__ = ["CrossEntropy", "build_criterion", "list_criteria"]

# Where each criterion lives; a module is imported when it is asked for.
_HOMES = {
    "cross_entropy": ("stgcn_fast.training.criterion", "CrossEntropy"),
    "stf": ("stgcn_fast.training.stf_criterion", "STFCriterion"),
}


class CrossEntropy(nn.Module):
    """Cross entropy of the logits.

    Args:
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def step(
        self, model: nn.Module, x: Tensor, labels: Tensor, epoch: int, iteration: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """One training step up to the loss.

        Args:
            model: Network from [N, C, T, V, M] to logits [N, classes].
            x: Clips [N, C, T, V, M].
            labels: Their classes [N].
            epoch: From 0.
            iteration: Number of the batch within the epoch, from 0.

        Returns:
            The loss, a number with its graph; the logits [N, classes]; and parts of the loss by name,
            detached, none here.
        """
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return loss, logits, {}


def list_criteria() -> list[str]:
    """Names of all criteria, sorted."""
    return sorted(_HOMES)


def build_criterion(name: str, *, label_smoothing: float = 0.0, **options: Any) -> nn.Module:
    """Builds a criterion: a module with a method ``step`` as :meth:`CrossEntropy.step`.

    What it must remember from one step to the next it keeps in buffers, which a resumed run gets back.

    Args:
        name: One of :func:`list_criteria`.
        label_smoothing: Of its cross entropy.
        options: Its keywords.

    Raises:
        ValueError: An unknown name or option, or a value that the criterion refuses.
        TypeError: An option has the wrong type.
    """
    if name not in _HOMES:
        raise ValueError(f"build_criterion: name must be one of {', '.join(list_criteria())}, got {name!r}")
    module, attribute = _HOMES[name]
    kind = getattr(import_module(module), attribute)
    known = [key for key in inspect.signature(kind).parameters if key != "label_smoothing"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"build_criterion: options of {name} must be among {', '.join(known) or 'none'}, "
            f"got {', '.join(unknown)}"
        )
    criterion: nn.Module = kind(label_smoothing=label_smoothing, **options)
    return criterion
