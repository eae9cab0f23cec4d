"""Start from the weights of another run, with some of the network frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from stgcn_fast import models
from stgcn_fast.training.config import InitConfig
from stgcn_fast.training.errors import ConfigError

__all__ = ["classifier_of", "initialise", "stages_of"]

_CLASSIFIERS = ("fc", "fcn")  # the field's names of the last layer


def classifier_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the last layer: the one called ``fc`` or ``fcn``, also inside a wrapper.

    Raises:
        ConfigError: There is none, or more than one.
    """
    found = [(name, part) for name, part in model.named_modules() if name.split(".")[-1] in _CLASSIFIERS]
    if len(found) != 1:
        kind = type(model).__name__
        raise ConfigError(
            f"init: model must have one last layer called {' or '.join(_CLASSIFIERS)}, "
            f"got {len(found)} in {kind}"
        )
    return found[0]


def stages_of(model: nn.Module) -> list[list[nn.Module]]:
    """Parts of a network from its input to its last layer, which is not among them.

    The first stage is the normalisation at the entrance, then one per block. A network may say its own by a
    method ``stages()``.

    Raises:
        ConfigError: The network is of no kind whose blocks are known.
    """
    own = getattr(model, "stages", None)
    if callable(own):
        return [list(stage) for stage in own()]
    entrance = [module for name, module in model.named_children() if name == "data_bn"]
    children = dict(model.named_children())
    if "st_gcn_networks" in children:
        blocks = [[block] for block in children["st_gcn_networks"].children()]
        importance = getattr(model, "edge_importance", None)
        if isinstance(importance, nn.ParameterList):
            for block, mask in zip(blocks, importance):
                block.append(_Held(mask))
        return [entrance, *blocks]
    if "gcn3d1" in children:
        count = sum(name.startswith("gcn3d") for name in children)
        kinds = ("gcn3d", "sgcn", "tcn")
        return [entrance, *([children[f"{kind}{i}"] for kind in kinds] for i in range(1, count + 1))]
    raise ConfigError(f"init.freeze must be null or last_layer for {type(model).__name__}, got a number")


class _Held(nn.Module):
    """A parameter on its own, as a part of a stage."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


def initialise(model: nn.Module, config: InitConfig, class_names: Sequence[str]) -> list[nn.Module]:
    """Load the weights ``config`` names into a network and freeze what it says.

    Args:
        model: Network as it was built, random.
        config: Checkpoint and freezing.
        class_names: Classes of the run; a checkpoint with others leaves the last layer random.

    Returns:
        The frozen modules, which must stay in evaluation mode; empty without freezing.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ConfigError: The checkpoint is of another network, or there are fewer blocks to freeze.
    """
    if config.checkpoint is None:
        return []
    path = Path(config.checkpoint)
    source, meta = models.load_checkpoint(path)
    head, _ = classifier_of(model)
    same_classes = list(meta.get("class_names", ())) == list(class_names)
    given = source.state_dict()
    wanted = model.state_dict()
    kept = [name for name in wanted if same_classes or not name.startswith(f"{head}.")]
    for name in kept:
        if name not in given:
            raise ConfigError(f"{path}: init.checkpoint must be of the network of model, got no {name}")
        if given[name].shape != wanted[name].shape:
            raise ConfigError(
                f"{path}: init.checkpoint must be of the network of model, "
                f"got {name} of shape {list(given[name].shape)} instead of {list(wanted[name].shape)}"
            )
    unknown = sorted(name for name in given if name not in wanted)
    if unknown:
        raise ConfigError(
            f"{path}: init.checkpoint must be of the network of model, got {unknown[0]} besides"
        )
    with torch.no_grad():
        for name in kept:
            wanted[name].copy_(given[name])
    return _freeze(model, config.freeze)


def _freeze(model: nn.Module, freeze: str | int | None) -> list[nn.Module]:
    if freeze is None:
        return []
    if freeze == "last_layer":
        head, classifier = classifier_of(model)
        model.requires_grad_(False)
        classifier.requires_grad_(True)
        around = {"", head, *(head[:i] for i, letter in enumerate(head) if letter == ".")}
        return [
            part
            for name, part in model.named_modules()
            if name not in around and not name.startswith(f"{head}.")
        ]
    stages = stages_of(model)
    blocks, count = len(stages) - 1, int(freeze)
    if count > blocks:
        raise ConfigError(f"init.freeze must be at most {blocks}, the blocks of the model, got {count}")
    frozen = [part for stage in stages[: count + 1] for part in stage]
    for part in frozen:
        part.requires_grad_(False)
    return frozen
