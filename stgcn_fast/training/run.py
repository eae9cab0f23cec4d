"""One training run from configuration to metrics, on CPU, one GPU or under ``torchrun``."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from stgcn_fast import models
from stgcn_fast._version import __version__
from stgcn_fast.training import distributed
from stgcn_fast.training.callbacks import RESUME_NAME, EpochLines, KeepCheckpoints
from stgcn_fast.training.config import FREE_FIELDS, Config
from stgcn_fast.training.datamodule import SkeletonDataModule
from stgcn_fast.training.datasets import evaluation_loader, sample_shape, transforms_of
from stgcn_fast.training.device import resolve_device
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.evaluation import Evaluation, evaluate
from stgcn_fast.training.files import leave_no_empty_directory, write_json, write_text
from stgcn_fast.training.module import SkeletonModule
from stgcn_fast.training.network import build_model
from stgcn_fast.training.progress import progress_bar
from stgcn_fast.training.scores import SCORES_NAME, write_scores
from stgcn_fast.training.source import chosen_protocol, open_source, split_source
from stgcn_fast.training.transfer import initialise
from stgcn_fast.training.yaml_io import dump_yaml, load_yaml

__all__ = ["TrainResult", "train"]

Say = Callable[[str], None]

_PRECISIONS = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_RUN_FILES = (
    *("last.safetensors", "last.json", "best.safetensors", "best.json"),
    *(RESUME_NAME, SCORES_NAME, "metrics.json"),
)
_FREE_ON_RESUME = (*FREE_FIELDS, "test", "output")


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run.

    Attributes:
        directory: Directory of the run.
        checkpoint: Weights the test figures belong to (``.safetensors``).
        evaluation: Test figures; None without test clips.
        metrics: Content of ``metrics.json``.
    """

    directory: Path
    checkpoint: Path
    evaluation: Evaluation | None
    metrics: dict[str, Any]


def say_on_stderr(line: str) -> None:
    """Print one line on standard error, from the first process only."""
    if distributed.is_main():
        print(line, file=sys.stderr, flush=True)


def checkpoint_meta(config: Config, layout: str, channels: int, class_names: list[str]) -> dict[str, Any]:
    """Everything prediction and testing need besides the weights and the network's own configuration."""
    part = config.data
    return {
        "class_names": class_names,
        "layout": layout,
        "channels": channels,
        "input": {
            "stream": part.stream,
            "frames": part.frames,
            "persons": part.persons,
            "fit": part.fit,
            "confidence": part.confidence,
            "transforms": transforms_of(config, "eval"),
        },
        "config": config.to_dict(),
    }


def train(
    config: Config, *, resume: bool = False, overwrite: bool = False, say: Say = say_on_stderr
) -> TrainResult:
    """Train, keep the best and the last weights, test.

    Writes into ``config.output.dir``: ``config.yaml``, ``last`` and ``best`` (``.safetensors`` and
    ``.json``), ``last.ckpt`` (the state to resume from), ``scores.npz``, ``metrics.json``, ``tensorboard/``.

    Args:
        config: The run.
        resume: Continue from ``last.ckpt`` where there is one; at most the epoch that was cut is lost.
        overwrite: Replace an earlier run in the same directory.
        say: Receives the few lines of progress.

    Returns:
        The outcome; under ``torchrun`` only the first process tests, the others get no evaluation.

    Raises:
        ConfigError: The configuration does not fit the data, the model or an earlier run.
        FormatError: A data file breaks its format.
        KeyboardInterrupt: The run was interrupted or asked to end; ``resume`` continues it.
    """
    device = resolve_device(config.training.device)
    directory = Path(config.output.dir)
    world = distributed.world_size()
    if config.training.batch_size % world:
        raise ConfigError(
            f"training.batch_size must be a multiple of the {world} processes, "
            f"got {config.training.batch_size}"
        )
    _check_directory(directory, config, resume, overwrite)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.training.threads or threads)
    joined = distributed.start(device)
    try:
        return _train(config, directory, device, resume, say)
    finally:
        torch.set_num_threads(threads)
        if joined:
            distributed.stop()


