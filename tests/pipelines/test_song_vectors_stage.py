"""Song vectors that a configuration names: where training begins, and what makes a run another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_experiment import finish_training
from safetensors.torch import load_file

from pipelines.fitting import fit_model
from pipelines.run_keys import run_key
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split
from recsys.errors import ConfigError

TRAINING = {"epochs": 1, "batch_size": 16, "warmup_steps": 0, "device": "cpu"}
KINDS: dict[str, dict[str, Any]] = {
    "seq2seq": {"kind": "seq2seq", "width": 8, "hidden": 8, "max_length": 10},
    "set": {"kind": "set", "encoder": {"kind": "mean", "width": 8}, "max_length": 10},
}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Vectors of all items but the last one: item i has eight times i."""
    path = tmp_path / "vectors.parquet"
    ids = [f"i{item:02d}" for item in range(24)]
    rows = [[float(item)] * 8 for item in range(24)]
    pl.DataFrame({"item_id": ids, "vector": rows}).write_parquet(path)
    return path


@pytest.fixture
def experiment(
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_split: Split,
    tiny_items: pl.DataFrame,
) -> Callable[..., ExperimentConfig]:
    def make(model: dict[str, Any]) -> ExperimentConfig:
        models = {"pop": {"kind": "pop"}, "lists": {**model, "training": TRAINING}}
        config = load_config(
            write_config(models=models, tracking={"enabled": False}, evaluation={"exclude": "none"})
        )
        if not (config.workspace / "prepared").is_dir():
            only = config.model_copy(update={"models": {"pop": config.models["pop"]}})
            finish_training(only, tiny_store, tiny_split, tiny_items)
        return config

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_items_begin_with_their_vectors_and_keep_them_where_told(
    kind: str, vectors: Path, experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    given = {**KINDS[kind], "song_vectors": str(vectors)}
    table = "item_table.weight" if kind == "seq2seq" else "encoder.item_table.weight"
    config = experiment({**given, "learn_songs": False})
    fit_model(config, "lists", "main", tmp_path / "kept")
    kept = load_file(tmp_path / "kept" / "model.safetensors")[table].numpy()
    np.testing.assert_array_equal(kept[1:25], np.repeat(np.arange(24.0), 8).reshape(24, 8))
    assert 0 < np.abs(kept[25]).max() < 3  # the one without a vector keeps what was drawn
    assert (kept[0] == 0).all()
    fit_model(experiment(given), "lists", "main", tmp_path / "learned")
    learned = load_file(tmp_path / "learned" / "model.safetensors")[table].numpy()
    moved = np.abs(learned[1:25] - kept[1:25]).max()
    assert 0 < moved < 0.5


def test_other_vectors_make_another_run(
    vectors: Path, experiment: Callable[..., ExperimentConfig]
) -> None:
    config = experiment({**KINDS["set"], "song_vectors": str(vectors)})
    key = run_key(config, "lists")
    assert run_key(config, "lists") == key
    frame = pl.read_parquet(vectors)
    frame.reverse().write_parquet(vectors)
    assert run_key(config, "lists") != key
    vectors.unlink()
    with pytest.raises(ConfigError, match=r"models\.lists\.song_vectors: .* is missing"):
        run_key(config, "lists")
