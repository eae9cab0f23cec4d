"""Lower bounds of DTW distances from a few projected features, safe against every rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import _depth
from stgcn_fast.dtw.sequences import Array, Sequences

Real = npt.NDArray[np.float64]

# Frames that the principal components are taken from; their directions need not be exact.
FIT_FRAMES = 768
_EXTRA = 8  # directions of the randomised range finder beyond those wanted
_DIRECT = 96  # features up to which the covariance is solved as it stands
_BLOCK_BYTES = 2 << 20  # stays in the cache


@dataclass(frozen=True)
class Projection:
    """An orthonormal projection of frames, c = x - mean, to (P c, |c - P^T P c|).

    For any two frames |z_x - z_y|^2 = |P(x - y)|^2 + (|R x| - |R y|)^2 <= |P(x - y)|^2 + |R(x - y)|^2
    = |x - y|^2 with R = I - P^T P. So each local cost, each path and DTW itself are at most those of the
    sequences, whatever the band.

    Attributes:
        mean: [D].
        rows: P transposed, [D, d].
        defect: how far the rows are from orthonormal.
    """

    mean: Real
    rows: Real
    defect: float

    @classmethod
    def fit(cls, frames: Array, dimensions: int) -> Projection:
        """Principal components of some of the frames, [rows, D]."""
        rng = np.random.default_rng(0)
        count, width = frames.shape
        if count > FIT_FRAMES:
            sample = frames[np.sort(rng.choice(count, FIT_FRAMES, replace=False))].astype(np.float64)
        else:
            sample = frames.astype(np.float64)
        scale = float(np.abs(sample).max()) or 1.0
        sample /= scale
        mean = sample.mean(0)
        sample -= mean
        if width <= _DIRECT:
            basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :dimensions]
        else:
            wide = min(dimensions + _EXTRA, width)
            basis = np.linalg.qr(sample.T @ (sample @ rng.standard_normal((width, wide))))[0]
            basis = basis @ np.linalg.svd(sample @ basis, full_matrices=False)[2][:dimensions].T
        rows = np.ascontiguousarray(np.linalg.qr(basis)[0])
        defect = float(np.linalg.norm(rows.T @ rows - np.eye(rows.shape[1])))
        return cls(mean * scale, rows, defect)

    def project(self, x: Sequences) -> tuple[Sequences, Real]:
        """The projected sequences, and for each of them how wrong the features of one of its frames may be.

        Args:
            x: sequences of D features.

        Returns:
            z: the sequences of d + 1 features, in the dtype of x.
            error: [N], at least the Euclidean distance of a frame's features from those of real numbers.
        """
        width, count = self.rows.shape
        z = np.empty((len(x.frames), count + 1), x.frames.dtype)
        size = np.empty(len(x.frames))
        step = max(1, _BLOCK_BYTES // (8 * width))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows bounds nothing
            for first in range(0, len(z), step):
                part = slice(first, min(first + step, len(z)))
                centred = x.frames[part] - self.mean
                inside = centred @ self.rows
                norm = np.einsum("ij,ij->i", centred, centred)
                rest = norm - np.einsum("ij,ij->i", inside, inside)
                z[part, :count] = inside
                z[part, count] = np.sqrt(np.maximum(rest, 0))
                size[part] = norm
            np.nan_to_num(z, copy=False)
            largest = np.sqrt(np.maximum.reduceat(size, x.offsets[:-1]))
        unit = np.finfo(np.float64).eps
        # Of a sum of D products in any order, of the root of a difference of two such, of storing it.
        products = width * unit * (2 + np.sqrt(count))
        share = np.sqrt(2 * products + 2 * self.defect) + products + self.defect
        error = (share + 2 * np.finfo(z.dtype).eps) * largest * 1.01 + np.finfo(z.dtype).tiny * (count + 1)
        return Sequences(z, x.offsets), error


@dataclass(frozen=True)
class Margin:
    """What rounding may add to a bound, and take from a distance.

    A path has K <= n + m - 1 cells. Features that are wrong by e_x and e_y add at most (e_x + e_y) sqrt(K) to
    the root (Minkowski's inequality); sums of numbers that are not negative have a relative error of at most
    the number of additions times the unit roundoff; a square below the normal numbers may be lost whole.

    Attributes:
        features: D of the sequences.
        projected: d + 1.
        x_error: [N], from `Projection.project`.
        y_error: [M].
        x_lengths: [N].
        y_lengths: [M].
        dtype: that the distances are computed in.
    """

    features: int
    projected: int
    x_error: Real
    y_error: Real
    x_lengths: npt.NDArray[np.int64]
    y_lengths: npt.NDArray[np.int64]
    dtype: np.dtype[np.floating]

    def bounds(self, row: int, squares: Array) -> Real:
        """[M] bounds of the squared distances of x `row`, from squared projected DTW, [M]."""
        unit, tiny = float(np.finfo(self.dtype).eps), float(np.finfo(self.dtype).tiny)
        cells = self.x_lengths[row] + self.y_lengths
        depth = _depth(self.features)
        chunks = -(-self.features // depth)
        relative = (depth + chunks + self.projected + 2 * cells + 16) * unit
        with np.errstate(over="ignore", invalid="ignore"):
            root = np.sqrt(squares.astype(np.float64))
            root = root * (1 - relative) - (self.x_error[row] + self.y_error) * np.sqrt(cells)
            result = np.maximum(root, 0) ** 2 * (1 - 16 * unit) - self.features * cells * tiny
        return np.where(np.isfinite(result), np.maximum(result, 0), 0)
