"""All that this room says of a network on some clips, in one structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stgcn_fast.explain.cam import STGGradCAM
from stgcn_fast.explain.contrast import KINDS, contrastivity
from stgcn_fast.explain.faithfulness import (
    FILLS,
    deletion_curve,
    faithfulness_of_layers,
    insertion_curve,
)
from stgcn_fast.explain.importance import class_importance, node_importance, valid_frames
from stgcn_fast.graph import Layout

Floats = NDArray[Any]
Progress = Callable[[int, "int | None"], None]

# Clips on which joints are occluded; more would only cost time and memory.
_MOST_OCCLUDED = 1024
_MOST_ON_CURVES = 256


@dataclass
class Explanation:
    """Maps of a network on some clips, and figures of them.

    S clips, K classes, L layers, V joints; ``maps`` and ``keypoints`` are of the ``kept`` clips alone.

    Attributes:
        layout: Joints and bones.
        layers: Names of the layers.
        class_names: K names.
        names: S names of clips.
        labels: int64 ``[S]``, -1 for a clip without one.
        predictions: int64 ``[S]``.
        probabilities: float32 ``[S, K]``.
        explained: int64 ``[S]``, the class whose score the maps explain.
        frames: int64 ``[S]``, filled frames of the input.
        input_frames: T of the input.
        importance: float32 ``[L, S, V]``, node importance.
        class_importance: float32 ``[L, K, V]``, each class scaled to [0, 1]; NaN for a class without clips.
        class_maps: For each layer float32 ``[K, T_l, V]``, joint-time maps; NaN likewise.
        counted: bool ``[S]``, clips that the figures of classes are made of.
        kept: int64, positions of the kept clips.
        maps: For each layer float32 ``[kept, M, T_l, V]``.
        keypoints: float32 ``[kept, M, T, V, C]``; empty where none were given.
        figures: ``contrastivity`` by kind and layer, ``faithfulness`` and ``curves`` by layer.
    """

    layout: Layout
    layers: list[str]
    class_names: list[str]
    names: list[str]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: Floats
    explained: NDArray[np.int64]
    frames: NDArray[np.int64]
    input_frames: int
    importance: Floats
    class_importance: Floats
    class_maps: dict[str, Floats]
    counted: NDArray[np.bool_]
    kept: NDArray[np.int64]
    maps: dict[str, Floats]
    keypoints: Floats
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of labelled clips whose prediction is their label; NaN without labels."""
        known = self.labels >= 0
        return float((self.predictions == self.labels)[known].mean()) if known.any() else float("nan")

    @property
    def confusion(self) -> NDArray[np.int64]:
        """int64 ``[K, K]``, true class by predicted class."""
        count = len(self.class_names)
        out = np.zeros((count, count), np.int64)
        known = self.labels >= 0
        np.add.at(out, (self.labels[known], self.predictions[known]), 1)
        return out