def _train(config: Config, directory: Path, device: str, resume: bool, say: Say) -> TrainResult:
    world = distributed.world_size()
    with leave_no_empty_directory(directory):
        with progress_bar("reading clips") as progress:
            store = open_source(config.data, directory / "store", progress if distributed.is_main() else None)
        protocol, _ = chosen_protocol(store, config.data.split, config.training.seed)
        indices = split_source(store, config.data.split, config.training.seed)
        class_names = class_names_of(store)
        shape = sample_shape(store, config)
        sample_shape(store, config, "train")
        check_transforms(config)
        model = build_model(config, store, shape[0], len(class_names), indices["train"])
        frozen = initialise(model, config.init, class_names)
        module = SkeletonModule(model, config, len(class_names), frozen)
        loaders = SkeletonDataModule(store, indices, config)
        if config.training.early_stop is not None and not loaders.has_validation:
            raise ConfigError("training.early_stop must be null without validation clips, got a rule")

    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"{len(store)} clips, {len(class_names)} classes, layout {store.layout}; "
        + ", ".join(f"{name} {len(part)}" for name, part in indices.items())
        + f" by {protocol}"
        + f"; {config.model.name} with {parameters:,} parameters on {device}"
        + (f", {world} processes" if world > 1 else "")
    )
    if distributed.is_main():
        _prepare_directory(directory, config, resume)
    distributed.barrier()

    meta = checkpoint_meta(config, store.layout, shape[0], class_names)

    def save(path: Path, network: nn.Module, record: dict[str, float]) -> None:
        models.save_checkpoint(path, network, meta | {"training": record})

    checkpoint = directory / RESUME_NAME
    found = resume and checkpoint.is_file()
    if resume:
        say(
            f"resuming from {checkpoint}"
            if found
            else f"{checkpoint} is not there yet: starting from the beginning"
        )
    with _quiet(config.training.deterministic):
        trainer = _trainer(config, directory, device, save, loaders.has_validation)
        try:
            trainer.fit(
                module,
                datamodule=loaders,
                ckpt_path=str(checkpoint) if found else None,
                weights_only=True if found else None,
            )
        except SystemExit as stop:
            # Lightning turns SIGINT and SIGTERM into a silent exit; a run cut short must not look finished.
            raise KeyboardInterrupt from stop

    name = config.test.checkpoint if (directory / "best.safetensors").is_file() else "last"
    kept = directory / f"{name}.safetensors"
    evaluation = None
    metrics: dict[str, Any] = {}
    if distributed.is_main():
        network, _ = models.load_checkpoint(kept)
        if len(indices["test"]):
            with progress_bar("testing") as progress:
                evaluation = evaluate(
                    network,
                    evaluation_loader(store, indices["test"], config),
                    len(class_names),
                    device,
                    progress,
                )
            write_scores(directory / SCORES_NAME, evaluation, store.names, class_names)
        metrics = _metrics(config, module, evaluation, class_names, indices, parameters, name)
        write_json(directory / "metrics.json", metrics)
    distributed.barrier()
    return TrainResult(directory, kept, evaluation, metrics)


def check_transforms(config: Config) -> None:
    """The defaults of one list do not go with a list of one's own for the other: sizes would differ."""
    lists = {"train": config.transforms.train, "eval": config.transforms.eval}
    absent = [part for part, given in lists.items() if given is None]
    if len(absent) == 1:
        (other,) = lists.keys() - set(absent)
        raise ConfigError(f"transforms.{absent[0]} must be given where transforms.{other} is, got null")


def class_names_of(store: Any) -> list[str]:
    """Names of the classes of a store; a class without a name is called by its number.

    Raises:
        ConfigError: There are fewer than two classes.
    """
    names = list(store.class_names or ())
    count = max(int(store.labels.max()) + 1, len(names))
    if count < 2:
        raise ConfigError(f"data.source must hold at least two classes, got {count}")
    return names + [f"class {i}" for i in range(len(names), count)]


