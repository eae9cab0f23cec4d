"""One file with everything in it: style, scripts, the plotting library, data."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
from importlib import resources
from pathlib import Path
from typing import IO, Any

from stgcn_fast import __version__
from stgcn_fast.explain import Explanation
from stgcn_fast.report.files import optional, write_whole
from stgcn_fast.report.html.encode import script_json
from stgcn_fast.report.html.payload import build_payload
from stgcn_fast.report.html.results import Results, read_results

# In the order in which they use each other.
SCRIPTS = ("data.js", "colours.js", "player.js", "charts.js", "sections.js", "tables.js", "main.js")
_MARK = re.compile(r"\{\{(\w+)\}\}")
_INSTALL = 'pip install "stgcn_fast[report]"'


def write_report(
    results: str | os.PathLike[str] | Results | Explanation,
    out: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    max_megabytes: float = 16.0,
) -> Path:
    """Writes results as one page: an interactive player, charts and tables.

    The file holds all it needs (plotly.js too, 5 MB of it) and opens from disk; its content security policy
    keeps it from the network, and lets no script run but its own, whatever a clip may be called.

    Args:
        results: A directory with files of ``explain`` or ``geometry`` or both, see :func:`read_results`; or
            the results themselves.
        out: File to write, .html; ``report.html`` in the directory by default.
        title: Heading; the name of the directory by default.
        max_megabytes: Room for clips and maps. Where it does not suffice, clips are left out, every class in
            its turn.

    Returns:
        The path written.

    Raises:
        FileNotFoundError: The directory holds no results.
        FormatError: A file is not of its format.
        ValueError: Parts do not belong together, or an argument is out of range.
        ImportError: plotly is missing.
        OSError: The file cannot be written.
    """
    owner = "write_report"
    if not max_megabytes > 0:
        raise ValueError(f"{owner}: max_megabytes must be > 0, got {max_megabytes}")
    name = "Report"
    if isinstance(results, Explanation):
        found = Results(explanation=results)
    elif isinstance(results, Results):
        found = results
    else:
        folder = Path(results)
        found = read_results(folder)
        name = folder.resolve().name or name
        out = folder / "report.html" if out is None else out
    if found.empty:
        raise ValueError(f"{owner}: results must hold at least one part, got none")
    if out is None:
        raise ValueError(f"{owner}: out must be given where results are no directory, got None")
    payload = build_payload(found, title or name, int(max_megabytes * 1e6), owner)
    page = render(payload, plotting_library())

    def write(file: IO[bytes]) -> None:
        file.write(page)

    return write_whole(out, write, owner, (".html", ".htm"))


def plotting_library() -> str:
    """The text of plotly.js, as the plotly package carries it.

    Raises:
        ImportError: With the line that installs it.
    """
    text: str = optional("plotly.offline", _INSTALL).get_plotlyjs()
    return text


def render(payload: dict[str, Any], library: str) -> bytes:
    """The page of a payload.

    Args:
        payload: Of ``build_payload``.
        library: Text of plotly.js.

    Returns:
        HTML in UTF-8.
    """
    # As the browser reads them: it makes one line feed of every line end before it checks a script's digest.
    scripts = [_lines(text) for text in (library, *(_asset(name) for name in SCRIPTS))]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    policy = "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests),
            # plotly.js styles what it draws.
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            # Not covered by default-src.
            "form-action 'none'",
            "base-uri 'none'",
        ]
    )
    parts = {
        "policy": policy,
        "title": html.escape(payload["title"]),
        "version": html.escape(__version__),
        "style": _asset("report.css"),
        "data": script_json(payload),
        "scripts": "\n".join(f"<script>{text}</script>" for text in scripts),
    }
    # One pass: what is put in is not searched for marks.
    return _MARK.sub(lambda match: parts[match[1]], _asset("report.html")).encode("utf-8")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _asset(name: str) -> str:
    return (resources.files("stgcn_fast.report") / "assets" / name).read_text(encoding="utf-8")
