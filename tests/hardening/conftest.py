"""How hard to try: a quick form in every test run, the long one behind ``make hardening``.

The long one takes hours and may be interrupted: what has passed, with its figure, is kept in the file that
STGCN_FAST_HARDENING_LOG names and not run again until the code or the tests change.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from damage import sample_files

LONG = os.environ.get("STGCN_FAST_HARDENING", "") == "long"
LOG = os.environ.get("STGCN_FAST_HARDENING_LOG", "")
CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = ("stgcn_fast", "csrc", "tests/hardening")


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """``rounds(quick, long)``: how many times this run tries."""
    return lambda quick, long: long if LONG else quick


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """``figure("so many of these: so many of those")``: what a test has counted, one line of the report."""
    return lambda text: record_property("figure", text)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file of every readable format, by the format's name."""
    return sample_files(tmp_path_factory.mktemp("originals"))


@functools.cache
def state() -> str:
    """Of the code and of these tests."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((CHECKOUT / folder).rglob("*")):
            if path.suffix in {".py", ".cpp", ".h"}:
                digest.update(str(path.relative_to(CHECKOUT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def done() -> dict[str, dict[str, Any]]:
    """What has passed in this state, by test."""
    if not (LONG and LOG and Path(LOG).exists()):
        return {}
    entries = [json.loads(line) for line in Path(LOG).read_text(encoding="utf-8").splitlines()]
    return {entry["test"]: entry for entry in entries if entry["state"] == state()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    passed = done()
    for item in items:
        if item.nodeid in passed:
            item.add_marker(pytest.mark.skip(reason=f"passed on {passed[item.nodeid]['date']}"))


class Keeper:
    """Keeps a line of every test that passes; of the process that hears of all of them."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or not report.passed:
            return
        figures = [text for key, text in report.user_properties if key == "figure"]
        entry = {
            "test": report.nodeid,
            "figure": "; ".join(map(str, figures)),
            "seconds": round(report.duration),
            "date": date.today().isoformat(),
            "state": state(),
        }
        Path(LOG).parent.mkdir(parents=True, exist_ok=True)
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"hardening, {LOG}")
        for entry in done().values():
            name = entry["test"].rpartition("/")[2]
            line = f"{entry['date']}  {entry['seconds']:>5} s  {name}  {entry['figure']}"
            terminalreporter.write_line(line.rstrip())


def pytest_configure(config: pytest.Config) -> None:
    if LONG and LOG and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Keeper(), "hardening-figures")
