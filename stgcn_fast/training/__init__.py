"""Training, testing and prediction from one YAML file; heavy imports happen at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stgcn_fast.training.comparison import ClassChanges, compare_classes
    from stgcn_fast.training.config import SYNTHETIC_KTH, Config, load_config
    from stgcn_fast.training.errors import ConfigError
    from stgcn_fast.training.evaluation import Evaluation, evaluate
    from stgcn_fast.training.opened import Opened, open_clips
    from stgcn_fast.training.prediction import Prediction, Predictor, predict
    from stgcn_fast.training.run import TrainResult, train
    from stgcn_fast.training.scores import Scores, fuse, read_scores, write_scores
    from stgcn_fast.training.source import is_store, open_source, split_source
    from stgcn_fast.training.study import load_study
    from stgcn_fast.training.study_runner import run_study
    from stgcn_fast.training.study_table import tabulate
    from stgcn_fast.training.testing import test

__all__ = [
    "SYNTHETIC_KTH",
    "ClassChanges",
    "Config",
    "ConfigError",
    "Evaluation",
    "Opened",
    "Prediction",
    "Predictor",
    "Scores",
    "TrainResult",
    "compare_classes",
    "evaluate",
    "fuse",
    "is_store",
    "load_config",
    "load_study",
    "open_clips",
    "open_source",
    "predict",
    "read_scores",
    "run_study",
    "split_source",
    "tabulate",
    "test",
    "train",
    "write_scores",
]

_HOMES = {
    "SYNTHETIC_KTH": "config",
    "ClassChanges": "comparison",
    "Config": "config",
    "ConfigError": "errors",
    "Evaluation": "evaluation",
    "Opened": "opened",
    "Prediction": "prediction",
    "Predictor": "prediction",
    "Scores": "scores",
    "TrainResult": "run",
    "compare_classes": "comparison",
    "evaluate": "evaluation",
    "fuse": "scores",
    "is_store": "source",
    "load_config": "config",
    "load_study": "study",
    "open_clips": "opened",
    "open_source": "source",
    "predict": "prediction",
    "read_scores": "scores",
    "run_study": "study_runner",
    "split_source": "source",
    "tabulate": "study_table",
    "test": "testing",
    "train": "run",
    "write_scores": "scores",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
