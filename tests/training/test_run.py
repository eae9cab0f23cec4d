"""Training from end to end on tiny clips: files, figures, determinism, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from stgcn_fast import data, training
from stgcn_fast.graph import Graph, mean_joint_distances
from stgcn_fast.models import STGCN
from stgcn_fast.training import Config, ConfigError, Predictor, TrainResult, evaluate, train

Make = Callable[..., Config]


def silent(line: str) -> None:
    """Throw the lines of progress away."""


def weights(directory: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(directory / f"{name}.safetensors")


def assert_equal_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


def test_a_run_leaves_its_files(trained: TrainResult) -> None:
    names = {file.name for file in trained.directory.iterdir()}
    weights = {"last.ckpt", "last.safetensors", "last.json"}
    assert names == weights | {"config.yaml", "scores.npz", "metrics.json"}
    metrics = json.loads((trained.directory / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == trained.metrics
    assert metrics["clips"] == {"train": 12, "val": 0, "test": 12}
    assert [record["epoch"] for record in metrics["history"]] == [1, 2, 3]
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert np.sum(metrics["test"]["confusion"]) == 12
    assert metrics["test"]["top1"] == np.trace(metrics["test"]["confusion"]) / 12


def test_the_checkpoint_predicts_what_the_test_counted(trained: TrainResult, store_path: Path) -> None:
    store = data.SkeletonStore(store_path)
    predictor = Predictor(trained.checkpoint)
    indices = data.split(store, "cross_subject", train="odd")["test"]
    predictions = predictor([store[int(i)] for i in indices])
    assert trained.evaluation is not None
    np.testing.assert_allclose(
        np.stack([prediction.probabilities for prediction in predictions]),
        trained.evaluation.probabilities,
        atol=1e-6,
    )
    first = predictions[0]
    assert first.label_name == predictor.class_names[first.label]
    assert first.top(2)[0] == (first.label_name, first.probability)
    assert predictor([]) == []


def test_threads_are_the_runs_own(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    before, seen = torch.get_num_threads(), set()
    wanted = 3 if before != 3 else 2
    config = tiny(store_path, tmp_path / "run", training={"epochs": 1, "batch_size": 12, "threads": wanted})
    train(config, say=lambda line: seen.add(torch.get_num_threads()))
    assert seen == {wanted}
    assert torch.get_num_threads() == before


def test_testing_again_gives_the_same_figures(trained: TrainResult) -> None:
    result, names = training.test(trained.checkpoint)
    assert names == ("boxing", "handwaving", "walking")
    assert trained.evaluation is not None
    np.testing.assert_array_equal(result.confusion, trained.evaluation.confusion)
    whole, _ = training.test(trained.checkpoint, part="all")
    assert len(whole.labels) == 24


def test_equal_seeds_give_equal_weights_and_others_do_not(
    trained: TrainResult, store_path: Path, tmp_path: Path, tiny: Make
) -> None:
    sections = {"epochs": 3, "batch_size": 4}
    train(tiny(store_path, tmp_path / "same", training=sections | {"workers": 1}), say=silent)
    assert_equal_weights(trained.directory, tmp_path / "same")
    train(tiny(store_path, tmp_path / "other", training=sections | {"seed": 1}), say=silent)
    assert not torch.equal(
        weights(trained.directory)["fcn.weight"], weights(tmp_path / "other")["fcn.weight"]
    )


def test_validation_average_views_and_early_stopping(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    config = tiny(
        store_path,
        tmp_path / "run",
        data={
            "source": str(store_path),
            "frames": 12,
            "split": {"options": {"train": [1], "val": [2], "test": [3, 4]}, "protocol": "cross_subject"},
        },
        optimiser={"lr": 1e-9, "ema": 0.9, "grad_clip": 1.0, "label_smoothing": 0.1},
        training={"epochs": 9, "batch_size": 4, "eval_batch_size": 3, "early_stop": {"patience": 2}},
        test={"checkpoint": "best", "views": 3, "transforms": ["Centre", "RandomScale"]},
        output={"dir": str(tmp_path / "run"), "tensorboard": True},
    )
    result = train(config, say=silent)
    # Nothing is learnt at this rate, so the first epoch is the best and two more end the run.
    assert result.metrics["epochs"] == 3
    assert result.metrics["best_validation"]["epoch"] == 1
    assert result.checkpoint.name == "best.safetensors"
    assert result.metrics["test"]["views"] == 3
    assert any((tmp_path / "run" / "tensorboard").glob("events.out.*"))
    resumed = train(config, resume=True, say=silent)
    assert resumed.metrics["epochs"] == 3


def test_a_loss_that_is_not_finite_ends_the_run(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    optimiser = {"lr": 1e30, "schedule": {"name": "constant"}}
    config = tiny(store_path, tmp_path / "run", optimiser=optimiser)
    with pytest.raises(ConfigError, match=r"training: loss must stay finite, got (nan|inf) in epoch [12] \("):
        train(config, say=silent)
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("precision", ["64", "bf16"])
def test_other_precisions(store_path: Path, tmp_path: Path, tiny: Make, precision: str) -> None:
    training = {"epochs": 1, "batch_size": 12, "precision": precision}
    result = train(tiny(store_path, tmp_path / "run", training=training), say=silent)
    assert np.isfinite(result.metrics["history"][0]["train_loss"])
    dtype = torch.float64 if precision == "64" else torch.float32
    assert weights(tmp_path / "run")["fcn.weight"].dtype == dtype


def test_a_finished_run_is_not_overwritten_unasked(store_path: Path, tmp_path: Path, tiny: Make) -> None:
    config = tiny(store_path, tmp_path / "run", training={"epochs": 1, "batch_size": 12})
    train(config, say=silent)
    before = (tmp_path / "run" / "last.safetensors").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=r"output\.dir must be free, got an earlier run"):
        train(config, say=silent)
    changed = config.override(["optimiser.lr=0.01"])
    with pytest.raises(ConfigError, match=r"optimiser\.lr must stay 0\.05 when a run is resumed, got 0\.01"):
        train(changed, resume=True, say=silent)
    assert (tmp_path / "run" / "last.safetensors").stat().st_mtime_ns == before
    train(changed, overwrite=True, say=silent)
    assert (tmp_path / "run" / "last.safetensors").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.name=resnet", "model: build: name must be one of"),
        ("model.options={chanels: [4]}", "model: build: arguments of st_gcn must be among"),
        ("model.options={channels: [0]}", "model: STGCN: channels must be positive integers"),
        ("model.options={layout: ntu25}", "model.options.layout must be left to the data, got 'ntu25'"),
        (
            "model.options={graph: {layout: ntu25}}",
            "model.options.graph.layout must be that of the data, 'body25'",
        ),
        ("model.options={graph: 3}", "model.options.graph must be a section with fields, got 3"),
        ("transforms.train=[AlignView]", "transforms.train: AlignView: "),
        ("transforms.train=[Centre]", "transforms.eval must be given where transforms.train is, got null"),
        ("transforms.eval=[]", "transforms.train must be given where transforms.eval is, got null"),
        ("training.early_stop={patience: 1}", "training.early_stop must be null without validation clips"),
        ("data.split.options={train: [77]}", "data.split: cross_subject"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(
    store_path: Path, tmp_path: Path, override: str, line: str, tiny: Make
) -> None:
    with pytest.raises(ValueError, match=line.replace(".", r"\.").replace("[", r"\[")) as error:
        train(tiny(store_path, tmp_path / "a" / "run").override([override]), say=silent)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_joint_distances_can_be_measured_on_the_training_clips(
    store_path: Path, tmp_path: Path, tiny: Make
) -> None:
    config = tiny(
        store_path,
        tmp_path / "run",
        model={"options": {"channels": [4], "graph": {"joint_distances": "measured", "max_distance": 2}}},
        training={"epochs": 1, "batch_size": 12},
    )
    result = train(config, say=silent)
    model = Predictor(result.checkpoint).model
    store = data.SkeletonStore(store_path)
    odd = [clip for clip in store if clip.subject is not None and clip.subject % 2]
    expected = mean_joint_distances((clip.keypoints, clip.valid) for clip in odd)
    assert isinstance(model, STGCN)
    assert model.graph == Graph("body25", max_distance=2, joint_distances=expected)
    assert model.graph != Graph("body25", max_distance=2)


class Parrot(torch.nn.Module):
    """Logits are the mean of the input's first classes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3, 0, 0, 0]


