"""Proof before the swap: both forwards on a copy of the layer with random weights.

Public code bases share class names (there are a dozen ``unit_gcn``) and users edit forwards, so names and
shapes alone do not tell what a layer computes. With random weights two forwards that differ anywhere differ
in the result; weights as initialised (zeros, 1e-6) would hide it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stgcn_fast.swap._classes import original_class, unswap
from stgcn_fast.swap.adapter import Adapter

TOLERANCE = 1e-3
"""Largest difference, relative to the largest value: float32 agrees to 1e-5, other mathematics does not."""
_SEED = 20_111


def disagreement(adapter: Adapter, module: nn.Module) -> str | None:
    """Why an adapter does not compute what a module does; None if it does, in evaluation and in training.

    The module, its hooks and the random numbers of the process are left as they are.
    """
    if adapter.example is None:
        return None
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _without_autocast(module):
        torch.manual_seed(_SEED)
        try:
            twin = _random_twin(module)
            inputs = tuple(x.to(_device_of(module)) for x in adapter.example(twin))
        except Exception as error:
            return f"it cannot be copied to be checked: {_first_line(error)}"
        for training in (False, True):
            pair = [copy.deepcopy(twin).train(training) for _ in range(2)]
            plain = original_class(module).forward
            try:
                expected = plain(pair[0], *(x.clone() for x in inputs))
            except Exception as error:
                return f"its own forward fails on an example: {_first_line(error)}"
            found = adapter.forward(pair[1], plain, *(x.clone() for x in inputs))
            results = [[*_tensors(expected), *pair[0].buffers()], [*_tensors(found), *pair[1].buffers()]]
            if not _alike(*results):
                return "its forward is not the one that is known by this name"
    return None


def _random_twin(module: nn.Module) -> nn.Module:
    """A copy in float32 with random weights, without dropout, without hooks, with plain layers."""
    # Hooks may hold anything: the copy gets empty dictionaries in their place.
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name, value in part.__dict__.items():
            if name.endswith("_hooks") and isinstance(value, dict):
                memo[id(value)] = OrderedDict()
    twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        unswap(part)
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        for name, value in part.__dict__.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                part.__dict__[name] = on_any_device(_random(value.float()))
    twin.float()
    for tensor in [*twin.parameters(), *twin.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(_random(tensor))
    return twin


def _random(tensor: Tensor) -> Tensor:
    """Positive vectors, which may be variances; matrices whose products keep their size."""
    if tensor.dim() < 2:
        return torch.empty_like(tensor).uniform_(0.3, 1.3)
    spread = (tensor[0].numel() or 1) ** -0.5
    return torch.empty_like(tensor).normal_(0, spread).to(tensor.dtype)


def on_any_device(tensor: Tensor) -> Tensor:
    """A tensor that stays where it is when old code sends it to the device of an input by its number."""

    def stay(*args: Any, **kwargs: Any) -> Tensor:
        return tensor

    if tensor.device.type == "cpu":
        tensor.cuda = stay  # type: ignore[method-assign]
    return tensor


def _alike(expected: list[Tensor], found: list[Tensor]) -> bool:
    if len(expected) != len(found):
        return False
    for plain, ours in zip(expected, found):
        if plain.shape != ours.shape or plain.dtype != ours.dtype:
            return False
        limit = TOLERANCE * float(plain.abs().max()) if plain.numel() else 0.0
        if not bool(((plain - ours).abs() <= limit).all()):
            return False
    return True


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _device_of(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _without_autocast(module: nn.Module) -> Any:
    return torch.autocast(_device_of(module).type, enabled=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
