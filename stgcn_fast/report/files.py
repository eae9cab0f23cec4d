"""Optional drawing libraries, and files that are whole or not there."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_INSTALL = 'pip install "stgcn_fast[train]"'


def optional(module: str, install: str = _INSTALL) -> Any:
    """Imports an optional module.

    Args:
        module: Its name.
        install: The line that installs it.

    Raises:
        ImportError: With the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module.split('.')[0]} is needed for this: {install}") from error


def write_whole(
    path: str | os.PathLike[str], write: Callable[[IO[bytes]], None], owner: str, suffixes: tuple[str, ...]
) -> Path:
    """Writes a file under a temporary name and renames it, so that a failure leaves nothing half-written.

    Args:
        path: The file; its directory is made where missing, an existing file is replaced.
        write: Writes the content to an open binary file.
        owner: Name of the calling function, for messages.
        suffixes: Endings that are allowed, in lower case.

    Returns:
        The path written.

    Raises:
        ValueError: If the path has another ending.
        OSError: If the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"{owner}: path must end in {' or '.join(suffixes)}, got {os.fspath(path)!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        # mkstemp makes private files; give this one the usual rights.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target
