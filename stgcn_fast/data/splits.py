"""Which clips train, validate and test: the protocols of the field, lists of one's own, and random parts.

All indices returned are int64, sorted, unique, and the parts of a split never overlap.
"""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stgcn_fast.data.formats.base import read_name_list

Indices = NDArray[np.int64]
Split = dict[str, Indices]
Ids = Iterable[int] | str

PARTS = ("train", "val", "test")

# Sets of numbers that papers define, to be written by name. NTU RGB+D: Shahroudy et al., CVPR 2016, and Liu
# et al., TPAMI 2020; KTH: Schuldt et al., ICPR 2004.
ID_SETS: dict[str, frozenset[int]] = {
    "ntu60": frozenset({1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38}),
    "ntu120": frozenset(
        {1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49, 50, *range(52, 60)}
        | {70, 74, 78, *range(80, 87), 89, *range(91, 96), 97, 98, 100, 103}
    ),
    "kth_train": frozenset(range(11, 19)),
    "kth_val": frozenset({1, 4, 19, 20, 21, 23, 24, 25}),
    "kth_test": frozenset({2, 3, 5, 6, 7, 8, 9, 10, 22}),
}


class Described(Protocol):
    """What a split needs to know of a data set; ``SkeletonStore`` has it all."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, -1 for none."""

    @property
    def subjects(self) -> NDArray[np.int64]:
        """Subject numbers, -1 for none."""

    @property
    def cameras(self) -> NDArray[np.int64]:
        """Camera numbers, -1 for none."""

    @property
    def setups(self) -> NDArray[np.int64]:
        """Set-up numbers, -1 for none."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the clips."""

    @property
    def splits(self) -> Sequence[Sequence[str]]:
        """Per clip the splits that the data set itself puts it in."""


def cross_subject(data: Described, *, train: Ids, val: Ids = (), test: Ids | None = None) -> Split:
    """Splits by performer.

    Args:
        data: Store.
        train: Subject numbers, or ``"odd"``, ``"even"``, or a name of ``ID_SETS`` (``"ntu60"``, ``"ntu120"``,
            ``"kth_train"``, ...). UTD-MHAD uses odd.
        val: The same for validation.
        test: The same for the test; by default all other subjects.
    """
    return _by_number("cross_subject", "subject", data, data.subjects, train, val, test)


def cross_view(data: Described, *, train: Ids, val: Ids = (), test: Ids | None = None) -> Split:
    """Splits by camera; arguments as in ``cross_subject``. NTU RGB+D trains on [2, 3], NW-UCLA on [1, 2]."""
    return _by_number("cross_view", "camera", data, data.cameras, train, val, test)


def cross_setup(data: Described, *, train: Ids = "even", val: Ids = (), test: Ids | None = None) -> Split:
    """Splits by set-up; arguments as in ``cross_subject``. The default is that of NTU RGB+D 120."""
    return _by_number("cross_setup", "setup", data, data.setups, train, val, test)


def given(
    data: Described,
    *,
    train: str | os.PathLike[str] | Iterable[str] | None = None,
    val: str | os.PathLike[str] | Iterable[str] | None = None,
    test: str | os.PathLike[str] | Iterable[str] | None = None,
) -> Split:
    """Splits by lists of clip names.

    Args:
        data: Store.
        train: A name of a split of the data set itself (pyskl: ``"xsub_train"``; NATOPS: ``"train"``), a text
            file of clip names, one a line, or the clip names.
        val: The same for validation.
        test: The same for the test. With none of the three, the splits of the data set named ``train``,
            ``val`` and ``test`` are taken, or the only ones whose names end so.

    Raises:
        ValueError: If a name is unknown or occurs in two clips, or the parts overlap.
    """
    sources: dict[str, Any] = {"train": train, "val": val, "test": test}
    own = sorted({name for names in data.splits for name in names})
    if all(source is None for source in sources.values()):
        sources = {part: _own_split(part, own) for part in PARTS}
        if sources["train"] is None:
            raise ValueError(f"given: train must be given for a data set with the splits {own}, got none")
    positions: dict[str, int] = {}
    parts: Split = {}
    for part, source in sources.items():
        if source is None:
            parts[part] = _indices(())
        elif isinstance(source, str) and source in own:
            parts[part] = _indices(i for i, names in enumerate(data.splits) if source in names)
        else:
            positions = positions or _positions(data.names)
            names = _names("given", part, source, own)
            unknown = [name for name in names if name not in positions]
            if unknown:
                rule = f"given: {part} must name clips of the data set"
                raise ValueError(f"{rule}, got {unknown[0]!r} ({len(unknown)} unknown of {len(names)})")
            parts[part] = _indices(positions[name] for name in names)
    return _checked("given", parts)