def explain_clips(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    layout: Layout,
    class_names: Sequence[str],
    names: Sequence[str],
    layers: str | Sequence[str] = "blocks",
    target: str = "predicted",
    person: int | None = 0,
    reduction: str = "mean",
    correct_only: bool = True,
    keep: int = 100,
    keypoints: Callable[[int], Floats] | None = None,
    occluded: int = 3,
    fill: str = "mean",
    progress: Progress | None = None,
) -> Explanation:
    """Explains a network on clips.

    Args:
        model: The network.
        batches: ``x`` ``[N, C, T, V, M]``, labels ``[N]`` (-1 for none), positions ``[N]`` in ``names``.
        layout: Joints and bones.
        class_names: Names of the classes.
        names: Names of the clips, by position.
        layers: As for :class:`STGGradCAM`.
        target: Class to explain: ``"predicted"`` or ``"label"``.
        person: Whose joints count; None for the mean over persons.
        reduction: As for :class:`STGGradCAM`.
        correct_only: Whether figures of classes leave out clips that the network takes for another class.
        keep: Clips whose maps and keypoints are kept, the classes in turn.
        keypoints: Gives a clip's coordinates ``[M, T, V, C]`` by its position in ``names``; none are kept
            when None.
        occluded: Joints that faithfulness occludes; 0 for no faithfulness.
        fill: What an occluded joint becomes, see :func:`occlude`.
        progress: Called with clips done and None.

    Raises:
        ValueError: An unknown option, no clips, clips without labels that need some, or as
            :class:`STGGradCAM`.
    """
    owner = "explain_clips"
    if target not in ("predicted", "label"):
        raise ValueError(f"{owner}: target must be predicted or label, got {target!r}")
    if fill not in FILLS:
        raise ValueError(f"{owner}: fill must be one of {', '.join(FILLS)}, got {fill!r}")
    cam = STGGradCAM(model, layers, reduction=reduction)  # type: ignore[arg-type]
    count = len(class_names)
    rows: dict[str, list[Any]] = {key: [] for key in ("labels", "p", "explained", "frames", "position", "x")}
    importance: dict[str, list[Floats]] = {name: [] for name in cam.layers}
    sums = {name: np.zeros(0) for name in cam.layers}
    totals = np.zeros(count)
    kept_maps: dict[str, list[Floats]] = {name: [] for name in cam.layers}
    kept, quota, done, length = list[int](), _Quota(keep, count), 0, 0
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for x, labels, positions in batches:
        if target == "label" and bool((labels < 0).any()):
            raise ValueError(f"{owner}: labels must be there for target 'label', got clips without")
        found = cam(x.to(device), labels.to(device) if target == "label" else None)
        if found.scores.shape[1] != count:
            raise ValueError(
                f"{owner}: class_names must be {found.scores.shape[1]} names for this network, got {count}"
            )
        length = x.shape[2]
        frames, classes = valid_frames(x), found.classes.cpu().numpy()
        probabilities = found.scores.float().softmax(1).cpu().numpy()
        right = probabilities.argmax(1) == labels.numpy()
        counted = right | (not correct_only) | (labels.numpy() < 0)
        np.add.at(totals, classes[counted], 1)
        chosen = [i for i in range(len(x)) if quota.takes(int(classes[i]))]
        kept += [done + i for i in chosen]
        for name, maps in found.maps.items():
            values = maps.cpu().numpy()
            importance[name].append(node_importance(values, frames, length, person=person).astype(np.float32))
            one = values.mean(1) if person is None else values[:, person]
            if not sums[name].size:
                sums[name] = np.zeros((count, *one.shape[1:]))
            np.add.at(sums[name], classes[counted], one[counted])
            kept_maps[name].append(values[chosen].astype(np.float32))
        batch = {
            "labels": labels.numpy(), "p": probabilities, "explained": classes, "frames": frames,
            "position": positions.numpy(),
        }  # fmt: skip
        for key, value in batch.items():
            rows[key].append(value)
        if occluded and done < _MOST_OCCLUDED:
            rows["x"].append(x[: _MOST_OCCLUDED - done])
        done += len(x)
        if progress is not None:
            progress(done, None)
    if not done:
        raise ValueError(f"{owner}: batches must hold at least one clip, got none")
    joined = {key: np.concatenate(value) for key, value in rows.items() if key != "x"}
    predictions = joined["p"].argmax(1)
    counted = (predictions == joined["labels"]) | (not correct_only) | (joined["labels"] < 0)
    every = np.stack([np.concatenate(importance[name]) for name in cam.layers])  # [L, S, V]
    groups = np.where(counted, joined["explained"], -1)
    with np.errstate(invalid="ignore"):
        class_maps = {name: (sums[name] / totals[:, None, None]).astype(np.float32) for name in cam.layers}
    places = [] if keypoints is None else [keypoints(int(joined["position"][i])) for i in kept]
    result = Explanation(
        layout=layout,
        layers=cam.layers,
        class_names=[str(name) for name in class_names],
        names=[str(names[int(i)]) for i in joined["position"]],
        labels=joined["labels"].astype(np.int64),
        predictions=predictions.astype(np.int64),
        probabilities=joined["p"].astype(np.float32),
        explained=joined["explained"].astype(np.int64),
        frames=joined["frames"],
        input_frames=length,
        importance=every,
        class_importance=np.stack([class_importance(e, groups, count) for e in every]).astype(np.float32),
        class_maps=class_maps,
        counted=counted,
        kept=np.array(kept, dtype=np.int64),
        maps={name: np.concatenate(values) for name, values in kept_maps.items()},
        keypoints=np.stack(places).astype(np.float32) if places else np.zeros((0,), np.float32),
    )
    result.figures["contrastivity"] = _contrast(result)
    if occluded:
        result.figures |= _occlusions(model, torch.cat(rows["x"]).to(device), result, occluded, fill)
    return result


class _Quota:
    """Which clips to keep: the first of each class, as long as all classes together have room."""

    def __init__(self, keep: int, classes: int) -> None:
        self.each, self.left = -(-keep // classes), keep
        self.taken = [0] * classes

    def takes(self, number: int) -> bool:
        if self.left == 0 or self.taken[number] == self.each:
            return False
        self.taken[number] += 1
        self.left -= 1
        return True


def _contrast(result: Explanation) -> dict[str, dict[str, float]]:
    """By kind and layer; empty with fewer than two classes."""
    present = ~np.isnan(result.class_importance[0]).any(1)
    if present.sum() < 2:
        return {}
    return {
        kind: {name: contrastivity(result.class_importance[i], kind) for i, name in enumerate(result.layers)}
        for kind in KINDS
    }


def _occlusions(model: nn.Module, x: Tensor, result: Explanation, k: int, fill: str) -> dict[str, Any]:
    """Faithfulness of every layer and curves of the last, against the true classes where they are known."""
    known = result.labels[: len(x)] >= 0
    target = np.where(known, result.labels[: len(x)], result.predictions[: len(x)])
    every = faithfulness_of_layers(model, x, list(result.importance[:, : len(x)]), target, k, fill=fill)
    layers = {
        name: {
            "accuracy": found.accuracy,
            "probability": found.probability,
            **{
                which: {"accuracy_drop": part.accuracy_drop, "probability_drop": part.probability_drop}
                for which, part in (("most", found.most), ("least", found.least), ("random", found.random))
            },
        }
        for name, found in zip(result.layers, every)
    }
    some = slice(0, _MOST_ON_CURVES)
    curves = {}
    for name, function in (("deletion", deletion_curve), ("insertion", insertion_curve)):
        curve = function(model, x[some], result.importance[-1, some][: len(x)], target[some], fill=fill)
        curves[name] = {"probability": curve.probability.tolist(), "area": curve.area}
    return {
        "faithfulness": {"joints": k, "clips": len(x), "fill": fill, "layers": layers},
        "curves": curves,
    }
