"""The command line, ``stgcn-fast COMMAND ...``: one file per command, imported when it is called."""

from __future__ import annotations

from stgcn_fast.cli.main import main

__all__ = ["main"]
