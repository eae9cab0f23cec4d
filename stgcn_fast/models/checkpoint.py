"""Checkpoints: weights as safetensors and, beside them, a JSON file with all that is needed to load them.

``name.safetensors`` holds the tensors and, in its header, the same description as ``name.json``. The header
counts where the two disagree, so that a kill between the two writes leaves a loadable pair.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stgcn_fast._version import __version__
from stgcn_fast.data import FormatError
from stgcn_fast.graph import Layout, carried_definition, list_layouts, restore_layout
from stgcn_fast.models import _families, _public_keys
from stgcn_fast.models.registry import build, list_models, name_of

FORMAT = "stgcn_fast checkpoint"
FORMAT_VERSION = 1
_HEADER = "stgcn_fast"
_SUFFIXES = (".safetensors", ".json")
_PUBLIC_SUFFIXES = (".pt", ".pth")
_LARGEST = 65_536  # channels, classes, taps: above it a size is a mistake, not a network
_KEYS = {"format", "format_version", "id", "package_version", "model", "config", "meta"}


def save_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, meta: Mapping[str, Any] | None = None
) -> tuple[Path, Path]:
    """Writes a network as ``name.safetensors`` and ``name.json``.

    Each file appears whole or not at all; missing folders are made.

    Args:
        path: where to, with or without one of the two suffixes.
        model: a network of a registered class; wrappers of ``torch.compile`` and data parallelism are
            looked through.
        meta: anything else worth keeping, as JSON can hold it: ``class_names``, preprocessing, scores, ...

    Returns:
        The paths of the two files.

    Raises:
        TypeError: the model's class is not registered, or the meta data do not fit into JSON.
        ValueError: ``class_names`` does not have one name for each class, or a value is not finite.
    """
    model = _unwrapped(model)
    name = name_of(model)
    if name is None:
        raise TypeError(
            f"save_checkpoint: model must be one of {', '.join(list_models())}, got {type(model).__name__}"
        )
    meta = dict(meta or {})
    _check_class_names(model, meta)
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "id": uuid.uuid4().hex,
        "package_version": __version__,
        "model": name,
        "config": model.config,
        "meta": meta,
    }
    layout = _layout_of(model, meta)
    definition = None if layout is None else carried_definition(layout)
    if definition is not None:
        description["layout"] = definition
    try:
        text = json.dumps(description, indent=2, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise TypeError(f"save_checkpoint: meta must be as JSON can hold it, got {error}") from None
    except ValueError:
        raise ValueError("save_checkpoint: meta must be finite, got NaN or infinity") from None
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights_path, json_path = _paths(path)
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    _write(weights_path, save(tensors, metadata={_HEADER: text}))
    _write(json_path, (text + "\n").encode())
    return weights_path, json_path


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    layout: str | Layout | None = None,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, dict[str, Any]]:
    """Reads a network back.

    A layout that is not built in is registered from the definition that the checkpoint carries.

    Args:
        path: either file of a checkpoint, or the path without suffix; or a public checkpoint, a file of
            another suffix such as ``.pt`` or ``.pth``: of ST-GCN (official, pyskl's, mmaction2's), ST-GCN++
            (pyskl), 2s-AGCN, MS-AAGCN, CTR-GCN or MS-G3D. It is loaded with ``weights_only=True``.
        layout: the layout that the network must have; for a public checkpoint also that of its joints, where
            its tensors do not tell.
        device: where to put the tensors.

    Returns:
        The network in evaluation mode, and its meta data (empty for a public checkpoint).

    Raises:
        FileNotFoundError: a file is missing.
        FormatError: a file is damaged, not a checkpoint, or of another layout or shape; or the name of its
            layout stands for another one here; or a public checkpoint is of a network that cannot be built
            or has keys that do not fit: the error names the network and the keys.
    """
    path = Path(path)
    foreign = path.is_file() and path.suffix not in (".safetensors", ".json")
    if foreign or path.suffix in _PUBLIC_SUFFIXES:
        meta: dict[str, Any] = {}
        model = _load_public(path, layout)
    else:
        model, meta = _load_own(path)
    expected = layout.name if isinstance(layout, Layout) else layout
    found = getattr(model, "layout", None)
    if expected is not None and isinstance(found, Layout) and found.name != expected:
        raise FormatError(path, f"layout must be {expected!r}", found.name)
    return model.to(device).eval(), meta


def _load_own(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    weights_path, json_path = _paths(path)
    for file in (weights_path, json_path):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: checkpoint must have this file, got none")
    tensors, header = _read_weights(weights_path)
    description = _read_json(json_path)
    if header is not None and header.get("id") != description["id"]:
        description = header
    _restore_layout(json_path, description)
    if (size := _largest(description["config"])) > _LARGEST:
        raise FormatError(json_path, f"config must have no size above {_LARGEST}", size)
    try:
        promised = _without_memory(description)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FormatError(json_path, "config must build a network", str(error)) from None
    try:
        _public_keys.check_fit(f"{weights_path}: tensors", promised.state_dict(), tensors)
    except ValueError as error:
        rule, _, got = str(error).removeprefix(f"{weights_path}: ").rpartition(", got ")
        raise FormatError(weights_path, rule, got) from None
    model = build(description["model"], **description["config"])
    model.load_state_dict(tensors)
    return model, description["meta"]


def _without_memory(description: Mapping[str, Any]) -> nn.Module:
    """The network with shapes alone: a description may promise any size."""
    try:
        with torch.device("meta"):
            return build(description["model"], **description["config"])
    except RuntimeError:  # a constructor that computes with its tensors
        return build(description["model"], **description["config"])


def _largest(value: Any) -> int:
    """The largest integer of nested lists and mappings."""
    if isinstance(value, Mapping):
        return max(map(_largest, value.values()), default=0)
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _layout_of(model: nn.Module, meta: Mapping[str, Any]) -> str | Layout | None:
    """The layout that a network and its meta data need to be known."""
    own = getattr(model, "layout", None)
    if isinstance(own, Layout):
        return own
    config: Any = model.config
    for name in (own, config.get("layout"), meta.get("layout")):
        if isinstance(name, str) and name in list_layouts():
            return name
    return None


def _restore_layout(path: Path, description: dict[str, Any]) -> None:
    graph = description["config"].get("graph")
    # A checkpoint without an entry of its own may hold the definition in the graph.
    definition = description.get("layout", graph.get("layout") if isinstance(graph, dict) else None)
    if not isinstance(definition, dict):
        return
    try:
        restore_layout(definition)
    except (TypeError, ValueError) as error:
        rule, _, got = str(error).removeprefix("restore_layout: ").rpartition(", got ")
        raise FormatError(path, f"layout: {rule}", got) from None


def _load_public(path: Path, layout: str | Layout | None) -> nn.Module:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: checkpoint must exist, got no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What torch refuses stands between its advice.
        found = re.search(r"GLOBAL (\S+)|WeightsUnpickler error:\s*([^\n]+)", str(error))
        refused = found and (f"the name {found[1]}" if found[1] else found[2])
        reason = refused or str(error).strip().splitlines()[-1]
        raise FormatError(path, "file must hold nothing but tensors", reason) from None
    except Exception as error:  # of any kind: torch's unpickler trusts that opcodes come in a sound order
        raise FormatError(path, "file must be a torch checkpoint", str(error) or repr(error)) from None
    try:
        return _families.load(content, layout)
    except (TypeError, ValueError) as error:
        rule, _, got = str(error).rpartition(", got ")
        raise FormatError(path, rule, got) from None


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(path, "file must be in the safetensors format", str(error)) from None
    if _HEADER not in metadata:
        return tensors, None
    return tensors, _parse(path, metadata[_HEADER])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(path, "file must be UTF-8 text", str(error)) from None
    return _parse(path, text)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(path, "description must be JSON", str(error)) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise FormatError(path, f"description must have the format {FORMAT!r}", text[:40])
    missing = sorted(_KEYS - set(description))
    if missing:
        raise FormatError(path, f"description must have {', '.join(missing)}", sorted(description))
    version = description["format_version"]
    if version != FORMAT_VERSION:
        raise FormatError(path, f"format_version must be {FORMAT_VERSION}", version)
    for key in ("config", "meta"):
        if not isinstance(description[key], dict):
            raise FormatError(path, f"{key} must be an object", description[key])
    return description


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    path = Path(path)
    stem = path.name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else path.name
    return path.with_name(stem + _SUFFIXES[0]), path.with_name(stem + _SUFFIXES[1])


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unwrapped(model: nn.Module) -> nn.Module:
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    inner = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    return inner if isinstance(inner, nn.Module) else model


def _check_class_names(model: nn.Module, meta: dict[str, Any]) -> None:
    names, count = meta.get("class_names"), getattr(model, "num_classes", None)
    if names is not None and count is not None and len(names) != count:
        raise ValueError(f"save_checkpoint: class_names must be {count} names, got {len(names)}")
