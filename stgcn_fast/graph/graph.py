"""The graph of a skeleton as a stack of K partitioned, normalised adjacency matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stgcn_fast.graph import normalization as _normalization
from stgcn_fast.graph import partition as _partition
from stgcn_fast.graph.layout import Layout
from stgcn_fast.graph.layouts import carried_definition, get_layout, list_layouts

if TYPE_CHECKING:
    import torch

PARTITIONS = ("uniform", "distance", "spatial", "symmetric")
NORMALIZATIONS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.float64]]] = {
    "symmetric": _normalization.symmetric,
    "symmetric_rows": _normalization.symmetric_rows,
    "column": _normalization.column,
    "none": _normalization.none,
    "kth_code": _normalization.kth_code,
}
_GIVEN = "given"


class Graph:
    """Partitioned adjacency of a skeleton, ``A [K, V, W]`` with source joint v first, target joint w second.

    Partitions (Yan et al. 2018; the last one Nagy, Panesar and Qian), D = ``max_distance``:

    ==============  =========  ======================================================================
    name            K          subsets
    ==============  =========  ======================================================================
    ``uniform``     1          the joint and its D-neighbourhood
    ``distance``    D + 1      by number of hops
    ``spatial``     2 D + 1    the joint; per hop: not nearer to the centre than the joint, nearer
    ``symmetric``   D + 1      by number of hops, mirror images of joints included
    ==============  =========  ======================================================================

    Normalisations: ``symmetric`` is ``Λ_k^-1/2 A_k Λ_k^-1/2`` per subset with alpha added to the degrees;
    ``symmetric_rows`` takes row sums on both sides even for directed subsets (entries up to
    ``alpha^-1/2``); ``column`` gives the sum over subsets unit columns, as the public code; ``none`` keeps
    zeros and ones; ``kth_code`` repeats the KTH study's code, whose matrices are dense.

    Args:
        layout: a layout or the name of one.
        partition: see above; ``uni`` is accepted for ``uniform``.
        max_distance: D >= 1, the largest number of hops between a joint and its neighbours.
        normalization: see above.
        alpha: added to every degree by the symmetric normalisations.
        hop_cap: spatial partition only: hops to the centre beyond D count as infinite and hence as equal.
            ``Graph("ntu25", normalization="column", hop_cap=True)`` is the public ST-GCN's graph.
        joint_distances: spatial partition only: ``[V]``, measured mean distance of each joint to the centre
            of gravity (:func:`mean_joint_distances`), instead of hops to ``layout.centre``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an unknown name, D < 1, alpha <= 0, or options that do not fit the partition.

    Examples:
        >>> graph = Graph("ntu25", normalization="none")
        >>> [int(subset.sum()) for subset in graph.A]
        [25, 24, 24]
    """

    def __init__(
        self,
        layout: str | Layout,
        partition: str = "spatial",
        max_distance: int = 1,
        normalization: str = "symmetric",
        alpha: float = 1e-3,
        *,
        hop_cap: bool = False,
        joint_distances: ArrayLike | None = None,
    ) -> None:
        self.layout = _layout(layout)
        self.partition = "uniform" if partition == "uni" else partition
        self.normalization = normalization
        self.max_distance = max_distance
        self.alpha = alpha
        self.hop_cap = hop_cap
        self.joint_distances = _joint_distances(joint_distances, self.layout)
        self._check()
        subsets = self._subsets().astype(np.float64)
        self._A = _frozen(NORMALIZATIONS[normalization](subsets, alpha))

    @classmethod
    def from_adjacency(cls, adjacency: ArrayLike, layout: str | Layout) -> Graph:
        """A graph with given matrices, for example those of a public checkpoint.

        Args:
            adjacency: ``[K, V, W]``, finite, source joint first.
            layout: the layout of its V joints, or its name.

        Raises:
            ValueError: the shape does not fit the layout, or a value is not finite.
        """
        graph = cls.__new__(cls)
        graph.layout = _layout(layout)
        matrices = np.asarray(adjacency, dtype=np.float64)
        num_joints = graph.layout.num_joints
        if matrices.ndim != 3 or len(matrices) == 0 or matrices.shape[1:] != (num_joints, num_joints):
            raise ValueError(
                f"Graph.from_adjacency: adjacency must have shape [K, {num_joints}, {num_joints}] for layout "
                f"{graph.layout.name!r}, got {list(matrices.shape)}"
            )
        if not np.isfinite(matrices).all():
            raise ValueError("Graph.from_adjacency: adjacency must be finite, got NaN or infinity")
        graph.partition, graph.normalization = _GIVEN, "none"
        graph.max_distance, graph.alpha, graph.hop_cap, graph.joint_distances = 1, 1e-3, False, None
        graph._A = _frozen(matrices)
        return graph

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Graph:
        """Builds the graph that :attr:`config` describes.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: an unknown key, or a value that the constructor refuses.
        """
        options = dict(config)
        if "layout" not in options:
            raise ValueError(f"Graph: config must have a layout, got {sorted(options)}")
        layout = options.pop("layout")
        layout = Layout.from_config(layout) if isinstance(layout, Mapping) else layout
        if "entries" in options:
            return cls._from_entries(options, layout)
        known = {"partition", "max_distance", "normalization", "alpha", "hop_cap", "joint_distances"}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"Graph: config must have only known keys, got {', '.join(unknown)}")
        return cls(layout, **options)

    @classmethod
    def _from_entries(cls, options: dict[str, Any], layout: str | Layout) -> Graph:
        num_joints = _layout(layout).num_joints
        unknown = sorted(set(options) - {"entries", "num_partitions"})
        if unknown:
            raise ValueError(f"Graph: config must have only known keys, got {', '.join(unknown)}")
        matrices = np.zeros((int(options.get("num_partitions", 0)), num_joints, num_joints))
        for entry in options["entries"]:
            if len(entry) != 4:
                raise ValueError(f"Graph: config entries must be [k, v, w, value], got {entry}")
            k, v, w, value = entry
            if not (0 <= k < len(matrices) and 0 <= v < num_joints and 0 <= w < num_joints):
                raise ValueError(
                    f"Graph: config entries must lie in {list(matrices.shape)}, got [{k}, {v}, {w}]"
                )
            matrices[k, v, w] = value
        return cls.from_adjacency(matrices, layout)

    @property
    def A(self) -> NDArray[np.float32]:
        """The matrices ``[K, V, W]``, float32, read-only."""
        return self._A

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return self.layout.num_joints

    @property
    def num_partitions(self) -> int:
        """Number of subsets K."""
        return len(self._A)

    @property
    def config(self) -> dict[str, Any]:
        """Everything needed to build the graph again, as a dictionary that JSON can hold.

        A layout that comes with the package is written by name, any other with its definition.
        """
        layout = carried_definition(self.layout) or self.layout.name
        if self.partition == _GIVEN:
            where = np.argwhere(self._A)
            entries = [[*map(int, index), float(self._A[tuple(index)])] for index in where]
            return {"layout": layout, "num_partitions": self.num_partitions, "entries": entries}
        config: dict[str, Any] = {
            "layout": layout,
            "partition": self.partition,
            "max_distance": self.max_distance,
            "normalization": self.normalization,
            "alpha": self.alpha,
            "hop_cap": self.hop_cap,
        }
        if self.joint_distances is not None:
            config["joint_distances"] = self.joint_distances.tolist()
        return config

    def adjacency(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The matrices as a new tensor.

        Args:
            dtype: a floating point type; None gives float32.

        Returns:
            ``[K, V, W]`` on the CPU.
        """
        import torch

        return torch.tensor(self._A, dtype=dtype or torch.float32)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return self.layout == other.layout and np.array_equal(self._A, other._A)

    def __hash__(self) -> int:
        return hash((self.layout, self._A.tobytes()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._A.setflags(write=False)  # copies of an array are writable

    def __repr__(self) -> str:
        if self.partition == _GIVEN:
            return f"Graph({self.layout.name!r}, K={self.num_partitions}, given)"
        return (
            f"Graph({self.layout.name!r}, partition={self.partition!r}, max_distance={self.max_distance}, "
            f"normalization={self.normalization!r})"
        )

    def _subsets(self) -> NDArray[np.bool_]:
        if self.partition == "spatial":
            return _partition.spatial(self.layout, self.max_distance, self.joint_distances, self.hop_cap)
        if self.partition == "distance":
            return _partition.distance(self.layout, self.max_distance)
        if self.partition == "symmetric":
            return _partition.symmetric(self.layout, self.max_distance)
        return _partition.uniform(self.layout, self.max_distance)

    def _check(self) -> None:
        if self.partition not in PARTITIONS:
            raise ValueError(
                f"Graph: partition must be one of {', '.join(PARTITIONS)}, got {self.partition!r}"
            )
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"Graph: normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}"
            )
        if isinstance(self.max_distance, bool) or not isinstance(self.max_distance, int):
            raise TypeError(f"Graph: max_distance must be an integer, got {self.max_distance!r}")
        if self.max_distance < 1:
            raise ValueError(f"Graph: max_distance must be at least 1, got {self.max_distance}")
        joints = self.layout.num_joints
        if self.max_distance > joints and self.partition != "uniform":  # there is a subset for every hop
            raise ValueError(
                f"Graph: max_distance must be at most the number of joints, {joints}, got {self.max_distance}"
            )
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)):
            raise TypeError(f"Graph: alpha must be a number, got {self.alpha!r}")
        if not 0 < self.alpha < np.inf:
            raise ValueError(f"Graph: alpha must be positive and finite, got {self.alpha}")
        if self.joint_distances is not None and self.partition != "spatial":
            raise ValueError(
                f"Graph: joint_distances must be None unless partition is 'spatial', got {self.partition!r}"
            )
        if self.joint_distances is not None and self.hop_cap:
            raise ValueError("Graph: hop_cap must be False with joint_distances, got True")


def _layout(layout: str | Layout) -> Layout:
    if isinstance(layout, Layout):
        return layout
    if not isinstance(layout, str):
        raise TypeError(f"Graph: layout must be a name or a Layout, got {type(layout).__name__}")
    if layout not in list_layouts():
        raise ValueError(f"Graph: layout must be one of {', '.join(list_layouts())}, got {layout!r}")
    return get_layout(layout)


def _joint_distances(values: ArrayLike | None, layout: Layout) -> NDArray[np.float64] | None:
    if values is None:
        return None
    radius = np.asarray(values, dtype=np.float64)
    if radius.shape != (layout.num_joints,):
        raise ValueError(
            f"Graph: joint_distances must have shape [{layout.num_joints}] for layout {layout.name!r}, "
            f"got {list(radius.shape)}"
        )
    if not (np.isfinite(radius) & (radius >= 0)).all():
        raise ValueError(f"Graph: joint_distances must be finite and not negative, got {radius.tolist()}")
    return radius


def _frozen(matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    result = matrices.astype(np.float32)
    result.setflags(write=False)
    return result
