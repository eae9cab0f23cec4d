"""Optimisers, learning rates over time, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.training.config import OptimiserConfig, ScheduleConfig

__all__ = ["MovingAverage", "build_optimiser", "learning_rate_factor"]


def learning_rate_factor(schedule: ScheduleConfig, epoch: float, epochs: int) -> float:
    """Learning rate over its peak.

    Args:
        schedule: Which curve.
        epoch: Time since the start, in (fractional) epochs.
        epochs: Length of the run, in epochs.

    Returns:
        A factor in [0, 1]; a pure function of its arguments, so a resumed run needs no scheduler state.
    """
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return epoch / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        return float(schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones))
    progress = min(1.0, (epoch - warmup) / max(epochs - warmup, 1e-9))
    low = schedule.min_factor
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_optimiser(
    config: OptimiserConfig, named: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """Build the optimiser of ``config`` over named parameters.

    With ``decay_norm`` false, vectors (biases, normalisation) and edge importance do not decay.
    """
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim <= 1 or "edge_importance" in name
        (plain if exempt and not config.decay_norm else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": config.weight_decay}]
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0})
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


class MovingAverage(nn.Module):
    """Exponential moving average of a model's parameters; buffers (running statistics) are copied.

    The decay starts low, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the average forgets
    the random weights it began with.

    Args:
        model: Network to follow.
        decay: Weight of the past per update, in (0, 1).
    """

    updates: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None  # the buffer as a plain number, read once after loading

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``."""
        count = int(self.updates) if self._count is None else self._count
        weight = 1.0 - min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)
        buffers = list(self.model.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self._count = count + 1
        self.updates.fill_(self._count)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._count = None

    def train(self, mode: bool = True) -> MovingAverage:
        """Stay in evaluation mode: the average is never trained."""
        return super().train(False)
