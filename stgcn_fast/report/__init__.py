"""Pictures for people: confusion matrices, skeleton animations, rows of frames."""

from stgcn_fast.report.confusion import plot_confusion_matrix
from stgcn_fast.report.skeletons import animate_skeleton, plot_skeleton

__all__ = ["animate_skeleton", "plot_confusion_matrix", "plot_skeleton"]
