"""STF: a backbone whose graphs depend on where it should look (Ke, Peng and Lyu, AAAI 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.graph import Layout
from stgcn_fast.models.ms_g3d import MSG3D
from stgcn_fast.models.registry import register
from stgcn_fast.models.st_gcn import STGCN, frame_sums, mean_over_persons
from stgcn_fast.nn.focus import focus, present, resampled, scaled
from stgcn_fast.nn.stf import FocusAdjacency

BACKBONES: dict[str, type[STGCN] | type[MSG3D]] = {"ms_g3d": MSG3D, "st_gcn": STGCN}
_OTHER_NAMES = {"msg3d": "ms_g3d", "stgcn": "st_gcn"}


class Trace(NamedTuple):
    """What a network computed, as the losses of STF need it."""

    logits: Tensor
    """``[N, classes]``."""
    layers: dict[str, Tensor]
    """Features by name, ``[N * M, C, T_l, V]``, in the network's order; the last are those it classifies."""
    places: tuple[str, ...]
    """Names of the layers whose focus belongs to a module, in the modules' order."""
    estimates: tuple[Tensor, ...]
    """Of each module, beta's estimate of the focus, ``[N * M, T_l, V]``; empty without modules."""


class _Place(NamedTuple):
    """Where a module stands: the layer whose focus is its own, and the sizes at its entrance."""

    layer: str
    channels: int
    partitions: int
    stride: int  # of all that lies in front of it


