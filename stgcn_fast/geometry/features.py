"""Features of every layer of a network, as sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stgcn_fast.dtw import Sequences
from stgcn_fast.explain.capture import by_person, capture
from stgcn_fast.explain.importance import valid_frames
from stgcn_fast.explain.layers import resolve

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]
Progress = Callable[[int, "int | None"], None]

_BUDGET = 2 << 30


@dataclass(frozen=True)
class LayerFeatures:
    """Features of one layer.

    Attributes:
        layer: Its name.
        sequences: N sequences ``[T_i, C * V]``, without padding.
        frames: T_l, with padding.
        input_frames: T of the network's input.
    """

    layer: str
    sequences: Sequences
    frames: int
    input_frames: int


@dataclass(frozen=True)
class Predicted:
    """What the network made of the clips.

    Attributes:
        labels: int64 ``[N]``.
        predictions: int64 ``[N]``.
        positions: int64 ``[N]``.
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    positions: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of clips whose prediction is their label."""
        return float((self.labels == self.predictions).mean())


def layer_features(
    model: nn.Module,
    batches: Batches,
    layers: str | Sequence[str] = "blocks",
    *,
    person: int | None = 0,
    budget: int = _BUDGET,
    done: Callable[[Predicted], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[LayerFeatures]:
    """Features of each layer, one layer after another.

    The network runs over the batches as often as the layers' features need to stay within the budget.

    Args:
        model: From ``[N, C, T, V, M]`` to scores.
        batches: ``x``, labels and positions; gone through once or several times, each time the same.
        layers: As for :class:`stgcn_fast.explain.STGGradCAM`.
        person: Whose features; None for those of all persons, joint by joint.
        budget: Bytes of features held at a time; one layer is held in any case.
        done: Called with the predictions before the first layer's features come.
        progress: Called with clips done and None.

    Raises:
        ValueError: No batches, an unknown layer, or a person who is not there.
    """
    owner = "layer_features"
    modules = resolve(model, layers, owner)
    waiting = list(modules)
    first = True
    sizes: dict[str, int] = {}
    while waiting:
        # The first pass looks at all sizes with its first batch.
        group = waiting if first else _group(waiting, sizes, budget)
        parts: dict[str, list[Any]] = {name: [] for name in group}
        lengths: dict[str, int] = {}
        told: list[tuple[Any, Any, Any]] = []
        input_frames = count = 0
        total = _length(batches)
        for x, labels, positions in batches:
            found = capture(model, {name: modules[name] for name in group}, x, owner, gradients=False)
            if first and not sizes:
                for name in group:
                    own = found.features[name]
                    sizes[name] = own[0].numel() * (own.shape[0] // len(x)) * 4 * total
                kept = _group(waiting, sizes, budget)
                parts, group = {name: parts[name] for name in kept}, kept
            input_frames = x.shape[2]
            filled = valid_frames(x)
            for name in group:
                own = by_person(found.features[name], len(x), name, owner)
                rows, lengths[name] = _rows(own, person, filled, input_frames, owner)
                parts[name] += rows
            told.append((labels.numpy(), found.scores.argmax(1).cpu().numpy(), positions.numpy()))
            count += len(x)
            if progress is not None:
                progress(count, None)
        if not count:
            raise ValueError(f"{owner}: batches must hold at least one clip, got none")
        if first and done is not None:
            done(Predicted(*(np.concatenate(values).astype(np.int64) for values in zip(*told))))
        first = False
        for name in group:
            rows = parts.pop(name)
            offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
            yield LayerFeatures(name, Sequences(np.concatenate(rows), offsets), lengths[name], input_frames)
        waiting = waiting[len(group) :]


def _length(batches: Any) -> int:
    """Clips in all batches, as far as they say."""
    dataset = getattr(batches, "dataset", None)
    if dataset is not None:
        return len(dataset)
    return sum(len(batch[0]) for batch in batches) if isinstance(batches, (list, tuple)) else 1


def _group(waiting: list[str], sizes: dict[str, int], budget: int) -> list[str]:
    """The next layers that fit into the budget together, at least one."""
    group, total = waiting[:1], sizes[waiting[0]]
    for name in waiting[1:]:
        total += sizes[name]
        if total > budget:
            break
        group.append(name)
    return list(group)


def _rows(
    persons: Tensor,  # [N, M, C, T, V]
    person: int | None,
    filled: NDArray[np.int64],
    input_frames: int,
    owner: str,
) -> tuple[list[NDArray[np.float32]], int]:
    """Each clip's ``[T_i, C * V]``, and T_l."""
    count = persons.shape[1]
    if person is not None and not 0 <= person < count:
        raise ValueError(f"{owner}: person must be in [0, {count}), got {person}")
    chosen = persons if person is None else persons[:, person : person + 1]
    rows = chosen.permute(0, 3, 1, 2, 4).flatten(2).to(torch.float32).cpu().numpy()  # [N, T, M * C * V]
    length = rows.shape[1]
    valid = np.ceil(length * filled / input_frames).astype(int)
    # Copies, because the features of the whole batch would stay with a view.
    return [np.array(row[:n]) for row, n in zip(rows, valid)], length
