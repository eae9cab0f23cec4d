"""DTW whose symbols are windows of frames, for the feature maps of a network's layers."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import distances, thread_count
from stgcn_fast.dtw._windowed_kernels import sums_and_cells
from stgcn_fast.dtw.knn import _smallest
from stgcn_fast.dtw.sequences import Array, Band, Sequences, as_collections

Index = npt.NDArray[np.int64]

# Numbers of one symbol from which `reduce="auto"` takes the mean instead of all frames.
_WIDEST_STACK = 64 * 1024
# Distances that `knn` holds at a time.
_TABLE_BYTES = 128 << 20
_CHOICES: dict[str, tuple[Any, ...]] = {
    "reduce": ("auto", "stack", "mean"),
    "normalize": ("path", "lengths", None),
    "standardize": ("layer", "unit", "none"),
}


@dataclass(frozen=True)
class WindowedDTW:
    """DTW between sequences of windows.

    A sequence of n frames becomes max(1, 1 + ceil((n - window) / hop)) symbols, each a window of frames; the
    last one ends with the sequence, and a sequence shorter than a window is continued by its last frame. With
    symbols u of `dim` numbers the local cost is c(a, b) = |u_a - v_b| / sqrt(dim), and the distance is the
    smallest sum of c along a path (steps and band as `dtw_distance`) over the number of cells of that path.
    Of several best paths the shortest counts. The distance is symmetric to the last bit and zero for equal
    sequences; it is not a metric.

    Args:
        window: frames of a symbol, at least 1.
        hop: frames from one symbol to the next, at least 1.
        reduce: what a symbol is: "stack", all frames of the window (dim = window * D), or "mean", their mean
            (dim = D); "auto" stacks as long as that gives at most 65,536 numbers.
        band: which symbols may meet: symbol i of n and j of m where -r - max(0, n - m) <= j - i <=
            r + max(0, m - n), so there is always a path. An int is r itself, in symbols, not frames (a symbol
            is `hop` frames from the next); a float from 0.0 to 1.0 gives r as that share of the longer
            sequence of symbols, rounded to the nearest symbol; None, no band.
        normalize: "path", divide by the cells of the path; "lengths", by the symbols of both sequences; None.
        standardize: "layer", divide all features by their common standard deviation, which makes layers
            comparable; "unit", each feature by its own; "none". Deviations are those of all frames of a call.
        squared: sum squares: c(a, b) = |u_a - v_b|^2 / dim.
        flat: make each frame's D features D frames of one feature first (see `flat1d`).

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a field out of range.

    Examples:
        >>> import numpy as np
        >>> x = [np.arange(n, dtype=float)[:, None] for n in (40, 40, 60)]
        >>> WindowedDTW(window=16, hop=8, standardize="none").symbols(x).lengths.tolist()
        [4, 4, 7]
        >>> WindowedDTW(window=16, hop=8).pairwise(x)[0, 1]
        np.float64(0.0)
    """

    window: int = 16
    hop: int = 8
    reduce: Literal["auto", "stack", "mean"] = "auto"
    band: int | float | None = None
    normalize: Literal["path", "lengths"] | None = "path"
    standardize: Literal["layer", "unit", "none"] = "layer"
    squared: bool = False
    flat: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "hop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"WindowedDTW: {name} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"WindowedDTW: {name} must be at least 1, got {value}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"WindowedDTW: {name} must be one of {list(choices)}, got {value!r}")
        for name in ("squared", "flat"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"WindowedDTW: {name} must be True or False, got {getattr(self, name)!r}")
        band: Any = self.band
        if band is None:
            return
        if isinstance(band, (bool, np.bool_)) or not isinstance(band, numbers.Real):
            raise TypeError(f"WindowedDTW: band must be None, an int or a float, got {band!r}")
        if isinstance(band, numbers.Integral):
            if band < 0:
                raise ValueError(f"WindowedDTW: band must be at least 0, got {band}")
        elif not 0 <= float(band) <= 1:
            raise ValueError(f"WindowedDTW: band as a float must be a share from 0.0 to 1.0, got {band}")

    @classmethod
    def flat1d(cls, band: int | float | None = None) -> WindowedDTW:
        """Plain one-dimensional DTW of maps flattened frame by frame: |.| as cost, a band, no normalisation.

        Args:
            band: in numbers of the flattened series (frames times D), or a share of the longer one.
        """
        return cls(1, 1, "stack", band, normalize=None, standardize="none", flat=True)

    def for_layer(self, frames: int, input_frames: int) -> WindowedDTW:
        """The same for a layer of `frames` frames: windows cover the same time as in `input_frames` frames.

        Args:
            frames: frames of the layer's maps.
            input_frames: frames of the network's input, in which `window` and `hop` count.

        Raises:
            ValueError: a number below 1.

        Examples:
            >>> layer = WindowedDTW(window=16, hop=8).for_layer(75, 300)
            >>> layer.window, layer.hop
            (4, 2)
        """
        if frames < 1 or input_frames < 1:
            raise ValueError(
                f"for_layer: frames and input_frames must be at least 1, got {frames} and {input_frames}"
            )
        window, hop = (max(1, round(v * frames / input_frames)) for v in (self.window, self.hop))
        return replace(self, window=window, hop=hop)

    def symbols(self, X: Any, *, dtype: npt.DTypeLike | None = None) -> Sequences:
        """The windows of every sequence.

        Args:
            X: sequences, in a form that `dtw_pairwise_distance` takes.
            dtype: float32 or float64. Default: float32 if all sequences are, else float64.

        Returns:
            Sequences of [W_i, dim].

        Raises:
            TypeError: see `dtw_pairwise_distance`.
            ValueError: see `dtw_pairwise_distance`.
        """
        return self._symbols({"X": X}, dtype, "symbols")[0]

    def distance(self, x: Any, y: Any, *, dtype: npt.DTypeLike | None = None) -> float:
        """The distance of two sequences [T_x, D] (or [T_x]) and [T_y, D].

        Raises:
            TypeError: see `dtw_distance`.
            ValueError: see `dtw_distance`.
        """
        a, b = self._symbols({"x": [x], "y": [y]}, dtype, "distance")
        return float(self._table(a, b, 1)[0, 0])

    def pairwise(self, X: Any, *, dtype: npt.DTypeLike | None = None, n_jobs: int | None = None) -> Array:
        """[N, N], distances within a collection, symmetric with a zero diagonal.

        Args:
            X: sequences, in a form that `dtw_pairwise_distance` takes.
            dtype: float32 or float64. Default: float32 if all sequences are, else float64.
            n_jobs: threads, see `dtw_pairwise_distance`.

        Raises:
            TypeError: see `dtw_pairwise_distance`.
            ValueError: see `dtw_pairwise_distance`.
        """
        (x,) = self._symbols({"X": X}, dtype, "pairwise")
        return self._table(x, None, thread_count(n_jobs, "pairwise"))

    def cdist(
        self, X: Any, Y: Any, *, dtype: npt.DTypeLike | None = None, n_jobs: int | None = None
    ) -> Array:
        """[N, M], distances of N sequences X to M sequences Y; arguments and errors as for `pairwise`."""
        x, y = self._symbols({"X": X, "Y": Y}, dtype, "cdist")
        return self._table(x, y, thread_count(n_jobs, "cdist"))

    def knn(
        self,
        X: Any,
        Y: Any = None,
        k: int = 1,
        *,
        dtype: npt.DTypeLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[Array, Index]:
        """The k nearest sequences, exact; at most 128 MiB of distances are held at a time.

        Args:
            X: N queries.
            Y: M candidates; None: the other sequences of X (never the query itself).
            k: neighbours of each query, from 1 to M (N - 1 without Y).
            dtype: as for `pairwise`.
            n_jobs: as for `pairwise`.

        Returns:
            distances: [N, k], ascending.
            indices: [N, k], the smaller index first among equal distances.

        Raises:
            TypeError: see `dtw_knn`.
            ValueError: see `dtw_knn`.
        """
        parts = self._symbols({"X": X} if Y is None else {"X": X, "Y": Y}, dtype, "knn")
        x, y = parts[0], parts[-1]
        threads = thread_count(n_jobs, "knn")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"knn: k must be an int, got {k!r}")
        most = len(y) - (Y is None)
        if not 1 <= k <= most:
            raise ValueError(f"knn: k must be from 1 to {most} (the candidates of a query), got {k}")
        size = max(1, _TABLE_BYTES // (len(y) * x.frames.dtype.itemsize))
        results = []
        for start in range(0, len(x), size):
            queries = x.select(start, min(start + size, len(x)))
            table = self._table(queries, y, threads)
            if Y is None:
                each = np.arange(len(queries))
                table[each, start + each] = np.inf
            results.append(_smallest(table, int(k)))
        return np.concatenate([r[0] for r in results]), np.concatenate([r[1] for r in results])

    def _symbols(self, values: dict[str, Any], dtype: Any, function: str) -> list[Sequences]:
        parts = as_collections(values, dtype, f"WindowedDTW.{function}")
        if self.flat:
            width = parts[0].features
            parts = [Sequences(part.frames.reshape(-1, 1), part.offsets * width) for part in parts]
        number = parts[0].frames.dtype
        factor = np.ones(1, number)
        if self.standardize != "none":
            axis = None if self.standardize == "layer" else 0
            frames = np.concatenate([part.frames for part in parts]) if len(parts) > 1 else parts[0].frames
            deviation = np.atleast_1d(frames.std(axis, dtype=np.float64))
            # What never changes is left alone.
            factor = (1 / np.where(deviation > 0, deviation, 1)).astype(number)
        return [self._cut(part, factor) for part in parts]

    def _cut(self, part: Sequences, factor: Array) -> Sequences:
        counts = np.maximum(1, 1 - (self.window - part.lengths) // self.hop)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        width = part.features
        stack = self.reduce == "stack" or (self.reduce == "auto" and width * self.window <= _WIDEST_STACK)
        out = np.empty((offsets[-1], width * self.window if stack else width), part.frames.dtype)
        for i, n in enumerate(part.lengths):
            starts = np.minimum(np.arange(counts[i]) * self.hop, max(0, n - self.window))
            rows = np.minimum(starts[:, None] + np.arange(self.window), n - 1)
            windows = (part[i] * factor)[rows]  # [W, window, D]
            place = slice(offsets[i], offsets[i + 1])
            out[place] = windows.reshape(len(windows), -1) if stack else windows.mean(1)
        return Sequences(out, offsets)

    def _table(self, x: Sequences, y: Sequences | None, threads: int) -> Array:
        """[N, M] distances of symbols; without y [N, N], each pair computed once."""
        dtype = x.frames.dtype
        band: Any = self.band
        cells = Band(1 << 30, 0.0)
        if isinstance(band, numbers.Integral):
            cells = Band(min(int(band), 1 << 30), 0.0)
        elif band is not None:
            cells = Band(0, float(band))

        def finish(sums: Array, steps: Array, n: Index, m: Index) -> Array:
            if self.normalize is None:
                return sums
            return np.divide(sums, steps if self.normalize == "path" else n + m, dtype=dtype)

        recurrence = sums_and_cells(dtype, cells, share=1 / x.features, root=not self.squared, finish=finish)
        table = np.empty((len(x), len(x if y is None else y)), dtype)

        def emit(rows: Index, columns: Index, values: Array) -> None:
            table[rows[:, None], columns] = values
            if y is None:
                table[columns[:, None], rows] = values.T

        distances(x, y, cells, emit, squared=True, threads=threads, progress=None, recurrence=recurrence)
        return table


def layer_sequences(
    maps: Any, frames: npt.ArrayLike | None = None, input_frames: int | None = None
) -> list[Array]:
    """Feature maps of one layer as sequences: frame t of clip i is `maps[i, :, t]`, flattened.

    Args:
        maps: [N, C, T, V], array or CPU tensor.
        frames: [N], frames of each clip that are not padding, counted in the network's input.
        input_frames: frames of the network's input, padding included; needed with `frames`.

    Returns:
        N arrays [T_i, C * V] with T_i = ceil(T * frames[i] / input_frames), at least 1.

    Raises:
        ValueError: shapes or numbers of frames do not fit.

    Examples:
        >>> import numpy as np
        >>> maps = np.zeros((2, 64, 75, 25), np.float32)
        >>> [x.shape for x in layer_sequences(maps, [300, 102], 300)]
        [(75, 1600), (26, 1600)]
    """
    name = "layer_sequences"
    if hasattr(maps, "detach"):
        maps = maps.detach()
    array = np.asarray(maps)
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"{name}: maps must have shape [N, C, T, V], got {list(array.shape)}")
    count, length = array.shape[0], array.shape[2]
    valid = [length] * count
    if (frames is None) != (input_frames is None):
        raise ValueError(f"{name}: frames and input_frames must come together, got one of them")
    if frames is not None and input_frames is not None:
        given = np.asarray(frames)
        if given.shape != (count,) or (given < 1).any() or (given > input_frames).any():
            raise ValueError(
                f"{name}: frames must be {count} numbers from 1 to {input_frames} (input_frames), got {given}"
            )
        valid = [math.ceil(length * int(f) / input_frames) for f in given]
    rows = np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(count, length, -1)
    return [rows[i, :n] for i, n in enumerate(valid)]
