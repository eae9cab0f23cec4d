"""``stgcn-fast study``: a grid of runs from one YAML file, its table and its class-wise changes."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Runs that have ended are never repeated, also not by another study with the same runs; what was\n"
        "cut short goes on from its last epoch when the command is given again.\n\n"
        "examples:\n"
        "  stgcn-fast study studies/ablation.yaml --dry-run\n"
        "  stgcn-fast study studies/ablation.yaml --jobs 2\n"
        "  stgcn-fast study studies/ablation.yaml --only model=M1,M5 --only seed=0"
    )
    parser.add_argument("study", metavar="FILE", help="YAML file of a study")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.field=value", help="changes to every run"
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs side by side, default 1")
    parser.add_argument(
        "--only", action="append", default=[], metavar="AXIS=VALUE", help="run only these; may be repeated"
    )
    parser.add_argument("--output", metavar="DIR", help="instead of the file's output")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their states, run nothing")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, got {text!r}")
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """Run what is missing, print the table."""
    from stgcn_fast.training.files import format_table
    from stgcn_fast.training.study import load_study
    from stgcn_fast.training.study_runner import run_study, select, state_of
    from stgcn_fast.training.study_table import tabulate

    plan = load_study(options.study, options.overrides, options.output)
    runs = select(plan, options.only)
    if options.dry_run:
        rows = [(run.title, run.digest, state_of(run)) for run in runs]
        print(format_table(rows, ("run", "config", "state")))
        states = Counter({run.digest: state_of(run) for run in runs}.values())
        count = sum(states.values())
        print(
            f"\n{count} run{'s' if count != 1 else ''}: "
            + ", ".join(f"{n} {state}" for state, n in states.items())
        )
        return 0

    failed = run_study(plan, runs, jobs=options.jobs, say=_say, changed=lambda: tabulate(plan).write())
    table = tabulate(plan)
    table.write()
    _draw_changes(table)
    print(table.markdown(), end="")
    if failed:
        title, reason = next(iter(failed.items()))
        raise ValueError(f"{len(failed)} of {len(runs)} runs must be run again, first {title}: {reason}")
    return 0


def _draw_changes(table: Any) -> None:
    """Class-wise changes against the baseline, one picture and one CSV for each cell."""
    from stgcn_fast import report
    from stgcn_fast.training.study_table import class_changes

    for values, changes in class_changes(table).items():
        directory = table.plan.directory / "changes"
        directory.mkdir(exist_ok=True)
        name = re.sub(r"[^\w.+-]+", "_", " ".join(values))
        changes.write_csv(directory / f"{name}.csv")
        base = ", ".join(table.plan.study.baseline.values())
        title = f"{', '.join(values)} against {base}"
        report.plot_class_changes(
            changes.change, changes.class_names, directory / f"{name}.png", spread=changes.spread, title=title
        )
