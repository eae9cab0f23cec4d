"""``stgcn-fast compare``: what one set of runs gains over another, class by class."""

from __future__ import annotations

import argparse

import numpy as np

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Several runs of one side, its seeds, are given with commas between them.\n\n"
        "examples:\n"
        "  stgcn-fast compare runs/plain runs/stf --plot changes.png\n"
        "  stgcn-fast compare runs/a0,runs/a1,runs/a2 runs/b0,runs/b1,runs/b2 --csv changes.csv"
    )
    text = "directories of runs, or files of scores, with commas between"
    parser.add_argument("baseline", metavar="BASELINE", help=text)
    parser.add_argument("other", metavar="OTHER", help=text)
    parser.add_argument("--plot", metavar="FILE", help="draw the changes: .png, .pdf or .svg")
    parser.add_argument("--csv", metavar="FILE", help="write the changes")


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from stgcn_fast.training import compare_classes, read_scores
    from stgcn_fast.training.files import format_table

    sides = [[read_scores(path) for path in text.split(",")] for text in (options.baseline, options.other)]
    changes = compare_classes(*sides)
    if options.csv is not None:
        changes.write_csv(options.csv)
    if options.plot is not None:
        from stgcn_fast import report

        report.plot_class_changes(changes.change, changes.class_names, options.plot, spread=changes.spread)

    def percent(value: float, signed: bool = False) -> str:
        return "-" if np.isnan(value) else f"{100 * value:{'+' if signed else ''}.1f}"

    rows = [
        (
            name,
            str(changes.clips[i]),
            percent(changes.before[i]),
            percent(changes.after[i]),
            percent(changes.change[i], signed=True),
            percent(changes.spread[i]),
        )
        for i, name in enumerate(changes.class_names)
    ]
    before, after = (float(np.mean([scores.evaluation().top1 for scores in side])) for side in sides)
    change = percent(after - before, signed=True)
    rows.append(("all clips", str(changes.clips.sum()), percent(before), percent(after), change, "-"))
    print(format_table(rows, ("class", "clips", "baseline %", "other %", "change", "sd")))
    return 0
