"""What `run.py` measures: one module a kind of work, and what they share."""

from __future__ import annotations

__all__: list[str] = []
