"""MS-G3D: disentangled multi-scale graph convolutions over frames and windows (Liu et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.graph import Layout, get_layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models._checks import check_positive
from stgcn_fast.models.registry import register
from stgcn_fast.models.st_gcn import frame_sums
from stgcn_fast.nn import ms_g3d as layers

_LAYOUTS = {25: "ntu25", 18: "openpose18"}  # of the public checkpoints, by their number of joints


@register("ms_g3d")
class MSG3D(nn.Module):
    """MS-G3D with the parameter names, shapes and numbers of the public implementation.

    BatchNorm over persons, joints and coordinates; three blocks, each the ReLU of a sum of two pathways (sums
    over many scales and two temporal modules; windows of 3 and of 5 frames) and a temporal module; averages
    over frames and joints, then over persons, and a linear classifier. Inside, features are channels_last.

    Args:
        num_classes: number of classes.
        in_channels: C, coordinates of a joint.
        layout: layout of the joints or its name.
        num_persons: M, which BatchNorm at the entrance depends on.
        num_gcn_scales: scales over single frames: 13 for NTU, 8 for Kinetics.
        num_g3d_scales: scales over windows: 6 for NTU, 8 for Kinetics.
        width: channels of the first block, a multiple of six; the others have two and four times as many.
        window_sizes: frames of the windows, odd.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that makes no network.

    Examples:
        >>> model = MSG3D(num_classes=60, layout="ntu25", width=12)
        >>> model(torch.zeros(1, 3, 16, 25, 2)).shape
        torch.Size([1, 60])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        layout: str | Layout = "ntu25",
        num_persons: int = 2,
        num_gcn_scales: int = 13,
        num_g3d_scales: int = 6,
        width: int = 96,
        window_sizes: Sequence[int] = (3, 5),
    ) -> None:
        super().__init__()
        check_positive(
            "MSG3D",
            num_classes=num_classes,
            in_channels=in_channels,
            num_persons=num_persons,
            num_gcn_scales=num_gcn_scales,
            num_g3d_scales=num_g3d_scales,
            width=width,
        )
        if width % 6 != 0:
            raise ValueError(f"MSG3D: width must be a multiple of six, got {width}")
        if not window_sizes or any(size < 1 or size % 2 == 0 for size in window_sizes):
            raise ValueError(f"MSG3D: window_sizes must be odd numbers, got {list(window_sizes)}")
        self.layout = get_layout(layout) if isinstance(layout, str) else layout
        self.window_sizes = tuple(window_sizes)
        self.num_classes, self.in_channels, self.num_persons = num_classes, in_channels, num_persons
        self.num_gcn_scales, self.num_g3d_scales, self.width = num_gcn_scales, num_g3d_scales, width

        joints = self.layout.num_joints
        bones = np.zeros((joints, joints))
        for child, parent in self.layout.edges:
            bones[child, parent] = bones[parent, child] = 1
        self.data_bn = nn.BatchNorm1d(num_persons * in_channels * joints)
        temporal = layers.MultiScaleTemporalConv
        inputs = in_channels
        for i, (outputs, stride) in enumerate(((width, 1), (2 * width, 2), (4 * width, 2)), start=1):
            inner = width if i == 1 else inputs
            windows = layers.WindowSum(
                inputs, outputs, bones, num_g3d_scales, window_sizes=self.window_sizes, stride=stride
            )
            frames = nn.Sequential(
                layers.MultiScaleGraphConv(inputs, inner, bones, num_gcn_scales),
                temporal(inner, outputs, stride),
                temporal(outputs, outputs, rectified=False),
            )
            self.add_module(f"gcn3d{i}", windows)
            self.add_module(f"sgcn{i}", frames)
            self.add_module(f"tcn{i}", temporal(outputs, outputs))
            inputs = outputs
        self.fc = nn.Linear(inputs, num_classes)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the network again, as a dictionary that JSON can hold."""
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "layout": self.layout.name,
            "num_persons": self.num_persons,
            "num_gcn_scales": self.num_gcn_scales,
            "num_g3d_scales": self.num_g3d_scales,
            "width": self.width,
            "window_sizes": list(self.window_sizes),
        }

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], layout: str | Layout | None = None, num_persons: int = 2
    ) -> MSG3D:
        """Builds the network that a public MS-G3D checkpoint belongs to, and loads it.

        Args:
            state_dict: the checkpoint's tensors; a common prefix such as ``module.`` is dropped.
            layout: layout of the joints; by default that of NTU for 25 joints and of OpenPose for 18.
            num_persons: M.

        Returns:
            The network in training mode, float32, on the CPU.

        Raises:
            TypeError: the state dict is no mapping of names to tensors.
            ValueError: keys or shapes are not those of MS-G3D.
        """
        where = "MSG3D.from_state_dict: state_dict"
        tensors = _without_prefix(where, state_dict)
        needed = ("sgcn1.0.A_res", "gcn3d1.gcn3d.0.gcn3d.1.A_res", "sgcn1.0.mlp.layers.0.weight", "fc.weight")
        missing = [key for key in needed if key not in tensors or tensors[key].dim() < 2]
        if missing:
            raise ValueError(f"{where} must have the keys of MS-G3D, got no {', '.join(missing)}")
        rows, joints = tensors[needed[0]].shape
        if layout is None and joints not in _LAYOUTS:
            raise ValueError(f"{where} needs a layout, got {joints} joints, which several have")
        scales = rows // joints
        windows = sorted(
            key for key in tensors if key.startswith("gcn3d1.") and key.endswith("out_conv.weight")
        )
        sizes = [tensors[key].shape[3] for key in windows]
        graph = tensors[needed[1]]
        model = cls(
            tensors["fc.weight"].shape[0],
            tensors[needed[2]].shape[1] // scales,
            _LAYOUTS[joints] if layout is None else layout,
            num_persons,
            scales,
            graph.shape[0] // graph.shape[1],
            tensors[needed[2]].shape[0],
            sizes,
        )
        _public_keys.check_fit(where, model.state_dict(), tensors)
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
            ValueError: its shape does not fit the layout, the channels or the number of persons.
        """
        y = self.normalised(x)
        for i in (1, 2, 3):
            frames, windows = getattr(self, f"sgcn{i}"), getattr(self, f"gcn3d{i}")
            y = getattr(self, f"tcn{i}")(F.relu(frames(y) + windows(y)))
        return self.classified(y)

    def normalised(self, x: Tensor) -> Tensor:
        """BatchNorm at the entrance, persons folded into the batch.

        Args:
            x: ``[N, C, T, V, M]``.

        Returns:
            ``[N * M, C, T, V]``, channels_last.

        Raises:
            TypeError: as :meth:`forward`.
            ValueError: as :meth:`forward`.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"MSG3D: x must be a floating point tensor, got {getattr(x, 'dtype', type(x))}")
        fixed = (self.in_channels, self.layout.num_joints, self.num_persons)
        if x.dim() != 5 or (x.shape[1], x.shape[3], x.shape[4]) != fixed or x.shape[2] == 0:
            rule = f"[N, {fixed[0]}, T, {fixed[1]}, {fixed[2]}]"
            raise ValueError(f"MSG3D: x must be {rule}, got {list(x.shape)}")
        n, c, t, v, m = x.shape
        y: Tensor = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        y = y.view(n * m, v, c, t).permute(0, 2, 3, 1)
        return y.contiguous(memory_format=torch.channels_last)

    def classified(self, y: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of averages over frames, joints and persons of ``[N * M, C, T, V]``."""
        # The sum's gradient is a view, and so never as large as the features.
        pooled = (frame_sums(y).sum(1) / (y.shape[2] * y.shape[3])).to(y.dtype)  # [N * M, C]
        out: Tensor = self.fc(pooled.view(-1, self.num_persons, y.shape[1]).mean(1))
        return out


def _without_prefix(where: str, state_dict: Any) -> dict[str, Tensor]:
    """A copy without the ``module.`` of data parallelism."""
    if not isinstance(state_dict, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise TypeError(f"{where} must map names to tensors, got {type(state_dict).__name__}")
    return {key.removeprefix("module."): value for key, value in state_dict.items()}
