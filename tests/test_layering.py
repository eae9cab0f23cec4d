"""The rooms of the package import only rooms below them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "stgcn_fast"
ROOMS = [
    "graph", "data", "dtw", "ops", "nn", "models", "swap", "training", "explain", "geometry", "report", "cli",
]  # fmt: skip
FREE = {"_native", "_version", "info"}
NARROWER = {"graph": set(), "dtw": set(), "ops": {"dtw"}}
FILES = sorted(f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).parts[0] in ROOMS)


def imported_rooms(source: str, room_of_file: str, depth: int) -> set[str]:
    """Names of the package's rooms that a source file imports, absolutely or relatively."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("stgcn_fast.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (node.module or "").split(".")[0] == "stgcn_fast":
                parts = (node.module or "").split(".")[1:]
                rooms |= {parts[0]} if parts else {a.name for a in node.names}
            elif node.level == depth + 1:
                parts = (node.module or "").split(".") if node.module else []
                rooms |= {parts[0]} if parts else {a.name for a in node.names}
    return rooms - {room_of_file}


def test_the_check_sees_every_form_of_import() -> None:
    absolute = "import stgcn_fast.cli.x\nfrom stgcn_fast import nn\nfrom stgcn_fast.data.store import y\n"
    source = absolute + "from ..ops import z"
    assert imported_rooms(source, "graph", depth=1) == {"cli", "nn", "data", "ops"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    room = parts[0]
    allowed = NARROWER.get(room, set(ROOMS[: ROOMS.index(room)])) | FREE
    found = imported_rooms(path.read_text(encoding="utf-8"), room, depth=len(parts) - 1)
    known = {f for f in found if f in ROOMS or f in FREE}
    assert known <= allowed, f"{path}: {room} must not import {sorted(known - allowed)}"


def test_every_folder_is_a_room() -> None:
    folders = {p.parent.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE}
    assert folders <= set(ROOMS)
