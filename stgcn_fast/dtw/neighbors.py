"""Nearest neighbours under DTW as a scikit-learn estimator; importing this module needs scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw.knn import dtw_knn
from stgcn_fast.dtw.sequences import Array, Sequences, as_band, as_collections, as_normalize

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d
except ImportError as error:
    raise ImportError(
        'DTWNeighborsClassifier needs scikit-learn: pip install "stgcn_fast[dtw]"', name="sklearn"
    ) from error

_NAME = "DTWNeighborsClassifier"


class DTWNeighborsClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """k nearest neighbours by DTW distance, an estimator like those of `sklearn.neighbors`.

    Data are what `dtw_pairwise_distance` takes: lists of [T_i, D] arrays of any lengths, [N, T, D] arrays or
    `Sequences`. An [N, T] array (nested list, data frame), scikit-learn's own form, is N series of one
    feature; then `n_features_in_` is T, as scikit-learn wants it (for the other forms it is D), and [N, T]
    arrays to predict must have as many frames.

    Args:
        n_neighbors: neighbours that vote, from 1 to the number of training sequences.
        window: width of the band, see `dtw_distance`.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        normalize: see `dtw_distance`.
        weights: "uniform", or "distance": votes count by the inverse of the distance; neighbours at distance
            zero then outvote all others.
        n_jobs: threads, see `dtw_pairwise_distance`.

    Attributes:
        classes_: [classes], sorted.
        n_features_in_: features of a frame; frames of a series for [N, T] arrays.

    Examples:
        >>> classifier = DTWNeighborsClassifier().fit([[0.0, 1.0], [5.0, 4.0, 4.0]], ["up", "down"])
        >>> classifier.predict([[0.0, 0.0, 1.0], [6.0, 4.0]]).tolist()
        ['up', 'down']
    """

    classes_: npt.NDArray[Any]
    n_features_in_: int

    def __init__(
        self,
        n_neighbors: int = 1,
        *,
        window: int | float | None = None,
        band: str = "sakoe_chiba",
        max_slope: float = 2.0,
        normalize: str | None = None,
        weights: str = "uniform",
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.window = window
        self.band = band
        self.max_slope = max_slope
        self.normalize = normalize
        self.weights = weights
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: npt.ArrayLike) -> DTWNeighborsClassifier:
        """Keeps the training sequences.

        Args:
            X: N sequences.
            y: [N], their labels.

        Returns:
            The estimator itself.

        Raises:
            TypeError: see `dtw_pairwise_distance`; `n_neighbors` is not an int.
            ValueError: see `dtw_pairwise_distance`; labels that are no classes or not one for each sequence,
                `n_neighbors` or `weights` out of range.
        """
        if y is None:
            raise ValueError(f"{_NAME} requires y to be passed, but the target y is None")
        labels = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"), warn=True)
        check_classification_targets(labels)
        train = self._sequences(X, fit=True)
        if labels.shape != (len(train),):
            raise ValueError(f"{_NAME}: y must hold {len(train)} labels, got shape {list(labels.shape)}")
        if isinstance(self.n_neighbors, bool) or not isinstance(self.n_neighbors, (int, np.integer)):
            raise TypeError(f"{_NAME}: n_neighbors must be an int, got {self.n_neighbors!r}")
        if not 1 <= self.n_neighbors <= len(train):
            raise ValueError(
                f"{_NAME}: n_neighbors must be from 1 to n_samples = {len(train)}, got {self.n_neighbors}"
            )
        if self.weights not in ("uniform", "distance"):
            raise ValueError(f"{_NAME}: weights must be 'uniform' or 'distance', got {self.weights!r}")
        as_band(self.window, int(train.lengths.max()), _NAME, self.band, self.max_slope)
        as_normalize(self.normalize, _NAME)
        self.classes_, self._labels = np.unique(labels, return_inverse=True)
        self._train = train
        return self

    def kneighbors(self, X: Any, n_neighbors: int | None = None) -> tuple[Array, npt.NDArray[np.int64]]:
        """The nearest training sequences.

        Args:
            X: N queries.
            n_neighbors: how many; default: the estimator's.

        Returns:
            distances: [N, n_neighbors], ascending.
            indices: [N, n_neighbors], positions in the training data.

        Raises:
            TypeError: see `dtw_knn`.
            ValueError: see `dtw_knn`.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        return dtw_knn(
            self._sequences(X), self._train, count, self.window, band=self.band, max_slope=self.max_slope,
            normalize=self.normalize, n_jobs=self.n_jobs,
        )  # fmt: skip

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """[N, classes], the share of the votes that each class has, in the order of `classes_`.

        Args:
            X: N queries.

        Raises:
            TypeError: see `dtw_knn`.
            ValueError: see `dtw_knn`.
            NotFittedError: before `fit`.
        """
        distances, indices = self.kneighbors(X)
        votes = np.ones(distances.shape)
        if self.weights == "distance":
            same = distances == 0
            with np.errstate(divide="ignore"):
                votes = np.where(same.any(1, keepdims=True), same, 1 / distances.astype(np.float64))
            # All neighbours infinitely far: they count alike.
            votes[~(votes.sum(1) > 0)] = 1
        shares: npt.NDArray[np.float64] = np.zeros((len(votes), len(self.classes_)))
        np.add.at(shares, (np.arange(len(votes))[:, None], self._labels[indices]), votes)
        shares /= shares.sum(1, keepdims=True)
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """[N], the class with most votes, the first one of `classes_` among equals.

        Args:
            X: N queries.

        Raises:
            TypeError: see `dtw_knn`.
            ValueError: see `dtw_knn`.
            NotFittedError: before `fit`.
        """
        winners = self.predict_proba(X).argmax(1)
        labels: npt.NDArray[Any] = self.classes_[winners]
        return labels

    def _sequences(self, X: Any, fit: bool = False) -> Sequences:
        flat = _is_table(X)
        if flat:
            X = check_array(X, dtype=(np.float64, np.float32), estimator=self)
        (part,) = as_collections({"X": X}, None, _NAME)
        features = int(part.lengths[0]) if flat else part.features
        if fit:
            self.n_features_in_ = features
            self._flat = flat
        elif features != self.n_features_in_ and flat == self._flat:
            raise ValueError(
                f"X has {features} features, but {_NAME} is expecting {self.n_features_in_} features as input"
            )
        return part


def _is_table(X: Any) -> bool:
    """Whether X is in scikit-learn's form, [N, T] numbers whatever holds them, or in none at all."""
    if isinstance(X, Sequences):
        return False
    if isinstance(X, (list, tuple)):
        rows = all(isinstance(row, (list, tuple)) for row in X)
        return rows and len({len(row) for row in X}) == 1 and all(np.isscalar(v) for row in X for v in row)
    shape = getattr(X, "shape", ())
    return len(shape) == 2 or (len(shape) < 2 and getattr(getattr(X, "dtype", None), "kind", "") != "O")
