"""`recsys probe` on a tiny experiment: the same questions of every model, asked once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_experiment import finish_training
from typer.testing import CliRunner

from pipelines import probe as stage
from pipelines.cli import app
from pipelines.probe import RESULT, probe, probe_table
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.errors import ConfigError

PROBES: dict[str, Any] = {"min_songs": 5, "folds": 2, "min_class": 3, "bootstrap": 100, "bands": 2}
SASREC = {"kind": "sasrec", "width": 16, "heads": 1, "blocks": 1, "max_length": 10}
MEAN = {"kind": "set", "encoder": {"kind": "mean", "width": 8}, "max_length": 12}


@pytest.fixture
def labels(tmp_path: Path, tiny_store: SequenceStore) -> Path:
    path = tmp_path / "lists.parquet"
    names = [f"u{user:02d}" for user in range(tiny_store.n_users)]
    parity = ["even" if user % 2 == 0 else "odd" for user in range(len(names))]
    pl.DataFrame({"user_id": names, "parity": parity}).write_parquet(path)
    return path


@pytest.fixture
def config(
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_items: pl.DataFrame,
    labels: Path,
) -> ExperimentConfig:
    """Every second list is kept from the models."""
    sections = {"probe": {**PROBES, "labels": ["parity"], "label_file": str(labels)}}
    models = {"pop": {"kind": "pop"}, "sasrec": SASREC, "mean": MEAN}
    path = write_config(tracking={"enabled": False}, models=models, **sections)
    begin, end = tiny_store.offsets[:-1], tiny_store.offsets[1:]
    fresh = np.arange(tiny_store.n_users) % 4 < 2
    none = Targets(*(np.zeros(0, dtype=kind) for kind in (np.int32, np.int64, np.int64)))
    split = Split(np.where(fresh, begin, end), none, none, np.where(fresh, begin, end))
    loaded = load_config(path)
    finish_training(loaded, tiny_store, split, tiny_items)
    return loaded


def test_every_learned_model_is_asked_the_same(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = probe(config)
    result = json.loads((directory / RESULT).read_text())
    assert result["lists"] == 20 and result["left_out"]["learned from"] == 20
    asked = {
        model: [(row["task"], row["detail"]) for row in result["rows"] if row["model"] == model]
        for model in ("sasrec", "mean")
    }
    assert asked["sasrec"] == asked["mean"]
    assert ("label", "parity") in asked["mean"] and ("permutation", "reverse 100%") in asked["mean"]
    for row in result["rows"]:
        assert row["low"] <= row["value"] <= row["high"]
        if row["task"] == "permutation" and row["model"] == "mean":
            assert row["value"] == pytest.approx(0.5)
    table = probe_table(result)
    assert [column.header for column in table.columns][3:5] == ["sasrec", "mean"]
    assert table.row_count == len(asked["mean"])
    monkeypatch.setattr(stage, "suite_of", None)  # nothing is asked again
    assert probe(config) == directory


def test_what_was_asked_of_one_model_is_kept(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads((probe(config) / RESULT).read_text())["rows"]
    asked: list[str] = []
    plain = stage.embedder
    monkeypatch.setattr(stage, "embedder", lambda run: (asked.append(run.name), plain(run))[1])
    [kept] = (config.workspace / "reports" / "probed").glob("mean-*")
    kept.unlink()
    for directory in (config.workspace / "reports").glob("probes-*"):
        (directory / "manifest.json").unlink()
    again = json.loads((probe(config) / RESULT).read_text())["rows"]
    assert asked == ["mean"]
    assert again == first


def test_some_models_can_be_asked_alone(config: ExperimentConfig) -> None:
    probes = config.probe.model_copy(update={"models": ["mean"], "changes": ["reverse"]})
    result = json.loads((probe(config.model_copy(update={"probe": probes})) / RESULT).read_text())
    assert {row["model"] for row in result["rows"]} == {"mean"}
    changes = {row["detail"] for row in result["rows"] if row["task"] == "permutation"}
    assert changes == {f"reverse {share}%" for share in (20, 40, 60, 80, 100)}


def test_the_command_prints_it(config: ExperimentConfig, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["probe", str(tmp_path / "tiny.yaml")])
    assert done.exit_code == 0, done.output
    assert "permutation shuffle 100%" in done.output
    assert "20 lists; left out: 20 learned from" in done.output


def test_labels_without_a_file_and_models_without_vectors_are_refused(
    config: ExperimentConfig, write_config: Callable[..., Path]
) -> None:
    nowhere = {**PROBES, "labels": ["parity"]}
    with pytest.raises(ConfigError, match=r"no file of them; set probe\.label_file"):
        probe(config.model_copy(update={"probe": type(config.probe)(**nowhere)}))
    probes = config.probe.model_copy(update={"models": ["mean", "pop"]})
    with pytest.raises(ConfigError, match=r"pop is no learned model; there are sasrec, mean"):
        probe(config.model_copy(update={"probe": probes}))
    counted = load_config(write_config(models={"pop": {"kind": "pop"}}, evaluation={}))
    with pytest.raises(ConfigError, match="no learned model"):
        probe(counted)