def test_evaluation_averages_views_and_counts() -> None:
    # [N, R, C, T, V, M]: the two views of the third clip disagree, the second is surer.
    logits = torch.tensor(
        [
            [[9.0, 0, 0], [9, 0, 0]],
            [[0, 9.0, 0], [0, 9, 0]],
            [[1.0, 0, 0], [0, 0, 9]],
            [[0, 0, 9.0], [0, 0, 9]],
        ]
    )
    labels = torch.tensor([0, 1, 2, 0])
    x = logits[:, :, :, None, None, None]
    samples = [(x[i], labels[i], i) for i in range(4)]
    seen: list[tuple[int, int | None]] = []
    result = evaluate(
        Parrot(), DataLoader(samples, batch_size=3), 3, progress=lambda a, b=None: seen.append((a, b))
    )  # type: ignore[arg-type]
    assert result.top1 == 0.75
    assert result.top5 == 1.0
    np.testing.assert_array_equal(result.confusion, [[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(result.probabilities[2], logits[2].softmax(1).mean(0).numpy(), rtol=1e-6)
    expected = -np.log(result.probabilities[np.arange(4), labels.numpy()]).mean()
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert result.to_dict(["a", "b", "c"])["per_class"] == {"a": 0.5, "b": 1.0, "c": 1.0}
    assert seen == [(3, 4), (4, 4)]


def test_evaluation_refuses_labels_it_has_no_class_for() -> None:
    samples = [(torch.zeros(1, 3, 1, 1, 1), 5, 0)]
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got 5\.\.5"):
        evaluate(Parrot(), DataLoader(samples), 3)  # type: ignore[arg-type]
