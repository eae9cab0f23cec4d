"""Layer-wise STG-GradCAM: what each layer of a network looks at for a class, from one backward pass.

Source: Das and Ortega, "Gradient-Weighted Class Activation Mapping for Spatio Temporal Graph Convolutional
Network" (ICASSP 2022) and Das, Shekkizhar and Ortega, arXiv 2312.07777.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stgcn_fast.explain.capture import by_person, capture
from stgcn_fast.explain.layers import resolve
from stgcn_fast.explain.normalise import NORMALISATIONS, normalise_maps

_REDUCTIONS = ("mean", "sum")
_PERSONS = ("joint", "each")

Target = int | Sequence[int] | Tensor | str | None


@dataclass(frozen=True)
class CAMResult:
    """Maps of one batch.

    Attributes:
        maps: For each layer ``[N, M, T_l, V]``; with several classes a sample ``[N, Q, M, T_l, V]``.
        classes: The class that each map explains, ``[N]`` or ``[N, Q]``.
        scores: The network's scores (logits), ``[N, num_classes]``.
    """

    maps: dict[str, Tensor]
    classes: Tensor
    scores: Tensor


class STGGradCAM:
    """Class activation maps of any layers of a spatio-temporal graph network.

    With F the output of a layer and s the score of a class,
    ``alpha[n, c] = mean over m, t, v of ds/dF[n, m, c, t, v]`` and
    ``map[n, m, t, v] = ReLU(mean over c of alpha[n, c] * F[n, m, c, t, v])``.
    All layers come from one backward pass. The network runs in evaluation mode and without dropout; layers
    fused or compiled otherwise step aside where they are watched, so results are those of the plain network.

    Args:
        model: From ``[N, C, T, V, M]`` (or any input with samples in front) to scores ``[N, classes]``.
        layers: ``"blocks"``, or names of modules. Their outputs must be ``[N * M, C, T, V]``, samples in
            front of persons, or ``[N, M, C, T, V]``.
        reduction: ``"mean"`` over channels, as released by the authors, or ``"sum"``.
        persons: ``"joint"``: alpha is the mean over all persons of a sample, as released; ``"each"``: over
            each person alone, as Grad-CAM of the folded batch gives it.
        normalize: None; ``"map"``: each map to [0, 1]; ``"layer"``: all maps of a layer and batch together;
            ``"class"``: those of a layer that explain the same class.
        relu: Whether negative values become zero.

    Raises:
        TypeError: The model is no module.
        ValueError: An unknown layer or option.

    Examples:
        >>> from stgcn_fast.models import STGCN
        >>> model = STGCN(num_classes=5, layout="ntu25", width=0.25)
        >>> result = STGGradCAM(model)(torch.randn(2, 3, 16, 25, 1))
        >>> result.maps["block10"].shape
        torch.Size([2, 1, 4, 25])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] = "blocks",
        *,
        reduction: Literal["mean", "sum"] = "mean",
        persons: Literal["joint", "each"] = "joint",
        normalize: Literal["map", "layer", "class"] | None = None,
        relu: bool = True,
    ) -> None:
        owner = "STGGradCAM"
        self._modules = resolve(model, layers, owner)
        for name, value, known in (
            ("reduction", reduction, _REDUCTIONS),
            ("persons", persons, _PERSONS),
            ("normalize", normalize, NORMALISATIONS),
        ):
            if value not in known:
                raise ValueError(
                    f"{owner}: {name} must be one of {', '.join(map(str, known))}, got {value!r}"
                )
        self.model = model
        self.reduction, self.persons, self.normalize, self.relu = reduction, persons, normalize, relu

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order of the maps."""
        return list(self._modules)

    def __call__(self, x: Tensor, target: Target = None) -> CAMResult:
        """Maps of a batch.

        Args:
            x: Input of the network, ``[N, C, T, V, M]``.
            target: Class to explain: None, the one predicted; ``"top2"``, the two likeliest; a number for all
                samples; ``[N]``, one for each sample; ``[N, Q]``, several for each.

        Raises:
            TypeError: ``x`` is no tensor.
            ValueError: The target does not fit, a layer gives no maps or has no part in the scores.
        """
        owner = "STGGradCAM"
        if not isinstance(x, Tensor):
            raise TypeError(f"{owner}: x must be a tensor, got {type(x).__name__}")
        with torch.inference_mode(False), torch.enable_grad():
            return self._explain(x, target, owner)

    def _explain(self, x: Tensor, target: Target, owner: str) -> CAMResult:
        found = capture(self.model, self._modules, x, owner)
        scores, samples = found.scores, len(x)
        classes = _classes(target, scores.detach(), owner)
        columns = classes if classes.dim() == 2 else classes[:, None]  # [N, Q]
        several: dict[str, list[Tensor]] = {name: [] for name in self._modules}
        for q in range(columns.shape[1]):
            gradients = _gradients(
                scores.gather(1, columns[:, q : q + 1]).sum(),
                found.features,
                q + 1 < columns.shape[1],
                owner,
            )
            for name, gradient in gradients.items():
                with torch.no_grad():
                    several[name].append(
                        self._map(
                            by_person(found.features[name].detach(), samples, name, owner),
                            by_person(gradient, samples, name, owner),
                        )
                    )
        maps = {
            name: each[0] if classes.dim() == 1 else torch.stack(each, 1) for name, each in several.items()
        }
        if self.normalize is not None:
            maps = {name: normalise_maps(m, self.normalize, classes) for name, m in maps.items()}
        return CAMResult(maps, classes, scores.detach())

    def _map(self, features: Tensor, gradient: Tensor) -> Tensor:
        """``[N, M, T, V]`` from features and gradient, both ``[N, M, C, T, V]``."""
        alpha = channel_means(gradient)  # [N, M, C]
        if self.persons == "joint":
            alpha = alpha.mean(1, keepdim=True).expand_as(alpha)
        if self.reduction == "mean":
            alpha = alpha / features.shape[2]
        out = weighted_channels(features, alpha)
        return out.relu_() if self.relu else out


def _gradients(score: Tensor, features: dict[str, Tensor], again: bool, owner: str) -> dict[str, Tensor]:
    """Gradient of a score by each layer's output, from one backward pass."""
    found: Sequence[Tensor | None] = [None] * len(features)
    if score.requires_grad:
        found = torch.autograd.grad(score, list(features.values()), retain_graph=again, allow_unused=True)
    result = {}
    for name, gradient in zip(features, found):
        if gradient is None:
            raise ValueError(f"{owner}: layer {name!r} must take part in the scores, got no gradient")
        result[name] = gradient
    return result


