"""Studies: one YAML file that says a grid of runs (models, seeds, switches), and the runs it stands for."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stgcn_fast.training.config import FREE_FIELDS, Config, Seed
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.validation import apply_override, describe, put
from stgcn_fast.training.yaml_io import load_yaml

__all__ = ["Fusion", "Plan", "Study", "StudyRun", "digest_of", "load_study"]

DIGEST = 12  # letters of a hash in names: collisions stay out of reach for any number of runs
_BASE, _START = "base", "start"  # keys of an axis value that are not fields of the configuration


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class Fusion(_Section):
    """Rows for the sum of scores over an axis.

    Attributes:
        axis: Name of the axis.
        values: Which of its values are summed.
        weights: One per value; null for 1 each.
    """

    axis: str
    values: Annotated[list[str], Field(min_length=2)]
    weights: list[Annotated[float, Field(ge=0.0)]] | None = None

    @model_validator(mode="after")
    def _weights(self) -> Fusion:
        if self.weights is not None and (len(self.weights) != len(self.values) or not any(self.weights)):
            raise ValueError(
                f"weights must be one per value, {len(self.values)}, not all 0, got {self.weights}"
            )
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values must be distinct, got {self.values}")
        return self


class Study(_Section):
    """What a study file says.

    Attributes:
        name: Of the directory of its tables; by default the file's.
        base: Configuration of a run, a path beside the study file.
        output: Directory of all studies; they share its runs.
        seeds: Every cell runs with each.
        set: Fields of every run, ``section.field: value``.
        axes: By axis and value, the fields it changes. Two keys are no fields: ``base``, another
            configuration; and ``start``, coordinates of the run whose weights this one starts from, with the
            same seed and all other coordinates.
        skip: Coordinates of cells to leave out.
        fuse: Rows for sums of scores.
        baseline: Coordinates of the cells that class-wise changes are measured from.
    """

    name: str | None = None
    base: str
    output: str = "runs/studies"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    set: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Annotated[dict[str, dict[str, Any]], Field(min_length=1)]] = Field(default_factory=dict)
    skip: list[dict[str, str]] = Field(default_factory=list)
    fuse: list[Fusion] = Field(default_factory=list)
    baseline: dict[str, str] | None = None

    @field_validator("axes", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """An empty value changes nothing; names that YAML reads as numbers are names."""
        if not isinstance(value, dict):
            return value
        return {
            str(axis): {str(name): {} if change is None else change for name, change in values.items()}
            if isinstance(values, dict)
            else values
            for axis, values in value.items()
        }

    @field_validator("skip", "baseline", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [cls._names(entry) for entry in value]
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("name", "output")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must be a name, got an empty text")
        return value

    @field_validator("name")
    @classmethod
    def _one_folder(cls, value: str | None) -> str | None:
        if value is not None and (value in (".", "..", "runs", "stores") or "/" in value or "\\" in value):
            raise ValueError(f"must be the name of a folder of its own, got {value!r}")
        return value

    @field_validator("seeds")
    @classmethod
    def _unique(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"must be distinct, got {value}")
        return value

    @model_validator(mode="after")
    def _known_coordinates(self) -> Study:
        if "seed" in self.axes:
            raise ValueError("axes must leave 'seed' to seeds, got an axis of this name")
        for axis, values in self.axes.items():
            for name in (axis, *values):
                if not name or any(letter in name for letter in ",=/\\\n|"):
                    raise ValueError(f"axes must have names without , = / \\ |, got {name!r}")
        for change in (self.set, *(change for values in self.axes.values() for change in values.values())):
            for field in ("training.seed", "output.dir", "output"):
                if field in change:
                    raise ValueError(f"{field} must be left to the study, got {change[field]!r}")
            if not isinstance(change.get(_BASE, ""), str):
                raise ValueError(f"base must be a path, got {change[_BASE]!r}")
        places = [("skip", entry) for entry in self.skip]
        places += [("baseline", self.baseline)] if self.baseline is not None else []
        places += [("fuse", {fusion.axis: value}) for fusion in self.fuse for value in fusion.values]
        for values in self.axes.values():
            places += [("axes", change[_START]) for change in values.values() if _START in change]
        for field, coordinates in places:
            _check_coordinates(field, coordinates, self.axes)
        return self


def _check_coordinates(field: str, coordinates: Any, axes: dict[str, Any]) -> None:
    if not isinstance(coordinates, dict) or not coordinates:
        raise ValueError(f"{field} must say coordinates, axis: value, got {coordinates!r}")
    for axis, value in coordinates.items():
        if axis not in axes:
            raise ValueError(f"{field} must name an axis of {', '.join(axes) or 'none'}, got {axis!r}")
        if value not in axes[axis]:
            raise ValueError(f"{field} must name a value of {axis}, {', '.join(axes[axis])}, got {value!r}")


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        cell: Its value on each axis.
        config: Its configuration; ``output.dir`` is ``<output>/runs/<digest>``, so that studies share runs.
        digest: Hash of what is learnt and tested.
        cell_digest: The same without the seed.
        start: Digest of the run it starts from, or None.
    """

    cell: dict[str, str]
    config: Config
    digest: str
    cell_digest: str
    start: str | None

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.training.seed

    @property
    def directory(self) -> Path:
        """Directory of the run."""
        return Path(self.config.output.dir)

    @property
    def title(self) -> str:
        """The run in a few words."""
        return ", ".join([*(f"{axis}={value}" for axis, value in self.cell.items()), f"seed={self.seed}"])


