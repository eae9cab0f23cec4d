"""Laws of the small parts: order of clips, learning rate, moving average, optimiser groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stgcn_fast.training.config import OptimiserConfig, ScheduleConfig
from stgcn_fast.training.files import format_table, leave_no_empty_directory, write_json
from stgcn_fast.training.sampler import EpochSampler
from stgcn_fast.training.schedule import MovingAverage, build_optimiser, learning_rate_factor


def draws(count: int, **options: object) -> list[int]:
    return [index for _, index in EpochSampler(range(count), **options)]  # type: ignore[arg-type]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_processes_share_out_one_order(count: int, world: int, epoch: int, shuffle: bool) -> None:
    alone = draws(count, shuffle=shuffle, seed=7, epoch=epoch)
    assert sorted(alone) == list(range(count))
    samplers = [
        EpochSampler(range(count), shuffle=shuffle, seed=7, epoch=epoch, rank=rank, world_size=world)
        for rank in range(world)
    ]
    parts = [[index for _, index in sampler] for sampler in samplers]
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) == len(samplers[0])
    real = [part[: sampler.real] for part, sampler in zip(parts, samplers)]
    together = [part[step] for step in range(len(parts[0])) for part in real if step < len(part)]
    assert together == alone


def test_the_order_follows_from_seed_and_epoch() -> None:
    sampler = EpochSampler(range(50), shuffle=True, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in second} == {1}
    assert second == list(EpochSampler(range(50), shuffle=True, seed=1, epoch=1))
    assert draws(50, shuffle=True, seed=2) != [index for _, index in first]


@given(st.floats(0, 40), st.floats(0, 10), st.sampled_from(["cosine", "step", "constant"]), st.floats(0, 1))
def test_the_learning_rate_stays_between_zero_and_its_peak(
    epoch: float, warmup: float, name: str, low: float
) -> None:
    schedule = ScheduleConfig(name=name, warmup_epochs=warmup, milestones=[10, 20], min_factor=low)
    assert 0.0 <= learning_rate_factor(schedule, epoch, 40) <= 1.0


def test_the_learning_rate_at_known_times() -> None:
    cosine = ScheduleConfig(warmup_epochs=2, min_factor=0.1)
    values = [learning_rate_factor(cosine, epoch, 12) for epoch in (0, 1, 2, 7, 12)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 0.55, 0.1])
    step = ScheduleConfig(name="step", milestones=[3, 5], gamma=0.5)
    assert [learning_rate_factor(step, epoch, 9) for epoch in (2.9, 3, 5)] == [1.0, 0.5, 0.25]


def test_the_moving_average_of_a_still_network_is_the_network() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.9)
    for _ in range(5):
        model(torch.randn(6, 3))
        average.update(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(average.model.state_dict()[key], value)
    assert not average.train().model.training
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_the_moving_average_follows_its_formula_and_survives_a_state_dict() -> None:
    model = nn.Linear(1, 1, bias=False)
    averages = [MovingAverage(model, 0.5) for _ in range(2)]
    expected, weights = float(model.weight.detach()), [0.9, 9 / 11, 0.75]  # 1 - (1 + n) / (10 + n)
    for n, weight in enumerate(weights):
        with torch.no_grad():
            model.weight.fill_(float(n))
        averages[n % 2].update(model)
        averages[1 - n % 2].load_state_dict(averages[n % 2].state_dict())
        expected += weight * (n - expected)
    assert float(averages[0].model.weight.detach()) == pytest.approx(expected)


def test_vectors_and_edge_importance_may_be_spared_from_decay() -> None:
    parameters = [("a.weight", nn.Parameter(torch.ones(2, 2))), ("a.bias", nn.Parameter(torch.ones(2)))]
    parameters.append(("edge_importance.0", nn.Parameter(torch.ones(3, 2, 2))))
    spared = build_optimiser(OptimiserConfig(weight_decay=0.1, decay_norm=False), parameters)
    assert [(len(group["params"]), group["weight_decay"]) for group in spared.param_groups] == [
        (1, 0.1),
        (2, 0.0),
    ]
    whole = build_optimiser(OptimiserConfig(name="adamw", weight_decay=0.1), parameters)
    assert [(len(group["params"]), group["weight_decay"]) for group in whole.param_groups] == [(3, 0.1)]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(target, {"x": float("nan")})
    assert target.read_text(encoding="utf-8") == '{\n  "x": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def make_and_fail(directory: Path, file: str | None = None) -> None:
    directory.mkdir(parents=True)
    if file is not None:
        (directory / file).touch()
    raise KeyError


def test_a_failure_takes_empty_directories_along_but_no_others(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyError), leave_no_empty_directory(tmp_path / "old" / "a" / "b"):
        make_and_fail(tmp_path / "old" / "a" / "b")
    assert list((tmp_path / "old").iterdir()) == []
    with pytest.raises(KeyError), leave_no_empty_directory(tmp_path / "new"):
        make_and_fail(tmp_path / "new", "kept")
    assert (tmp_path / "new" / "kept").exists()


def test_a_table_is_aligned() -> None:
    assert format_table([("a", "1"), ("long", "22")]) == "a     1\nlong  22"
    assert format_table([("a", "1")], header=("what", "n")) == "what  n\n----  -\na     1"
