"""What the runs of a study reached: rows with mean and spread, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stgcn_fast.training.comparison import ClassChanges, compare_classes
from stgcn_fast.training.files import write_text
from stgcn_fast.training.scores import SCORES_NAME, Scores, fuse, read_scores
from stgcn_fast.training.study import Fusion, Plan, StudyRun
from stgcn_fast.training.study_runner import finished

__all__ = ["Row", "StudyTable", "class_changes", "tabulate"]


@dataclass(frozen=True)
class Row:
    """One cell of a study over its seeds.

    Attributes:
        cell: Its value on each axis; of a sum of scores the values joined by `` + ``.
        top1: By seed, share of test clips, of the runs that have ended.
        top5: By seed.
        seconds: By seed, of training; of a sum, of all its runs.
        parameters: Of the network; of a sum, of all of them.
        digest: Hash of the configuration without the seed; empty for a sum.
    """

    cell: dict[str, str]
    top1: dict[int, float]
    top5: dict[int, float]
    seconds: dict[int, float]
    parameters: int | None
    digest: str

    @property
    def mean(self) -> float | None:
        """Mean top-1 over the seeds that have ended."""
        return statistics.fmean(self.top1.values()) if self.top1 else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of top-1 over the seeds (n - 1), from two seeds on."""
        return statistics.stdev(self.top1.values()) if len(self.top1) > 1 else None


