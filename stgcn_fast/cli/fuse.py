"""``stgcn-fast fuse``: sum the scores of several runs over the same clips."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "class_table", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  stgcn-fast fuse runs/joint runs/bone\n"
        "  stgcn-fast fuse runs/joint runs/bone --weights 1 0.6 --confusion fused.png"
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="directory of a run, or a file of scores (test --scores)"
    )
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one per run; default 1 each")
    parser.add_argument(
        "--kind", choices=("logits", "probabilities"), default="logits", help="which scores are summed"
    )
    parser.add_argument("--confusion", metavar="PNG", help="draw the confusion matrix of the sum")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Fuse and print."""
    from stgcn_fast.training import fuse, read_scores
    from stgcn_fast.training.files import format_table

    if len(options.runs) < 2:
        raise ValueError(f"fuse: runs must be at least two, got {len(options.runs)}")
    scores = [read_scores(path) for path in options.runs]
    fused = fuse(scores, options.weights, options.kind)
    names = list(scores[0].class_names)
    alone = [part.evaluation() for part in scores]
    if options.confusion is not None:
        from stgcn_fast.cli.train import draw_confusion

        draw_confusion(Path(options.confusion), fused.confusion, names)
    summary = fused.to_dict(names)
    parts = [evaluation.to_dict(names) for evaluation in alone]
    if options.json:
        summary["runs"] = [
            {"run": str(path), "top1": part["top1"], "top5": part["top5"]}
            for path, part in zip(options.runs, parts)
        ]
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return 0
    rows = [
        [label, f"{100 * part['top1']:.2f} %", f"{100 * part['top5']:.2f} %"]
        for label, part in zip([*map(str, options.runs), "sum"], [*parts, summary])
    ]
    print(format_table(rows, ("scores", "top-1", "top-5")), end="\n\n")
    print(class_table(names, [*parts, summary], [*(f"run {i + 1}" for i in range(len(parts))), "sum"]))
    return 0


def class_table(names: list[str], parts: list[dict[str, Any]], titles: list[str]) -> str:
    """Accuracy per class, one column for each summary."""
    from stgcn_fast.training.files import format_table

    clips = [sum(row) for row in parts[0]["confusion"]]
    rows = []
    for i, name in enumerate(names):
        values = [part["per_class"][name] for part in parts]
        cells = ["-" if value is None else f"{100 * value:.1f} %" for value in values]
        rows.append([name, str(clips[i]), *cells])
    return format_table(rows, ("class", "clips", *titles))
