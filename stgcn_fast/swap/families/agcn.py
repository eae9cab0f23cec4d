"""Layers whose adjacency is partly made from each sample: 2s-AGCN, MS-AAGCN, GCN-NAS and UNIK.

All compute ``relu(bn(sum_k conv_d[k](x A_k)) + down(x))`` with ``x A``: source joint first, biases behind
the aggregation. ``A_k`` is a static part plus, per sample, an activation of ``theta(x)^T phi(x) / (C' T)``
for one or several pairs of embeddings:

    2s-AGCN    A + PA                        softmax over sources, 1x1 embeddings (Shi et al. 2019)
    MS-AAGCN   PA (``A`` in pyskl)           alpha tanh, 1x1 embeddings; then three attention gates (2020)
    GCN-NAS    PA and polynomials of A       softmax, 1x1 and 9x1 embeddings, summed (Peng et al. 2020)
    UNIK       DepM, joints of tau frames    softmax, 1x1 embeddings (Yang et al. 2021)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.folded import GraphLayer, Shortcut
from stgcn_fast.swap.folded_graphs import SampleGraph

_JOINTS = 7
# Pairs of embeddings and the activation of their product.
_PAIRS = (("conv_a", "conv_b"), ("conv_T1", "conv_T2"), ("conv_ST11", "conv_ST12"))
_POLYNOMIALS = ("A_ch3", "A_ch4s")  # Chebyshev terms of the skeleton's adjacency, where a layer has them


def _embeddings(module: Any) -> list[tuple[Any, Any]]:
    return [
        (getattr(module, first), getattr(module, second))
        for first, second in _PAIRS
        if hasattr(module, first)
    ]


def _are_plain(module: Any) -> bool:
    """Whether nobody watches the layers whose parameters are read."""
    if not (parts.are_pointwise(module.conv_d) and parts.is_norm(module.bn)):
        return False
    # Called once for all subsets, not once for each.
    if not all(parts.is_quiet(getattr(module, name)) for name in ("soft", "tan") if hasattr(module, name)):
        return False
    count = len(module.conv_d)
    return all(
        parts.is_temporal(conv) and conv.stride[0] == 1
        for pair in _embeddings(module)
        for convs in pair
        for conv in convs[:count]
    )


def _product(first: list[Any], second: list[Any], x: Tensor) -> Tensor:
    """``theta_k(x)^T phi_k(x) / (C' T)``: ``[N, K, V, V]``, all embeddings of one size in one convolution."""
    convs = [*first, *second]
    if any(conv.weight.shape != convs[0].weight.shape for conv in convs):
        return torch.cat([_product([a], [b], x) for a, b in zip(first, second)], 1)
    weight = torch.cat([conv.weight for conv in convs])
    bias = None if convs[0].bias is None else torch.cat([conv.bias for conv in convs])
    z = parts.convolve_frames(x, weight, bias, convs[0].padding[0], convs[0].dilation[0])
    terms = z.shape[1] // len(convs) * z.shape[2]
    embedded = z.reshape(x.shape[0], len(convs), terms, x.shape[3]).unbind(1)  # [N, C' T, V] each
    # One by one: a product of all needs them side by side in memory.
    pairs = zip(embedded[: len(first)], embedded[len(first) :])
    return torch.stack([torch.bmm(a.mT, b) for a, b in pairs], 1) / terms


def _dynamic(module: Any, x: Tensor, activation: Any) -> Tensor | None:
    """The part of the adjacency that is made from the samples, ``[N, K, V, V]``."""
    total: Tensor | None = None
    count = len(module.conv_d)
    for first, second in _embeddings(module):
        part = activation(_product(list(first)[:count], list(second)[:count], x))
        total = part if total is None else total + part
    return total


def _convolve(module: Any, x: Tensor, adjacency: Tensor) -> Tensor:
    """``relu(bn(sum_k conv_d[k](x A_k)) + down(x))``."""
    weight, bias = parts.stack_kernels(module.conv_d)
    y = parts.normalise(module.bn, ops.graph_conv(x, weight, adjacency), bias)
    return parts.join(y, module.down(x), module.relu)


def _fits(module: Any, x: Tensor, static: Tensor) -> bool:
    conv = module.conv_d[0]
    return (
        static.dim() == 3
        and x.shape[1] == conv.in_channels
        and x.shape[3] == static.shape[1]
        and static.shape[0] == len(module.conv_d)
        and parts.alike(x, conv.weight, module.bn.weight)
    )


def _example(module: Any) -> tuple[Tensor, ...]:
    joints = next(
        getattr(module, name).shape[-1] for name in ("PA", "A", "DepM") if hasattr(module, name)
    ) // getattr(module, "tau", 1)
    return (parts.example_input(module.conv_d[0].in_channels, joints),)


def _match_agcn(module: Any) -> bool | str:
    if not parts.is_named(
        module, ("unit_gcn",), ("conv_a", "conv_b", "conv_d", "PA", "A", "soft", "bn", "down")
    ):
        return False
    return _are_plain(module) and not hasattr(module, "alpha")


def _run_agcn(module: Any, plain: Any, x: Tensor) -> Any:
    if not (parts.usable(x) and _are_plain(module) and _fits(module, x, module.PA)):
        return plain(module, x)
    static = module.A.to(module.PA.device) + module.PA
    dynamic = _dynamic(module, x, module.soft)
    return _convolve(module, x, static if dynamic is None else _added(dynamic, static))


def _added(dynamic: Tensor, static: Tensor) -> Tensor:
    """Under autocast the product is of a smaller type than the parameters."""
    return dynamic + static.to(dynamic.dtype)


def _match_nas(module: Any) -> bool | str:
    attributes = ("conv_d", "PA", "soft", "bn", "down")
    if not type(module).__name__.startswith("unit_gtcn") or not all(hasattr(module, a) for a in attributes):
        return False
    return _are_plain(module)


def _run_nas(module: Any, plain: Any, x: Tensor) -> Any:
    if not (parts.usable(x) and _are_plain(module) and _fits(module, x, module.PA)):
        return plain(module, x)
    static = module.PA
    for name in _POLYNOMIALS:
        if hasattr(module, name):
            static = static + getattr(module, name).to(static.device)
    dynamic = _dynamic(module, x, module.soft)
    return _convolve(module, x, static if dynamic is None else _added(dynamic, static))


def _match_aagcn(module: Any) -> bool | str:
    if not parts.is_named(
        module, ("unit_gcn", "unit_aagcn"), ("conv_d", "adaptive", "attention", "bn", "down")
    ):
        return False
    if module.adaptive and not hasattr(module, "alpha"):
        return False
    return _are_plain(module)


def _run_aagcn(module: Any, plain: Any, x: Tensor) -> Any:
    learnt = getattr(module, "PA", None)
    static = module.A if learnt is None else learnt
    if not (parts.usable(x) and _are_plain(module) and _fits(module, x, static)):
        return plain(module, x)
    if module.attention and not all(parts.is_quiet(layer) for layer in _gates(module)):
        return plain(module, x)
    adjacency = static
    if module.adaptive:
        dynamic = _dynamic(module, x, module.tan)
        if dynamic is not None:
            adjacency = _added(dynamic * module.alpha, static)
    y = _convolve(module, x, adjacency)
    return _gate(module, y) if module.attention else y


def _gates(module: Any) -> tuple[nn.Module, ...]:
    return module.conv_sa, module.conv_ta, module.fc1c, module.fc2c, module.sigmoid, module.relu


def _gate(module: Any, y: Tensor) -> Tensor:
    """Joints, frames and channels weighted one after the other, each by ``1 + sigmoid`` of an average.

    An average behind a gate is a weighted average in front of it, so the features are read three times and
    not six.
    """
    joints = 1 + module.sigmoid(module.conv_sa(y.mean(2)))  # [N, 1, V]
    frames_mean = torch.matmul(y, joints.mT[:, None]).squeeze(3) / y.shape[3]  # [N, C, T]
    frames = 1 + module.sigmoid(module.conv_ta(frames_mean))  # [N, 1, T]
    channels_mean = (frames_mean * frames).mean(2)  # [N, C]
    hidden = module.fc1c(channels_mean).relu()
    channels = 1 + module.sigmoid(module.fc2c(hidden))  # [N, C]
    places = (frames[:, :, :, None] * joints[:, :, None]).to(y.dtype)
    out: Tensor = y * (places * channels[:, :, None, None].to(y.dtype))
    return out


def graph_of(module: Any, dtype: torch.dtype) -> SampleGraph | None:
    """The folded graph layer of 2s-AGCN or MS-AAGCN, or None where it is neither."""
    adaptive = hasattr(module, "soft") if not hasattr(module, "adaptive") else module.adaptive
    gated = getattr(module, "attention", False)
    learnt = getattr(module, "PA", None)
    known = _match_aagcn(module) if hasattr(module, "adaptive") else _match_agcn(module)
    if known is not True or (gated and not all(parts.is_quiet(layer) for layer in _gates(module))):
        return None
    static = module.A if learnt is None else learnt
    alpha = getattr(module, "alpha", None) if adaptive else None
    if not hasattr(module, "adaptive"):
        static = module.A.to(module.PA) + module.PA
    embeddings = None
    if adaptive:
        pairs, count = _embeddings(module), len(module.conv_d)
        convs = [*list(pairs[0][0])[:count], *list(pairs[0][1])[:count]] if len(pairs) == 1 else []
        if not convs or not all(parts.is_pointwise(conv) and conv.bias is not None for conv in convs):
            return None
        weight = torch.cat([conv.weight.flatten(1) for conv in convs])
        embeddings = weight, torch.cat([conv.bias for conv in convs])
    weight, behind = parts.stack_kernels(module.conv_d)
    shortcut = Shortcut(module.down, dtype)
    return SampleGraph(
        weight, behind, static, embeddings, alpha, module.bn, shortcut, module if gated else None, dtype
    )


def _fold(module: Any, dtype: torch.dtype) -> GraphLayer | None:
    graph = graph_of(module, dtype)
    return None if graph is None else GraphLayer(graph)


def _match_unik(module: Any) -> bool | str:
    attributes = ("DepM", "tau", "num_heads", "conv_a", "conv_b", "conv_d", "soft", "bn", "down")
    return parts.is_named(module, ("S_LSU",), attributes) and _are_plain(module)


def _run_unik(module: Any, plain: Any, x: Tensor) -> Any:
    if not (parts.usable(x) and _are_plain(module)):
        return plain(module, x)
    windows = x if module.tau == 1 else module.tw(x)
    if not _fits(module, windows, module.DepM):
        return plain(module, x)
    dynamic = _dynamic(module, windows, module.soft)
    assert dynamic is not None
    y = _convolve(module, windows, _added(dynamic, module.DepM))
    if module.tau == 1:
        return y
    y = y.reshape(*y.shape[:3], module.tau, -1)
    return module.out_bn(module.out_conv(y).squeeze(3))


register_adapter(Adapter("agcn.unit_gcn", "2s-AGCN", _match_agcn, _run_agcn, _example, fold=_fold))
register_adapter(Adapter("aagcn.unit_gcn", "MS-AAGCN", _match_aagcn, _run_aagcn, _example, fold=_fold))
register_adapter(Adapter("gcn_nas.unit_gtcn", "GCN-NAS", _match_nas, _run_nas, _example))
register_adapter(Adapter("unik.s_lsu", "UNIK", _match_unik, _run_unik, _example))
