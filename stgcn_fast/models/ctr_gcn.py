"""CTR-GCN: a joint map for each sample and channel (Chen et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from stgcn_fast.models import _public_keys
from stgcn_fast.models._ten_units import TenUnits
from stgcn_fast.models.registry import register
from stgcn_fast.nn import agcn
from stgcn_fast.nn import ctr_gcn as layers

_TAPS = 5
_DILATIONS = (1, 2)


@register("ctr_gcn")
class CTRGCN(TenUnits):
    """CTR-GCN with the parameter names, shapes and numbers of the public implementation.

    Made of plain layers: :func:`stgcn_fast.accelerate` and :func:`stgcn_fast.optimize` make them fast.
    Arguments as of :class:`stgcn_fast.models._ten_units.TenUnits`: ``num_classes``, ``in_channels``,
    ``layout``, ``num_persons``, ``width``, ``dropout``.

    Examples:
        >>> CTRGCN(num_classes=60, width=16)(torch.zeros(1, 3, 16, 25, 2)).shape
        torch.Size([1, 60])
    """

    def unit(self, inputs: int, outputs: int, graph: Tensor, stride: int, residual: bool) -> nn.Module:
        """A graph layer, branches over frames, a residual connection."""
        # The public code takes the skeleton as it is, here with the target joint first.
        gcn = layers.unit_gcn(inputs, outputs, graph)
        tcn = layers.MultiScale_TemporalConv(outputs, _TAPS, stride, _DILATIONS)
        return agcn.TCN_GCN_unit(gcn, tcn, inputs, outputs, stride, residual)

    @classmethod
    def sizes_of(cls, where: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """C and V of a checkpoint."""
        keys = {"l1.gcn1.convs.0.conv3.weight": 4, "l1.gcn1.PA": 3}
        weight, adjacency = _public_keys.tensors_of(where, tensors, keys)
        return weight.shape[1], adjacency.shape[1]
