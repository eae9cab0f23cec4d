"""2s-AGCN and MS-AAGCN, one stream (Shi et al., CVPR 2019 and TIP 2020)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from stgcn_fast.models import _public_keys
from stgcn_fast.models._ten_units import TenUnits
from stgcn_fast.models.registry import register
from stgcn_fast.nn import agcn as layers


@register("agcn")
class AGCN(TenUnits):
    """One stream of 2s-AGCN with the parameter names, shapes and numbers of the public implementation.

    Ten units; each adjacency is the skeleton, a learnt part, and attention between the joints of a sample.
    Made of plain layers: :func:`stgcn_fast.accelerate` and :func:`stgcn_fast.optimize` make them fast.
    Arguments as of :class:`stgcn_fast.models._ten_units.TenUnits`: ``num_classes``, ``in_channels``,
    ``layout``, ``num_persons``, ``width``, ``dropout``.

    Examples:
        >>> AGCN(num_classes=60, width=16)(torch.zeros(1, 3, 16, 25, 2)).shape
        torch.Size([1, 60])
    """

    graph_layer: type[nn.Module] = layers.unit_gcn

    def unit(self, inputs: int, outputs: int, graph: Tensor, stride: int, residual: bool) -> nn.Module:
        """A graph layer, a convolution over frames, a residual connection."""
        gcn = self.graph_layer(inputs, outputs, graph)
        tcn = layers.unit_tcn(outputs, outputs, stride=stride)
        return layers.TCN_GCN_unit(gcn, tcn, inputs, outputs, stride, residual)

    @classmethod
    def sizes_of(cls, where: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """C and V of a checkpoint."""
        keys = {"l1.gcn1.conv_d.0.weight": 4, "l1.gcn1.PA": 3}
        weight, adjacency = _public_keys.tensors_of(where, tensors, keys)
        return weight.shape[1], adjacency.shape[1]


@register("aagcn")
class AAGCN(AGCN):
    """One stream of MS-AAGCN: as :class:`AGCN`, with learnt maps and gates for joints, frames, channels.

    Examples:
        >>> AAGCN(num_classes=60, width=16)(torch.zeros(1, 3, 16, 25, 2)).shape
        torch.Size([1, 60])
    """

    graph_layer = layers.unit_aagcn
