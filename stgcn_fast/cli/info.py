"""``stgcn-fast info``: the same report as ``python -m stgcn_fast.info``."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["run_words"]


def run_words(words: Sequence[str]) -> int:
    """Hand the words after ``info`` to the report."""
    from stgcn_fast import info

    return int(info.main(list(words)) or 0)
