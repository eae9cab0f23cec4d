"""Time the package's layers and networks beside the eager composition of torch, in alternation."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stgcn_fast import nn as fast_nn
from stgcn_fast import ops
from stgcn_fast.models import STGCN

__all__ = [
    "EagerSTGCN",
    "Timing",
    "alternate",
    "backend_line",
    "check_agreement",
    "check_network_gradient",
    "difference",
    "eager_block",
    "eager_graph_conv",
    "gradient",
    "gradient_difference",
    "time_layers",
    "time_network",
]

# The shapes of ST-GCN's ten blocks on NTU RGB+D: (C, O, T of the input, stride along time).
LAYER_SHAPES = (
    (3, 64, 300, 1),
    (64, 64, 300, 1),
    (64, 128, 300, 2),
    (128, 128, 150, 1),
    (128, 256, 150, 2),
    (256, 256, 75, 1),
)
# Gradients of a whole network are compared in float64: in float32 rounding alone, through ten BatchNorms and
# their ReLUs, moves eager's by 2e-3 of their norm.
NETWORK_GRADIENT_AGREEMENT = 1e-9
AGREEMENT = 1e-4  # largest difference over the largest magnitude; float32 sums of a few thousand terms


@dataclass(frozen=True)
class Timing:
    """Medians of one comparison.

    Attributes:
        name: What was timed.
        eager: Seconds of the eager composition (the faster of its memory formats).
        ours: Seconds of the package.
        difference: Largest difference of the results over their largest magnitude.
    """

    name: str
    eager: float
    ours: float
    difference: float

    @property
    def ratio(self) -> float:
        """Eager time over ours."""
        return self.eager / self.ours


def backend_line() -> str:
    """Which kernels the package's layers run on here, and why not compiled ones."""
    from stgcn_fast import _native

    status = _native.load()
    if status.loaded:
        used = status.capability.get("kernels") or status.capability.get("used", "")
        return f"compiled CPU kernels ({used}), {torch.get_num_threads()} threads"
    return f"the pure-PyTorch reference, {torch.get_num_threads()} threads: {status.reason}"


def eager_graph_conv(x: Tensor, weight: Tensor, bias: Tensor | None, adjacency: Tensor) -> Tensor:
    """The composition of the public code: 1x1 convolution to K * O channels, then einsum over joints.

    The result has the memory format of ``x``.
    """
    z = functional.conv2d(x, weight, bias)
    n, _, t, v = z.shape
    y = torch.einsum("nkctv,kvw->nctw", z.view(n, adjacency.shape[0], -1, t, v), adjacency)
    return y.contiguous(memory_format=_format_of(x))