def _check_directory(directory: Path, config: Config, resume: bool, overwrite: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: output.dir must be a directory, got a file")
    saved = directory / "config.yaml"
    if resume and saved.is_file():
        _check_same(Config.from_dict(load_yaml(saved), str(saved)), config, saved)
    elif not resume and not overwrite and any((directory / name).exists() for name in _RUN_FILES):
        raise ConfigError(
            f"{directory}: output.dir must be free, got an earlier run "
            "(use --resume, --overwrite or another output.dir)"
        )


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values


def _check_same(before: Config, now: Config, saved: Path) -> None:
    old, new = dict(_flat(before.to_dict())), dict(_flat(now.to_dict()))
    for field in [*old, *(name for name in new if name not in old)]:
        free = any(field == name or field.startswith(name + ".") for name in _FREE_ON_RESUME)
        if not free and old.get(field) != new.get(field):
            raise ConfigError(
                f"{saved}: {field} must stay {old.get(field)!r} when a run is resumed, got {new.get(field)!r}"
            )


def _prepare_directory(directory: Path, config: Config, resume: bool) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in _RUN_FILES:
            (directory / name).unlink(missing_ok=True)
        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
    for pattern in ("*.partial*", ".*.tmp"):  # left by a run that was killed while it wrote
        for left in directory.glob(pattern):
            left.unlink(missing_ok=True)
    write_text(directory / "config.yaml", dump_yaml(config.to_dict()))


@contextmanager
def _quiet(deterministic: bool) -> Iterator[None]:
    """Hold back Lightning's advice and restore the global switches it sets."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
            # 1x1 kernels have several equivalent strides; DDP copes.
            warnings.filterwarnings("ignore", message=r"Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _trainer(
    config: Config,
    directory: Path,
    device: str,
    save: Callable[[Path, nn.Module, dict[str, float]], None],
    validate: bool,
) -> pl.Trainer:
    from lightning.pytorch.strategies import DDPStrategy

    training = config.training
    world = distributed.world_size()
    lines = EpochLines()
    logger: Any = False
    if config.output.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(save_dir=directory, name="tensorboard", version="")
    return pl.Trainer(
        accelerator=device,
        devices=distributed.local_world_size() if world > 1 else 1,
        num_nodes=world // distributed.local_world_size(),
        strategy=DDPStrategy(gradient_as_bucket_view=True) if world > 1 else "auto",
        precision=_PRECISIONS[training.precision],  # type: ignore[arg-type]
        max_epochs=training.epochs,
        gradient_clip_val=config.optimiser.grad_clip,
        check_val_every_n_epoch=training.validate_every,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        deterministic=training.deterministic,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[lines, KeepCheckpoints(directory, save, lines)],
        logger=logger,
        default_root_dir=str(directory),
    )


def _metrics(
    config: Config,
    module: SkeletonModule,
    evaluation: Evaluation | None,
    class_names: list[str],
    indices: Any,
    parameters: int,
    checkpoint: str,
) -> dict[str, Any]:
    history = module.history
    validated = [record for record in history if "val_top1" in record]
    best = max(validated, key=lambda record: (record["val_top1"], -record["epoch"])) if validated else None
    seconds = sum(record["seconds"] for record in history)  # of all epochs, also those before a resumption
    return {
        "stgcn_fast": __version__,
        "model": config.model.name,
        "parameters": parameters,
        "seed": config.training.seed,
        "clips": {name: len(part) for name, part in indices.items()},
        "class_names": class_names,
        "epochs": len(history),
        "seconds": round(seconds, 3),
        "seconds_per_epoch": round(seconds / max(len(history), 1), 3),
        "threads": torch.get_num_threads(),
        "checkpoint": checkpoint,
        "best_validation": best,
        "test": None
        if evaluation is None
        else evaluation.to_dict(class_names) | {"views": config.test.views},
        "history": history,
    }
