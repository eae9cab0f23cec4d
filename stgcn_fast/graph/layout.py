"""Skeleton layouts: which joints there are, how they are joined, which one mirrors which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """A named skeleton: an undirected graph with a root, a centre and mirrored pairs.

    Attributes:
        name: unique name, also used in configurations and checkpoints.
        joints: V distinct joint names, in the order of the data.
        edges: bones as ``(child, parent)`` joint indices. The first edge of a child gives its parent; later
            edges of the same child only add a connection, so that cycles are possible.
        centre: the joint that hop distances of the spatial partition are measured from.
        left: joints of the left side, in any order.
        right: joints of the right side; ``left[i]`` mirrors ``right[i]``.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: indices out of range, repeated names, edges or sides, more than one joint without a
            parent, or joints that are not connected.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    centre: int
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    parents: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    mirror: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Layout: name must be a non-empty string, got {self.name!r}")
        given: object = self.joints
        joints = tuple(self.joints)
        if isinstance(given, str) or not joints or not all(isinstance(j, str) and j for j in joints):
            raise TypeError(f"Layout: joints must be a sequence of joint names, got {self.joints!r}")
        if len(set(joints)) != len(joints):
            repeated = sorted({j for j in joints if joints.count(j) > 1})
            raise ValueError(
                f"Layout: joints must have distinct names, got {', '.join(repeated)} more than once"
            )
        object.__setattr__(self, "joints", joints)
        object.__setattr__(self, "edges", _pairs(self.edges, len(joints)))
        object.__setattr__(self, "centre", _index("centre", self.centre, len(joints)))
        object.__setattr__(self, "left", tuple(_index("left", i, len(joints)) for i in self.left))
        object.__setattr__(self, "right", tuple(_index("right", i, len(joints)) for i in self.right))
        object.__setattr__(self, "parents", _parents(joints, self.edges))
        object.__setattr__(self, "mirror", _mirror(len(joints), self.left, self.right))

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """The one joint without a parent."""
        return int(np.flatnonzero(self.parents == np.arange(self.num_joints))[0])

    @property
    def config(self) -> dict[str, Any]:
        """The definition as a dictionary that JSON can hold; :meth:`from_config` reads it back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "edges": [list(edge) for edge in self.edges],
            "centre": self.centre,
            "left": list(self.left),
            "right": list(self.right),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layout:
        """Builds the layout that :attr:`config` describes.

        Args:
            config: a mapping with the keys name, joints, edges, centre and, optionally, left and right.

        Raises:
            ValueError: a key is missing or unknown, or the definition is not valid.
        """
        required, optional = {"name", "joints", "edges", "centre"}, {"left", "right"}
        missing, unknown = required - set(config), set(config) - required - optional
        if missing:
            raise ValueError(f"Layout: config must have {', '.join(sorted(missing))}, got {sorted(config)}")
        if unknown:
            raise ValueError(f"Layout: config must have only known keys, got {', '.join(sorted(unknown))}")
        fields: dict[str, Any] = dict(config)
        for sequence in ("joints", "edges", "left", "right"):
            fields[sequence] = tuple(fields.get(sequence, ()))
        return cls(**fields)

    def index(self, joint: str) -> int:
        """Index of a joint by its name.

        Raises:
            ValueError: no joint has this name.
        """
        if joint not in self.joints:
            raise ValueError(f"Layout.index: joint must be one of {', '.join(self.joints)}, got {joint!r}")
        return self.joints.index(joint)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.joints, self.edges, self.centre, self.left, self.right)


def _index(field_name: str, value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"Layout: {field_name} must hold joint indices, got {value!r}")
    if not 0 <= value < count:
        raise ValueError(f"Layout: {field_name} must hold indices in 0..{count - 1}, got {value}")
    return int(value)


def _pairs(edges: Iterable[Any], count: int) -> tuple[tuple[int, int], ...]:
    pairs: list[tuple[int, int]] = []
    seen: set[frozenset[int]] = set()
    for edge in edges:
        if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
            raise TypeError(f"Layout: edges must be (child, parent) pairs, got {edge!r}")
        child, parent = (_index("edges", end, count) for end in edge)
        if child == parent:
            raise ValueError(f"Layout: edges must join two different joints, got ({child}, {parent})")
        if frozenset((child, parent)) in seen:
            raise ValueError(f"Layout: edges must be distinct, got ({child}, {parent}) more than once")
        seen.add(frozenset((child, parent)))
        pairs.append((child, parent))
    return tuple(pairs)


def _parents(joints: tuple[str, ...], edges: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    parents = np.arange(len(joints), dtype=np.int64)
    for child, parent in edges:
        if parents[child] == child:
            parents[child] = parent
    roots = np.flatnonzero(parents == np.arange(len(joints)))
    if len(roots) != 1:
        names = ", ".join(joints[i] for i in roots) or "none"
        raise ValueError(f"Layout: edges must leave exactly one joint without a parent, got {names}")
    ancestors = parents
    for _ in joints:
        ancestors = parents[ancestors]
    adrift = np.flatnonzero(ancestors != roots[0])
    if len(adrift):
        names = ", ".join(joints[i] for i in adrift)
        raise ValueError(
            f"Layout: edges must lead every joint to the root {joints[roots[0]]}, got none for {names}"
        )
    parents.setflags(write=False)
    return parents


def _mirror(count: int, left: tuple[int, ...], right: tuple[int, ...]) -> NDArray[np.int64]:
    if len(left) != len(right):
        raise ValueError(
            f"Layout: left and right must have the same length, got {len(left)} and {len(right)}"
        )
    both = left + right
    if len(set(both)) != len(both):
        raise ValueError(f"Layout: left and right must name each joint once, got {left} and {right}")
    mirror = np.arange(count, dtype=np.int64)
    mirror[list(left)], mirror[list(right)] = list(right), list(left)
    mirror.setflags(write=False)
    return mirror
