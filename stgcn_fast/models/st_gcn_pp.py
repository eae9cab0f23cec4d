"""ST-GCN++ (Duan et al., "PYSKL", 2022)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.graph import Layout, get_layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models._checks import check_positive
from stgcn_fast.models.registry import register
from stgcn_fast.nn import pyskl as layers
from stgcn_fast.nn._bones import bone_graph

CHANNELS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
LAYOUTS = {17: "coco17", 18: "openpose18", 21: "hand21", 25: "ntu25"}
"""Layouts of pyskl's checkpoints, by their number of joints."""
_BLOCK = re.compile(r"backbone\.gcn\.(\d+)\.gcn\.bn\.weight")


@register("st_gcn_pp")
class STGCNPlusPlus(nn.Module):
    """ST-GCN++ with the parameter names, shapes and numbers of pyskl.

    BatchNorm over joints and coordinates, blocks of a graph convolution with a learnt adjacency and six
    branches over frames, averages over frames and joints, then over persons, and a linear classifier.
    Made of plain layers: :func:`stgcn_fast.accelerate` and :func:`stgcn_fast.optimize` make them fast.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint.
        layout: layout of the joints or its name.
        channels: output channels of each block, at least six.
        strides: temporal stride of each block; by default 2 where the number of channels grows.
        dropout: probability of zeroing a feature in front of the classifier.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.

    Examples:
        >>> model = STGCNPlusPlus(num_classes=60, layout="coco17", channels=(12, 12, 24))
        >>> model(torch.zeros(2, 3, 16, 17, 1)).shape
        torch.Size([2, 60])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout = "ntu25",
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("STGCNPlusPlus", num_classes=num_classes, in_channels=in_channels)
        if not channels or not all(isinstance(c, int) and c >= 6 for c in channels):
            raise ValueError(
                f"STGCNPlusPlus: channels must be integers of at least six, got {list(channels)}"
            )
        steps = _strides(channels) if strides is None else tuple(strides)
        if len(steps) != len(channels) or not all(isinstance(s, int) and s >= 1 for s in steps):
            raise ValueError(
                f"STGCNPlusPlus: strides must be {len(channels)} positive integers, got {list(steps)}"
            )
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"STGCNPlusPlus: dropout must be a number in [0, 1], got {dropout!r}")
        self.num_classes, self.in_channels = num_classes, in_channels
        self.layout = get_layout(layout) if isinstance(layout, str) else layout
        self.channels, self.strides, self.dropout = tuple(channels), steps, dropout
        graph = bone_graph(self.layout)
        self.backbone = nn.Module()
        self.backbone.data_bn = nn.BatchNorm1d(in_channels * self.layout.num_joints)
        self.backbone.gcn = nn.ModuleList(
            layers.STGCNBlock(inputs, outputs, graph, stride, residual=i > 0)
            for i, (inputs, outputs, stride) in enumerate(
                zip((in_channels, *self.channels), self.channels, steps)
            )
        )
        self.cls_head = nn.Module()
        self.cls_head.dropout = nn.Dropout(dropout)
        self.cls_head.fc_cls = nn.Linear(self.channels[-1], num_classes)
        nn.init.normal_(self.cls_head.fc_cls.weight, 0.0, 0.01)
        nn.init.zeros_(self.cls_head.fc_cls.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "layout": self.layout.name,
            "channels": list(self.channels),
            "strides": list(self.strides),
            "dropout": self.dropout,
        }

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Tensor],
        layout: str | Layout | None = None,
        *,
        strides: Sequence[int] | None = None,
    ) -> STGCNPlusPlus:
        """Builds the network that a checkpoint of pyskl belongs to, and loads it.

        Args:
            state_dict: the checkpoint's tensors; a prefix that all of them share is dropped.
            layout: layout of the joints; by default by their number (17, 18, 21 or 25).
            strides: temporal stride of each block; by default 2 for blocks but the first that have a
                convolution in their residual connection.

        Returns:
            The network in training mode, float32, on the CPU.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of ST-GCN++.
        """
        where = "STGCNPlusPlus.from_state_dict: state_dict"
        tensors = _public_keys.common_prefix_dropped(where, state_dict, "backbone.data_bn.weight")
        for name in ("weight", "bias"):  # mmaction2's name of the classifier
            if f"cls_head.fc.{name}" in tensors:
                tensors[f"cls_head.fc_cls.{name}"] = tensors.pop(f"cls_head.fc.{name}")
        first = "backbone.gcn.0.gcn."
        keys = {f"{first}A": 3, f"{first}conv.weight": 4, "cls_head.fc_cls.weight": 2}
        adjacency, weight, head = _public_keys.tensors_of(where, tensors, keys)
        joints = adjacency.shape[1]
        if layout is None and joints not in LAYOUTS:
            raise ValueError(f"{where} must come with a layout, got none for {joints} joints")
        blocks = sorted(int(match[1]) for key in tensors if (match := _BLOCK.fullmatch(key)))
        if not blocks or blocks != list(range(len(blocks))):
            raise ValueError(f"{where} must have backbone.gcn 0, 1, 2, ..., got {blocks}")
        if strides is None:
            strides = [1 + (f"backbone.gcn.{i}.residual.conv.weight" in tensors) for i in blocks]
        model = cls(
            head.shape[0],
            weight.shape[1],
            LAYOUTS[joints] if layout is None else layout,
            [tensors[f"backbone.gcn.{i}.gcn.bn.weight"].shape[0] for i in blocks],
            strides,
        )
        _public_keys.check_fit(where, model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``, with any number of persons M.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the layout or the channels.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(
                f"STGCNPlusPlus: x must be a floating point tensor, got {getattr(x, 'dtype', type(x))}"
            )
        fixed = (self.in_channels, self.layout.num_joints)
        if x.dim() != 5 or (x.shape[1], x.shape[3]) != fixed or 0 in (x.shape[2], x.shape[4]):
            raise ValueError(
                f"STGCNPlusPlus: x must be [N, {fixed[0]}, T, {fixed[1]}, M] with at least one frame and "
                f"person, got {list(x.shape)}"
            )
        n, c, t, v, m = x.shape
        backbone: Any = self.backbone
        head: Any = self.cls_head
        y = backbone.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t))
        y = y.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous(memory_format=torch.channels_last)
        for block in backbone.gcn:
            y = block(y)
        out: Tensor = head.fc_cls(head.dropout(y.mean((2, 3)).view(n, m, -1).mean(1)))
        return out


def _strides(channels: Sequence[int]) -> tuple[int, ...]:
    return (1, *(2 if wider > narrower else 1 for narrower, wider in pairwise(channels)))
