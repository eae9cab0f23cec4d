"""The one error every reader raises, so that a bad file always gives one clear line."""

from __future__ import annotations

import os
from typing import Any

MAX_VALUE_CHARS = 80  # a value longer than this would push the rule off the line


def describe(value: object) -> str:
    """Returns a one-line, shortened text of ``value`` for an error message."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split()) or "nothing"
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 3] + "..."


class FormatError(ValueError):
    """A file that breaks a rule of its format: ``"<path>: <rule>, got <value>"``.

    Attributes:
        path: The file (or directory) that broke the rule.
        rule: What must hold, for example ``"frame count must be 103"``.
        got: What the file holds instead.
    """

    def __init__(self, path: str | os.PathLike[str], rule: str, got: object) -> None:
        self.path = os.fspath(path)
        self.rule = rule
        self.got = describe(got)
        super().__init__(f"{self.path}: {rule}, got {self.got}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from their args, which hold the joined line; workers of a DataLoader send the
        # parts.
        return type(self), (self.path, self.rule, self.got)