@dataclass(frozen=True)
class Plan:
    """A study with its runs, those first that others start from.

    Attributes:
        study: What the file says.
        directory: Of its tables.
        output: Directory of all studies.
        digest: Hash of the content: the runs, sums and baseline.
        runs: Every run.
    """

    study: Study
    directory: Path
    output: Path
    digest: str
    runs: tuple[StudyRun, ...]


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:DIGEST]


def digest_of(config: Config, start: str | None) -> str:
    """Hash of what a run learns and tests, wherever it lies and however it is spread over the machine.

    Args:
        config: The run.
        start: Digest of the run it starts from, which stands for the path of its checkpoint; or None.
    """
    content = _content(config)
    if start is not None:
        content["init"] |= {"checkpoint": f"run {start}"}
    return _hash(content)


def _content(config: Config) -> dict[str, Any]:
    """What of a configuration makes a run another one: fields that are not at their defaults."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    for field in (*FREE_FIELDS, "data.store"):
        section, _, name = field.partition(".")
        if name:
            values.get(section, {}).pop(name, None)
    values.pop("output", None)
    return {section: fields for section, fields in values.items() if fields}


def load_study(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
) -> Plan:
    """Read a study file and lay out its runs.

    Args:
        path: YAML file.
        overrides: ``section.field=value`` for every run, after what the file says.
        output: Instead of the file's ``output``.

    Raises:
        FileNotFoundError: The file or a configuration it names is not there.
        ConfigError: ``<file>: <field> must be <rule>, got <value>``, of the study or of one of its runs.
    """
    file = Path(path)
    try:
        study = Study.model_validate(load_yaml(file))
    except ValidationError as error:
        raise ConfigError(describe(error, Study, str(file))) from error
    root = Path(os.path.expanduser(os.path.expandvars(str(output if output is not None else study.output))))
    runs = _in_order(list(_runs(file, study, overrides, root)), file)
    content = {
        "runs": sorted([list(run.cell.items()), run.seed, run.digest] for run in runs),
        "fuse": [fusion.model_dump() for fusion in study.fuse],
        "baseline": study.baseline,
    }
    return Plan(study, root / (study.name or file.stem), root, _hash(content), tuple(runs))


def _cells(study: Study) -> Iterator[dict[str, str]]:
    for values in itertools.product(*study.axes.values()):
        cell = dict(zip(study.axes, values))
        if not any(all(cell[axis] == value for axis, value in entry.items()) for entry in study.skip):
            yield cell


def _runs(file: Path, study: Study, overrides: Sequence[str], root: Path) -> Iterator[StudyRun]:
    bases: dict[Path, dict[str, Any]] = {}
    known: dict[tuple[tuple[str, str], ...], dict[int, StudyRun]] = {}

    def build(cell: dict[str, str], seed: int, behind: tuple[dict[str, str], ...] = ()) -> StudyRun:
        made = known.setdefault(tuple(cell.items()), {})
        if seed in made:
            return made[seed]
        where = f"{file}: {', '.join(f'{axis}={value}' for axis, value in cell.items()) or 'the run'}"
        if cell in behind:
            raise ConfigError(f"{where}: start must lead to a run that starts by itself, got a circle")
        changes = [study.axes[axis][value] for axis, value in cell.items()]
        given = [change[_BASE] for change in changes if _BASE in change]
        starts = [change[_START] for change in changes if _START in change]
        if len(given) > 1 or len(starts) > 1:
            what = _BASE if len(given) > 1 else _START
            raise ConfigError(f"{where}: {what} must be given by one axis, got {len(given or starts)}")
        base = file.parent / os.path.expandvars(str(given[0] if given else study.base))
        if base not in bases:
            bases[base] = load_yaml(base)
        values = copy.deepcopy(bases[base])
        for change in (study.set, *changes):
            for field, value in change.items():
                if field not in (_BASE, _START):
                    put(values, str(field), copy.deepcopy(value), where)
        put(values, "training.seed", seed, where)
        for override in overrides:
            apply_override(values, override)
        source = build(cell | starts[0], seed, (*behind, cell)) if starts else None
        if source is not None:
            put(values, "init.checkpoint", str(source.directory / "last.safetensors"), where)
        try:
            config = Config.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe(error, Config, where)) from error
        start = source.digest if source else None
        digest = digest_of(config, start)
        seedless = config.model_copy(deep=True)
        seedless.training.seed = 0
        config.output.dir = str(root / "runs" / digest)
        cell_digest = digest_of(seedless, source.cell_digest if source else None)
        made[seed] = StudyRun(cell, config, digest, cell_digest, start)
        return made[seed]

    cells = list(_cells(study))
    if not cells:
        raise ConfigError(f"{file}: skip must leave cells to run, got none")
    for seed in study.seeds:  # a whole table of one seed comes before the next seed
        for cell in cells:
            yield build(cell, seed)


def _in_order(runs: list[StudyRun], file: Path) -> list[StudyRun]:
    """Runs that others start from first, otherwise as they are."""
    there = {run.digest for run in runs}
    for run in runs:
        if run.start is not None and run.start not in there:
            raise ConfigError(
                f"{file}: {run.title}: start must be a run of the study, got one that skip drops"
            )
    ordered: list[StudyRun] = []
    done: set[str] = set()
    waiting = runs
    while waiting:
        ready = [run for run in waiting if run.start is None or run.start in done]
        ordered += ready
        done |= {run.digest for run in ready}
        waiting = [run for run in waiting if run.digest not in done]
    return ordered
