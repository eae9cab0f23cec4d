"""Dynamic time warping of multivariate sequences: distances, paths, matrices, neighbours."""

from typing import TYPE_CHECKING, Any

from stgcn_fast.dtw.alignment_path import dtw_alignment_path
from stgcn_fast.dtw.cdist import dtw_cdist
from stgcn_fast.dtw.cost_matrix import dtw_cost_matrix
from stgcn_fast.dtw.distance import dtw_distance
from stgcn_fast.dtw.knn import KnnInfo, dtw_knn, one_nn_accuracy
from stgcn_fast.dtw.pairwise import dtw_pairwise_distance
from stgcn_fast.dtw.sequences import Sequences
from stgcn_fast.dtw.soft_dtw import soft_dtw
from stgcn_fast.dtw.store import distance_matrix_record, open_distance_matrix
from stgcn_fast.dtw.windowed import WindowedDTW, layer_sequences

if TYPE_CHECKING:
    from stgcn_fast.dtw.neighbors import DTWNeighborsClassifier


def __getattr__(name: str) -> Any:
    """`DTWNeighborsClassifier`, which needs scikit-learn, when it is first asked for."""
    if name == "DTWNeighborsClassifier":
        from stgcn_fast.dtw.neighbors import DTWNeighborsClassifier

        return DTWNeighborsClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "dtw_distance",
    "dtw_cost_matrix",
    "dtw_alignment_path",
    "dtw_pairwise_distance",
    "dtw_cdist",
    "dtw_knn",
    "KnnInfo",
    "soft_dtw",
    "DTWNeighborsClassifier",
    "WindowedDTW",
    "layer_sequences",
    "one_nn_accuracy",
    "open_distance_matrix",
    "distance_matrix_record",
    "Sequences",
]
