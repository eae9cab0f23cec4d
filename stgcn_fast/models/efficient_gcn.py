"""EfficientGCN (Song, Zhang, Shan and Wang, "Constructing Stronger and Faster Baselines", TPAMI 2022)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from stgcn_fast.graph import Graph, Layout, get_layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models._checks import check_positive
from stgcn_fast.models.registry import register
from stgcn_fast.nn import efficient_gcn as layers

_BLOCKS = ((48, 1, 0), (32, 1, 0), (64, 2, 1), (128, 2, 1))  # of B0, as the public code rounds them
_FUSED = 2  # blocks in front of the concatenation
_INPUTS = 3  # joints, velocities, bones
_HOPS = 10  # neighbourhood that the public graph is normalised over
_REFERENCES = {"ntu25": 1}  # joints that others are relative to; elsewhere the layout's centre
_LAYOUTS = {25: "ntu25", 18: "openpose18", 20: "kinect20"}  # of public checkpoints, by their number of joints
_TINY = 1e-4  # added to lengths of bones, as the public code does
_LEAST = 1e-12
_TEMPORAL = {"depth_conv1.0.weight": "sg", "depth_conv.0.weight": "sep", "conv.weight": "basic"}


@register("efficient_gcn")
class EfficientGCN(nn.Module):
    """EfficientGCN with the parameter names, shapes and numbers of the public implementation.

    Three branches, for joints, velocities and bones, are concatenated after two blocks; a block is a graph
    convolution, temporal layers, and gates for frames and joints. The defaults are EfficientGCN-B0.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint; each branch has two numbers for each.
        layout: layout of the joints or its name.
        blocks: channels, stride and number of temporal layers of each block.
        fusion_stage: blocks in front of the concatenation.
        stem_channels: channels of the layers in front of the blocks.
        layer_type: temporal layers of the blocks: ``"sg"``, ``"sep"`` or ``"basic"``.
        temporal_kernel: frames of the kernels, odd.
        max_distance: largest number of hops between a joint and its neighbours.
        ratio: of channels in the middle of temporal layers: factor of ``"sep"``, divisor of ``"sg"``.
        reduction: divisor of channels in the middle of the gates.
        edge: whether entries of the adjacency have learnt factors.
        bias: of the convolutions.
        dropout: probability of zeroing a feature in front of the classifier.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.

    Examples:
        >>> model = EfficientGCN(num_classes=60)
        >>> model(torch.zeros(1, 3, 16, 25, 2)).shape
        torch.Size([1, 60])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout = "ntu25",
        blocks: Sequence[Sequence[int]] = _BLOCKS,
        fusion_stage: int = _FUSED,
        stem_channels: int = 64,
        layer_type: str = "sg",
        temporal_kernel: int = 5,
        max_distance: int = 2,
        ratio: int = 2,
        reduction: int = 2,
        edge: bool = True,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        blocks = tuple(tuple(block) for block in blocks)
        check_positive(
            name,
            num_classes=num_classes,
            in_channels=in_channels,
            stem_channels=stem_channels,
            temporal_kernel=temporal_kernel,
            max_distance=max_distance,
            reduction=reduction,
        )
        if not blocks or any(len(b) != 3 or b[0] < reduction or b[1] < 1 or b[2] < 0 for b in blocks):
            raise ValueError(f"{name}: blocks must be (channels, stride, layers) each, got {blocks!r}")
        if temporal_kernel % 2 == 0 or max_distance > _HOPS:
            raise ValueError(
                f"{name}: temporal_kernel must be odd and max_distance at most {_HOPS}, "
                f"got {temporal_kernel} and {max_distance}"
            )
        if layer_type not in layers.TEMPORAL:
            raise ValueError(
                f"{name}: layer_type must be one of {', '.join(layers.TEMPORAL)}, got {layer_type!r}"
            )
        if not 0 <= fusion_stage <= len(blocks):
            raise ValueError(f"{name}: fusion_stage must be in [0, {len(blocks)}], got {fusion_stage}")
        if ratio < (0 if layer_type == "sep" else 1):
            raise ValueError(f"{name}: ratio must be positive for {layer_type!r}, got {ratio}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be in [0, 1], got {dropout}")
        self.num_classes, self.in_channels = num_classes, in_channels
        self.layout = get_layout(layout) if isinstance(layout, str) else layout
        self._options: dict[str, Any] = {
            "blocks": [list(block) for block in blocks],
            "fusion_stage": fusion_stage,
            "stem_channels": stem_channels,
            "layer_type": layer_type,
            "temporal_kernel": temporal_kernel,
            "max_distance": max_distance,
            "ratio": ratio,
            "reduction": reduction,
            "edge": edge,
            "bias": bias,
        }
        self._reference = _REFERENCES.get(self.layout.name, self.layout.centre)
        self.register_buffer("_towards", _towards(self.layout, self._reference), persistent=False)
        widths = [stem_channels, *(block[0] for block in blocks)]
        joined = _INPUTS * widths[fusion_stage]
        self.input_branches = nn.ModuleList(
            self._stream(stem_channels, blocks[:fusion_stage], 2 * in_channels) for _ in range(_INPUTS)
        )
        self.main_stream = self._stream(joined, blocks[fusion_stage:])
        last = joined if fusion_stage == len(blocks) else widths[-1]
        self.classifier = nn.Sequential()
        self.classifier.add_module("dropout", nn.Dropout(dropout))
        self.classifier.add_module("fc", nn.Conv3d(last, num_classes, 1))
        self._initialise()

    def _stream(self, inputs: int, blocks: Sequence[Sequence[int]], entrance: int = 0) -> nn.Sequential:
        options = self._options
        bias, edge, taps = options["bias"], options["edge"], options["temporal_kernel"]
        graph = Graph(self.layout, "distance", _HOPS, "column")
        A = torch.tensor(graph.A[: options["max_distance"] + 1])
        stream = nn.Sequential()
        if entrance:
            stream.add_module("init_bn", nn.BatchNorm2d(entrance))
            stream.add_module("stem_scn", layers.Spatial_Graph_Layer(entrance, inputs, A, bias, edge))
            stream.add_module("stem_tcn", layers.Temporal_Basic_Layer(inputs, taps, 1, bias))
        for i, (outputs, stride, depth) in enumerate(blocks):
            scn = layers.Spatial_Graph_Layer(inputs, outputs, A, bias, edge)
            stream.add_module(f"block-{i}_scn", scn)
            for j in range(depth):
                make = layers.TEMPORAL[options["layer_type"]]
                tcn = make(outputs, taps, stride if j == 0 else 1, bias, options["ratio"])
                stream.add_module(f"block-{i}_tcn-{j}", tcn)
            stream.add_module(f"block-{i}_att", layers.Attention_Layer(outputs, options["reduction"], bias))
            inputs = outputs
        return stream

    def _initialise(self) -> None:
        """Weights as the public training code draws them."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=1e-3)
            if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        sizes = {"num_classes": self.num_classes, "in_channels": self.in_channels}
        dropout = cast(nn.Dropout, self.classifier.get_submodule("dropout")).p
        return {**sizes, "layout": self.layout.name, **self._options, "dropout": dropout}

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], layout: str | Layout | None = None
    ) -> EfficientGCN:
        """Builds the network that a public checkpoint belongs to, and loads it.

        Args:
            state_dict: the checkpoint's tensors; a prefix that all of them share, such as ``module.``, is
                dropped.
            layout: layout of the joints; by default that of NTU for 25 joints, of OpenPose for 18 and of
                Northwestern-UCLA for 20.

        Returns:
            The network in training mode, float32, on the CPU.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of the network.
        """
        where = f"{cls.__name__}.from_state_dict: state_dict"
        tensors = _public_keys.common_prefix_dropped(where, state_dict, "classifier.fc.weight")
        options = _options_of(where, tensors)
        joints = tensors["input_branches.0.stem_scn.conv.A"].shape[1]
        if layout is None and joints not in _LAYOUTS:
            raise ValueError(f"{where} must come with a layout, got none for {joints} joints")
        model = cls(layout=_LAYOUTS[joints] if layout is None else layout, **options)
        _public_keys.check_fit(where, model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``; or what the public code's reader makes of clips,
                ``[N, 3, 2 C, T, V, M]``, see :meth:`branches`.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the layout or the channels.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = getattr(x, "dtype", type(x))
            raise TypeError(f"EfficientGCN: x must be a floating point tensor, got {found}")
        c, v = self.in_channels, self.layout.num_joints
        prepared = x.dim() == 6 and x.shape[1:3] == (_INPUTS, 2 * c)
        if not (prepared or (x.dim() == 5 and x.shape[1] == c)) or x.shape[-2] != v or 0 in x.shape[-3:]:
            raise ValueError(f"EfficientGCN: x must be [N, {c}, T, {v}, M], got {list(x.shape)}")
        x = x if prepared else self.branches(x)
        n, _, c, t, v, m = x.shape
        clips = x.permute(1, 0, 5, 2, 3, 4).reshape(_INPUTS, n * m, c, t, v)
        parts = [
            branch(clip.contiguous(memory_format=torch.channels_last))
            for branch, clip in zip(self.input_branches, clips)
        ]
        y = self.main_stream(torch.cat(parts, 1))
        pooled = self.classifier.get_submodule("dropout")(y.mean((2, 3)).view(n, m, -1).mean(1))
        fc = cast(nn.Conv3d, self.classifier.get_submodule("fc"))
        return nn.functional.linear(pooled, fc.weight.flatten(1), fc.bias)

    def branches(self, x: Tensor) -> Tensor:
        """Joints, velocities and bones, as the public code's reader makes them.

        Joints, and joints relative to one of them (the middle of the spine for NTU, else the layout's
        centre); differences to the next frame and the one after it, zero in the last two frames; bones
        towards that joint, and their angles with the axes.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            ``[N, 3, 2 C, T, V, M]``.
        """
        t, reference = x.shape[2], self._reference
        joints = torch.cat([x, x - x[:, :, :, reference : reference + 1]], 1)
        last, steps = min(2, t), []
        for step in (1, 2):
            moved = x[:, :, step : t - last + step] - x[:, :, : t - last]
            steps.append(torch.cat([moved, torch.zeros_like(x[:, :, :last])], 2))
        bones = x - x.index_select(3, self.get_buffer("_towards"))
        length = torch.linalg.vector_norm(bones, dim=1, keepdim=True) + _TINY
        # The angle's cosine is bones / length; arccos itself has no derivative where rounding makes that one.
        across = ((length - bones) * (length + bones)).clamp_min(_LEAST).sqrt()
        angles = torch.atan2(across, bones)
        return torch.stack([joints, torch.cat(steps, 1), torch.cat([bones, angles], 1)], 1)


def _towards(layout: Layout, reference: int) -> Tensor:
    """Of each joint, the next one on the way to the reference; ``[V]``."""
    near: list[list[int]] = [[] for _ in range(layout.num_joints)]
    for child, parent in layout.edges:
        near[child].append(parent)
        near[parent].append(child)
    found, waiting = {reference: reference}, deque([reference])
    while waiting:
        joint = waiting.popleft()
        for other in near[joint]:
            if other not in found:
                found[other] = joint
                waiting.append(other)
    return torch.tensor([found[joint] for joint in range(layout.num_joints)])


def _options_of(where: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the constructor, read off the tensors of a checkpoint."""
    stem = "input_branches.0."
    ranks = {f"{stem}init_bn.weight": 1, f"{stem}stem_scn.conv.A": 3, f"{stem}stem_tcn.conv.weight": 4}
    entrance, A, taps, head = _public_keys.tensors_of(where, tensors, {**ranks, "classifier.fc.weight": 5})
    inputs = {key.split(".")[1] for key in tensors if key.startswith("input_branches.")}
    if len(inputs) != _INPUTS or entrance.shape[0] % 2:
        raise ValueError(
            f"{where} must have {_INPUTS} input_branches of 2 C channels, "
            f"got {len(inputs)} of {entrance.shape[0]}"
        )
    blocks, layer_type, ratio, reduction, fusion_stage = [], "sg", 1, 1, 0
    for stream in (stem, "main_stream."):
        for i in range(len(tensors)):
            block = f"{stream}block-{i}_"
            if f"{block}scn.bn.weight" not in tensors:
                break
            channels = tensors[f"{block}scn.bn.weight"].shape[0]
            gate = _public_keys.tensors_of(where, tensors, {f"{block}att.att.fcn.0.weight": 4})[0]
            reduction = channels // gate.shape[0]
            tcn = re.compile(re.escape(block) + r"tcn-(\d+)\.")
            depth = len({match[1] for key in tensors if (match := tcn.match(key))})
            for key, kind in _TEMPORAL.items():
                if f"{block}tcn-0.{key}" in tensors:
                    layer_type = kind
                    ratio = _ratio_of(kind, f"{block}tcn-0.", channels, tensors)
            # A layer of stride one has no convolution beside it; the public strides are one and two.
            stride = 2 if f"{block}tcn-0.residual.0.weight" in tensors else 1
            blocks.append((channels, stride, depth))
            fusion_stage += stream == stem
    return {
        "num_classes": head.shape[0],
        "in_channels": entrance.shape[0] // 2,
        "blocks": blocks,
        "fusion_stage": fusion_stage,
        "stem_channels": taps.shape[0],
        "layer_type": layer_type,
        "temporal_kernel": taps.shape[2],
        "max_distance": len(A) - 1,
        "ratio": ratio,
        "reduction": reduction,
        "edge": f"{stem}stem_scn.conv.edge" in tensors,
        "bias": f"{stem}stem_scn.conv.gcn.bias" in tensors,
    }


def _ratio_of(kind: str, layer: str, channels: int, tensors: Mapping[str, Tensor]) -> int:
    if kind == "basic":
        return 1
    if kind == "sg":
        return channels // tensors[f"{layer}point_conv1.0.weight"].shape[0]
    wide = tensors.get(f"{layer}expand_conv.0.weight")
    return 0 if wide is None else wide.shape[0] // channels
