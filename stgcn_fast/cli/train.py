"""``stgcn-fast train``: one run from a YAML configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "draw_confusion", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  stgcn-fast train configs/utd_mhad.yaml data.source=DIR training.seed=1 output.dir=runs/utd1\n"
        "  stgcn-fast train configs/utd_mhad.yaml --resume\n"
        "  torchrun --nproc_per_node=2 -m stgcn_fast train configs/utd_mhad.yaml"
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.field=value", help="changes to the configuration"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="continue a run that was cut short")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in output.dir")


def run(options: argparse.Namespace) -> int:
    """Train, test, print a table."""
    from stgcn_fast.training import Config, ConfigError, load_config, train
    from stgcn_fast.training.distributed import is_main

    config = load_config(options.config, options.overrides)
    try:
        result = train(config, resume=options.resume, overwrite=options.overwrite)
    except ConfigError as error:
        # What is wrong with a field only beside the data does not know the file that says it.
        if str(error).split(".")[0].split(":")[0] in Config.model_fields:
            raise ConfigError(f"{options.config}: {error}") from error
        raise
    if not is_main():
        return 0
    print(table(result), flush=True)
    if result.evaluation is not None:
        names = result.metrics["class_names"]
        draw_confusion(result.directory / "confusion.png", result.evaluation.confusion, names)
    return 0


def draw_confusion(path: Path, confusion: Any, names: Any) -> None:
    """Draw the confusion matrix of the test clips."""
    from stgcn_fast import report

    report.plot_confusion_matrix(confusion, names, path)


def table(result: Any) -> str:
    """The run in a few lines."""
    from stgcn_fast.training.files import format_table

    metrics = result.metrics
    rows = [
        ("parameters", f"{metrics['parameters']:,}"),
        ("epochs", str(metrics["epochs"])),
        ("time", f"{metrics['seconds']:.0f} s ({metrics['seconds_per_epoch']:.2f} s per epoch)"),
    ]
    best = metrics["best_validation"]
    if best is not None:
        rows.append(("best validation", f"{100 * best['val_top1']:.2f} % (epoch {int(best['epoch'])})"))
    test = metrics["test"]
    if test is not None:
        rows += [
            ("test clips", str(test["clips"])),
            ("test top-1", f"{100 * test['top1']:.2f} %"),
            ("test top-5", f"{100 * test['top5']:.2f} %"),
        ]
    rows += [("checkpoint", str(result.checkpoint)), ("metrics", str(result.directory / "metrics.json"))]
    if test is not None:
        rows.append(("confusion", str(result.directory / "confusion.png")))
    return format_table(rows)
