"""What 2s-AGCN, MS-AAGCN and CTR-GCN share: ten units ``l1`` to ``l10`` between BatchNorm and classifier."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stgcn_fast.graph import Layout, get_layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models._checks import check_positive
from stgcn_fast.nn._bones import bone_graph

DEPTH = 10
_WIDENING = {5: 2, 8: 2}  # units that double the channels and halve the frames
_LAYOUTS = {25: "ntu25", 18: "openpose18", 20: "kinect20"}  # of public checkpoints, by their number of joints
_UNIT = re.compile(r"l(\d+)\.gcn1\.bn\.weight")

Self = TypeVar("Self", bound="TenUnits")


class TenUnits(nn.Module):
    """The frame of the networks; a subclass makes the units.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint.
        layout: layout of the joints or its name.
        num_persons: M, which BatchNorm at the entrance depends on.
        width: channels of the first unit; the later ones have up to four times as many.
        dropout: probability of zeroing a feature in front of the classifier.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout = "ntu25",
        num_persons: int = 2,
        width: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_positive(
            name,
            num_classes=num_classes,
            in_channels=in_channels,
            num_persons=num_persons,
            width=width,
        )
        if width % 8 != 0:
            raise ValueError(f"{name}: width must be a multiple of 8, got {width}")
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
            raise TypeError(f"{name}: dropout must be a number, got {dropout!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be in [0, 1], got {dropout}")
        self.num_classes, self.in_channels, self.num_persons = num_classes, in_channels, num_persons
        self.width = width
        self.layout = get_layout(layout) if isinstance(layout, str) else layout
        self.data_bn = nn.BatchNorm1d(num_persons * in_channels * self.layout.num_joints)
        graph = bone_graph(self.layout)
        inputs, outputs = in_channels, width
        for i in range(1, DEPTH + 1):
            stride = _WIDENING.get(i, 1)
            outputs *= stride
            self.add_module(f"l{i}", self.unit(inputs, outputs, graph, stride, residual=i > 1))
            inputs = outputs
        self.drop_out = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, num_classes)
        nn.init.normal_(self.fc.weight, 0.0, math.sqrt(2 / num_classes))

    def unit(self, inputs: int, outputs: int, graph: Tensor, stride: int, residual: bool) -> nn.Module:
        """One unit.

        Args:
            inputs: C.
            outputs: O.
            graph: ``[3, V, V]``, source joint first.
            stride: between frames.
            residual: whether it has a residual connection.
        """
        raise AttributeError(f"{type(self).__name__}: unit must be defined by the subclass, got none")

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "layout": self.layout.name,
            "num_persons": self.num_persons,
            "width": self.width,
            "dropout": self.drop_out.p,
        }

    @classmethod
    def from_state_dict(
        cls: type[Self],
        state_dict: Mapping[str, Tensor],
        layout: str | Layout | None = None,
        num_persons: int | None = None,
    ) -> Self:
        """Builds the network that a public checkpoint belongs to, and loads it.

        Args:
            state_dict: the checkpoint's tensors; a prefix that all of them share, such as ``module.``, is
                dropped.
            layout: layout of the joints; by default that of NTU for 25 joints, of OpenPose for 18 and of
                Northwestern-UCLA for 20.
            num_persons: M; by default what the entrance's BatchNorm has room for.

        Returns:
            The network in training mode, float32, on the CPU.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of the network.
        """
        where = f"{cls.__name__}.from_state_dict: state_dict"
        tensors = _public_keys.common_prefix_dropped(where, state_dict, "data_bn.weight")
        entrance, head = _public_keys.tensors_of(where, tensors, {"data_bn.weight": 1, "fc.weight": 2})
        units = sorted(int(match[1]) for key in tensors if (match := _UNIT.fullmatch(key)))
        if units != list(range(1, DEPTH + 1)):
            raise ValueError(f"{where} must have the units l1 to l{DEPTH}, got {units or 'none'}")
        channels, joints = cls.sizes_of(where, tensors)
        if layout is None and joints not in _LAYOUTS:
            raise ValueError(f"{where} must come with a layout, got none for {joints} joints")
        persons, rest = divmod(entrance.shape[0], channels * joints)
        if rest or persons == 0:
            raise ValueError(
                f"{where} must have data_bn of a multiple of C V = {channels * joints} channels, "
                f"got {entrance.shape[0]}"
            )
        model = cls(
            head.shape[0],
            channels,
            _LAYOUTS[joints] if layout is None else layout,
            persons if num_persons is None else num_persons,
            tensors["l1.gcn1.bn.weight"].shape[0],
        )
        _public_keys.check_fit(where, model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model

    @classmethod
    def sizes_of(cls, where: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Coordinates C and joints V of a checkpoint.

        Raises:
            ValueError: a key is missing.
        """
        raise AttributeError(f"{cls.__name__}: sizes_of must be defined by the subclass, got none")

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            TypeError: the input is not a floating point tensor.
            ValueError: its shape does not fit the layout, the channels or the number of persons.
        """
        name = type(self).__name__
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{name}: x must be a floating point tensor, got {getattr(x, 'dtype', type(x))}")
        fixed = (self.in_channels, self.layout.num_joints, self.num_persons)
        if x.dim() != 5 or (x.shape[1], x.shape[3], x.shape[4]) != fixed or x.shape[2] == 0:
            rule = f"[N, {fixed[0]}, T, {fixed[1]}, {fixed[2]}]"
            raise ValueError(f"{name}: x must be {rule}, got {list(x.shape)}")
        n, c, t, v, m = x.shape
        y = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        y = y.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous(memory_format=torch.channels_last)
        for i in range(1, DEPTH + 1):
            y = getattr(self, f"l{i}")(y)
        out: Tensor = self.fc(self.drop_out(y.mean((2, 3)).view(n, m, -1).mean(1)))
        return out
