"""ST-GCN: the spatial-temporal graph convolutional network (Yan, Xiong and Lin, AAAI 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.graph import Graph, Layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models._checks import check_positive
from stgcn_fast.models.registry import register
from stgcn_fast.nn import STGCNBlock, _fusion, _orders, init_as_public

STAGE_CHANNELS = (64, 128, 256)
DEPTH = 10
PERSON_POOLING = ("all", "present")
KTH_NORMALIZATION = "kth_code"
_KTH_RESIDUAL = (*(word for word in _orders.ORDERS["pre_activation"] if word != "dropout"), "relu", "dropout")
_KTH_JITTER = 1e-3  # of the factors that the code's edge importance multiplies into the adjacency once


@register("st_gcn")
class STGCN(nn.Module):
    """ST-GCN with the parameter names, shapes and numbers of the public implementation.

    BatchNorm over the joints' coordinates, a stack of :class:`stgcn_fast.nn.STGCNBlock`, averages over
    frames and joints, then over persons, and a linear classifier. Inside, features are channels_last.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint (with the confidence, if it is given): 2 or 3 as a rule.
        layout: layout of the joints or its name; ``"ntu25"`` by default.
        partition: partition of :class:`stgcn_fast.graph.Graph`; ``"spatial"`` by default.
        normalization: normalisation of the graph; ``"symmetric"`` by default.
        graph: a graph, or the ``config`` of one, instead of the three above.
        edge_importance: whether each block scales the adjacency's entries by learnt factors ``[K, V, V]``.
        dropout: dropout probability of every block but the first.
        channels: output channels of each block; by default 64, 128 and 256 in stages of 4, 3, 3 blocks.
        strides: temporal stride of each block; by default 2 where the number of channels changes.
        depth: number of blocks of the default stages, at least 3.
        width: factor of the default channels.
        temporal_kernel: Γ, odd.
        person_pooling: ``"all"`` averages over all M persons, absent ones (all zeros) included, as the public
            code does; ``"present"`` over those that are there.
        order: order of the layers within each block, see :class:`stgcn_fast.nn.STGCNBlock`. In the standard
            one the first block has neither residual nor dropout; in others all blocks are alike.
        residual: whether blocks have residual connections.
        data_norm: whether there is BatchNorm over the joints' coordinates in front of the blocks.
        kth_compat: repeats what the code of the KTH study (Nagy, Panesar and Qian) does beside its report:
            the graph's ``kth_code`` normalisation unless one is named; each block's adjacency is learnt
            whole, with ``edge_importance`` or without (it is kept as ``edge_importance``, of an ``A`` of
            ones; the option only jitters its initial values); nothing normalises in front of the blocks;
            another ReLU and then dropout behind the sum of ``pre_activation``; torch's initial weights.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.

    Examples:
        >>> model = STGCN(num_classes=60, layout="ntu25")
        >>> model(torch.zeros(2, 3, 32, 25, 1)).shape
        torch.Size([2, 60])
    """

    A: Tensor
    edge_importance: nn.ParameterList | None

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout | None = None,
        partition: str | None = None,
        normalization: str | None = None,
        graph: Graph | Mapping[str, Any] | None = None,
        edge_importance: bool = True,
        dropout: float = 0.0,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        depth: int | None = None,
        width: float = 1.0,
        temporal_kernel: int = 9,
        person_pooling: str = "all",
        order: str | Sequence[str] = "standard",
        residual: bool = True,
        data_norm: bool = True,
        kth_compat: bool = False,
    ) -> None:
        super().__init__()
        for name, flag in (("residual", residual), ("data_norm", data_norm), ("kth_compat", kth_compat)):
            if not isinstance(flag, bool):
                raise TypeError(f"STGCN: {name} must be a bool, got {flag!r}")
        check_positive("STGCN", num_classes=num_classes, in_channels=in_channels)
        if person_pooling not in PERSON_POOLING:
            raise ValueError(f"STGCN: person_pooling must be 'all' or 'present', got {person_pooling!r}")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.graph = _graph(layout, partition, normalization, graph, kth_compat)
        self.channels = _channels(channels, depth, width)
        self.strides = _strides(strides, self.channels)
        self.dropout = dropout
        self.temporal_kernel = temporal_kernel
        self.person_pooling = person_pooling
        self.order = _orders.resolve(order, "STGCN")
        self.residual, self.kth_compat = residual, kth_compat
        self._weighted = bool(edge_importance)  # kth_compat learns adjacencies without it, too
        standard = self.order == _orders.STANDARD
        quirk = kth_compat and self.order == _orders.ORDERS["pre_activation"]

        num_partitions, num_joints = self.graph.num_partitions, self.graph.num_joints
        A = self.graph.adjacency()  # [K, V, V]
        self.register_buffer("A", torch.ones_like(A) if kth_compat else A)
        normalised = data_norm and not kth_compat
        self.data_bn = nn.BatchNorm1d(in_channels * num_joints) if normalised else nn.Identity()
        self.data_norm = data_norm
        self.st_gcn_networks = nn.ModuleList(
            STGCNBlock(
                inputs,
                outputs,
                num_partitions,
                temporal_kernel,
                stride,
                0.0 if standard and i == 0 else dropout,
                residual=residual and not (standard and i == 0),
                order=_KTH_RESIDUAL if quirk else self.order,
            )
            for i, (inputs, outputs, stride) in enumerate(
                zip((in_channels, *self.channels), self.channels, self.strides)
            )
        )
        if kth_compat:
            jitter = _KTH_JITTER if edge_importance else 0.0
            self.edge_importance = nn.ParameterList(
                nn.Parameter(A * (1 + jitter * torch.randn_like(A))) for _ in self.channels
            )
        elif edge_importance:
            self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones_like(A)) for _ in self.channels)
        else:
            self.register_module("edge_importance", None)
        self.fcn = nn.Conv2d(self.channels[-1], num_classes, 1)
        if not kth_compat:
            self.apply(init_as_public)

    @property
    def layout(self) -> Layout:
        """Layout of the joints."""
        return self.graph.layout

    @property
    def layer_names(self) -> list[str]:
        """Names that :meth:`extract_features` knows: ``data_bn``, then ``block1``, ``block2``, ..."""
        return ["data_bn", *(f"block{i + 1}" for i in range(len(self.channels)))]

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "graph": self.graph.config,
            "edge_importance": self._weighted if self.kth_compat else self.edge_importance is not None,
            "dropout": self.dropout,
            "channels": list(self.channels),
            "strides": list(self.strides),
            "temporal_kernel": self.temporal_kernel,
            "person_pooling": self.person_pooling,
            "order": _orders.described(self.order),
            "residual": self.residual,
            "data_norm": self.data_norm,
            "kth_compat": self.kth_compat,
        }

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Tensor],
        layout: str | Layout | None = None,
        *,
        strides: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> STGCN:
        """Builds the network that a public ST-GCN checkpoint belongs to, and loads it.

        Sizes, classes and edge importance are read off the tensors; a common prefix such as ``module.`` is
        dropped. The layout is the registered one whose public graph has the checkpoint's adjacency.

        Args:
            state_dict: the checkpoint's tensors.
            layout: layout of the joints, where the adjacency does not tell.
            strides: temporal stride of each block, where it is not 2 exactly at changes of channels.
            dropout: dropout probability, which a state dict does not hold.

        Returns:
            The network in training mode, float32, on the CPU.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of ST-GCN.
        """
        tensors = _public_keys.strip_prefix(state_dict)
        config = _public_keys.infer_config(tensors, layout)
        model = cls(**config, strides=strides, dropout=dropout)
        _public_keys.check_fit("STGCN.from_state_dict: state_dict", model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the layout or the number of channels.
        """
        self._check_input(x)
        y = self._normalise(x)
        for i, block in enumerate(self.st_gcn_networks):
            y = block(y, self.A, self._mask(i))
        # The sum's gradient is a view, and so never as large as the features.
        pooled = (frame_sums(y).sum(1) / (y.shape[2] * y.shape[3])).to(y.dtype)  # [N * M, C]
        persons = _by_person(pooled, x)  # [N, M, C]
        pooled = mean_over_persons(persons, x, self.person_pooling)  # [N, C]
        return self._classify(pooled)

    def extract_features(self, x: Tensor, layers: str | Iterable[str] | None = None) -> dict[str, Tensor]:
        """Features of any layer.

        Nothing is detached: gradients flow from the features to the parameters and the input.

        Args:
            x: ``[N, C, T, V, M]``.
            layers: names among :attr:`layer_names`; one name, several, or None or ``"all"`` for all blocks. A
                block's features are its output, in the standard order behind the final ReLU.

        Returns:
            For each name, in the order of the network, ``[N, M, C, T, V]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: an unknown layer, or an input that does not fit.
        """
        wanted = self._wanted(layers)
        self._check_input(x)
        y = self._normalise(x)
        features = {"data_bn": _by_person(y, x)} if "data_bn" in wanted else {}
        for i, block in enumerate(self.st_gcn_networks):
            if len(features) == len(wanted):
                break
            y = block(y, self.A, self._mask(i))
            if f"block{i + 1}" in wanted:
                features[f"block{i + 1}"] = _by_person(y, x)
        return features

    def _wanted(self, layers: str | Iterable[str] | None) -> set[str]:
        if layers is None or layers == "all":
            return set(self.layer_names[1:])
        wanted = {layers} if isinstance(layers, str) else set(layers)
        unknown = wanted - set(self.layer_names)
        if unknown or not wanted:
            raise ValueError(
                f"STGCN.extract_features: layers must be among {', '.join(self.layer_names)}, "
                f"got {', '.join(sorted(map(str, unknown))) or 'none'}"
            )
        return wanted

    def _check_input(self, x: Tensor) -> None:
        check_input(x, self.in_channels, self.graph.num_joints, self.layout.name)

    def _normalise(self, x: Tensor) -> Tensor:
        """Data BatchNorm, persons folded into the batch: [N, C, T, V, M] -> [N * M, C, T, V]."""
        n, c, t, v, m = x.shape
        y: Tensor = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t))
        return y.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous(memory_format=torch.channels_last)

    def _classify(self, pooled: Tensor) -> Tensor:
        if _fusion.is_plain(self.fcn, nn.Conv2d) and not _fusion.watched_globally():
            # The product's sums, unlike the convolution's, do not depend on the number of threads.
            return nn.functional.linear(pooled, self.fcn.weight.flatten(1), self.fcn.bias)
        logits: Tensor = self.fcn(pooled[:, :, None, None])
        return logits.flatten(1)

    def _mask(self, block: int) -> Tensor | None:
        return None if self.edge_importance is None else self.edge_importance[block]


