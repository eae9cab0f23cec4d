"""Two runs of `run.py`, row by row: both ratios, and what became of them.

python benchmarks/compare.py A.json B.json [--fail-below 0.95]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from side_by_side import table


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a run by name.

    Raises:
        ValueError: The file is not one that `run.py` wrote.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return {row["name"]: row for row in rows}
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: must be a file that run.py wrote, got {error}") from error


def changes(
    a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]], statistic: str
) -> list[tuple[str, float | None, float | None, float | None, float | None]]:
    """Name, ratio in A and B, and by how much the ratio and our time changed (above 1: B is better).

    A row without peers has no ratio: its time counts then, which depends on the machine's mood.
    """
    found = []
    for name in [*a, *(name for name in b if name not in a)]:
        before, after = a.get(name, {}), b.get(name, {})
        ratios = table.ratio(before, None, statistic), table.ratio(after, None, statistic)
        times = table.value(before, "ours", statistic), table.value(after, "ours", statistic)
        change = ratios[1] / ratios[0] if None not in ratios else None
        speed = times[0] / times[1] if None not in times else None
        found.append((name, *ratios, change, speed))
    return found


def main(words: list[str] | None = None) -> int:
    """Print the table; 1 where `--fail-below` asks for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")
    parser.add_argument("--statistic", choices=table.STATISTICS, default="median")
    parser.add_argument(
        "--fail-below",
        type=float,
        metavar="X",
        help="exit 1 where a ratio of B is below X times A's, or gone",
    )
    options = parser.parse_args(words)
    try:
        rows = changes(read(options.a), read(options.b), options.statistic)
    except (OSError, ValueError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2

    def shown(value: float | None, form: str = ".2f") -> str:
        return "" if value is None else format(value, form)

    print("| work | ratio in A | ratio in B | B / A | our time, A / B |\n|---|---|---|---|---|")
    for name, before, after, change, speed in rows:
        print(f"| {name} | {shown(before)} | {shown(after)} | {shown(change)} | {shown(speed)} |")
    worse = [
        name
        for name, before, after, change, _ in rows
        if options.fail_below is not None
        and before is not None
        and (after is None or change is None or change < options.fail_below)
    ]
    for name in worse:
        print(f"compare.py: {name}: ratio must be at least {options.fail_below:g} times A's", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
