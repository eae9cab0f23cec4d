"""Which modules of a network are its layers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

# Output modules of the blocks of MS-G3D, which stand in no list.
_STAGES = ("tcn1", "tcn2", "tcn3")
_NUMBERED = re.compile(r"(?:layer|block|l)_?(\d+)")
# Names in a message; a network may have hundreds of modules.
_MOST_LISTED = 40


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers of ``torch.compile`` and of data parallelism."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_blocks(model: nn.Module) -> dict[str, str]:
    """The blocks of a network from the first to the last.

    A network named ``backbone`` inside the model counts first. MS-G3D has three, ``tcn1`` to ``tcn3``;
    others have children named ``l1``, ``l2``, ... (``layer1``, ``block1``), or a ``ModuleList`` or
    ``Sequential`` of modules of one class, of which the outermost counts and of these the longest. A
    ``ModuleList`` of one counts where no other is found outside it.

    Args:
        model: The network, wrapped or not.

    Returns:
        Names ``block1``, ``block2``, ... and the paths of their modules; empty where none are found.
    """
    model = unwrapped(model)
    if isinstance(getattr(model, "backbone", None), nn.Module):
        inner = find_blocks(model.backbone)  # type: ignore[arg-type]
        if inner:
            return {name: f"backbone.{path}" for name, path in inner.items()}
    if all(name in model._modules for name in (*_STAGES, "gcn3d1")):
        return _numbered(_STAGES)
    found = [(int(m[1]), name) for name in model._modules if (m := _NUMBERED.fullmatch(name))]
    if len(found) > 1:
        return _numbered([name for _, name in sorted(found)])
    several: list[str] = []
    one: list[str] = []
    depth = shallowest = 1 << 30
    for path, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or not len(module):
            continue
        # A module without children, such as BatchNorm, is no block.
        if len({type(child) for child in module}) > 1 or not any(True for _ in module[0].children()):
            continue
        above = path.count(".")
        names = [f"{path}.{name}" if path else name for name in module._modules]
        if len(names) > 1 and (above, -len(names)) < (depth, -len(several)):
            depth, several = above, names
        elif isinstance(module, nn.ModuleList) and len(names) == 1 and above < shallowest:
            shallowest, one = above, names
    # A network of one block holds longer lists inside it, of branches say.
    if one and (not several or several[0].startswith(f"{one[0]}.")):
        return _numbered(one)
    return _numbered(several)


def _numbered(paths: Sequence[str]) -> dict[str, str]:
    return {f"block{i + 1}": path for i, path in enumerate(paths)}


def resolve(model: nn.Module, layers: str | Sequence[str], owner: str) -> dict[str, nn.Module]:
    """The modules that names stand for, in the order of the names.

    Args:
        model: The network, wrapped or not.
        layers: ``"blocks"`` (all of :func:`find_blocks`), one name or several; a name is one of
            :func:`find_blocks` or the path of a module as ``named_modules`` gives it.
        owner: Name of the calling function, for messages.

    Raises:
        TypeError: The model is no module, or a name is no text.
        ValueError: A name is unknown (the known ones are listed), or the network has no blocks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{owner}: model must be a torch.nn.Module, got {type(model).__name__}")
    blocks = find_blocks(model)
    inner = unwrapped(model)
    modules = {name: module for name, module in inner.named_modules() if name}
    if isinstance(layers, str) and layers == "blocks":
        if not blocks:
            raise ValueError(
                f"{owner}: layers must be names of modules for a {type(inner).__name__}, whose blocks are "
                f"not known, got 'blocks'; it has {_listed(list(modules))}"
            )
        return {name: modules[path] for name, path in blocks.items()}
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{owner}: layers must be names, got {name!r}")
    unknown = [name for name in names if name not in blocks and name not in modules]
    if unknown or not names:
        # Every path would hide the short names in hundreds of lines.
        known = [*blocks, *(name for name in modules if name.count(".") < 2)]
        raise ValueError(
            f"{owner}: layers must be among {_listed(known)}, got {', '.join(unknown) or 'none'}"
        )
    return {name: modules[blocks.get(name, name)] for name in names}


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    return shown if len(names) <= _MOST_LISTED else f"{shown} and {len(names) - _MOST_LISTED} more"
