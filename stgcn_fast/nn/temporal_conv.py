"""Temporal convolution: a (Γ, 1) kernel over frames."""

from __future__ import annotations

from torch import Tensor, nn

from stgcn_fast import ops


class TemporalConv(nn.Conv2d):
    """Convolution over frames, joint by joint.

    A ``Conv2d`` with a (Γ, 1) kernel in everything but speed: the same parameters ``weight [O, C, Γ, 1]``
    and ``bias [O]``, the same result. The padding keeps the number of frames when the stride is 1.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: Γ, odd.
        stride: step along frames.
        dilation: distance between taps in frames.
        bias: whether there is one.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is not positive or the kernel is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("kernel_size", kernel_size),
            ("stride", stride),
            ("dilation", dilation),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"TemporalConv: {name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"TemporalConv: {name} must be positive, got {value}")
        if kernel_size % 2 == 0:
            raise ValueError(f"TemporalConv: kernel_size must be odd, got {kernel_size}")
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(
            in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1), bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Convolves ``[N, C, T, V]`` to ``[N, O, ceil(T / stride), V]`` in the memory format of the input."""
        return ops.temporal_conv(
            input,
            self.weight,
            self.bias,
            stride=self.stride[0],
            padding=int(self.padding[0]),
            dilation=self.dilation[0],
        )
