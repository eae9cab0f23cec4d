"""Reading the sizes of a network off the tensors of a public ST-GCN checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stgcn_fast.graph import NORMALIZATIONS, PARTITIONS, Graph, Layout, get_layout, list_layouts

_NAME = "STGCN.from_state_dict: state_dict"
_LANDMARK = "data_bn.weight"  # a key of every ST-GCN, the same at any depth
_BLOCK = re.compile(r"st_gcn_networks\.(\d+)\.gcn\.conv\.weight")
_SAME = 1e-5  # rounding of an adjacency computed in float64 and stored in float32
_MAX_DISTANCE = 3
_SHOWN = 3


def strip_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the public ST-GCN, without a prefix that all of them share.

    Raises:
        TypeError: not a mapping of names to tensors.
        ValueError: no key of ST-GCN is there.
    """
    return common_prefix_dropped(_NAME, state_dict, _LANDMARK, "ST-GCN")


def common_prefix_dropped(
    where: str, state_dict: Mapping[str, Tensor], landmark: str, network: str = "the network"
) -> dict[str, Tensor]:
    """The tensors without a prefix such as ``module.`` that all of them share.

    Args:
        where: what an error speaks of.
        state_dict: the tensors by name.
        landmark: a key that every state dict of the network has once.
        network: its name.

    Returns:
        A new dictionary.

    Raises:
        TypeError: not a mapping of names to tensors.
        ValueError: the landmark is not there, or a key has another prefix.
    """
    check_tensors(where, state_dict)
    marks = [key for key in state_dict if key == landmark or key.endswith("." + landmark)]
    if len(marks) != 1:
        raise ValueError(f"{where} must have one key {landmark}, got {listed(marks or list(state_dict))}")
    prefix = marks[0][: -len(landmark)]
    strangers = [key for key in state_dict if not key.startswith(prefix)]
    if strangers:
        raise ValueError(
            f"{where} must have only keys of {network} under the prefix {prefix!r}, got {listed(strangers)}"
        )
    return {key[len(prefix) :]: value for key, value in state_dict.items()}


def check_tensors(where: str, state_dict: Any) -> None:
    """Raises TypeError unless names are mapped to tensors."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{where} must be a mapping of names to tensors, got {type(state_dict).__name__}")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TypeError(f"{where} must map names to tensors, got {key!r}: {type(value).__name__}")


def tensors_of(where: str, tensors: Mapping[str, Tensor], ranks: Mapping[str, int]) -> list[Tensor]:
    """The tensors of some keys.

    Args:
        where: what an error speaks of.
        tensors: by name.
        ranks: number of axes of each key's tensor.

    Raises:
        ValueError: a key is missing or its tensor has another number of axes.
    """
    found = []
    for key, rank in ranks.items():
        if key not in tensors:
            raise ValueError(f"{where} must have the key {key}, got {listed(list(tensors))}")
        if tensors[key].ndim != rank:
            raise ValueError(f"{where} must have {key} of {rank} axes, got {list(tensors[key].shape)}")
        found.append(tensors[key])
    return found


def infer_config(tensors: Mapping[str, Tensor], layout: str | Layout | None) -> dict[str, Any]:
    """Constructor arguments of the network that the tensors belong to.

    Raises:
        ValueError: a key is missing, a shape is impossible, or the layout is unknown.
    """
    adjacency = _tensor(tensors, "A", 3)
    num_partitions, num_joints = adjacency.shape[:2]
    width = _tensor(tensors, _LANDMARK, 1).shape[0]
    if adjacency.shape[2] != num_joints or num_joints == 0 or width % num_joints:
        raise ValueError(
            f"{_NAME} must have A [K, V, V] and {_LANDMARK} [V * C], "
            f"got {list(adjacency.shape)} and [{width}]"
        )
    blocks = sorted(int(match[1]) for key in tensors if (match := _BLOCK.fullmatch(key)))
    if not blocks or blocks != list(range(len(blocks))):
        raise ValueError(f"{_NAME} must have st_gcn_networks 0, 1, 2, ..., got {blocks}")
    stacked = [_tensor(tensors, f"st_gcn_networks.{i}.gcn.conv.weight", 4).shape[0] for i in blocks]
    if any(size % num_partitions for size in stacked):
        raise ValueError(f"{_NAME} must have K = {num_partitions} kernels in each gcn.conv, got {stacked}")
    return {
        "num_classes": _tensor(tensors, "fcn.weight", 4).shape[0],
        "in_channels": width // num_joints,
        "graph": _find_graph(adjacency, layout),
        "edge_importance": any(key.startswith("edge_importance.") for key in tensors),
        "channels": [size // num_partitions for size in stacked],
        "temporal_kernel": _tensor(tensors, "st_gcn_networks.0.tcn.2.weight", 4).shape[2],
    }


def check_fit(subject: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises unless the given tensors have the expected names and shapes.

    Args:
        subject: what the error speaks of, for example ``"load: state_dict"``.
        expected: the network's own state dict.
        given: the tensors to load.

    Raises:
        ValueError: naming the first few keys at fault.
    """
    missing, extra = [k for k in expected if k not in given], [k for k in given if k not in expected]
    if missing:
        raise ValueError(f"{subject} must have all {len(expected)} keys, got none for {listed(missing)}")
    if extra:
        raise ValueError(f"{subject} must have only the network's keys, got {listed(extra)}")
    for key, tensor in expected.items():
        if tensor.shape != given[key].shape:
            raise ValueError(
                f"{subject} must have {key} of shape {list(tensor.shape)}, got {list(given[key].shape)}"
            )


def _find_graph(adjacency: Tensor, layout: str | Layout | None) -> Graph:
    matrices = adjacency.detach().to("cpu", torch.float32).numpy()
    if layout is None:
        candidates = [get_layout(name) for name in list_layouts()]
    else:
        candidates = [get_layout(layout) if isinstance(layout, str) else layout]
        if candidates[0].num_joints != matrices.shape[1]:
            raise ValueError(
                f"STGCN.from_state_dict: layout must have the {matrices.shape[1]} joints of the adjacency, "
                f"got {candidates[0].name!r} with {candidates[0].num_joints}"
            )
    for candidate in candidates:
        if candidate.num_joints == matrices.shape[1]:
            graph = _same_graph(matrices, candidate)
            if graph is not None:
                return graph
    if layout is None:
        raise ValueError(
            "STGCN.from_state_dict: layout must be given where the adjacency is no known graph's, "
            f"got none for A of shape {list(matrices.shape)}"
        )
    return Graph.from_adjacency(matrices, candidates[0])


def _same_graph(matrices: np.ndarray[Any, Any], layout: Layout) -> Graph | None:
    num_partitions = len(matrices)
    for partition in PARTITIONS:
        if partition == "symmetric" and not layout.left:
            continue
        for distance in range(1, _MAX_DISTANCE + 1):
            for hop_cap in (True, False) if partition == "spatial" else (False,):
                for normalization in NORMALIZATIONS:
                    graph = Graph(layout, partition, distance, normalization, hop_cap=hop_cap)
                    if graph.num_partitions != num_partitions:
                        break
                    if np.allclose(graph.A, matrices, rtol=0, atol=_SAME):
                        return graph
    return None


def _tensor(tensors: Mapping[str, Tensor], key: str, rank: int) -> Tensor:
    return tensors_of(_NAME, tensors, {key: rank})[0]


def listed(keys: list[str]) -> str:
    """The first few keys, for an error."""
    shown = ", ".join(keys[:_SHOWN]) or "none"
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"