def check_input(x: Tensor, channels: int, joints: int, layout: str) -> None:
    """Raises unless ``x`` is floating point ``[N, C, T, V, M]`` with at least one frame and person."""
    if not isinstance(x, Tensor):
        raise TypeError(f"STGCN: x must be a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"STGCN: x must be of a floating point type, got {x.dtype}")
    shape = f"[N, {channels}, T, {joints}, M]"
    if x.ndim != 5 or x.shape[1] != channels or x.shape[3] != joints:
        raise ValueError(f"STGCN: x must have shape {shape} for layout {layout!r}, got {list(x.shape)}")
    if x.shape[2] < 1 or x.shape[4] < 1:
        raise ValueError(f"STGCN: x must have at least one frame and person {shape}, got {list(x.shape)}")


def frame_sums(y: Tensor) -> Tensor:
    """Sums over joints ``[N, C, T, V]`` -> ``[N, T, C]``, in float32 at least.

    With channels_last features each frame's sum runs over contiguous rows and is the same in any batch.
    """
    dtype = torch.promote_types(y.dtype, torch.float32)
    return y.permute(0, 2, 3, 1).sum(2, dtype=dtype)


def mean_over_persons(features: Tensor, x: Tensor, pooling: str) -> Tensor:
    """Average over persons.

    Args:
        features: ``[N, M, C]``.
        x: the input, ``[N, C, T, V, M]``.
        pooling: one of ``PERSON_POOLING``.

    Returns:
        ``[N, C]``.
    """
    if pooling == "all":
        return features.mean(1)
    n, c, t, v, m = x.shape
    present = x.permute(0, 4, 2, 3, 1).reshape(n, m, t * v * c).abs().amax(2) != 0  # NaN counts
    weights = (present | ~present.any(1, keepdim=True)).to(features.dtype)
    return (features * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)


def _by_person(y: Tensor, x: Tensor) -> Tensor:
    """Unfolds persons from the batch: [N * M, ...] -> [N, M, ...], x being the input [N, C, T, V, M]."""
    return y.reshape(x.shape[0], x.shape[4], *y.shape[1:])


def _graph(
    layout: str | Layout | None,
    partition: str | None,
    normalization: str | None,
    graph: Graph | Mapping[str, Any] | None,
    kth_compat: bool,
) -> Graph:
    usual = KTH_NORMALIZATION if kth_compat else "symmetric"
    if graph is None:
        return Graph(
            "ntu25" if layout is None else layout,
            "spatial" if partition is None else partition,
            normalization=usual if normalization is None else normalization,
        )
    for name, value in (("layout", layout), ("partition", partition), ("normalization", normalization)):
        if value is not None:
            raise ValueError(f"STGCN: {name} must be None where graph is given, got {value!r}")
    if isinstance(graph, Graph):
        return graph
    if isinstance(graph, Mapping):
        named = not kth_compat or "entries" in graph or "normalization" in graph
        return Graph.from_config(graph if named else {**graph, "normalization": usual})
    raise TypeError(f"STGCN: graph must be a Graph or the config of one, got {type(graph).__name__}")


def _channels(channels: Sequence[int] | None, depth: int | None, width: float) -> tuple[int, ...]:
    if channels is not None:
        if not isinstance(channels, (list, tuple)):
            raise TypeError(f"STGCN: channels must be a list of integers, got {channels!r}")
        if depth is not None or width != 1.0:
            raise ValueError(
                f"STGCN: channels must be None where depth or width is given, got {list(channels)}"
            )
        if not channels or not all(
            isinstance(c, int) and not isinstance(c, bool) and c > 0 for c in channels
        ):
            raise ValueError(f"STGCN: channels must be positive integers, got {list(channels)}")
        return tuple(channels)
    depth = DEPTH if depth is None else depth
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise TypeError(f"STGCN: depth must be an integer, got {depth!r}")
    if depth < len(STAGE_CHANNELS):
        raise ValueError(f"STGCN: depth must be at least {len(STAGE_CHANNELS)}, got {depth}")
    if isinstance(width, bool) or not isinstance(width, (int, float)):
        raise TypeError(f"STGCN: width must be a number, got {width!r}")
    if not width * STAGE_CHANNELS[0] >= 1:
        raise ValueError(f"STGCN: width must leave at least one channel, got {width}")
    share, extra = divmod(depth, len(STAGE_CHANNELS))
    sizes = (share + (stage < extra) for stage in range(len(STAGE_CHANNELS)))
    return tuple(round(width * c) for c, size in zip(STAGE_CHANNELS, sizes) for _ in range(size))


def _strides(strides: Sequence[int] | None, channels: tuple[int, ...]) -> tuple[int, ...]:
    if strides is None:
        return (1, *(1 if before == after else 2 for before, after in pairwise(channels)))
    if not isinstance(strides, (list, tuple)):
        raise TypeError(f"STGCN: strides must be a list of integers, got {strides!r}")
    if len(strides) != len(channels):
        raise ValueError(
            f"STGCN: strides must have one value for each of {len(channels)} blocks, got {strides}"
        )
    return tuple(strides)
