"""What a transform is: a small dataclass that can be called, written to YAML and built again."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.transforms.motion import Motion
from stgcn_fast.graph import Layout, get_layout

Item = TypeVar("Item", Skeleton, Motion)
TransformType = TypeVar("TransformType", bound="type[Transform]")

_REGISTRY: dict[str, type[Transform]] = {}


class FieldError(ValueError):
    """A transform's field has a value it must not have.

    Attributes:
        owner: Name of the transform.
        field: Name of the field.
        rest: The rule and the value, ``"must be <rule>, got <value>"``.
    """

    def __init__(self, owner: str, field: str, rest: str) -> None:
        super().__init__(f"{owner}: {field} {rest}")
        self.owner, self.field, self.rest = owner, field, rest

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str, str]]:
        return type(self), (self.owner, self.field, self.rest)


class FieldTypeError(FieldError, TypeError):
    """A transform's field has a value of the wrong type."""


@dataclass(frozen=True)
class Transform(ABC):
    """Changes the keypoints of a clip.

    Called with a ``Skeleton`` or a ``Motion`` it returns a new one of the same kind and leaves its input
    alone. Every draw comes from the generator passed in, so equal generators give equal results. Missing
    joints stay missing and their coordinates zero; keypoints stay float32. A result always carries
    confidence, so that a joint moved to the origin is not taken for a missing one.

    Attributes:
        p: Chance that the transform is applied at all; the clip passes unchanged otherwise.
    """

    p: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        self._number("p", 0.0, 1.0)
        self._check()

    @property
    def is_random(self) -> bool:
        """Whether a call draws random numbers, so that it needs a generator."""
        return self.p < 1 or self._draws()

    def _draws(self) -> bool:
        return False

    def __call__(self, item: Item, rng: np.random.Generator | None = None) -> Item:
        """Applies the transform.

        Args:
            item: A ``Skeleton`` or a ``Motion``.
            rng: Source of every random choice; needed where ``is_random``.

        Raises:
            TypeError: If the item is neither, or a random transform gets no generator.
            ValueError: If the clip does not have what the transform needs, such as three dimensions.
        """
        name = type(self).__name__
        if self.is_random and not isinstance(rng, np.random.Generator):
            raise TypeError(f"{name}: rng must be a numpy.random.Generator, got {type(rng).__name__}")
        if isinstance(item, Skeleton):
            motion = self._maybe(Motion.of(item), rng)
            return item.with_keypoints(motion.keypoints, motion.confidence)
        if isinstance(item, Motion):
            return self._maybe(item, rng)
        raise TypeError(f"{name}: item must be a Skeleton or a Motion, got {type(item).__name__}")

    def _maybe(self, motion: Motion, rng: np.random.Generator | None) -> Motion:
        # A transform without random choices never touches this one.
        generator = rng if rng is not None else np.random.default_rng(0)
        if self.p < 1 and generator.random() >= self.p:
            return motion
        return self._apply(motion, generator)

    @abstractmethod
    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        """Returns the changed motion; must not write into the arrays it gets."""

    def _check(self) -> None:
        """Checks and normalises the fields of a subclass; raises ``FieldError``."""
        return

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if the transform cannot work on this layout."""
        return

    def to_dict(self) -> dict[str, Any]:
        """Name and fields as plain values, for YAML; ``build_transform`` reads it back."""
        entry: dict[str, Any] = {"name": type(self).__name__}
        for item in fields(self):
            if item.name != "p" or self.p != item.default:
                entry[item.name] = _plain(getattr(self, item.name))
        return entry

    # Checks of single fields. Each stores the normalised value.

    def _wrong(self, name: str, rule: str, value: Any) -> FieldError:
        return FieldError(type(self).__name__, name, f"{rule}, got {value!r}")

    def _wrong_type(self, name: str, rule: str, value: Any) -> FieldTypeError:
        return FieldTypeError(type(self).__name__, name, f"must be {rule}, got {type(value).__name__}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _to_float(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise self._wrong_type(name, "a number", value)
        if not np.isfinite(value):
            raise self._wrong(name, "must be finite", value)
        return float(value)

    def _number(self, name: str, low: float = -np.inf, high: float = np.inf, above: float = -np.inf) -> None:
        value = self._to_float(name, getattr(self, name))
        if not (low <= value <= high and value > above):
            parts = [f"> {above:g}"] if np.isfinite(above) else [f">= {low:g}"] if np.isfinite(low) else []
            parts += [f"<= {high:g}"] if np.isfinite(high) else []
            raise self._wrong(name, f"must be {' and '.join(parts)}", value)
        self._set(name, value)

    def _integer(self, name: str, low: int) -> None:
        value = getattr(self, name)
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            raise self._wrong_type(name, "an int", value) from None
        if number < low:
            raise self._wrong(name, f"must be >= {low}", number)
        self._set(name, number)

    def _flag(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise self._wrong_type(name, "true or false", value)

    def _choice(self, name: str, choices: Sequence[str]) -> None:
        if getattr(self, name) not in choices:
            raise self._wrong(name, f"must be one of {', '.join(choices)}", getattr(self, name))

    def _numbers(self, name: str, lengths: Sequence[int] | None = None) -> tuple[float, ...]:
        """Stores a list as a tuple of floats, of one of the given lengths (at least one number without)."""
        value = getattr(self, name)
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong_type(name, "a list of numbers", value)
        numbers = tuple(self._to_float(f"{name}[{i}]", entry) for i, entry in enumerate(value))
        if (lengths is None and not numbers) or (lengths is not None and len(numbers) not in lengths):
            counts = " or ".join(map(str, lengths or ()))
            rule = f"must have {counts} numbers" if lengths else "must not be empty"
            raise self._wrong(name, rule, list(numbers))
        self._set(name, numbers)
        return numbers

    def _interval(self, name: str, above: float = -np.inf, high: float = np.inf) -> None:
        """Stores an increasing pair of numbers in (above, high]."""
        first, last = self._numbers(name, [2])
        if not above < first <= last <= high:
            bounds = f"{above:g} < low <= high" + (f" <= {high:g}" if np.isfinite(high) else "")
            raise self._wrong(name, f"must be [low, high] with {bounds}", [first, last])


@dataclass(frozen=True)
class RandomTransform(Transform):
    """A transform with random choices; its generator is obligatory."""

    def _draws(self) -> bool:
        return True


@dataclass(frozen=True)
class Compose(Transform):
    """Several transforms, one after the other, sharing one generator.

    Attributes:
        transforms: Transforms in order of application; may be empty.
    """

    transforms: tuple[Transform, ...] = ()

    def _check(self) -> None:
        if isinstance(self.transforms, Transform) or not isinstance(self.transforms, Sequence):
            raise self._wrong_type("transforms", "a list of transforms", self.transforms)
        for position, transform in enumerate(self.transforms):
            if not isinstance(transform, Transform):
                raise self._wrong_type(f"transforms[{position}]", "a transform", transform)
        self._set("transforms", tuple(self.transforms))

    def _draws(self) -> bool:
        return any(transform.is_random for transform in self.transforms)

    def _apply(self, motion: Motion, rng: np.random.Generator) -> Motion:
        for transform in self.transforms:
            motion = transform(motion, rng)
        return motion

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if one of the transforms cannot work on this layout."""
        for transform in self.transforms:
            transform.check_layout(layout)

    def to_list(self) -> list[dict[str, Any]]:
        """The transforms as plain dictionaries, the form a YAML file lists them in."""
        return [transform.to_dict() for transform in self.transforms]


