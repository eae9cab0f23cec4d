"""Cross entropy with the losses of STF, weighted and scheduled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.models.stf import STF, Trace
from stgcn_fast.nn.focus import FOCUS_GRAD, focus, present, scaled
from stgcn_fast.training import losses
from stgcn_fast.training.criterion import CrossEntropy

LOSSES = ("exploration", "divergence", "consistency", "adjacency")
FOCUS_CLASSES = ("predicted", "label")
AUTO = "auto"

__all__ = ["LOSSES", "STFCriterion"]

Parts = dict[str, Tensor]
"""Each loss of a step by name (``ce`` among them), detached, without its weight."""

_DECAY = 0.9  # of the averages that calibrate
_EVERY = 4  # steps from one measurement of a loss that is not trained yet to the next
_LEAST = 1e-2  # of a measured loss: one that happens to be nothing gets no boundless weight


class STFCriterion(CrossEntropy):
    """``L = L_ce + w_e L_e + w_d L_d + w_c L_c + w_G L_G`` of an STF network, for training in mini-batches.

    A weight is a number, or ``"auto"``: ``share`` times the cross entropy over the loss, both averaged over
    the epoch before the loss joins, and then kept ("adjust lambda such that each term is of same order").
    Epochs: ``warmup`` of cross entropy; up to ``start`` with the adjacency loss; then all. As L_e and L_d
    together make training unstable, steps alternate between the cross entropy with L_d, L_c, L_G and the one
    with L_e. The focus of L_e and L_d is that of the last module, L_c compares the last two.

    The masked input of L_e goes through the network with BatchNorm of its own batch, and leaves the running
    statistics as they are: evaluation never sees masked clips.

    Args:
        label_smoothing: of the cross entropy.
        exploration: weight of L_e, ``"auto"`` or a number, zero for none.
        divergence: weight of L_d. With one class only, L_d is zero.
        consistency: weight of L_c.
        adjacency: weight of L_G.
        warmup: epochs of cross entropy alone.
        start: epochs before L_e, L_d and L_c join.
        alternate: whether L_e has steps of its own.
        focus_grad: as :func:`stgcn_fast.nn.focus.focus`, for all losses that differentiate the focus.
        focus_class: whose focus L_c and L_G speak of: the ``"predicted"`` class's, or the ``"label"``'s.
        exploration_score: as :func:`stgcn_fast.training.losses.exploration_loss`.
        symmetric: as :func:`stgcn_fast.training.losses.consistency_loss`.
        threshold: whether L_e masks with a soft threshold, as :func:`stgcn_fast.nn.focus.scaled`.
        share: of the cross entropy that a calibrated loss begins with.

    Raises:
        TypeError: a weight is neither ``"auto"`` nor a number.
        ValueError: a weight is negative or not finite, or another argument is not allowed.

    Source: Ke et al. (2022), "Overall STF loss"; shares, schedule and detached sides are chosen here.
    """

    weights: Tensor
    averages: Tensor

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        exploration: float | str = AUTO,
        divergence: float | str = AUTO,
        consistency: float | str = AUTO,
        adjacency: float | str = AUTO,
        warmup: int = 1,
        start: int = 5,
        alternate: bool = True,
        focus_grad: str = "full",
        focus_class: str = "predicted",
        exploration_score: str = "probability",
        symmetric: bool = False,
        threshold: bool = False,
        share: float = 0.1,
    ) -> None:
        super().__init__(label_smoothing=label_smoothing)
        given = dict(zip(LOSSES, (exploration, divergence, consistency, adjacency)))
        for name, choices, value in (
            ("focus_grad", FOCUS_GRAD, focus_grad),
            ("focus_class", FOCUS_CLASSES, focus_class),
            ("exploration_score", losses.EXPLORATION_SCORES, exploration_score),
        ):
            if value not in choices:
                raise ValueError(f"STFCriterion: {name} must be one of {', '.join(choices)}, got {value!r}")
        for name, number in (("warmup", warmup), ("start", start)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"STFCriterion: {name} must be an integer, got {number!r}")
        if not 0 <= warmup <= start:
            raise ValueError(f"STFCriterion: warmup must be in [0, start = {start}], got {warmup}")
        if not (math.isfinite(share) and share > 0):
            raise ValueError(f"STFCriterion: share must be positive, got {share}")
        self.active = tuple(name for name in LOSSES if given[name] != 0)
        self.warmup, self.start, self.alternate, self.share = warmup, start, alternate, share
        self.focus_grad, self.focus_class, self.symmetric = focus_grad, focus_class, symmetric
        self.exploration_score, self.threshold = exploration_score, threshold
        # NaN until calibrated. Buffers, so that a checkpoint of the run carries them.
        weights = [_weight(name, value) for name, value in given.items()]
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        # Of cross entropy and each loss, at the same steps; then their number.
        self.register_buffer("averages", torch.zeros(len(LOSSES) + 2))
        self._epoch: int | None = None
        self._unknown: frozenset[str] = frozenset()

    def check(self, model: nn.Module) -> None:
        """Says what is wrong with a network before it is trained.

        Raises:
            TypeError: it is no STF network.
            ValueError: the adjacency loss is on and the network has no modules.
        """
        if not isinstance(model, STF):
            raise TypeError(f"STFCriterion: model must be an STF network, got {type(model).__name__}")
        if "adjacency" in self.active and not len(model.focus_modules):
            raise ValueError(
                "STFCriterion: adjacency must be 0 for a network without modules, got one with alpha None"
            )

    def step(
        self, model: nn.Module, x: Tensor, labels: Tensor, epoch: int, iteration: int
    ) -> tuple[Tensor, Tensor, Parts]:
        """The loss of one step, as :meth:`CrossEntropy.step`; the model is an STF network in training mode.

        The parts are ``ce`` and the losses that were computed, without their weights.
        """
        self.check(model)
        net = cast(STF, model)
        if epoch != self._epoch:
            self._open(epoch)
        wanted = self._wanted(epoch, iteration)
        pending = self._pending(epoch, iteration)
        if not wanted and not pending:
            return self._plain(model, x, labels)
        trace = net.trace(x)
        ce = self.cross_entropy(trace.logits, labels)
        terms = self._terms(wanted, net, x, trace, labels, True)
        measured = self._terms(pending, net, x, trace, labels, False)
        if pending:
            self._measure(ce, measured)
        loss = ce
        for name, term in terms.items():
            if name in self._unknown:  # no epoch came before it
                self._set(name, ce.detach(), term.detach())
            loss = loss + self.weights[LOSSES.index(name)].to(term.dtype) * term
        parts = {"ce": ce} | measured | terms
        return loss, trace.logits, {name: part.detach() for name, part in parts.items()}

    def _plain(self, model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Parts]:
        logits: Tensor = model(x)
        loss = self.cross_entropy(logits, labels)
        return loss, logits, {"ce": loss.detach()}

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over samples of logits ``[N, classes]`` against labels ``[N]``."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _open(self, epoch: int) -> None:
        """Begins an epoch: fixes the weights of the losses that join with it."""
        self._epoch = epoch
        self._unknown = frozenset(
            name for name, weight in zip(LOSSES, self.weights.tolist()) if math.isnan(weight)
        )
        averages = self.averages.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(averages)
        if float(averages[-1]) > 0:
            for i, name in enumerate(LOSSES):
                if name in self._unknown and epoch >= self._first(name) and float(averages[i + 1]) != 0:
                    self._set(name, averages[0], averages[i + 1])
        self.averages.zero_()

    def _first(self, name: str) -> int:
        return self.warmup if name == "adjacency" else self.start

    def _set(self, name: str, ce: Tensor, term: Tensor) -> None:
        weight = self.share * ce.float() / term.float().abs().clamp_min(_LEAST)
        # A new tensor: the loss of this step holds the old one.
        weights = self.weights.clone()
        weights[LOSSES.index(name)] = weight
        self.weights = weights
        self._unknown = self._unknown - {name}

    def _wanted(self, epoch: int, iteration: int) -> list[str]:
        names = [name for name in self.active if epoch >= self._first(name)]
        rest = [name for name in names if name != "exploration"]
        if self.alternate and rest and len(rest) < len(names):
            return rest if iteration % 2 == 0 else ["exploration"]
        return names

    def _pending(self, epoch: int, iteration: int) -> list[str]:
        """Losses that join with the next epoch and are to be measured in this step."""
        if iteration % _EVERY:
            return []
        return [name for name in self.active if name in self._unknown and epoch == self._first(name) - 1]

    def _measure(self, ce: Tensor, terms: Parts) -> None:
        values = [
            ce.detach(),
            *(terms[name].detach().abs() if name in terms else 0.0 * ce.detach() for name in LOSSES),
        ]
        new = torch.stack([*values, torch.ones_like(ce)]).to(self.averages)
        if self.averages[-1] > 0:
            new = torch.lerp(new, self.averages, _DECAY)
        self.averages.copy_(new)

    def _terms(
        self, names: list[str], model: STF, x: Tensor, trace: Trace, labels: Tensor, learn: bool
    ) -> Parts:
        """The named losses; with ``learn``, differentiable."""
        if not names:
            return {}
        with torch.set_grad_enabled(learn):
            return self._differentiable(names, model, x, trace, labels, learn)

    def _differentiable(
        self, names: list[str], model: STF, x: Tensor, trace: Trace, labels: Tensor, learn: bool
    ) -> Parts:
        there = present(x)[:, :, None, None]
        last = trace.places[-1]
        chosen: dict[tuple[str, str], Tensor] = {}  # by class and layer

        def look(kind: str, classes: Tensor, layers: list[str], graph: bool) -> list[Tensor]:
            missing = [layer for layer in layers if (kind, layer) not in chosen]
            if missing:
                with torch.enable_grad():
                    score = trace.logits.gather(1, classes[:, None])[:, 0]
                    found = focus(
                        score,
                        [trace.layers[layer] for layer in missing],
                        x.shape[4],
                        focus_grad=self.focus_grad,
                        create_graph=graph,
                    )
                chosen.update({(kind, layer): scaled(q * there) for layer, q in zip(missing, found)})
            return [chosen[kind, layer] for layer in layers]

        top = trace.logits.detach().topk(min(2, trace.logits.shape[1]), 1).indices
        shown = ("label", labels) if self.focus_class == "label" else ("first", top[:, 0])
        terms: Parts = {}
        if "consistency" in names:
            earlier, later = look(*shown, list(trace.places[-2:]), learn)
            terms["consistency"] = losses.consistency_loss(earlier, later, self.symmetric)
        if "divergence" in names:
            if top.shape[1] < 2:
                terms["divergence"] = trace.logits.sum() * 0.0
            else:
                (first,), (second,) = (
                    look("first", top[:, 0], [last], learn),
                    look("second", top[:, 1], [last], learn),
                )
                terms["divergence"] = losses.divergence_loss(first, second)
        if "exploration" in names:
            (q,) = look("first", top[:, 0], [last], learn)
            with _frozen_statistics(model):
                logits = model(losses.masked(x, scaled(q, self.threshold) if self.threshold else q))
            terms["exploration"] = losses.exploration_loss(logits, top[:, 0], self.exploration_score)
        if "adjacency" in names:
            teachers = look(shown[0] + " teacher", shown[1], list(trace.places), False)
            terms["adjacency"] = losses.adjacency_loss(teachers, trace.estimates)
        return {name: terms[name] for name in names}


def _weight(name: str, value: object) -> float:
    """A weight as it is kept: NaN stands for one that is calibrated."""
    if value == AUTO:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"STFCriterion: {name} must be 'auto' or a number, got {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"STFCriterion: {name} must be 'auto' or a number >= 0, got {value}")
    return float(value)


@contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm leaves its running statistics as they are."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    momenta = [layer.momentum for layer in layers]
    counts = [None if (n := layer.num_batches_tracked) is None else n.clone() for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts):
            layer.momentum = cast(float, momentum)
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
