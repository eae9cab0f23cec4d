"""House rules that a command can see (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".cpp", ".h", ".cu", ".cuh"}
SOURCES = sorted(
    p
    for folder in ("stgcn_fast", "csrc", "tests", "benchmarks")
    for p in (ROOT / folder).rglob("*")
    if p.suffix in SUFFIXES
)
PACKAGE = [p for p in SOURCES if p.is_relative_to(ROOT / "stgcn_fast")]
LONGEST_FILE = 450


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_sources() -> None:
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_stay_readable(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{relative(path)} has {lines} lines: is it one thing?"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("TO" + "DO", "FIX" + "ME", "Not" + "ImplementedError"):
        assert word not in text, f"{relative(path)} holds {word}"


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.name == "__init__.py"], ids=relative)
def test_an_init_only_hands_names_on(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "__all__" in assigned
    assert not any(isinstance(node, ast.ClassDef) for node in tree.body)


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.suffix == ".py"], ids=relative)
def test_every_module_and_public_name_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{relative(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list):
                continue
            assert ast.get_docstring(node), f"{relative(path)}: {node.name} has no docstring"
