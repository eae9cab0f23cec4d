"""Errors a user of the training room can mend."""

from __future__ import annotations

__all__ = ["ConfigError"]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line: file, field, rule, value."""
