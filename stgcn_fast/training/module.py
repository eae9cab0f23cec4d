"""The Lightning module: one network, one loss, the learning rate, the metrics of an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

try:
    import lightning.pytorch as pl
    from torchmetrics.classification import MulticlassAccuracy
except ImportError as _error:  # pragma: no cover - exercised only without the extra
    raise ImportError(
        'training needs lightning and torchmetrics: pip install "stgcn_fast[train]"'
    ) from _error

from stgcn_fast.training.config import Config
from stgcn_fast.training.criterion import build_criterion
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.schedule import MovingAverage, build_optimiser, learning_rate_factor

__all__ = ["SkeletonModule", "build_checked_criterion"]


class SkeletonModule(pl.LightningModule):
    """Train and validate one network on skeleton clips.

    Everything random in an epoch follows from the seed and the epoch's number, and the learning rate from
    the step's number, so a run resumed at an epoch's end continues exactly as if it had not stopped.

    Args:
        model: Network from [N, C, T, V, M] to logits [N, classes].
        config: The run.
        num_classes: Number of classes.
        frozen: Parts of the network that stay in evaluation mode.

    Attributes:
        history: One record per finished epoch: losses, accuracies, learning rate, seconds.
    """

    def __init__(
        self, model: nn.Module, config: Config, num_classes: int, frozen: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.average = MovingAverage(model, config.optimiser.ema) if config.optimiser.ema else None
        self.criterion: Any = build_checked_criterion(config, model)
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))
        self.history: list[dict[str, float]] = []
        self._sums = torch.zeros(3)
        self._parts: dict[str, Tensor] = {}  # by name: sum over clips, and clips
        self._validation_sums = torch.zeros(2)
        self._validation_seen = 0
        self._record: dict[str, float] = {}
        self._started = 0.0
        self._frozen = tuple(frozen)  # a tuple, so that they are not registered a second time

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and keep: the moving average where there is one."""
        return self.model if self.average is None else self.average.model

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of ``x`` [N, C, T, V, M] by the network to evaluate."""
        logits: Tensor = self.network(x)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; its learning rate is set at every step."""
        return build_optimiser(self.config.optimiser, self.model.named_parameters())

    def _start_epoch(self) -> None:
        # Dropout's random numbers restart with the epoch, so that resuming needs no generator state.
        seed = (self.config.training.seed << 24) + (self.current_epoch << 8) + self.global_rank
        torch.manual_seed(seed)
        for part in self._frozen:
            part.eval()
        self._sums = torch.zeros(3, device=self.device)
        self._parts = {}
        self._record = {}
        self._started = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        if batch_idx == 0:
            self._start_epoch()
        steps = int(self.trainer.num_training_batches)
        factor = learning_rate_factor(
            self.config.optimiser.schedule,
            self.current_epoch + (batch_idx + 0.5) / steps,  # the middle of the step
            self.config.training.epochs,
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.config.optimiser.lr * factor
        x, labels, _ = batch  # [N, C, T, V, M], [N], [N]
        loss: Tensor
        loss, logits, parts = self.criterion.step(self.model, x, labels, int(self.current_epoch), batch_idx)
        with torch.no_grad():
            count = len(labels)
            correct = (logits.argmax(1) == labels).sum()
            self._sums += torch.stack((loss.detach() * count, correct, correct.new_tensor(count)))
            for name, value in parts.items():
                seen = self._parts.setdefault(name, self._sums.new_zeros(2))
                seen += torch.stack((value.detach() * count, self._sums.new_tensor(count)))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average of the weights."""
        if self.average is not None:
            self.average.update(self.model)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._validation_sums = torch.zeros(2, device=self.device)
        self._validation_seen = 0

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Count one batch, less the padding that evens out the processes."""
        x, labels, _ = batch
        logits = self(x)
        loader: Any = self.trainer.val_dataloaders
        kept = max(0, min(len(labels), loader.sampler.real - self._validation_seen))
        self._validation_seen += len(labels)
        if kept:
            logits, labels = logits[:kept].float(), labels[:kept]
            self.top1.update(logits, labels)
            self.top5.update(logits, labels)
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            self._validation_sums += torch.stack((loss, loss.new_tensor(kept)))

    def on_validation_epoch_end(self) -> None:
        """Record loss and accuracies of the validation clips."""
        loss, count = self._reduce(self._validation_sums)
        self._record |= {
            "val_loss": loss / max(count, 1.0),
            "val_top1": float(self.top1.compute()),
            "val_top5": float(self.top5.compute()),
        }
        self.top1.reset()
        self.top5.reset()

    def on_train_epoch_end(self) -> None:
        """Close the epoch's record and hand it to the loggers.

        Raises:
            ConfigError: The loss is not finite any more; the epoch before is what the files hold.
        """
        loss, correct, count = self._reduce(self._sums)
        if not math.isfinite(loss):
            raise ConfigError(
                f"training: loss must stay finite, got {loss} in epoch {self.current_epoch + 1} "
                "(a smaller optimiser.lr or an optimiser.grad_clip may help)"
            )
        parts = {name: self._reduce(self._parts[name]) for name in sorted(self._parts)}
        record = {
            "epoch": float(self.current_epoch + 1),
            "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": loss / max(count, 1.0),
            "train_top1": correct / max(count, 1.0),
            **{f"loss_{name}": total / max(clips, 1.0) for name, (total, clips) in parts.items()},
            **self._record,
            "seconds": time.perf_counter() - self._started,
        }
        self.history.append(record)
        for logger in self.trainer.loggers:
            logger.log_metrics(
                {name: value for name, value in record.items() if name != "epoch"},
                step=self.current_epoch + 1,
            )

        if self._stalled():
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        """A resumed run that had stopped early stays stopped."""
        if self._stalled():
            self.trainer.should_stop = True

    def _stalled(self) -> bool:
        rule = self.config.training.early_stop
        scores = [(record["val_top1"], -record["epoch"]) for record in self.history if "val_top1" in record]
        if rule is None or not scores or len(self.history) < rule.min_epochs:
            return False
        best_epoch = -max(scores)[1]
        return self.history[-1]["epoch"] - best_epoch >= rule.patience

    def _reduce(self, sums: Tensor) -> list[float]:
        total = self.trainer.strategy.reduce(sums, reduce_op="sum")
        values: list[float] = torch.as_tensor(total).double().cpu().tolist()
        return values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history beside the weights."""
        checkpoint["stgcn_fast_history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history up again."""
        self.history = list(checkpoint["stgcn_fast_history"])


def build_checked_criterion(config: Config, model: nn.Module) -> Any:
    """The criterion of a run, which may refuse the network by a method ``check(model)``.

    Raises:
        ConfigError: Unknown name or option, or a network it does not go with.
    """
    smoothing = config.optimiser.label_smoothing
    try:
        criterion: Any = build_criterion(config.loss.name, label_smoothing=smoothing, **config.loss.options)
        if hasattr(criterion, "check"):
            criterion.check(model)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss: {error}") from error
    return criterion