def channel_means(values: Tensor) -> Tensor:
    """Means over frames and joints, ``[N, M, C, T, V]`` -> ``[N, M, C]``.

    In channels_last memory the sum runs over whole rows: over frames of single channels it would be many
    times slower.
    """
    n, m, c, t, v = values.shape
    rows = values.permute(0, 1, 3, 4, 2)
    if rows.is_contiguous():
        return rows.reshape(n, m, t * v, c).sum(2) / (t * v)
    return values.mean((3, 4))


def weighted_channels(features: Tensor, weights: Tensor) -> Tensor:
    """Sums over channels of ``[N, M, C, T, V]`` by weights ``[N, M, C]`` -> ``[N, M, T, V]``."""
    n, m, c, t, v = features.shape
    rows = features.permute(0, 1, 3, 4, 2)
    if rows.is_contiguous():
        return torch.matmul(rows.reshape(n, m, t * v, c), weights[..., None]).view(n, m, t, v)
    return torch.matmul(weights[:, :, None], features.reshape(n, m, c, t * v)).view(n, m, t, v)


def _classes(target: Target, scores: Tensor, owner: str) -> Tensor:
    """``[N]`` or ``[N, Q]``, int64."""
    samples, count = scores.shape
    if target is None:
        return scores.argmax(1)
    if isinstance(target, str):
        if target != "top2":
            raise ValueError(f"{owner}: target must be None, 'top2' or classes, got {target!r}")
        if count < 2:
            raise ValueError(f"{owner}: target 'top2' must have two classes to choose from, got {count}")
        return scores.topk(2, 1).indices
    given = torch.as_tensor(target, device=scores.device)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{owner}: target must be integers, got {given.dtype}")
    given = given.long()
    if given.dim() == 0:
        given = given.expand(samples)
    if given.dim() > 2 or len(given) != samples or 0 in given.shape[1:]:
        raise ValueError(
            f"{owner}: target must have shape [{samples}] or [{samples}, Q], got {list(given.shape)}"
        )
    if given.numel() and not (int(given.min()) >= 0 and int(given.max()) < count):
        raise ValueError(
            f"{owner}: target must be in [0, {count}), got {int(given.min())} to {int(given.max())}"
        )
    return given
