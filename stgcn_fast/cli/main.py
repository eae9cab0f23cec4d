"""Parse the command line, run one command, turn a user's mistakes into one line."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from stgcn_fast._version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": "generate synthetic motion, train, test, time and measure; writes runs/demo",
    "prepare": "read a data set into a store",
    "train": "train a network from a YAML configuration",
    "test": "test a checkpoint",
    "predict": "label a keypoint file with a checkpoint",
    "study": "run a grid of trainings from a YAML file, with one table",
    "fuse": "sum the scores of several runs (joint and bone)",
    "compare": "compare two sets of runs class by class",
    "explain": "show what each layer of a checkpoint looks at",
    "geometry": "measure how smooth labels are on the graphs of each layer's features",
    "dtw": "compute the DTW distance matrix of a data set",
    "info": "show which kernels exist and which will run",
}

# Commands of two words, and what they do; the module is called as both together.
NESTED = {
    ("dtw", "plot"): "draw a warping path or a distance matrix",
    ("geometry", "noise"): "measure label smoothness and accuracy while noise is added to the clips",
    ("geometry", "transfer"): "fine-tune on new classes with more and more layers frozen",
}

USER_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text around it."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USER_ERROR)


def _build(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="stgcn-fast", description="Skeleton action recognition with compiled kernels.")
    parser.add_argument("--version", action="version", version=f"stgcn-fast {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser, title="commands"
    )
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
        if name != "info":  # which has a parser of its own
            module = name
            if tuple(arguments[:2]) in NESTED and name == chosen:
                text = NESTED[name, arguments[1]]
                inner = command.add_subparsers(dest="second", parser_class=_Parser)
                command = inner.add_parser(arguments[1], description=text[:1].upper() + text[1:] + ".")
                command.set_defaults(command=f"{name} {arguments[1]}")
                module = f"{name}_{arguments[1]}"
            command.add_argument("--debug", action="store_true", help="show the traceback of an error")
            if name == chosen:  # the others need no options to be listed
                import_module(f"stgcn_fast.cli.{module}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stgcn-fast``.

    Args:
        argv: Words after the program's name; default those of this process.

    Returns:
        Exit status: 0, 2 for a mistake of the user (one line on standard error), 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Before torch loads its OpenMP: threads that spin while they wait make a busy machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if words[:1] == ["info"]:
        return int(import_module("stgcn_fast.cli.info").run_words(words[1:]))
    parser = _build(words)
    options, rest = parser.parse_known_args(words)
    if rest:
        # argparse takes no positional words after an option; overrides may stand anywhere.
        if not hasattr(options, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.overrides += rest
    try:
        with warnings.catch_warnings():
            if not options.debug:
                warnings.filterwarnings("ignore", category=FutureWarning)
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                # torch says so of a pickle that it then refuses; the refusal is the line that counts.
                warnings.filterwarnings("ignore", message="Detected pickle protocol")
                warnings.showwarning = _one_line_warning  # type: ignore[assignment]
            status = import_module(f"stgcn_fast.cli.{options.command.replace(' ', '_')}").run(options)
        sys.stdout.flush()
        return int(status or 0)
    except KeyboardInterrupt:
        goes_on = options.command == "train" or (options.command == "dtw" and options.out is not None)
        hint = " (--resume continues it)" if goes_on else ""
        hint = " (the same command continues it)" if options.command == "study" else hint
        print(f"stgcn-fast {options.command}: interrupted{hint}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; keep Python from complaining about it at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        if options.debug:
            raise
        print(f"stgcn-fast {options.command}: error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _one_line_warning(message: Warning | str, *_: Any) -> None:
    print(f"stgcn-fast: warning: {' '.join(str(message).split())}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """The message of an error on one line; an operating system's error names its file first."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    text = " ".join(str(error).split())
    return text or type(error).__name__


def read_options(parser: Any) -> None:
    """Add ``--format``, ``--layout`` and ``--option NAME=VALUE`` for readers."""
    parser.add_argument("--format", metavar="FMT", help="format of the data, detected when not given")
    parser.add_argument(
        "--layout", help="joint layout, where the format leaves it open: a name, or a .yaml that defines one"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the reader, may be repeated",
    )


def reader_keywords(options: Any) -> dict[str, Any]:
    """Keywords for the reader from the parsed ``--layout`` and ``--option``."""
    keywords: dict[str, Any] = {}
    for entry in options.option:
        name, equals, text = entry.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--option must look like NAME=VALUE, got {entry!r}")
        from stgcn_fast.training.yaml_io import parse_scalar

        keywords[name] = parse_scalar(text, f"--option {name}")
    if options.layout is not None:
        from stgcn_fast.cli.layout_file import layout_name

        keywords["layout"] = layout_name(options.layout)
    return keywords