def random(
    data: Described | ArrayLike,
    *,
    train: float = 0.8,
    val: float = 0.0,
    seed: int = 0,
    stratified: bool = True,
) -> Split:
    """Splits at random; what is neither training nor validation is the test.

    Args:
        data: Store, or the labels.
        train: Share of the clips that train, in (0, 1].
        val: Share that validates, in [0, 1).
        seed: Of the choice.
        stratified: Take these shares of every class (rounded), not of the whole.
    """
    for name, share in (("train", train), ("val", val)):
        if isinstance(share, bool) or not isinstance(share, (int, float, np.number)):
            raise TypeError(f"random: {name} must be a share, got {share!r}")
    if not 0 < train <= 1 or not 0 <= val < 1 or train + val > 1 + 1e-9:
        raise ValueError(f"random: train and val must be shares with train + val <= 1, got {train} and {val}")
    labels = _labels("random", data)
    parts: dict[str, list[Indices]] = {part: [] for part in PARTS}
    for group in _shuffled(np.arange(len(labels)), labels, seed, stratified):
        first = round(train * len(group))
        second = min(len(group), first + round(val * len(group)))
        for part, chosen in zip(PARTS, np.split(group, [first, second]), strict=True):
            parts[part].append(chosen)
    return _checked("random", {part: _indices(np.concatenate(chosen)) for part, chosen in parts.items()})


_PROTOCOLS: dict[str, Callable[..., Split]] = {
    "cross_subject": cross_subject,
    "cross_view": cross_view,
    "cross_setup": cross_setup,
    "given": given,
    "random": random,
}
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "ntu60_xsub": ("cross_subject", {"train": "ntu60"}),
    "ntu60_xview": ("cross_view", {"train": [2, 3]}),
    "ntu120_xsub": ("cross_subject", {"train": "ntu120"}),
    "ntu120_xset": ("cross_setup", {"train": "even"}),
    "utd_mhad": ("cross_subject", {"train": "odd"}),
    "nw_ucla": ("cross_view", {"train": [1, 2]}),
    "natops": ("given", {"train": "train", "test": "test"}),
    "kth": ("cross_subject", {"train": "kth_train", "val": "kth_val", "test": "kth_test"}),
}


def list_protocols() -> dict[str, str]:
    """Names of all protocols, with one line of description each."""
    lines = {name: (function.__doc__ or "").split("\n")[0] for name, function in _PROTOCOLS.items()}
    for name, (protocol, options) in _PRESETS.items():
        chosen = ", ".join(f"{part}={value}" for part, value in options.items())
        lines[name] = f"The published protocol: {protocol} with {chosen}."
    return lines


def split(store_or_labels: Described | ArrayLike, protocol: str, **options: Any) -> Split:
    """Splits a data set.

    Args:
        store_or_labels: Store; for ``"random"`` the labels alone will do.
        protocol: ``cross_subject``, ``cross_view``, ``cross_setup``, ``given``, ``random``, or a published
            one by its name (``ntu60_xsub``, ``ntu60_xview``, ``ntu120_xsub``, ``ntu120_xset``, ``utd_mhad``,
            ``nw_ucla``, ``natops``, ``kth``); see ``list_protocols``.
        **options: Keywords of the protocol, the function of that name in this module.

    Returns:
        ``{"train": indices, "val": indices, "test": indices}``, int64, sorted, without overlap; a part may be
        empty, the training part never is.

    Raises:
        TypeError: If a keyword is missing or of the wrong type.
        ValueError: If the protocol is unknown or does not fit the data.
    """
    if protocol in _PRESETS:
        protocol, preset = _PRESETS[protocol]
        options = {**preset, **options}
    if protocol not in _PROTOCOLS:
        raise ValueError(
            f"split: protocol must be one of {', '.join((*_PROTOCOLS, *_PRESETS))}, got {protocol!r}"
        )
    if protocol != "random" and not hasattr(store_or_labels, "subjects"):
        kind = type(store_or_labels).__name__
        raise TypeError(f"split: store_or_labels must be a store for protocol {protocol!r}, got {kind}")
    _check_options(protocol, options)
    return _PROTOCOLS[protocol](store_or_labels, **options)


def _check_options(protocol: str, options: dict[str, Any]) -> None:
    known = list(inspect.signature(_PROTOCOLS[protocol]).parameters.values())[1:]  # the data come first
    names = [parameter.name for parameter in known]
    for option in options:
        if option not in names:
            raise TypeError(f"{protocol}: options must be among {', '.join(names)}, got {option!r}")
    for parameter in known:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise TypeError(f"{protocol}: {parameter.name} must be given, got nothing")


def random_fraction(
    indices: ArrayLike, labels: ArrayLike, p: float, seed: int = 0, *, stratified: bool = True
) -> Indices:
    """Takes a random share of a training set.

    For one seed the choices are nested: a smaller share is part of a larger one.

    Args:
        indices: Clips of the training set.
        labels: Labels of the whole data set; ``labels[i]`` is that of clip i.
        p: Share to keep, in (0, 1] (0.1 is 10 %). At least one clip is kept (of every class, if stratified).
        seed: Of the choice.
        stratified: Take the share of every class, not of the whole.

    Returns:
        The chosen indices, sorted.

    Raises:
        ValueError: If ``p`` is out of range or an index is not one of ``labels``.
    """
    if not 0 < p <= 1:
        raise ValueError(f"random_fraction: p must be in (0, 1], got {p}")
    chosen = _indices(np.asarray(indices).reshape(-1))
    known = np.asarray(labels).reshape(-1)
    if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < len(known):
        raise ValueError(
            f"random_fraction: indices must be in [0, {len(known)}), got {chosen[0]}..{chosen[-1]}"
        )
    groups = _shuffled(chosen, known, seed, stratified)
    return _indices(np.concatenate([group[: max(1, round(p * len(group)))] for group in groups] or [chosen]))