def _format_of(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class EagerSTGCN(nn.Module):
    """The network of an :class:`STGCN`, composed of torch's own operations on the same parameters.

    Args:
        model: Network whose modules are shared, not copied.
        memory_format: Of the features.
    """

    def __init__(self, model: STGCN, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        super().__init__()
        self.model = model
        self.memory_format = memory_format

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of ``x`` [N, C, T, V, M]."""
        model = self.model
        n, c, t, v, m = x.shape
        y = model.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t))
        y = y.view(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        y = y.contiguous(memory_format=self.memory_format)
        for i, block in enumerate(model.st_gcn_networks):
            mask = None if model.edge_importance is None else model.edge_importance[i]
            y = eager_block(block, y, model.A if mask is None else model.A * mask)
        features = y.mean((2, 3)).view(n, m, -1).mean(1)
        logits: Tensor = model.fcn(features[:, :, None, None]).flatten(1)
        return logits


def eager_block(block: Any, x: Tensor, adjacency: Tensor) -> Tensor:
    """A :class:`stgcn_fast.nn.STGCNBlock` composed of torch's own operations on its parameters.

    Args:
        block: The block.
        x: [N, C, T, V].
        adjacency: [K, V, V], times the mask where there is one.
    """
    ordered = hasattr(block, "before")
    y = _eager_sequence(block.before, x) if ordered else x
    y = eager_graph_conv(y, block.gcn.conv.weight, block.gcn.conv.bias, adjacency)
    y = _eager_sequence(block.tcn, y)
    if block.residual is not None:
        y = y + _eager_sequence(block.residual, x)
    return _eager_sequence(block.after, y) if ordered else torch.relu(y)


def _eager_sequence(module: Any, x: Tensor) -> Tensor:
    for part in module if isinstance(module, nn.Sequential) else (module,):
        x = (
            part._conv_forward(x, part.weight, part.bias)
            if isinstance(part, fast_nn.TemporalConv)
            else part(x)
        )
    return x


def alternate(functions: list[Callable[[], Any]], repeats: int, seconds: float = math.inf) -> list[float]:
    """Medians of several functions called in turn, after one unmeasured call each.

    Args:
        functions: What is compared.
        repeats: Measured calls of each.
        seconds: After so many, at least five calls each, no further round begins.
    """
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    started = time.perf_counter()
    for repeat in range(repeats):
        order = range(len(functions)) if repeat % 2 == 0 else range(len(functions) - 1, -1, -1)
        for index in order:
            start = time.perf_counter()
            functions[index]()
            times[index].append(time.perf_counter() - start)
        if repeat >= 4 and time.perf_counter() - started > seconds:
            break
    return [statistics.median(entries) for entries in times]


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest magnitude of ``b``."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def gradient(
    function: Callable[[], Tensor], leaves: Sequence[Tensor], upstream: Tensor | None = None
) -> list[Tensor]:
    """Gradients of what a function returns by leaves; they are left as they were found."""
    kept = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    torch.autograd.backward(function(), upstream)
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf, grad in zip(leaves, kept):
        leaf.grad = grad
    return found


def gradient_difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Norm of the difference of two gradients over that of ``b``, all tensors taken as one vector.

    As one vector, because some entries are zero but for rounding, as a bias before a BatchNorm is.
    """
    apart = sum(float((x - y).square().sum()) for x, y in zip(a, b))
    return math.sqrt(apart / max(sum(float(y.square().sum()) for y in b), 1e-24))


def check_agreement(name: str, value: float, limit: float = AGREEMENT) -> float:
    """Return a difference, or stop with RuntimeError where it is above the limit or not a number."""
    if not value <= limit:
        rule = f"results must agree within {limit:g} before they are timed"
        raise RuntimeError(f"{name}: {rule}, got {value:g}")
    return value


def _compare(
    name: str,
    eager: list[Callable[[], Tensor]],
    ours: Callable[[], Tensor],
    leaves: Sequence[Sequence[Tensor]] | None,
    repeats: int,
) -> Timing:
    """Time both; with ``leaves``, those of every function in order, the backward pass as well."""
    functions = [*eager, ours]
    with torch.set_grad_enabled(leaves is not None):
        outputs = [function().detach() for function in functions]
        apart = check_agreement(name, max(difference(outputs[-1], output) for output in outputs[:-1]))
        steps: list[Callable[[], Any]] = list(functions)
        if leaves is not None:
            upstream = torch.randn_like(outputs[-1])
            found = [gradient(f, wanted, upstream) for f, wanted in zip(functions, leaves)]
            worst = max(gradient_difference(found[-1], other) for other in found[:-1])
            apart = max(apart, check_agreement(f"{name}, gradients", worst))
            steps = [lambda f=f: torch.autograd.backward(f(), upstream) for f in functions]  # type: ignore[misc]
        *slower, fast = alternate(steps, repeats)
    return Timing(name, min(slower), fast, apart)


def time_layers(repeats: int = 9, samples: int = 2, progress: Any = None) -> list[Timing]:
    """Both layers of ST-GCN at every shape the network has, forward alone and forward with backward.

    Args:
        repeats: Measured calls of each, of which the median counts.
        samples: N (bodies) of the batch.
        progress: Called with comparisons done and their total.
    """
    graph_model = STGCN(2)
    adjacency = graph_model.A
    mask = nn.Parameter(torch.rand_like(adjacency) + 0.5)
    results: list[Timing] = []
    total = 4 * len(LAYER_SHAPES)
    for c, o, t, stride in LAYER_SHAPES:
        gcn = fast_nn.GraphConv(c, o, adjacency.shape[0])
        tcn = fast_nn.TemporalConv(o, o, 9, stride)
        fast_nn.init_as_public(gcn.conv)
        v = adjacency.shape[1]
        for layer, channels in (("graph_conv", c), ("temporal_conv", o)):
            plain = torch.randn(samples, channels, t, v)
            last = plain.to(memory_format=torch.channels_last)
            needs = channels != 3  # the first layer's input needs no gradient
            plain, last = plain.requires_grad_(needs), last.detach().requires_grad_(needs)
            shared = [*gcn.parameters(), mask] if layer == "graph_conv" else list(tcn.parameters())
            leaves = [[*shared, x] if needs else shared for x in (plain, last, last)]
            eager: list[Callable[[], Tensor]]
            if layer == "graph_conv":
                weight, bias = gcn.conv.weight, gcn.conv.bias
                eager = [
                    lambda x=x, w=weight, b=bias: eager_graph_conv(x, w, b, adjacency * mask)  # type: ignore[misc]
                    for x in (plain, last)
                ]
                ours = lambda x=last, layer=gcn: layer(x, adjacency, mask)  # noqa: E731
                name = f"graph_conv {c} to {o}, T {t}"
            else:
                eager = [
                    lambda x=x, w=tcn.weight, b=tcn.bias, s=stride: functional.conv2d(x, w, b, (s, 1), (4, 0))  # type: ignore[misc]
                    for x in (plain, last)
                ]
                ours = lambda x=last, w=tcn.weight, b=tcn.bias, s=stride: ops.temporal_conv(  # type: ignore[misc]  # noqa: E731
                    x, w, b, stride=s, padding=4
                )
                name = f"temporal_conv {o}, T {t}" + (f", stride {stride}" if stride > 1 else "")
            for backward in (False, True):
                kind = "forward + backward" if backward else "forward"
                results.append(
                    _compare(f"{name}, {kind}", eager, ours, leaves if backward else None, repeats)
                )
                if progress is not None:
                    progress(len(results), total)
    return results


def check_network_gradient(name: str, model: STGCN, x: Tensor, labels: Tensor) -> float:
    """Compare, in float64, a network's gradient with eager's; RuntimeError where they differ."""
    double = copy.deepcopy(model).double()
    parameters = list(double.parameters())

    def loss(network: nn.Module) -> Tensor:
        return functional.cross_entropy(network(x.double()), labels)

    eager, ours = (gradient(partial(loss, network), parameters) for network in (EagerSTGCN(double), double))
    return check_agreement(f"{name}, gradients", gradient_difference(ours, eager), NETWORK_GRADIENT_AGREEMENT)


def time_network(model: STGCN, shape: tuple[int, ...], name: str, repeats: int = 3) -> list[Timing]:
    """A whole network: inference, and a training step (forward, loss, backward, SGD).

    Args:
        model: Network; both run on one copy of it.
        shape: Input [N, C, T, V, M].
        name: For the table.
        repeats: Measured calls of each.
    """
    model = copy.deepcopy(model)
    eager = [EagerSTGCN(model, form) for form in (torch.contiguous_format, torch.channels_last)]
    x = torch.randn(shape)
    labels = torch.arange(shape[0]) % model.num_classes
    model.eval()
    with torch.no_grad():
        expected = [network(x) for network in eager]
        apart = check_agreement(name, max(difference(model(x), entry) for entry in expected))
        *slow, fast = alternate([*(partial(network, x) for network in eager), partial(model, x)], repeats)
    results = [Timing(f"{name}, inference", min(slow), fast, apart)]

    def step(network: nn.Module, optimiser: torch.optim.Optimizer) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(x), labels)
        torch.autograd.backward(loss)
        optimiser.step()
        return loss.detach()

    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)  # both see the same weights throughout
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # the two would draw different masks
    networks = [*eager, model]
    *expected, loss = [step(network, optimiser) for network in networks]
    apart = check_agreement(name, max(difference(loss, entry) for entry in expected))
    apart = max(apart, check_network_gradient(name, model, x, labels))
    *slow, fast = alternate([partial(step, network, optimiser) for network in networks], repeats)
    results.append(Timing(f"{name}, training step", min(slow), fast, apart))
    return results
