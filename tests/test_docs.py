"""What the documentation shows runs, parses and exists."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stgcn_fast import graph, info
from stgcn_fast.cli.main import COMMANDS, _build, reader_keywords
from stgcn_fast.data import formats
from stgcn_fast.graph import layouts
from stgcn_fast.models import registry
from stgcn_fast.training import Config, load_config
from stgcn_fast.training.study import load_study
from stgcn_fast.training.study_runner import select
from stgcn_fast.training.yaml_io import load_yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, *(p for p in [ROOT / "README.md"] if p.is_file())]

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:stgcn-fast|(?:python|torchrun)\b.* -m stgcn_fast)(?= |$)(.*)")
DATASET_OPTIONS = {"errors", "limit", "pattern", "table"}


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Fenced blocks of a page in one of these languages, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in FENCE.finditer(text)
        if match[1] in languages
    ]


def commands(page: Path) -> Iterator[str]:
    """Words behind ``stgcn-fast`` in the shell blocks of a page, one command each."""
    for _, text in blocks(page, "bash", "sh", "shell", "console", ""):
        for line in text.replace("\\\n", " ").splitlines():
            if match := COMMAND.match(line.strip().removeprefix("$ ")):
                yield match[1].strip()


def name(value: Any) -> str:
    return value.name if isinstance(value, Path) else str(value)


RUN_WHOLE = "own-data"  # every block of it, in order: test_own_data.py
SHOWN = [(page, command) for page in PAGES if page.stem != RUN_WHOLE for command in commands(page)]
YAML = [(page, line, text) for page in PAGES if page.stem != RUN_WHOLE for line, text in blocks(page, "yaml")]


def test_there_is_something_to_check() -> None:
    assert {page.stem for page in DOCS} >= {"data", "dtw", "models", "ops", "training"}
    assert all(blocks(page, "python") for page in DOCS)
    assert {command.split()[0] for _, command in SHOWN} >= {"train", "test", "predict", "prepare", "info"}


# Raised by torch itself while it compiles and exports.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layouts, "_REGISTER", dict(layouts._REGISTER))  # what a page registers goes with it
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    optimize = importlib.import_module("stgcn_fast.models.optimize")  # the package's name is the function's
    monkeypatch.setattr(optimize, "_BUILDERS", dict(optimize._BUILDERS))
    # Inductor, whose C++ compiler takes its time, is tested with the ops.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    namespace: dict[str, Any] = {"__name__": "docs"}
    for line, text in blocks(page, "python"):
        # Blank lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"\w+:", target):
            continue  # another place
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name}: {target} names no heading"


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=name)
def test_commands_parse(page: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command, comments=True)
    assert words, f"{page.name}: stgcn-fast without a command"
    assert words[0] in COMMANDS, f"{page.name}: there is no command {words[0]!r}"
    if words[0] == "info":
        assert info.main(words[1:]) == 0
        return
    options = parse(words)
    if words[0] in ("prepare", "predict", "dtw"):
        check_reader_options(options, words[0])
    elif words[0] == "train":
        config = ROOT / options.config
        assert config.is_file() or config.parent == ROOT, f"{page.name}: there is no {options.config}"
        load_config(config if config.is_file() else None, options.overrides)
    elif words[0] == "study":
        assert select(load_study(ROOT / options.study, options.overrides), options.only)
    elif words[0] == "test":
        Config().override(options.overrides)


def parse(words: list[str]) -> Any:
    """Options of a command line, parsed as ``stgcn-fast`` does, without running it."""
    try:
        options, rest = _build(words).parse_known_args(words)
    except SystemExit as error:
        raise AssertionError(f"stgcn-fast {shlex.join(words)} does not parse") from error
    assert all("=" in word and not word.startswith("-") for word in rest), rest
    if rest:
        options.overrides += rest
    return options


def check_reader_options(options: Any, command: str) -> None:
    keywords = reader_keywords(options)
    assert options.layout in (None, "LAYOUT", *graph.list_layouts())
    if options.format in formats.list_formats():
        entry = formats.get_format(options.format)
        read = entry.read if command == "predict" else entry.clips
        known = set(inspect.signature(read).parameters)
        known |= set() if command == "predict" else DATASET_OPTIONS
        assert set(keywords) <= known, f"{options.format} has no option {set(keywords) - known}"


def test_the_parser_refuses_what_is_not_there() -> None:
    with pytest.raises(AssertionError, match="does not parse"):
        parse(["train"])
    with pytest.raises(AssertionError, match="--frobnicate"):
        parse(["prepare", "a", "b", "--frobnicate"])


@pytest.mark.parametrize(("page", "line", "text"), YAML, ids=name)
def test_yaml_blocks_are_configurations(page: Path, line: int, text: str, tmp_path: Path) -> None:
    if "\nseeds:" in text:  # a study, whose configurations lie beside its folder
        text = text.replace("../configs", str(ROOT / "configs"))
    file = tmp_path / f"{page.stem}_line_{line}.yaml"
    file.write_text(text, encoding="utf-8")
    if "\nseeds:" in text:
        assert load_study(file).runs
    else:
        load_config(file)


def test_the_first_yaml_of_training_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(blocks(ROOT / "docs" / "training.md", "yaml")[0][1], encoding="utf-8")
    assert Config.from_dict(load_yaml(file)).to_dict() == Config().to_dict() == load_yaml(file)
