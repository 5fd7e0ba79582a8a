"""Publishing fills the feature store from what the stages before wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.definitions import COLUMNS, EVENT_TIME, FREQUENCY, HISTORY
from features.frequency import count_items, frequency_table
from features.store import FeatureStore, StoreSettings
from pipelines.feature_store import fill_feature_store
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.errors import ArtifactError
from recsys.manifest import MANIFEST


@pytest.fixture
def counted(
    fitted_experiment: ExperimentConfig, tiny_store: SequenceStore, tiny_split: Split
) -> ExperimentConfig:
    """The fitted experiment with the table of frequencies."""
    user, item = TrainingData(tiny_store, tiny_split.train_end).events()
    counts = count_items(user.astype("int32"), item, item > 0, tiny_store.n_items)
    table = frequency_table("main", *counts)
    table.write_parquet(fitted_experiment.workspace / "features" / "item_frequency.parquet")
    return fitted_experiment


def with_feast(write_config: Callable[..., Path], **feast: Any) -> ExperimentConfig:
    return load_config(write_config(tracking={"enabled": False}, feast={"enabled": True, **feast}))


def test_off_by_default(fitted_experiment: ExperimentConfig) -> None:
    assert fill_feature_store(fitted_experiment) is None
    assert not (fitted_experiment.workspace / "feast").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_everyone_is_online_and_a_second_call_has_nothing_to_do(
    counted: ExperimentConfig,
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_split: Split,
) -> None:
    directory = fill_feature_store(with_feast(write_config))
    assert directory == counted.workspace / "feast"
    store = FeatureStore(StoreSettings.load(directory))
    for user in range(tiny_store.n_users):
        row = store.user(f"u{user:02d}")
        own = slice(tiny_store.offsets[user], tiny_store.offsets[user + 1])
        assert row is not None and row.applied == 0
        assert row.state.items == tuple(f"i{i - 1:02d}" for i in tiny_store.items[own])
        assert tiny_store.timestamps is not None
        assert row.state.times == tuple(tiny_store.timestamps[own].tolist())
    counts = TrainingData(tiny_store, tiny_split.train_end).item_counts()
    for item in range(tiny_store.n_items):
        assert store.online(FREQUENCY, f"i{item:02d}")["events"] == counts[item + 1]
    asked = pl.DataFrame({"user_id": ["u01"] * 7}).with_columns(
        pl.lit(pl.read_parquet(directory / "offline" / "users.parquet")[EVENT_TIME][0]).alias(
            EVENT_TIME
        )
    )
    found = store.historical(HISTORY, asked)
    assert found.height == 7
    assert set(COLUMNS[HISTORY]) < set(found.columns)
    store.close()
    before = (directory / MANIFEST).stat().st_mtime_ns
    fill_feature_store(with_feast(write_config))
    assert (directory / MANIFEST).stat().st_mtime_ns == before


def test_a_redis_that_is_not_there_is_named(
    counted: ExperimentConfig, write_config: Callable[..., Path]
) -> None:
    config = with_feast(write_config, online="redis", redis="127.0.0.1:1")
    with pytest.raises(ArtifactError, match=r"could not be filled: .*127.0.0.1:1.*feast.redis"):
        fill_feature_store(config)
    assert not (config.workspace / "feast" / MANIFEST).exists()
