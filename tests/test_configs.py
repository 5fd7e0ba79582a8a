"""Every YAML in configs/: it loads, means what it says, and the data of the small ones run through."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from recsys.config import ExperimentConfig, dump_config, load_config, parse_config
from recsys.data.catalogue import find_preset

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_loads_and_is_named_like_its_file(path: Path) -> None:
    config = load_config(path)
    expected = "mine" if path.stem == "own_data" else path.stem
    assert config.name == expected  # so that results of two files never share a directory


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_survives_being_stored_with_an_output(path: Path) -> None:
    config = load_config(path)
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert again == config
    assert isinstance(again, ExperimentConfig)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_its_preset_exists_and_its_clock_fits_the_split(path: Path) -> None:
    config = load_config(path)
    if config.data.preset is None:
        assert config.data.events, "without a preset the files must be named"
        return
    fields = find_preset(config.data.preset).fields
    if config.split.kind in ("global_time", "rolling"):
        assert fields["clock"] == "absolute"
    target = config.data.target if "target" in config.data.model_fields_set else None
    objectives = {
        model.training.objective for model in config.models.values() if hasattr(model, "training")
    }
    if (target or fields.get("target")) == "next_basket":
        assert "next_basket" in objectives


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_measures_what_the_house_reports(path: Path) -> None:
    config = load_config(path)
    assert 10 in config.evaluation.ks, "HR@10 and NDCG@10 are the figures of every table"
    assert {"pop", "markov", "sasrec"} <= config.models.keys()
    baseline = config.evaluation.baseline
    assert baseline is None or baseline in config.models


def test_the_names_are_all_different() -> None:
    names = [load_config(path).name for path in CONFIGS]
    assert len(set(names)) == len(names) == 8
