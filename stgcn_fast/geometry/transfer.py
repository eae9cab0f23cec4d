"""Transfer to new classes with the first layers frozen.

Source: Das, Shekkizhar and Ortega, arXiv 2312.07777, whose observation it is that later layers suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stgcn_fast.explain.layers import unwrapped
from stgcn_fast.geometry.features import Batches
from stgcn_fast.models import MSG3D, STGCN, build
from stgcn_fast.models.registry import name_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """How a network is tuned; the default is ST-GCN's recipe with a tenth of its rate.

    Attributes:
        epochs: Passes over the clips.
        lr: Rate of SGD with Nesterov momentum 0.9.
        milestones: Shares of the epochs behind which the rate falls to a tenth.
        weight_decay: Of all parameters that are tuned.
        seed: Of the new classifier and of dropout.
    """

    epochs: int = 30
    lr: float = 0.01
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class TransferStudy:
    """Outcome of :func:`transfer_study`.

    Attributes:
        depths: Blocks frozen in each run; 0 is full fine-tuning.
        accuracy: Accuracy on the test clips after each run.
        train_accuracy: On the batches of the last epoch.
        trained: Parameters that were tuned.
    """

    depths: list[int]
    accuracy: list[float]
    train_accuracy: list[float]
    trained: list[int]


def stages(model: nn.Module) -> list[list[nn.Module]]:
    """The entrance of a network, then the modules of each block.

    Args:
        model: A network with a ``stages`` method of its own, or ``STGCN`` or ``MSG3D``.

    Raises:
        TypeError: Another network.
    """
    own = getattr(model, "stages", None)
    if callable(own):
        found: list[list[nn.Module]] = own()
        return found
    if isinstance(model, STGCN):
        blocks: list[list[nn.Module]] = [[block] for block in model.st_gcn_networks]
        for block, mask in zip(blocks, model.edge_importance or ()):
            block.append(nn.ParameterList([mask]))
        return [[model.data_bn], *blocks]
    if isinstance(model, MSG3D):
        return [
            [model.data_bn],
            *([getattr(model, f"{part}{i}") for part in ("sgcn", "gcn3d", "tcn")] for i in (1, 2, 3)),
        ]
    raise TypeError(f"stages: model must be an STGCN, MSG3D or STF, got {type(model).__name__}")


def with_classes(model: nn.Module, num_classes: int, seed: int = 0) -> nn.Module:
    """A copy of a network with another number of classes; the classifier is new, everything else is kept.

    Args:
        model: A network of a registered class.
        num_classes: How many.
        seed: Of the new classifier.

    Raises:
        TypeError: The network's class is not registered.
        ValueError: ``num_classes`` is below 2.
    """
    inner: Any = unwrapped(model)
    name = name_of(inner)
    if name is None:
        raise TypeError(f"with_classes: model must be of a registered class, got {type(inner).__name__}")
    if num_classes < 2:
        raise ValueError(f"with_classes: num_classes must be at least 2, got {num_classes}")
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        copied = build(name, **{**inner.config, "num_classes": num_classes})
    finally:
        torch.random.set_rng_state(generator)
    state, old = copied.state_dict(), inner.state_dict()
    # The classifier is told by its shape; with as many classes as before its name tells.
    shapes = build(name, **{**inner.config, "num_classes": inner.num_classes + 1}).state_dict()
    kept = {key: old[key] for key in state if shapes[key].shape == old[key].shape}
    copied.load_state_dict({**state, **kept})
    return copied.to(next(inner.parameters()).device)


def freeze(model: nn.Module, depth: int) -> list[nn.Parameter]:
    """Freezes the entrance and the first blocks of a network; with depth 0, nothing.

    Args:
        model: See :func:`stages`.
        depth: Blocks to freeze.

    Returns:
        The parameters that are left to tune. Frozen BatchNorm must also stay in evaluation mode, which
        :func:`transfer_study` sees to.

    Raises:
        TypeError: As :func:`stages`.
        ValueError: More blocks than there are.
    """
    parts = stages(model)
    if not 0 <= depth < len(parts):
        raise ValueError(f"freeze: depth must be from 0 to {len(parts) - 1} (blocks), got {depth}")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for module in _frozen(parts, depth):
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _frozen(parts: list[list[nn.Module]], depth: int) -> list[nn.Module]:
    return [module for part in parts[: depth + 1] for module in part] if depth else []


def transfer_study(
    model: nn.Module,
    train: Callable[[int], Iterable[tuple[Tensor, Tensor, Any]]],
    test: Batches,
    num_classes: int,
    depths: Sequence[int] | None = None,
    *,
    recipe: Recipe | None = None,
    say: Say | None = None,
) -> TransferStudy:
    """Tunes copies of a network on new classes, each with more of its first blocks frozen.

    Args:
        model: The source network, of a registered class that :func:`stages` knows; left as it is.
        train: Makes the training batches (``x``, labels, anything) of an epoch.
        test: Test batches.
        num_classes: Number of the new classes.
        depths: Blocks to freeze in each run; 0, 1, ... to all of them when None.
        recipe: How to tune.
        say: Receives a line a run.

    Raises:
        TypeError: As :func:`stages` and :func:`with_classes`.
        ValueError: As :func:`freeze` and :func:`with_classes`; a label that is not below ``num_classes``; no
            batches.
    """
    recipe = Recipe() if recipe is None else recipe
    if recipe.epochs < 1 or not recipe.lr > 0:
        raise ValueError(
            f"transfer_study: epochs and lr must be positive, got {recipe.epochs} and {recipe.lr}"
        )
    blocks = len(stages(unwrapped(model))) - 1
    chosen = list(range(blocks + 1)) if depths is None else [int(depth) for depth in depths]
    bad = [depth for depth in chosen if not 0 <= depth <= blocks]
    if bad or not chosen:
        raise ValueError(
            f"transfer_study: depths must be from 0 to {blocks}, got {bad[0] if bad else 'none'}"
        )
    result = TransferStudy(chosen, [], [], [])
    for depth in chosen:
        network = with_classes(model, num_classes, recipe.seed)
        parameters = freeze(network, depth)
        fitted = _tune(network, depth, parameters, train, num_classes, recipe)
        accuracy = _accuracy(network, test)
        result.accuracy.append(accuracy)
        result.train_accuracy.append(fitted)
        result.trained.append(sum(parameter.numel() for parameter in parameters))
        if say is not None:
            say(f"{depth} of {blocks} blocks frozen: top-1 {100 * accuracy:.2f} %")
    return result


def _tune(
    network: nn.Module,
    depth: int,
    parameters: list[nn.Parameter],
    train: Callable[[int], Iterable[tuple[Tensor, Tensor, Any]]],
    num_classes: int,
    recipe: Recipe,
) -> float:
    """Trains; returns the accuracy over the last epoch."""
    device = next(network.parameters()).device
    optimiser = torch.optim.SGD(
        parameters, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    frozen = _frozen(stages(network), depth)
    accuracy = 0.0
    for epoch in range(recipe.epochs):
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        steps = sum(epoch >= share * recipe.epochs for share in recipe.milestones)
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * 0.1**steps
        network.train()
        for module in frozen:
            module.eval()
        correct = seen = 0
        for x, labels, *_ in train(epoch):
            if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
                raise ValueError(
                    f"transfer_study: labels must be in [0, {num_classes}), "
                    f"got {int(labels.min())} to {int(labels.max())}"
                )
            scores = network(x.to(device))
            loss = nn.functional.cross_entropy(scores, labels.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            correct += int((scores.detach().argmax(1).cpu() == labels).sum())
            seen += len(labels)
        if not seen:
            raise ValueError("transfer_study: train must give at least one batch, got none")
        accuracy = correct / seen
    return accuracy


@torch.no_grad()
def _accuracy(network: nn.Module, test: Batches) -> float:
    network.eval()
    device = next(network.parameters()).device
    found = [(network(x.to(device)).argmax(1).cpu() == labels).numpy() for x, labels, *_ in test]
    if not found:
        raise ValueError("transfer_study: test must hold at least one clip, got none")
    return float(np.concatenate(found).mean())
