"""Configurations: what they accept, and the one line they give for what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stgcn_fast.training import Config, ConfigError, load_config
from stgcn_fast.training.yaml_io import dump_yaml, load_yaml

RECIPES = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def test_the_defaults_are_a_configuration() -> None:
    assert load_config() == Config()


def test_a_configuration_survives_yaml(tmp_path: Path) -> None:
    config = load_config(
        None, ["optimiser.betas=[0.8, 0.9]", "transforms.train=[Centre, {name: RandomFlip, p: 0.3}]"]
    )
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config.to_dict()), encoding="utf-8")
    assert load_config(file) == config


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_the_repository_is_valid(recipe: Path) -> None:
    config = load_config(recipe)
    assert config.training.epochs > 0


def test_there_are_recipes() -> None:
    assert RECIPES


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model: {options: {x: 1e-3, y: -2E5, z: 1e, w: v1e-3}}", encoding="utf-8")
    assert load_yaml(file)["model"]["options"] == {"x": 1e-3, "y": -2e5, "z": "1e", "w": "v1e-3"}


def test_overrides_reach_sections_that_the_file_leaves_out_and_entries_of_lists(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("transforms: {train: [{name: RandomScale}]}", encoding="utf-8")
    config = load_config(
        file, ["optimiser.schedule.warmup_epochs=2", "transforms.train.0.p=0.25", "data.format="]
    )
    assert config.optimiser.schedule.warmup_epochs == 2
    assert config.transforms.train == [{"name": "RandomScale", "p": 0.25}]
    assert config.data.format is None


def test_a_source_may_name_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DATA", "somewhere")
    assert load_config(None, ["data.source=$SOME_DATA/clips"]).data.source == "somewhere/clips"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epoch=3", "training.epoch must be a known field (did you mean 'epochs'?), got 3"),
        (
            "zzz=1",
            "zzz must be a known field "
            "(one of data, transforms, model, init, loss, optimiser, training, test, output), got 1",
        ),
        (
            "training.early_stop.patiene=1",
            "training.early_stop.patiene must be a known field (did you mean 'patience'?), got 1",
        ),
        ("optimiser.lr=-1", "optimiser.lr must be greater than 0, got -1"),
        ("optimiser.lr=.nan", "optimiser.lr must be a finite number, got nan"),
        ("optimiser.lr=fast", "optimiser.lr must be a valid number, got 'fast'"),
        ("data.frames=2.5", "data.frames must be a valid integer, got 2.5"),
        ("data.frames=0", "data.frames must be greater than 0, got 0"),
        (
            "data.frames=1000000000",
            "data.frames must be less than or equal to 100000, got 1000000000",
        ),
        ("data.persons=101", "data.persons must be less than or equal to 100, got 101"),
        (
            "training.batch_size=1000001",
            "training.batch_size must be less than or equal to 1000000, got 1000001",
        ),
        ("training.epochs=true", "training.epochs must be a number, got True"),
        ("training.seed=4294967296", "training.seed must be less than 4294967296, got 4294967296"),
        (
            "data.stream=bones",
            "data.stream must be 'joint', 'bone', 'joint_motion' or 'bone_motion', got 'bones'",
        ),
        ("training=3", "training must be a section with fields, got 3"),
        ("data.source=' '", "data.source must be a path or 'synthetic-kth', got an empty text"),
        (
            "optimiser.schedule.name=step",
            "optimiser.schedule.milestones must name at least one epoch when name is step, got none",
        ),
        (
            "optimiser.schedule.milestones=[5, 5]",
            "optimiser.schedule.milestones must rise strictly, got [5, 5]",
        ),
        ("optimiser.momentum=0", "optimiser.momentum must be above 0 when nesterov is true, got 0.0"),
        ("test.views=4", "test.transforms must be given when views is above 1, got none"),
        ("transforms.eval=[3]", "transforms.eval[0] must be a name or a dictionary, got int"),
        (
            "transforms.train=[Centre, {name: RandomScale, q: 1}]",
            "transforms.train[1].q must be a field of RandomScale (about, factor, p, per_axis), got 'q'",
        ),
        ("optimiser", "override must look like section.field=value, got 'optimiser'"),
        ("training.epochs.x=1", "training.epochs.x must lead to a section or a list, got 3 before 'x'"),
        ("test.transforms.7=1", "test.transforms.7 must index a list of 0 entries, got '7'"),
    ],
)
def test_a_wrong_field_gives_one_line_with_path_rule_and_value(
    tmp_path: Path, override: str, line: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training: {epochs: 3}\ntest: {transforms: []}", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])
    assert str(error.value) == f"command line: {line}"


def test_a_wrong_field_of_the_file_names_the_file_and_counts_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {frames: -1, person: 2}", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(file, ["training.epochs=2"])
    assert str(error.value) == f"{file}: data.frames must be greater than 0, got -1 (and 1 more)"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: [1", "must be valid YAML"),
        ("a: 1\na: 2", "keys must be plain and unique, got 'a' again at line 2"),
        ("- 1", "must be a mapping of sections, got list"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_text_that_is_no_configuration_names_the_file(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rule.replace("(", r"\(")) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(b"data: \xff\xfe")
    with pytest.raises(ConfigError, match="must be UTF-8 text, got byte 6"):
        load_config(file)
    with pytest.raises(FileNotFoundError, match="must be an existing YAML file"):
        load_config(tmp_path / "none.yaml")
