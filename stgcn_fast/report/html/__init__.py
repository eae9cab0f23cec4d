"""Results of ``explain`` and ``geometry`` as one page that a browser opens from disk."""

from stgcn_fast.report.html.bodies import Bodies, collect_bodies, load_bodies, save_bodies
from stgcn_fast.report.html.page import write_report
from stgcn_fast.report.html.results import Results, read_results

__all__ = [
    "Bodies",
    "Results",
    "collect_bodies",
    "load_bodies",
    "read_results",
    "save_bodies",
    "write_report",
]
