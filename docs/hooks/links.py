"""Links to files beside `docs/` work in a checkout; the site, which lacks these files, names them."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]\n]*)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with the text of every page."""
    return OUTSIDE.sub(
        lambda link: f"{link[1]} (`{link[2]}`)" if link[2] not in link[1] else link[1], markdown
    )