@register("stf")
class STF(nn.Module):
    """A backbone with the focus modules of STF.

    On MS-G3D six modules, one for each pathway (sums over frames, windows of frames) of each block, and their
    focus is that of the pathway's output; on ST-GCN one for each block, and its focus is that of the block's
    output. A module adds a graph of its own to each sample's adjacency. It begins with zeros, so the network
    begins as its backbone; ``alpha=None`` leaves the modules out.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint.
        layout: layout of the joints or its name.
        backbone: ``"ms_g3d"`` (or ``"msg3d"``) or ``"st_gcn"`` (or ``"stgcn"``).
        alpha: how a module makes a graph of its estimate, see :class:`stgcn_fast.nn.stf.FocusAdjacency`:
            ``"focus"``, ``"cen"`` or None for no modules.
        bins: stretches of the clip that alpha ``"focus"`` looks at.
        rank: features of a joint in alpha ``"focus"``.
        frames: T of the input, needed by alpha ``"cen"``.
        backbone_options: more arguments of :class:`stgcn_fast.models.MSG3D` or
            :class:`stgcn_fast.models.STGCN`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.

    Examples:
        >>> model = STF(5, layout="hand21", backbone="stgcn", backbone_options={"width": 0.25})
        >>> model(torch.zeros(2, 3, 16, 21, 1)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout = "ntu25",
        backbone: str = "ms_g3d",
        alpha: str | None = "focus",
        bins: int = 8,
        rank: int = 16,
        frames: int | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        name = _OTHER_NAMES.get(backbone, backbone)
        if name not in BACKBONES:
            raise ValueError(f"STF: backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
        options = dict(backbone_options or {})
        fixed: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
        if "graph" not in options:
            fixed["layout"] = layout
        clash = sorted(set(fixed) & set(options))
        if clash:
            raise ValueError(f"STF: backbone_options must be without {clash[0]}, got {options[clash[0]]!r}")
        try:
            self.backbone: STGCN | MSG3D = BACKBONES[name](**fixed, **options)
        except TypeError as error:
            raise TypeError(f"STF: backbone_options must be arguments of {name}, got {error}") from None
        self.backbone_name, self.alpha = name, alpha
        self.bins, self.rank, self.frames = bins, rank, frames
        self.num_classes, self.in_channels = num_classes, in_channels
        places = _PLACES[name](self.backbone)
        self.places = tuple(place.layer for place in places)
        joints = self.layout.num_joints
        self.focus_modules = nn.ModuleList()
        for place in places:
            if alpha is None:
                break
            length = None if frames is None else -(-frames // place.stride)
            self.focus_modules.append(
                FocusAdjacency(place.channels, place.partitions, joints, alpha, bins, rank, length)
            )

    @property
    def layout(self) -> Layout:
        """Layout of the joints."""
        return self.backbone.layout

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that :meth:`focus` knows, in the network's order."""
        return _NAMES[self.backbone_name](self.backbone)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        options = self.backbone.config
        for name in ("num_classes", "in_channels", "layout"):
            options.pop(name, None)
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "layout": self.layout.name,
            "backbone": self.backbone_name,
            "alpha": self.alpha,
            "bins": self.bins,
            "rank": self.rank,
            "frames": self.frames,
            "backbone_options": options,
        }

    @classmethod
    def from_backbone(cls, backbone: STGCN | MSG3D, **options: Any) -> STF:
        """STF on a network that exists, trained or not: it starts with the same outputs.

        Args:
            backbone: a network of a class in ``BACKBONES``; its weights are copied.
            options: ``alpha``, ``bins``, ``rank`` and ``frames`` of the constructor.

        Returns:
            The network in training mode, on the backbone's device.

        Raises:
            TypeError: the backbone is of another class.
        """
        names = [name for name, known in BACKBONES.items() if type(backbone) is known]
        if not names:
            rule = " or ".join(known.__name__ for known in BACKBONES.values())
            raise TypeError(f"STF.from_backbone: backbone must be {rule}, got {type(backbone).__name__}")
        config = backbone.config
        sizes = {name: config.pop(name) for name in ("num_classes", "in_channels")}
        config.pop("layout", None)
        model = cls(**sizes, layout=backbone.layout, backbone=names[0], backbone_options=config, **options)
        model.to(next(backbone.parameters()))
        model.backbone.load_state_dict(backbone.state_dict())
        return model

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], backbone: str = "ms_g3d", **options: Any
    ) -> STF:
        """STF on the network of a public checkpoint of its backbone.

        Args:
            state_dict: the checkpoint's tensors, with the public keys of MS-G3D or ST-GCN.
            backbone: which of the two.
            options: as :meth:`from_backbone`; ``layout`` and ``num_persons`` go to the backbone.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of the backbone, or its name is unknown.
        """
        name = _OTHER_NAMES.get(backbone, backbone)
        if name not in BACKBONES:
            raise ValueError(f"STF: backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
        known = {key: options.pop(key) for key in ("layout", "num_persons") if key in options}
        return cls.from_backbone(BACKBONES[name].from_state_dict(state_dict, **known), **options)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the backbone.
        """
        return self._run(x, None)[0]

    def trace(self, x: Tensor) -> Trace:
        """Classifies clips and keeps what the focus and the losses are made of.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            Logits, features of all layers and the modules' estimates, none of them detached.
        """
        layers: dict[str, Tensor] = {}
        logits, estimates = self._run(x, layers)
        return Trace(logits, layers, self.places, tuple(estimates))

    def focus(
        self, x: Tensor, target: Tensor | None = None, layer: str | None = None, project: bool = False
    ) -> Tensor:
        """Where the score of a class comes from.

        Args:
            x: ``[N, C, T, V, M]``.
            target: classes, int64 ``[N]``; the predicted ones by default.
            layer: one of :attr:`layer_names`; the last one by default.
            project: whether the result is scaled to [0, 1] (one is the largest of a sample) and brought to
                the input's T frames.

        Returns:
            ``[N, M, T_l, V]``, detached; zeros for persons that are not there. Call ``eval()`` first, else
            BatchNorm learns from the clips.

        Raises:
            ValueError: an unknown layer, or classes that do not fit.
        """
        names = self.layer_names
        name = names[-1] if layer is None else layer
        if name not in names:
            raise ValueError(f"STF.focus: layer must be one of {', '.join(names)}, got {layer!r}")
        if target is not None and (target.shape != x.shape[:1] or target.is_floating_point()):
            raise ValueError(
                f"STF.focus: target must be int64 [N] with N = {len(x)}, "
                f"got {target.dtype} {list(target.shape)}"
            )
        with torch.enable_grad():
            trace = self.trace(x.detach())
            classes = trace.logits.argmax(1) if target is None else target
            score = trace.logits.gather(1, classes[:, None])[:, 0]
            q = focus(score, [trace.layers[name]], x.shape[4])[0]
        q = q * present(x)[:, :, None, None]
        return resampled(scaled(q), x.shape[2]) if project else q

    def stages(self) -> list[list[nn.Module]]:
        """Parts of the network from its input to its classifier: the entrance, then one list per block.

        Each module is in the block whose graph it adds to; edge importance is wrapped.
        """
        net = self.backbone
        modules = list(self.focus_modules)
        if isinstance(net, MSG3D):
            blocks = [[getattr(net, f"{part}{i}") for part in ("sgcn", "gcn3d", "tcn")] for i in (1, 2, 3)]
        else:
            blocks = [[block] for block in net.st_gcn_networks]
            for block, mask in zip(blocks, net.edge_importance or ()):
                block.append(nn.ParameterList([mask]))
        share = len(modules) // len(blocks)
        own = (modules[i * share : (i + 1) * share] for i in range(len(blocks)))
        return [[net.data_bn], *(block + added for block, added in zip(blocks, own))]

    def _run(self, x: Tensor, layers: dict[str, Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        estimates: list[Tensor] = []
        modules = iter(self.focus_modules)

        def graphs(y: Tensor) -> Iterator[Tensor | None]:
            """The next modules' graphs for features."""
            while True:
                module = next(modules, None)
                if module is None:
                    yield None
                else:
                    graph, estimate = module(y)
                    estimates.append(estimate)
                    yield graph

        return _RUNS[self.backbone_name](self.backbone, x, graphs, layers), estimates


def _kept(layers: dict[str, Tensor] | None, name: str, y: Tensor) -> Tensor:
    """Features under their name; scores can be differentiated by them where nothing before is learnt, too."""
    if layers is not None:
        if torch.is_grad_enabled() and not y.requires_grad:
            y = y.requires_grad_()
        layers[name] = y
    return y


def _run_ms_g3d(network: Any, x: Tensor, graphs: Any, layers: dict[str, Tensor] | None) -> Tensor:
    net = cast(MSG3D, network)
    y = net.normalised(x)
    for i in (1, 2, 3):
        gcn, *rest = getattr(net, f"sgcn{i}")
        wanted = graphs(y)
        frames = gcn(y, next(wanted))
        for layer in rest:
            frames = layer(frames)
        frames = _kept(layers, f"frames{i}", frames)
        windows = _kept(layers, f"windows{i}", getattr(net, f"gcn3d{i}")(y, next(wanted)))
        y = _kept(layers, f"block{i}", getattr(net, f"tcn{i}")(F.relu(frames + windows)))
    return net.classified(y)


def _places_ms_g3d(network: Any) -> list[_Place]:
    net = cast(MSG3D, network)
    places = []
    for i, (channels, stride) in enumerate(((net.in_channels, 1), (net.width, 1), (2 * net.width, 2)), 1):
        places.append(_Place(f"frames{i}", channels, net.num_gcn_scales, stride))
        places.append(_Place(f"windows{i}", channels, net.num_g3d_scales, stride))
    return places


def _names_ms_g3d(network: Any) -> list[str]:
    return [f"{name}{i}" for i in (1, 2, 3) for name in ("frames", "windows", "block")]


def _run_st_gcn(network: Any, x: Tensor, graphs: Any, layers: dict[str, Tensor] | None) -> Tensor:
    net = cast(STGCN, network)
    net._check_input(x)
    y = net._normalise(x)
    for i, block in enumerate(net.st_gcn_networks):
        mask, extra = net._mask(i), next(graphs(y))
        if extra is None:
            y = block(y, net.A, mask)
        else:
            y = block(y, (net.A if mask is None else net.A * mask) + extra)
        y = _kept(layers, f"block{i + 1}", y)
    pooled = (frame_sums(y).sum(1) / (y.shape[2] * y.shape[3])).to(y.dtype)
    persons = pooled.view(x.shape[0], x.shape[4], -1)
    return net._classify(mean_over_persons(persons, x, net.person_pooling))


def _places_st_gcn(network: Any) -> list[_Place]:
    net = cast(STGCN, network)
    places, stride = [], 1
    inputs = (net.in_channels, *net.channels)
    for i, step in enumerate(net.strides):
        places.append(_Place(f"block{i + 1}", inputs[i], net.graph.num_partitions, stride))
        stride *= step
    return places


def _names_st_gcn(network: Any) -> list[str]:
    return [place.layer for place in _places_st_gcn(network)]


_RUNS = {"ms_g3d": _run_ms_g3d, "st_gcn": _run_st_gcn}
_PLACES = {"ms_g3d": _places_ms_g3d, "st_gcn": _places_st_gcn}
_NAMES = {"ms_g3d": _names_ms_g3d, "st_gcn": _names_st_gcn}