def register_transform(cls: TransformType) -> TransformType:
    """Class decorator: makes a transform buildable by its class name.

    Raises:
        ValueError: If another class has that name already.
    """
    known = _REGISTRY.setdefault(cls.__name__, cls)
    if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
        raise ValueError(f"register_transform: name must be new, got {cls.__name__!r}")
    _REGISTRY[cls.__name__] = cls
    return cls


def list_transforms() -> dict[str, str]:
    """Names that ``build_transform`` knows, each with the first line of its description."""
    return {name: (cls.__doc__ or "").strip().splitlines()[0] for name, cls in sorted(_REGISTRY.items())}


def build_transform(
    specs: Sequence[str | dict[str, Any] | Transform] | None, layout: str | Layout | None = None
) -> Compose:
    """Builds a chain of transforms from plain values, as a YAML file holds them.

    Args:
        specs: One entry per transform: its name, or a dictionary with ``name`` and its fields. None means no
            transform.
        layout: Joint layout the chain will work on; if given, transforms that cannot are refused at once.

    Returns:
        The chain; ``to_list()`` gives equal specs back.

    Raises:
        TypeError: If an entry or a field has the wrong type.
        ValueError: If a name or a field is unknown or a value is out of range. The message names the entry
            and field.
    """
    if specs is None:
        specs = []
    if isinstance(specs, (str, dict)) or not isinstance(specs, Sequence):
        raise TypeError(f"build_transform: transforms must be a list, got {type(specs).__name__}")
    chain = Compose(tuple(_build_one(entry, f"transforms[{i}]") for i, entry in enumerate(specs)))
    if layout is not None:
        resolved = get_layout(layout) if isinstance(layout, str) else layout
        for position, transform in enumerate(chain.transforms):
            try:
                transform.check_layout(resolved)
            except ValueError as error:
                raise ValueError(f"build_transform: transforms[{position}] ({error})") from None
    return chain


def _build_one(entry: Any, path: str) -> Transform:
    if isinstance(entry, Transform):
        return entry
    values = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict):
        raise TypeError(f"build_transform: {path} must be a name or a dictionary, got {type(entry).__name__}")
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str) or name not in _REGISTRY:
        raise ValueError(
            f"build_transform: {path}.name must be one of {', '.join(sorted(_REGISTRY))}, got {name!r}"
        )
    cls: type[Any] = _REGISTRY[name]
    known = {item.name for item in fields(cls)}
    for key in values:
        if key not in known:
            raise ValueError(
                f"build_transform: {path}.{key} must be a field of {name} "
                f"({', '.join(sorted(known))}), got {key!r}"
            )
    required = [item.name for item in fields(cls) if item.default is item.default_factory]
    for key in required:
        if key not in values:
            raise ValueError(f"build_transform: {path}.{key} must be given for {name}, got nothing")
    if cls is Compose and isinstance(values.get("transforms"), (list, tuple)):
        parts = values["transforms"]
        values["transforms"] = tuple(
            _build_one(part, f"{path}.transforms[{i}]") for i, part in enumerate(parts)
        )
    try:
        built: Transform = cls(**values)
    except FieldError as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"build_transform: {path}.{error.field} ({name}) {error.rest}") from None
    return built


def _plain(value: Any) -> Any:
    if isinstance(value, Transform):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value


register_transform(Compose)
