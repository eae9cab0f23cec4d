"""Pictures for people: skeletons, what layers focus on, confusion, warping paths, charts, a page of all."""

from stgcn_fast.report.animation import animate_focus
from stgcn_fast.report.changes import plot_class_changes
from stgcn_fast.report.charts import plot_graphs, plot_heatmap, plot_lines
from stgcn_fast.report.confusion import plot_confusion_matrix
from stgcn_fast.report.focus import plot_focus
from stgcn_fast.report.html import (
    Bodies,
    Results,
    collect_bodies,
    load_bodies,
    read_results,
    save_bodies,
    write_report,
)
from stgcn_fast.report.skeletons import animate_skeleton, plot_skeleton
from stgcn_fast.report.warping import plot_distance_matrix, plot_warping_path

__all__ = [
    "Bodies",
    "Results",
    "animate_focus",
    "animate_skeleton",
    "collect_bodies",
    "load_bodies",
    "plot_class_changes",
    "plot_confusion_matrix",
    "plot_distance_matrix",
    "plot_focus",
    "plot_graphs",
    "plot_heatmap",
    "plot_lines",
    "plot_skeleton",
    "plot_warping_path",
    "read_results",
    "save_bodies",
    "write_report",
]
