"""Test a network on clips: probabilities averaged over views, top-1, top-5, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from stgcn_fast.training.progress import Progress

__all__ = ["Evaluation", "evaluate", "figures"]


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of some clips.

    Attributes:
        loss: Mean negative log probability of the true class.
        top1: Share of clips whose likeliest class is the true one.
        top5: Share of clips whose true class is among the five likeliest.
        confusion: int64 [true class, predicted class].
        probabilities: float32 [clips, classes].
        logits: float32 [clips, classes], what the network gives before the softmax.
        labels: int64 [clips].
        positions: int64 [clips], places of the clips in their store.
    """

    loss: float
    top1: float
    top5: float
    confusion: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """JSON-able summary: figures, accuracy by class, confusion matrix."""
        totals = self.confusion.sum(axis=1)
        per_class = {
            str(name): float(self.confusion[i, i] / totals[i]) if totals[i] else None
            for i, name in enumerate(class_names)
        }
        return {
            "clips": len(self.labels),
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
        }


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: DataLoader[Any],
    num_classes: int,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Run ``model`` over every clip of ``loader``.

    Args:
        model: Network from [N, C, T, V, M] to logits [N, classes]; put into evaluation mode meanwhile.
        loader: Batches of [N, R, C, T, V, M], labels [N], positions [N]; probabilities and logits are
            averaged over R.
        num_classes: Number of classes.
        device: Where to compute.
        progress: Called with clips done and their total.

    Returns:
        The figures.

    Raises:
        ValueError: There are no clips, or a label is not in [0, num_classes).
    """
    total = len(loader.dataset)  # type: ignore[arg-type]
    if not total:
        raise ValueError("evaluate: loader must hold at least one clip, got none")
    training = model.training
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    model.eval().to(device)
    chunks: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    done = 0
    for x, y, where in loader:
        n, r = x.shape[:2]
        logits = model(x.flatten(0, 1).to(device=device, dtype=dtype))  # [N * R, classes]
        logits = logits.float().view(n, r, -1)
        chunks.append(logits.softmax(2).mean(1).cpu())
        scores.append(logits.mean(1).cpu())
        labels.append(y)
        positions.append(where)
        done += n
        if progress is not None:
            progress(done, total)
    model.train(training)
    target = torch.cat(labels)
    if int(target.min()) < 0 or int(target.max()) >= num_classes:
        raise ValueError(
            f"evaluate: labels must be in [0, {num_classes}), got {int(target.min())}..{int(target.max())}"
        )
    return figures(torch.cat(chunks), torch.cat(scores), target, torch.cat(positions))


def figures(
    probabilities: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor
) -> Evaluation:
    """Accuracies, loss and confusion matrix of predictions.

    Args:
        probabilities: float32 [clips, classes].
        logits: float32 [clips, classes].
        labels: int64 [clips], each in [0, classes).
        positions: int64 [clips].

    Raises:
        ImportError: torchmetrics is missing.
    """
    try:
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix
    except ImportError as error:
        raise ImportError('testing needs torchmetrics: pip install "stgcn_fast[train]"') from error

    total, num_classes = probabilities.shape
    confusion = multiclass_confusion_matrix(probabilities, labels, num_classes)
    top5 = float(
        multiclass_accuracy(probabilities, labels, num_classes, average="micro", top_k=min(5, num_classes))
    )
    loss = nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), labels)
    return Evaluation(
        loss=float(loss),
        top1=int(confusion.trace()) / total,
        top5=round(top5 * total) / total,  # torchmetrics counts in float32
        confusion=confusion.numpy().astype(np.int64),
        probabilities=probabilities.numpy(),
        logits=logits.numpy(),
        labels=labels.numpy().astype(np.int64),
        positions=positions.numpy().astype(np.int64),
    )