def _shuffled(indices: Indices, labels: NDArray[Any], seed: int, stratified: bool) -> list[Indices]:
    """The indices in random order, as one group or as one per class."""
    generator = np.random.default_rng(seed)
    if not len(indices):
        return []
    if not stratified:
        return [generator.permutation(indices)]
    own = labels[indices]
    return [generator.permutation(indices[own == label]) for label in np.unique(own)]


def _by_number(
    protocol: str,
    field: str,
    data: Described,
    numbers: NDArray[np.int64],
    train: Ids,
    val: Ids,
    test: Ids | None,
) -> Split:
    numbers = np.asarray(numbers)
    if (numbers < 0).any():
        missing = np.flatnonzero(numbers < 0)
        first = data.names[int(missing[0])]
        raise ValueError(
            f"{protocol}: {field} must be known for every clip, got {len(missing)} without, first {first!r}"
        )
    present = {int(number) for number in np.unique(numbers)}
    ids: dict[str, set[int]] = {}
    for part, chosen in (("train", train), ("val", val)):
        ids[part] = _numbers(protocol, part, field, chosen, present)
    ids["test"] = (
        present - ids["train"] - ids["val"]
        if test is None
        else _numbers(protocol, "test", field, test, present)
    )
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := ids[first] & ids[second]:
            raise ValueError(f"{protocol}: {first} and {second} must share no {field}, got {sorted(both)}")
    parts = {part: _indices(np.flatnonzero(np.isin(numbers, sorted(chosen)))) for part, chosen in ids.items()}
    return _checked(protocol, parts)


def _numbers(protocol: str, part: str, field: str, chosen: Ids, present: set[int]) -> set[int]:
    """The numbers meant, those that no clip has included only in a named set."""
    if isinstance(chosen, str):
        if chosen in ("odd", "even"):
            return {number for number in present if number % 2 == (chosen == "odd")}
        if chosen not in ID_SETS:
            names = ", ".join(["odd", "even", *ID_SETS])
            raise ValueError(f"{protocol}: {part} must be {field} numbers or one of {names}, got {chosen!r}")
        return set(ID_SETS[chosen])
    try:
        numbers = {operator.index(number) for number in chosen}
    except TypeError:
        raise TypeError(f"{protocol}: {part} must be {field} numbers, got {chosen!r}") from None
    unknown = sorted(numbers - present)
    if unknown:
        rule = f"{part} must be among the {field} numbers {sorted(present)}"
        raise ValueError(f"{protocol}: {rule}, got {unknown}")
    return numbers


def _own_split(part: str, own: list[str]) -> str | None:
    if part in own:
        return part
    endings = [name for name in own if name.endswith(f"_{part}")]
    return endings[0] if len(endings) == 1 else None


def _names(protocol: str, part: str, source: Any, own: list[str]) -> list[str]:
    if isinstance(source, (str, os.PathLike)):
        if not Path(source).is_file():
            known = ", ".join(own) or "it has none"
            rule = f"{part} must be a split of the data set ({known}) or a file of names"
            raise ValueError(f"{protocol}: {rule}, got {os.fspath(source)!r}")
        return read_name_list(source)
    names = list(source)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{protocol}: {part} must be clip names, got {next(n for n in names if not isinstance(n, str))!r}"
        )
    return names


def _positions(names: Sequence[str]) -> dict[str, int]:
    positions = {name: index for index, name in enumerate(names)}
    if len(positions) != len(names):
        twice = next(name for index, name in enumerate(names) if positions[name] != index)
        raise ValueError(f"given: clip names must be unique, got {twice!r} more than once")
    return positions


def _labels(protocol: str, data: Any) -> NDArray[Any]:
    labels = np.asarray(data.labels if hasattr(data, "labels") else data)
    if labels.ndim != 1:
        raise ValueError(f"{protocol}: labels must be [clips], got shape {list(labels.shape)}")
    return labels


def _indices(values: Any) -> Indices:
    array = values if isinstance(values, np.ndarray) else np.array(list(values), dtype=np.int64)
    return np.unique(array).astype(np.int64)


def _checked(protocol: str, parts: Split) -> Split:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(parts[first], parts[second])
        if len(both):
            raise ValueError(f"{protocol}: {first} and {second} must share no clip, got {len(both)} in both")
    if not len(parts["train"]):
        raise ValueError(f"{protocol}: train must hold at least one clip, got none")
    return parts
