"""Whether what training reads is of the configuration: told by keys, without making anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import features, prepare
from pipelines.prepare import STAGE_VERSION, prepared_key
from pipelines.upstream import stale_stage
from recsys.config import ExperimentConfig, load_config
from recsys.errors import DataError
from recsys.manifest import file_hash, stable_hash, write_manifest

Write = Callable[..., Path]


def test_the_separator_counts_where_it_is_set(write_config: Write) -> None:
    """What was prepared before there was such a setting stays what it is."""
    config = load_config(write_config())
    settings = config.data.model_dump(mode="json", exclude={"events", "items", "separator"})
    before = {
        "data": settings,
        "split": config.split.model_dump(mode="json"),
        "seed": config.drawn_by,
        "events": [file_hash(Path(config.data.events[0]))],
        "items": [file_hash(Path(config.data.items[0]))],
        "version": STAGE_VERSION,
    }
    assert prepared_key(config) == stable_hash(before)
    other = config.data.model_copy(update={"separator": ";"})
    assert prepared_key(config.model_copy(update={"data": other})) != stable_hash(before)


def finished(config: ExperimentConfig, stage: str, key: str) -> None:
    directory = config.workspace / stage
    directory.mkdir(parents=True, exist_ok=True)
    write_manifest(directory, {"key": key, "inputs": {}})


def stale(config: ExperimentConfig) -> str | None:
    return stale_stage(config, prepared_key(config))


def test_the_first_stage_that_is_of_something_else_is_named(write_config: Write) -> None:
    models: dict[str, Any] = {"pop": {"kind": "pop"}, "unirec": {"kind": "unirec"}}
    config = load_config(write_config(models=models))
    assert stale(config) == prepare.DIRECTORY
    finished(config, prepare.DIRECTORY, prepared_key(config))
    assert stale(config) == features.DIRECTORY
    finished(config, features.DIRECTORY, features.features_key(config))
    assert stale(config) == "neighbours"
    without = load_config(write_config())
    assert stale(without) is None
    other = load_config(write_config(split={"kind": "last_n", "n": 2}))
    assert stale(other) == prepare.DIRECTORY
    # Anew prepared, what was made of the former is stale.
    finished(other, prepare.DIRECTORY, prepared_key(other))
    assert stale(other) == features.DIRECTORY


def test_input_that_is_gone_is_an_error(write_config: Write, tmp_path: Path) -> None:
    path = write_config(data={"events": [str(tmp_path / "gone.csv")]})
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        prepared_key(load_config(path))
