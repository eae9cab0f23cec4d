"""Rows as a Markdown table, and the ratios in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from side_by_side.measure import OURS

PEERS = ("eager", "eager channels_last", "torch.compile", "ONNX Runtime", "OpenVINO")
STATISTICS = ("median", "minimum")
Row = Mapping[str, Any]


def value(row: Row, contender: str, statistic: str = "median") -> float | None:
    """Milliseconds (or megabytes) of a contender; None where it did not take part."""
    entry = row.get("values", {}).get(contender)
    return None if entry is None else float(entry[statistic])


def fastest_peer(row: Row, statistic: str = "median") -> str | None:
    """The contender that is not ours and has the least time."""
    others = [name for name in row.get("values", {}) if not name.startswith(OURS)]
    return min(others, key=lambda name: value(row, name, statistic) or math.inf, default=None)


def ratio(row: Row, contender: str | None = None, statistic: str = "median") -> float | None:
    """How many times longer a contender takes than ours; by default the fastest peer."""
    contender = contender or fastest_peer(row, statistic)
    ours = value(row, OURS, statistic)
    other = None if contender is None else value(row, contender, statistic)
    return None if ours is None or other is None else other / ours


def share(row: Row, contender: str = OURS, statistic: str = "median") -> float | None:
    """The direct algorithms' arithmetic floor over the time of one of ours."""
    taken = value(row, contender, statistic)
    return None if taken is None or row.get("floor") is None else float(row["floor"]) / taken


def error(row: Row) -> float | None:
    """Largest error of ours."""
    ours = [entry for name, entry in row.get("errors", {}).items() if name.startswith(OURS)]
    return max(ours, default=None)


def markdown(rows: Iterable[Row], statistic: str = "median") -> str:
    """One table: a line a row, contenders as multiples of ours."""
    rows = list(rows)
    present = [name for name in PEERS if any(value(row, name) is not None for row in rows)]
    head = ["work", "ours", "fastest peer", "ratio", *present, "floor", "direct", "error", ""]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if row["status"] != "ok":
            lines.append([row["name"], f"{row['status']}: {row['message']}", *[""] * (len(head) - 2)])
            continue
        ours = value(row, OURS, statistic)
        cells = [row["name"], "" if ours is None else f"{ours:.4g} {row['unit']}", _peer(row, statistic)]
        cells.append(_number(ratio(row, None, statistic)))
        cells += [_number(ratio(row, name, statistic)) for name in present]
        cells += [_percent(share(row, way, statistic)) for way in (OURS, f"{OURS} direct")]
        found = error(row)
        cells += ["" if found is None else f"{found:.0e}", row.get("note", "")]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)


def _peer(row: Row, statistic: str) -> str:
    name = fastest_peer(row, statistic)
    if name is None:
        return ""
    variant = row.get("variants", {}).get(name)
    return f"{name} ({variant})" if variant and variant != "default" else name


def _number(found: float | None) -> str:
    return "" if found is None else f"{found:.2f}"


def _percent(found: float | None) -> str:
    return "" if found is None else f"{found:.0%}"
