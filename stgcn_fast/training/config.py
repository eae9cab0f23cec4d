"""The configuration of one training run: what a YAML file may say, and one-line errors when it says more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

try:
    from pydantic import (
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        ValidationError,
        field_validator,
        model_validator,
    )
except ImportError as _error:  # pragma: no cover - exercised only without the extra
    raise ImportError('training needs pydantic: pip install "stgcn_fast[train]"') from _error

from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.validation import apply_override, describe
from stgcn_fast.training.yaml_io import load_yaml

__all__ = [
    "FREE_FIELDS",
    "SYNTHETIC_KTH",
    "Config",
    "DataConfig",
    "EarlyStopConfig",
    "InitConfig",
    "LossConfig",
    "ModelConfig",
    "OptimiserConfig",
    "OutputConfig",
    "ScheduleConfig",
    "SplitConfig",
    "TestConfig",
    "TrainingConfig",
    "TransformsConfig",
    "load_config",
]

SYNTHETIC_KTH = "synthetic-kth"
# What may change when a run is taken up again: it does not change what is learnt.
FREE_FIELDS = ("training.workers", "training.threads", "training.eval_batch_size")


def _no_flag(value: Any) -> Any:
    # pydantic reads true as 1; who writes "epochs: yes" did not mean one epoch.
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value}")
    return value


Positive = Annotated[int, Field(gt=0), BeforeValidator(_no_flag)]
NonNegative = Annotated[int, Field(ge=0), BeforeValidator(_no_flag)]
Seed = Annotated[int, Field(ge=0, lt=2**32), BeforeValidator(_no_flag)]
# Larger ones are mistakes, and would fill the memory before anything could say so.
Frames = Annotated[int, Field(gt=0, le=100_000), BeforeValidator(_no_flag)]
Persons = Annotated[int, Field(gt=0, le=100), BeforeValidator(_no_flag)]
BatchSize = Annotated[int, Field(gt=0, le=1_000_000), BeforeValidator(_no_flag)]
TransformEntry = Any  # a name or a mapping; build_transform says what is wrong with anything else
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=False, allow_inf_nan=False)


def _check_transforms(value: list[TransformEntry] | None) -> list[TransformEntry] | None:
    from stgcn_fast.data.transforms import build_transform

    try:
        build_transform(value)
    except (TypeError, ValueError) as error:
        # "build_transform: transforms[1].p must ..." becomes "[1].p must ..." behind the field's own path.
        raise ValueError(str(error).removeprefix("build_transform: transforms")) from None
    return value


class SplitConfig(_Section):
    """Which clips train, validate and test.

    Attributes:
        protocol: A name known to :func:`stgcn_fast.data.split` (``cross_subject``, ``utd_mhad``, ...); null
            takes the published protocol where every clip fits it (formats ``utd_mhad``, ``nw_ucla``,
            ``natops``; ``ntu``: ``ntu60_xsub``), else the data's own split, else every second performer for
            training, else a random 80 %.
        options: Keywords handed to that protocol, for example ``{train: [1, 3, 5, 7]}``.
        validation_fraction: Share of the training clips, class by class, held back for validation when
            the protocol has no validation part of its own.
        train_fraction: Share of the training clips kept, class by class (1 keeps all).
    """

    protocol: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    validation_fraction: Fraction = 0.0
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class DataConfig(_Section):
    """Where the clips come from and what one sample looks like.

    Attributes:
        source: A store, a directory (or file) of a known format, or ``synthetic-kth``; ``~`` and
            ``$NAME`` are expanded.
        format: Format of a directory or file, detected when null; unused for a store.
        options: Keywords for the reader (or for the generator when the source is ``synthetic-kth``).
        store: Where the store built from a directory is kept; default ``<output.dir>/store``.
        split: Which clips train, validate and test.
        stream: ``joint``, ``bone``, ``joint_motion`` or ``bone_motion``.
        frames: T of every sample, in frames; at most 100,000.
        persons: M of every sample; at most 100.
        fit: How a clip of another length gets T frames: ``resample``, ``loop`` or ``zero``.
        confidence: Append the confidence of the joints as a channel.
        layout: Bring every clip to this joint layout, joints matched by their names (``kinect20`` clips for
            a network of ``utd20``); null leaves them as they are.
    """

    source: str = SYNTHETIC_KTH
    format: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    store: str | None = None
    split: SplitConfig = Field(default_factory=SplitConfig)
    stream: Literal["joint", "bone", "joint_motion", "bone_motion"] = "joint"
    frames: Frames = 64
    persons: Persons = 1
    fit: Literal["resample", "loop", "zero"] = "resample"
    confidence: bool = False
    layout: str | None = None

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must be a path or 'synthetic-kth', got an empty text")
        return os.path.expanduser(os.path.expandvars(value))


class TransformsConfig(_Section):
    """Transforms by name, in order: ``Centre`` or ``{name: RandomScale, factor: [0.9, 1.1]}``.

    Attributes:
        train: For training clips; null for centring, scaling to the body and mild augmentation.
        eval: For validation, test and prediction; null for centring and scaling to the body. Training wants
            both lists or neither.
    """

    train: list[TransformEntry] | None = None
    eval: list[TransformEntry] | None = None

    @field_validator("train", "eval")
    @classmethod
    def _known(cls, value: list[TransformEntry] | None) -> list[TransformEntry] | None:
        return _check_transforms(value)


class ModelConfig(_Section):
    """A model known to :func:`stgcn_fast.models.build`.

    Attributes:
        name: Registered name.
        options: Its keywords; classes, input channels and layout come from the data. A ``graph`` may hold
            ``joint_distances: measured``, which takes them from the training clips.
    """

    name: str = "st_gcn"
    options: dict[str, Any] = Field(default_factory=dict)


class LossConfig(_Section):
    """What training minimises.

    Attributes:
        name: ``cross_entropy`` (with ``optimiser.label_smoothing``) or ``stf``, which adds the losses of the
            spatio-temporal focus and needs ``model.name: stf``.
        options: Keywords of the criterion.
    """

    name: str = "cross_entropy"
    options: dict[str, Any] = Field(default_factory=dict)


class InitConfig(_Section):
    """Weights to start from, and what of them is kept as it is.

    Attributes:
        checkpoint: ``.safetensors`` of a network of the same shape; its classifier is taken where it has the
            same classes, else the new one stays random. null starts from random weights.
        freeze: ``last_layer`` trains nothing but the classifier, a number N freezes the normalisation at the
            entrance and the first N blocks; null trains everything. What is frozen stays in evaluation mode.
    """

    checkpoint: str | None = None
    freeze: Literal["last_layer"] | NonNegative | None = None

    @field_validator("checkpoint")
    @classmethod
    def _checkpoint(cls, value: str | None) -> str | None:
        return None if value is None else os.path.expanduser(os.path.expandvars(value))

    @model_validator(mode="after")
    def _freeze(self) -> InitConfig:
        if self.freeze is not None and self.checkpoint is None:
            raise ValueError(
                f"checkpoint must be given where freeze is, got null with freeze {self.freeze!r}"
            )
        return self


class ScheduleConfig(_Section):
    """Learning rate over time, a pure function of the (fractional) epoch.

    Attributes:
        name: ``cosine`` (to ``min_factor``), ``step`` (times ``gamma`` at each milestone) or ``constant``.
        warmup_epochs: Linear rise from zero, in epochs.
        milestones: Epochs of ``step``.
        gamma: Factor of ``step``.
        min_factor: Last learning rate of ``cosine`` over the first.
    """

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    milestones: list[NonNegative] = Field(default_factory=list)
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    min_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    @model_validator(mode="after")
    def _milestones(self) -> ScheduleConfig:
        if self.name == "step" and not self.milestones:
            raise ValueError("milestones must name at least one epoch when name is step, got none")
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones must rise strictly, got {self.milestones}")
        return self


class OptimiserConfig(_Section):
    """Optimiser and loss.

    Attributes:
        name: ``sgd`` (Nesterov momentum by default) or ``adamw``.
        lr: Peak learning rate.
        weight_decay: Applied to weights; biases, normalisation and edge importance too unless
            ``decay_norm`` is false.
        decay_norm: Whether one-dimensional parameters and edge importance decay as well.
        momentum: Of ``sgd``.
        nesterov: Of ``sgd``.
        betas: Of ``adamw``.
        schedule: Learning rate over time.
        label_smoothing: Of the cross entropy, in [0, 1).
        grad_clip: Largest gradient norm; null for no limit.
        ema: Decay of an exponential moving average of the weights, used for evaluation and
            checkpoints; null for none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0)] = 0.05
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    decay_norm: bool = True
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    label_smoothing: Fraction = 0.0
    grad_clip: Annotated[float, Field(gt=0.0)] | None = None
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    @model_validator(mode="after")
    def _nesterov(self) -> OptimiserConfig:
        if self.name == "sgd" and self.nesterov and self.momentum == 0.0:
            raise ValueError("momentum must be above 0 when nesterov is true, got 0.0")
        return self


