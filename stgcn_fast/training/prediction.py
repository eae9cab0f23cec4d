"""From a keypoint file and a checkpoint to a label; needs no Lightning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stgcn_fast import data, models
from stgcn_fast.training.config import Config
from stgcn_fast.training.errors import ConfigError

__all__ = ["Prediction", "Predictor", "predict"]


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one clip.

    Attributes:
        name: Name of the clip.
        label: Likeliest class.
        label_name: Its name.
        probability: Its probability.
        probabilities: float32 [classes].
        class_names: Names in the order of ``probabilities``.
    """

    name: str
    label: int
    label_name: str
    probability: float
    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]

    def top(self, count: int) -> list[tuple[str, float]]:
        """The ``count`` likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[i], float(self.probabilities[i])) for i in order]


class Predictor:
    """A network with the preprocessing it was trained with.

    Args:
        checkpoint: ``.safetensors`` (or ``.json``) written by training.

    Attributes:
        model: The network, in evaluation mode.
        meta: What the checkpoint's JSON says.
        class_names: Names of the classes.
        layout: Name of the joint layout.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint is damaged or was not written by training.
    """

    def __init__(self, checkpoint: str | os.PathLike[str]) -> None:
        self.path = Path(checkpoint)
        model, meta = models.load_checkpoint(self.path)
        self.model: nn.Module = model.eval()
        self.meta: dict[str, Any] = meta
        for key in ("class_names", "layout", "input", "channels"):
            if key not in meta:
                raise ConfigError(
                    f"{self.path}: checkpoint must say its {key!r}, got a file training did not write"
                )
        self.class_names: tuple[str, ...] = tuple(meta["class_names"])
        self.layout: str = meta["layout"]
        self.channels = int(meta["channels"])
        spec = dict(meta["input"])
        transforms = spec.pop("transforms", [])
        self.source_layout: str | None = meta.get("config", {}).get("data", {}).get("layout")
        self.config = Config.from_dict({"data": spec, "transforms": {"eval": transforms}}, str(self.path))

    def inputs(self, clips: Sequence[data.Skeleton]) -> torch.Tensor:
        """Network input [N, C, T, V, M] of some clips.

        Raises:
            ConfigError: A clip has another layout or other coordinates than the network was trained with.
        """
        from stgcn_fast.training.datasets import build_dataset

        if self.source_layout is not None:
            clips = [self._mapped(clip) for clip in clips]
        for clip in clips:
            if clip.layout != self.layout:
                raise ConfigError(
                    f"{clip.name}: layout must be {self.layout!r} as in {self.path}, got {clip.layout!r}"
                )
        entries = self.config.transforms.eval or []
        dataset = build_dataset(list(clips), None, entries, self.config.data, self.layout)
        x = torch.stack([dataset[i][0] for i in range(len(dataset))])
        if x.shape[1] != self.channels:
            raise ConfigError(
                f"{clips[0].name}: clip must give {self.channels} channels as in {self.path}, "
                f"got {x.shape[1]}"
            )
        return x

    def _mapped(self, clip: data.Skeleton) -> data.Skeleton:
        """A clip of the data the network was trained on comes in the network's layout, as it did there."""
        try:
            return data.map_joints(clip, self.layout)
        except ValueError as error:
            raise ConfigError(f"{clip.name}: {error}") from error

    @torch.no_grad()
    def __call__(self, clips: Sequence[data.Skeleton]) -> list[Prediction]:
        """Predictions of some clips, in their order."""
        if not clips:
            return []
        probabilities = self.model(self.inputs(clips)).float().softmax(1).numpy()
        results = []
        for clip, row in zip(clips, probabilities):
            label = int(row.argmax())
            results.append(
                Prediction(
                    clip.name, label, self.class_names[label], float(row[label]), row, self.class_names
                )
            )
        return results


def predict(
    path: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    format: str | None = None,
    **options: Any,
) -> Prediction:
    """Label one keypoint file, or one video.

    Args:
        path: File (or directory of frames) in any readable format.
        checkpoint: ``.safetensors`` written by training.
        format: Name of the format; detected when None.
        **options: For the reader, such as ``layout``; arrays that name none have the checkpoint's where the
            joint count is its own, and videos have the checkpoint's.

    Raises:
        FormatError: The file breaks its format.
        ConfigError: The file does not fit the checkpoint, or shows nobody.
    """
    predictor = Predictor(checkpoint)
    format = data.detect_format(path) if format is None else format
    if format == "arrays" and options.get("layout") is None:
        options["default_layout"] = predictor.layout
    elif format == "video":
        options.setdefault("layout", predictor.layout)
    clip = data.read(path, format, **options)
    if clip.layout != predictor.layout and predictor.source_layout is None:
        raise ConfigError(
            f"{path}: layout must be {predictor.layout!r} as in {checkpoint}, got {clip.layout!r}"
        )
    if not clip.valid.any():
        raise ConfigError(f"{path}: clip must show at least one joint, got none")
    return predictor([clip])[0]
