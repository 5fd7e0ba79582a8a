"""Files and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from written_config import MINIMAL, write

from recsys.config import (
    ExperimentConfig,
    GlobalTimeSplit,
    LeaveOneOutSplit,
    MarkovConfig,
    ModelConfig,
    RollingSplit,
    SASRecConfig,
    dump_config,
    load_config,
    parse_config,
)
from recsys.errors import ConfigError


def test_overrides_are_typed_and_nested(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    config = load_config(
        path,
        [
            "seed=7",
            "split.kind=leave_one_out",
            "evaluation.ks=[3, 4]",
            "models.deep={kind: sasrec, width: 32}",
            "models.deep.training.lr=3.0e-4",
            "data.filters.start=2024-01-01T00:00:00",
            "tracking.uri=sqlite:///some.db",
            f"output={tmp_path}/elsewhere",
            "publish.model=null",
        ],
    )
    assert config.seed == 7
    assert config.split == LeaveOneOutSplit()
    assert config.evaluation.ks == [3, 4]
    deep = config.models["deep"]
    assert isinstance(deep, SASRecConfig)
    assert (deep.width, deep.training.lr) == (32, 3e-4)
    assert config.tracking.uri == "sqlite:///some.db"
    assert config.workspace == tmp_path / "elsewhere" / "mine"
    assert config.publish.model is None
    assert list(config.models) == ["pop", "deep"]


def test_overrides_of_a_section_that_is_not_there_and_of_text_that_is_no_yaml(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, MINIMAL)
    config = load_config(path, ["split.test=0.2", "data.time_format=%Y: %m"])
    assert config.split == GlobalTimeSplit(test=0.2)
    assert config.data.time_format == "%Y: %m"
    assert load_config(path, ["data.time_format=%Y"]).data.time_format == "%Y"
    with pytest.raises(ConfigError, match=r"seed: .*valid integer.*got '\[1'"):
        load_config(path, ["seed=[1"])


@pytest.mark.parametrize("override", ["seed", "=3", "name.first=x"])
def test_an_override_that_says_nothing_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="override"):
        load_config(write(tmp_path, MINIMAL), [override])


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        load_config(write(tmp_path, MINIMAL), ["sead=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("just text", "mapping"),
    ],
)
def test_a_file_that_is_no_configuration(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, content))


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9t\xe9\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "latin.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(tmp_path / "nowhere.yaml")
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=rf"nowhere\.yaml .*; {tmp_path} holds mine\.yaml$"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=rf"{tmp_path} is a directory; name a YAML file in it"):
        load_config(tmp_path)


def test_the_file_is_never_executed(tmp_path: Path) -> None:
    path = write(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_sections_cannot_be_changed() -> None:
    config = parse_config(MINIMAL)
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]


def test_the_workspace_is_absolute_and_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_config(MINIMAL).workspace == tmp_path / "out" / "mine"


models = st.one_of(
    st.builds(MarkovConfig, history=st.integers(1, 99), half_life=st.none() | st.floats(0.1, 9)),
    st.builds(
        SASRecConfig,
        width=st.integers(1, 32).map(lambda n: 2 * n),
        dropout=st.floats(0, 0.9),
        block=st.sampled_from(["prenorm", "ligr"]),
    ),
)
splits = st.one_of(
    st.builds(GlobalTimeSplit, test=st.floats(0.01, 0.9), test_from=st.none() | st.just("2024")),
    st.builds(RollingSplit, folds=st.integers(1, 9)),
    st.builds(LeaveOneOutSplit),
)


@given(model=models, split=splits, seed=st.integers(0, 2**40))
def test_what_is_dumped_loads_to_an_equal_configuration(
    model: ModelConfig, split: Any, seed: int
) -> None:
    base = parse_config(MINIMAL)
    config = base.model_copy(update={"models": {"m": model}, "split": split, "seed": seed})
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert again == config
    assert isinstance(again, ExperimentConfig)