@dataclass(frozen=True)
class StudyTable:
    """The rows of a study and where they came from.

    Attributes:
        plan: The study.
        rows: Its cells, then its sums.
        metrics: ``metrics.json`` of each run that has ended, by digest.
    """

    plan: Plan
    rows: tuple[Row, ...]
    metrics: dict[str, dict[str, Any]]

    def markdown(self) -> str:
        """The table for people, accuracies in per cent."""
        plan, seeds = self.plan, self.plan.study.seeds
        total = len({run.digest for run in plan.runs})
        header = [*plan.study.axes, *(f"seed {seed}" for seed in seeds), "mean", "sd", "top-5"]
        header += ["s/run", "parameters", "config"]
        lines = [
            f"# {plan.directory.name}",
            "",
            f"Top-1 on the test clips in per cent; sd over seeds (n - 1); {len(self.metrics)} of {total} "
            f"runs finished; study {plan.digest}.",
            "",
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
        ]
        for row in self.rows:
            cells = [row.cell[axis] for axis in plan.study.axes]
            cells += [_percent(row.top1.get(seed)) for seed in seeds]
            cells += [_percent(row.mean), _percent(row.spread), _percent(_mean(row.top5.values()))]
            seconds = _mean(row.seconds.values())
            cells.append("-" if seconds is None else f"{seconds:.0f}")
            cells += ["-" if row.parameters is None else f"{row.parameters:,}", row.digest or "-"]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """The same as comma-separated values, shares instead of per cent."""
        seeds = self.plan.study.seeds
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [f"top1_seed_{seed}" for seed in seeds]
        numbers = ["top1_mean", "top1_sd", "top5_mean", "seconds_mean", "parameters", "config"]
        writer.writerow([*self.plan.study.axes, "seeds", *columns, *numbers])
        for row in self.rows:
            means = (row.mean, row.spread, _mean(row.top5.values()), _mean(row.seconds.values()))
            writer.writerow(
                [
                    *(row.cell[axis] for axis in self.plan.study.axes),
                    len(row.top1),
                    *(_plain(row.top1.get(seed)) for seed in seeds),
                    *map(_plain, means),
                    "" if row.parameters is None else row.parameters,
                    row.digest,
                ]
            )
        return text.getvalue()

    def runs_csv(self) -> str:
        """One line per run that has ended."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fields = ("top1", "top5", "loss")
        others = ("epochs", "seconds", "seconds_per_epoch", "parameters", "threads")
        writer.writerow([*self.plan.study.axes, "seed", *fields, *others, "config", "directory"])
        for run in self.plan.runs:
            metrics = self.metrics.get(run.digest)
            if metrics is not None:
                test = metrics["test"] or {}
                figures = [_plain(test.get(name)) for name in fields]
                figures += [metrics[name] for name in others]
                writer.writerow([*run.cell.values(), run.seed, *figures, run.digest, str(run.directory)])
        return text.getvalue()

    def write(self) -> None:
        """Write ``table.md``, ``table.csv`` and ``runs.csv``, each whole or not at all."""
        directory = self.plan.directory
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / "table.md", self.markdown())
        write_text(directory / "table.csv", self.csv())
        write_text(directory / "runs.csv", self.runs_csv())


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _by_cell(plan: Plan) -> dict[tuple[str, ...], list[StudyRun]]:
    """The runs of each cell, cells in the order of the file."""
    cells: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in plan.runs:
        cells.setdefault(tuple(run.cell.values()), []).append(run)
    grid = itertools.product(*plan.study.axes.values())
    return {values: cells[values] for values in grid if values in cells}


def tabulate(plan: Plan) -> StudyTable:
    """Gather what the runs of a study have reached so far.

    Raises:
        ConfigError: A directory holds another run, or scores that do not go together.
    """
    known = {run.digest: finished(run) for run in plan.runs}
    metrics = {digest: found for digest, found in known.items() if found is not None}
    rows = []
    for runs in _by_cell(plan).values():
        ended = {run.seed: metrics[run.digest] for run in runs if run.digest in metrics}
        tested = {seed: found for seed, found in ended.items() if found["test"] is not None}
        rows.append(
            Row(
                runs[0].cell,
                {seed: found["test"]["top1"] for seed, found in tested.items()},
                {seed: found["test"]["top5"] for seed, found in tested.items()},
                {seed: found["seconds"] for seed, found in ended.items()},
                next((int(found["parameters"]) for found in ended.values()), None),
                runs[0].cell_digest,
            )
        )
    for fusion in plan.study.fuse:
        rows += _fused(plan, fusion, metrics)
    return StudyTable(plan, tuple(rows), metrics)


def _fused(plan: Plan, fusion: Fusion, metrics: dict[str, dict[str, Any]]) -> list[Row]:
    axes = list(plan.study.axes)
    place = axes.index(fusion.axis)
    groups: dict[tuple[str, ...], dict[int, dict[str, StudyRun]]] = {}
    for run in plan.runs:
        values = list(run.cell.values())
        value = values.pop(place)
        if value in fusion.values:
            groups.setdefault(tuple(values), {}).setdefault(run.seed, {})[value] = run
    rows = []
    for rest, seeds in groups.items():
        cell = list(rest)
        cell.insert(place, " + ".join(fusion.values))
        top1, top5, seconds = {}, {}, {}
        parameters: int | None = None
        for seed, members in seeds.items():
            runs = [members[value] for value in fusion.values if value in members]
            if len(runs) < len(fusion.values) or not all(_scored(run, metrics) for run in runs):
                continue
            fused = fuse([read_scores(run.directory) for run in runs], fusion.weights)
            top1[seed], top5[seed] = fused.top1, fused.top5
            seconds[seed] = sum(metrics[run.digest]["seconds"] for run in runs)
            parameters = sum(int(metrics[run.digest]["parameters"]) for run in runs)
        rows.append(Row(dict(zip(axes, cell)), top1, top5, seconds, parameters, ""))
    return rows


def _scored(run: StudyRun, metrics: dict[str, dict[str, Any]]) -> bool:
    return run.digest in metrics and (run.directory / SCORES_NAME).is_file()


def class_changes(table: StudyTable) -> dict[tuple[str, ...], ClassChanges]:
    """For every cell, class by class, its change against the cell with the baseline's coordinates.

    Only seeds count that have ended in both. Cells that are the baseline themselves, test other clips, or
    have no such seed are left out.
    """
    plan = table.plan
    if plan.study.baseline is None:
        return {}
    cells = _by_cell(plan)
    changes = {}
    for values, runs in cells.items():
        base = cells.get(tuple((runs[0].cell | plan.study.baseline).values()))
        if base is None or base is runs:
            continue
        others = {run.seed: run for run in runs if _scored(run, table.metrics)}
        pairs = [
            (read_scores(run.directory), read_scores(others[run.seed].directory))
            for run in base
            if run.seed in others and _scored(run, table.metrics)
        ]
        if pairs and _same_clips(*pairs[0]):
            changes[values] = compare_classes([a for a, _ in pairs], [b for _, b in pairs])
    return changes


def _same_clips(a: Scores, b: Scores) -> bool:
    return set(a.names) == set(b.names) and a.class_names == b.class_names
