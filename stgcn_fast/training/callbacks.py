"""What happens around the epochs: progress on the terminal, checkpoints on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import nn

from stgcn_fast.training import distributed
from stgcn_fast.training.module import SkeletonModule
from stgcn_fast.training.progress import open_bar

__all__ = ["RESUME_NAME", "EpochLines", "KeepCheckpoints"]

RESUME_NAME = "last.ckpt"


class EpochLines(Callback):
    """One bar that moves within an epoch (on a terminal) and one line for each finished epoch.

    Args:
        stream: Where to write; default standard error.
    """

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._bar: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Open the bar at an epoch's first batch."""
        if batch_idx == 0 and distributed.is_main():
            title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar = open_bar(title, int(trainer.num_training_batches), self._stream)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self.close()

    def write(self, module: SkeletonModule, epochs: int) -> None:
        """Write the line of the epoch that just ended."""
        self.close()
        record = module.history[-1]
        epoch = int(record["epoch"])
        parts = [
            f"epoch {epoch:>{len(str(epochs))}}/{epochs}",
            f"loss {record['train_loss']:.3f}",
            f"train {100 * record['train_top1']:5.1f} %",
        ]
        if "val_top1" in record:
            parts.append(f"val {100 * record['val_top1']:5.1f} %")
        parts += [f"lr {record['lr']:.2g}", f"{record['seconds']:.1f} s"]
        print("  ".join(parts), file=self._stream, flush=True)


class KeepCheckpoints(Checkpoint):
    """After every epoch: the state to resume from, the last weights, and the best by validation accuracy.

    The order makes a kill harmless at any moment: each file is complete under its own name or not there,
    and the resume state is written last.

    Args:
        directory: Directory of the run.
        save: Writes a network and the epoch's record under a path without ending.
        lines: Reports the finished epoch, once its files are safe.
    """

    def __init__(
        self, directory: Path, save: Callable[[Path, nn.Module, dict[str, float]], None], lines: EpochLines
    ) -> None:
        self._directory = directory
        self._save = save
        self._lines = lines

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the files of the epoch."""
        module: SkeletonModule = pl_module
        record = module.history[-1]
        if distributed.is_main():
            self._save(self._directory / "last", module.network, record)
            if "val_top1" in record:
                earlier = [past.get("val_top1", -1.0) for past in module.history[:-1]]
                if record["val_top1"] > max(earlier, default=-1.0):
                    self._save(self._directory / "best", module.network, record)
        target = self._directory / RESUME_NAME
        partial = target.with_suffix(".ckpt.partial")
        trainer.save_checkpoint(partial)  # every process takes part
        if distributed.is_main():
            os.replace(partial, target)
            self._lines.write(module, int(trainer.max_epochs or 0))
