"""A joint layout of one's own, from a YAML file that names the joints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["layout_name"]

_KEYS = ("name", "joints", "bones", "centre", "left", "right")


def layout_name(text: str) -> str:
    """The layout that ``--layout`` asks for: a name, or a file of one, which is registered.

    A file holds ``name``, ``joints`` (names in the order of the data), ``bones`` ([child, parent] by name),
    ``centre`` (a joint) and, where sides are mirrored, ``left`` and ``right`` (joints in the same order).

    Args:
        text: name, or path that ends in ``.yaml`` or ``.yml``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file breaks a rule; one line with file, rule and value.
    """
    path = Path(text)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return text
    from stgcn_fast.graph import register_layout
    from stgcn_fast.training.yaml_io import load_yaml

    content = load_yaml(path)
    if set(content) - set(_KEYS) or not set(content) >= set(_KEYS[:4]):
        raise ValueError(
            f"{path}: keys must be {', '.join(_KEYS[:4])} and perhaps left, right, got {list(content)}"
        )
    joints = content["joints"]
    if not isinstance(joints, list) or not all(isinstance(joint, str) for joint in joints):
        raise ValueError(f"{path}: joints must be a list of names, got {joints!r}")
    places = {joint: number for number, joint in enumerate(joints)}

    def number(key: str, joint: Any) -> int:
        if not isinstance(joint, str) or joint not in places:
            raise ValueError(f"{path}: {key} must be among the joints, got {joint!r}")
        return places[joint]

    def numbers(key: str) -> list[int]:
        entries = content.get(key, [])
        if not isinstance(entries, list):
            raise ValueError(f"{path}: {key} must be a list of joints, got {entries!r}")
        return [number(key, joint) for joint in entries]

    bones = content["bones"]
    if not isinstance(bones, list) or not all(isinstance(bone, list) and len(bone) == 2 for bone in bones):
        raise ValueError(f"{path}: bones must be a list of [child, parent], got {bones!r}")
    edges = [(number("bones", child), number("bones", parent)) for child, parent in bones]
    try:
        layout = register_layout(
            content["name"],
            joints,
            edges,
            number("centre", content["centre"]),
            numbers("left"),
            numbers("right"),
        )
    except (TypeError, ValueError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: {error}") from None
    return layout.name
