"""The network of a run: the options of the configuration, completed from the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from stgcn_fast import models
from stgcn_fast.graph import mean_joint_distances
from stgcn_fast.training.config import Config
from stgcn_fast.training.errors import ConfigError

__all__ = ["build_model"]

MEASURED = "measured"  # joint distances of the spatial partition, taken from the training clips


def build_model(
    config: Config, store: Any, in_channels: int, num_classes: int, train_clips: Iterable[int] = ()
) -> nn.Module:
    """The network of a configuration for the clips of a store.

    A ``graph`` among its options takes its layout from the store, and ``joint_distances: measured`` becomes
    the mean distances of the joints to the centre of gravity over ``train_clips``.

    Raises:
        ConfigError: Unknown name or option, or a value the model refuses.
    """
    options = dict(config.model.options)
    fixed: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    if "graph" in options:
        options["graph"] = _graph_options(options["graph"], store, train_clips)
    else:
        fixed["layout"] = store.layout
    clash = sorted(set(fixed) & set(options))
    if clash:
        raise ConfigError(f"model.options.{clash[0]} must be left to the data, got {options[clash[0]]!r}")
    torch.manual_seed(config.training.seed)
    try:
        model: nn.Module = models.build(config.model.name, **fixed, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    return model


def _graph_options(given: Any, store: Any, train_clips: Iterable[int]) -> dict[str, Any]:
    """The ``graph`` of the model's options, completed from the data."""
    if not isinstance(given, dict):
        raise ConfigError(f"model.options.graph must be a section with fields, got {given!r}")
    options = {"layout": store.layout} | given
    layout = options["layout"]
    if (layout.get("name") if isinstance(layout, dict) else layout) != store.layout:
        raise ConfigError(
            f"model.options.graph.layout must be that of the data, {store.layout!r}, got {layout!r}"
        )
    if options.get("joint_distances") == MEASURED:
        clips = (store[int(i)] for i in train_clips)
        distances = mean_joint_distances((clip.keypoints, clip.valid) for clip in clips)
        options["joint_distances"] = distances.tolist()
    return options
