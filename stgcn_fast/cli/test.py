"""``stgcn-fast test``: a checkpoint on its own test clips, or on other data."""

from __future__ import annotations

import argparse
import json

__all__ = ["add_arguments", "run"]

__test__ = False  # a command, not a test module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a .safetensors file written by train")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.field=value", help="changes to its configuration"
    )
    parser.add_argument("--data", metavar="PATH", help="other data: a store or a directory")
    parser.add_argument("--format", metavar="FMT", help="format of --data, detected when not given")
    parser.add_argument("--part", choices=("train", "val", "test", "all"), default="test", help="which clips")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--confusion", metavar="PNG", help="draw the confusion matrix")
    parser.add_argument(
        "--scores", metavar="NPZ", help="write the scores of every clip, for fuse and compare"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate and print."""
    from pathlib import Path

    from stgcn_fast.training import test
    from stgcn_fast.training.files import format_table

    overrides: list[str] = []
    if options.data is not None:
        # Format and reader options of the data trained on say nothing about other data.
        overrides += [f"data.source={json.dumps(options.data)}", "data.store=null"]
        overrides += ["data.format=null", "data.options={}"]
    if options.format is not None:
        overrides.append(f"data.format={json.dumps(options.format)}")
    overrides += options.overrides
    result, names = test(options.checkpoint, overrides, options.part, options.scores)
    if options.confusion is not None:
        from stgcn_fast.cli.train import draw_confusion

        draw_confusion(Path(options.confusion), result.confusion, names)
    summary = result.to_dict(names)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return 0
    rows = [
        ("clips", str(summary["clips"])),
        ("top-1", f"{100 * summary['top1']:.2f} %"),
        ("top-5", f"{100 * summary['top5']:.2f} %"),
        ("loss", f"{summary['loss']:.4f}"),
    ]
    print(format_table(rows))
    return 0
