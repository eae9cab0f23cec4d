"""A backward pass computes the gradients that were asked for, and no others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stgcn_fast import ops


class Calls(TorchDispatchMode):
    """The package's operators that run, and what `graph_conv_backward` is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.flags: list[tuple[bool, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "stgcn_fast":
            self.count[func.__name__.split(".")[0]] += 1
            if "graph_conv_backward" in func.__name__:
                self.flags.append(tuple(args[-4:]))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = (2, 3, 5, 4), (3, 3, 3, 1), (2, 3, 3), (2, 2, 4, 4)
    x, taps, weight, adjacency = (torch.randn(shape).double().requires_grad_() for shape in shapes)
    return x, taps, weight, adjacency


def layers(x: Tensor, taps: Tensor, weight: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
    features = ops.temporal_conv(x, taps, padding=1)
    return features, ops.graph_conv(ops.temporal_conv(features, taps, padding=1), weight, adjacency)


def test_by_features(tensors: tuple[Tensor, ...]) -> None:
    features, y = layers(*tensors)
    with Calls() as calls:
        (found,) = torch.autograd.grad(y.square().sum(), features, create_graph=True)
    assert calls.count["temporal_conv_grad_weight"] == 0
    assert calls.flags == []  # by the input alone it is a graph_conv
    by_all = torch.autograd.grad(y.square().sum(), [features, *tensors[1:]], create_graph=True)
    torch.testing.assert_close(found, by_all[0])
    # The derivative is still a function of every weight.
    first = torch.autograd.grad(found.square().sum(), tensors, retain_graph=True)
    second = torch.autograd.grad(by_all[0].square().sum(), tensors)
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b)
        assert bool(a.any())


def test_by_one_weight(tensors: tuple[Tensor, ...]) -> None:
    _, y = layers(*tensors)
    expected = torch.autograd.grad(y.square().sum(), tensors, retain_graph=True)
    for i, tensor in enumerate(tensors):
        (found,) = torch.autograd.grad(y.square().sum(), tensor, retain_graph=True)
        torch.testing.assert_close(found, expected[i])


def test_backward_fills_every_leaf(tensors: tuple[Tensor, ...]) -> None:
    expected = torch.autograd.grad(layers(*tensors)[1].square().sum(), tensors)
    layers(*tensors)[1].square().sum().backward()
    for tensor, gradient in zip(tensors, expected):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, gradient)


def test_a_weight_made_of_features_is_on_the_way(tensors: tuple[Tensor, ...]) -> None:
    """An adjacency that depends on the features has its part in their gradient."""
    x, _, weight, _ = tensors
    features = x * 1
    adjacency = (features.mean((1, 2))[:, :, None] * features.mean((1, 2))[:, None])[:, None].expand(
        -1, 2, -1, -1
    )
    y = ops.graph_conv(features, weight, adjacency)
    with Calls() as calls:
        (found,) = torch.autograd.grad(y.square().sum(), features, retain_graph=True)
    assert calls.flags == [(True, False, True, False)]
    plain = torch.einsum("nkotv,nkvw->notw", torch.einsum("koc,nctv->nkotv", weight, features), adjacency)
    torch.testing.assert_close(found, torch.autograd.grad(plain.square().sum(), features)[0])