class EarlyStopConfig(_Section):
    """Stop when the validation accuracy has not risen for a while.

    Attributes:
        patience: Epochs without a rise.
        min_epochs: Epochs that run in any case.
    """

    patience: Positive = 20
    min_epochs: NonNegative = 0


class TrainingConfig(_Section):
    """How long, how wide, on what.

    Attributes:
        epochs: Passes over the training clips.
        batch_size: Clips per step over all processes together; at most a million.
        eval_batch_size: Clips per evaluation step; default ``batch_size``.
        workers: DataLoader worker processes (0 loads in the main process, fastest for small clips).
        precision: ``32``, ``64``, ``bf16`` or ``16`` (the last two mixed).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; several GPUs through ``torchrun``.
        seed: Of weights, order, augmentation and dropout; below 2**32.
        deterministic: Ask torch for deterministic algorithms.
        validate_every: Epochs between validations.
        early_stop: Rule to stop early; needs validation clips.
        threads: CPU threads; null leaves torch's own number.
        drop_last: Drop the last batch of an epoch when it is not full.
    """

    epochs: Positive = 30
    batch_size: BatchSize = 32
    eval_batch_size: BatchSize | None = None
    workers: NonNegative = 0
    precision: Literal["32", "64", "bf16", "16"] = "32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: Seed = 0
    deterministic: bool = True
    validate_every: Positive = 1
    early_stop: EarlyStopConfig | None = None
    threads: Positive | None = None
    drop_last: bool = False

    @field_validator("precision", mode="before")
    @classmethod
    def _precision(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TestConfig(_Section):
    """How the final figure is taken.

    Attributes:
        checkpoint: ``last`` or ``best`` (best validation accuracy; without validation clips the two are
            the same, for the test clips choose nothing).
        views: Versions of a clip whose probabilities are averaged; the first is ``transforms.eval``.
        transforms: Transforms of the further views, with their randomness; needed when ``views`` > 1.
    """

    __test__ = False  # not a test case, whatever its name

    checkpoint: Literal["last", "best"] = "last"
    views: Positive = 1
    transforms: list[TransformEntry] | None = None

    @field_validator("transforms")
    @classmethod
    def _known(cls, value: list[TransformEntry] | None) -> list[TransformEntry] | None:
        return _check_transforms(value)

    @model_validator(mode="after")
    def _views(self) -> TestConfig:
        if self.views > 1 and not self.transforms:
            raise ValueError("transforms must be given when views is above 1, got none")
        return self


class OutputConfig(_Section):
    """Where a run writes.

    Attributes:
        dir: Directory of the run.
        tensorboard: Write TensorBoard logs to ``<dir>/tensorboard``.
    """

    dir: str = "runs/train"
    tensorboard: bool = True

    @field_validator("dir")
    @classmethod
    def _dir(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must be a directory name, got an empty text")
        return os.path.expanduser(os.path.expandvars(value))


class Config(_Section):
    """One training run; every section has defaults that work."""

    data: DataConfig = Field(default_factory=DataConfig)
    transforms: TransformsConfig = Field(default_factory=TransformsConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    init: InitConfig = Field(default_factory=InitConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    test: TestConfig = Field(default_factory=TestConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Config:
        """Validate a mapping.

        Args:
            values: Sections and their fields.
            where: Name of the source, for messages.

        Raises:
            ConfigError: ``<where>: <field> must be <rule>, got <value>``.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe(error, Config, where)) from error

    def override(self, overrides: Sequence[str]) -> Config:
        """A copy with ``section.field=value`` changes, validated again."""
        return _validate(self.to_dict(), overrides, "command line")

    def to_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form; ``Config.from_dict`` takes it back."""
        return self.model_dump(mode="json")


def load_config(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from YAML and ``section.field=value`` overrides.

    Args:
        path: YAML file; None starts from the defaults.
        overrides: Texts such as ``optimiser.lr=0.1`` or ``transforms.train.0.p=0.5``; values are YAML.

    Returns:
        The validated configuration.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: ``<file>: <field> must be <rule>, got <value>``.
    """
    values = load_yaml(path) if path is not None else {}
    return _validate(values, overrides, "command line" if path is None else str(path))


def _validate(values: dict[str, Any], overrides: Sequence[str], where: str) -> Config:
    for override in overrides:
        apply_override(values, override)
    keys = [override.partition("=")[0].strip() for override in overrides]
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        given = any(f"{field}.".startswith(f"{key}.") or key.startswith(f"{field}.") for key in keys)
        raise ConfigError(describe(error, Config, "command line" if given else where)) from error
