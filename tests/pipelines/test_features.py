from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines import prepare as prepare_stage
from pipelines.features import build_features
from pipelines.prepare import prepare
from pipelines.ray_session import ray_session
from recsys.config import ExperimentConfig, RayConfig, parse_config
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.errors import ArtifactError
from recsys.manifest import read_manifest

pytestmark = pytest.mark.ray

START = 1_600_000_000


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """A session of two workers for all tests of this file."""
    with ray_session(RayConfig(workers=2, object_store_mb=80)):
        yield


def make_log(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 20, 400),
            "item_id": rng.integers(0, 30, 400),
            "timestamp": START + np.sort(rng.integers(0, 10_000, 400)),
            "weight": rng.random(400),
        }
    )


def experiment(folder: Path, log: pl.DataFrame, **split: Any) -> ExperimentConfig:
    folder.mkdir(parents=True, exist_ok=True)
    log.write_parquet(folder / "events.parquet")
    return parse_config(
        {
            "name": "test",
            "output": str(folder / "out"),
            "data": {"events": [str(folder / "events.parquet")], "basket_minutes": 60},
            "split": split or {"kind": "global_time", "test": 0.2, "validation": 0.2},
            "models": {"pop": {"kind": "pop"}},
            "ray": {"workers": 2, "partitions": 3},
        }
    )


def test_the_store_holds_the_prepared_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_stage, "EVENTS_PER_FILE", 100)
    config = experiment(tmp_path, make_log())
    prepared = prepare(config)
    store = SequenceStore.load(build_features(config) / "sequences")
    files = sorted((prepared / "events").iterdir())
    assert len(files) == 4
    events = pl.concat([pl.read_parquet(path) for path in files])
    names = {
        "items": "item",
        "timestamps": "timestamp",
        "baskets": "basket_id",
        "weights": "weight",
    }
    types = {"items": "i4", "timestamps": "i8", "baskets": "i4", "weights": "f4"}
    for array, column in names.items():
        values = getattr(store, array)
        assert np.array_equal(values, events[column].to_numpy())
        assert values.dtype == types[array]
        assert isinstance(values, np.memmap)
    counts = np.bincount(events["user"].to_numpy(), minlength=20)
    assert np.array_equal(np.diff(store.offsets), counts)
    assert store.n_items == pl.read_parquet(prepared / "items.parquet").height
    assert (store.n_users, store.n_events) == (20, 400)


def test_frequencies_count_training_events_and_their_users(tmp_path: Path) -> None:
    config = experiment(tmp_path, make_log())
    prepared, features = prepare(config), build_features(config)
    table = pl.read_parquet(features / "item_frequency.parquet")
    store = SequenceStore.load(features / "sequences")
    split = Split.load(prepared / "splits" / "main")
    user, item = TrainingData(store, split.train_end).events()
    assert table["item"].to_list() == list(range(1, store.n_items + 1))
    assert set(table["fold"]) == {"main"}
    for row in table.to_dicts():
        mine = user[item == row["item"]]
        assert (row["events"], row["users"]) == (len(mine), len(set(mine.tolist())))
    assert 0 < table["events"].sum() == split.train_end.sum() - store.offsets[:-1].sum() < 400


def test_every_fold_has_its_frequencies(tmp_path: Path) -> None:
    config = experiment(tmp_path, make_log(), kind="rolling", folds=3, window=0.1)
    prepare(config)
    table = pl.read_parquet(build_features(config) / "item_frequency.parquet")
    events = table.group_by("fold", maintain_order=True).agg(pl.col("events").sum())
    assert events["fold"].to_list() == ["fold0", "fold1", "fold2"]
    totals = events["events"].to_list()
    assert totals == sorted(set(totals))  # later folds train on more


def test_held_out_events_move_no_statistic(tmp_path: Path) -> None:
    """Other items after the cuts, at the same times: what training may see stays to the last bit."""
    log = make_log()
    config = experiment(tmp_path / "a", log)
    prepared, features = prepare(config), build_features(config)
    before = pl.read_parquet(features / "item_frequency.parquet")
    split = Split.load(prepared / "splits" / "main")

    held_out = np.arange(log.height) >= log.height * 0.64 + 5  # behind the validation cut
    changed = log.with_columns(
        item_id=pl.when(pl.Series(held_out)).then((pl.col("item_id") + 7) % 30).otherwise("item_id")
    )
    assert not changed["item_id"].equals(log["item_id"])
    config = experiment(tmp_path / "b", changed)
    prepared = prepare(config)
    after = pl.read_parquet(build_features(config) / "item_frequency.parquet")
    assert np.array_equal(Split.load(prepared / "splits" / "main").train_end, split.train_end)
    assert after.equals(before)


def test_features_are_skipped_when_current_and_made_again_when_not(tmp_path: Path) -> None:
    config = experiment(tmp_path, make_log())
    with pytest.raises(ArtifactError, match="run the stage that makes it"):
        build_features(config)
    prepare(config)
    manifest = build_features(config) / "manifest.json"
    before = manifest.stat().st_mtime_ns
    build_features(config)
    assert manifest.stat().st_mtime_ns == before
    key = read_manifest(manifest.parent)["key"]
    other = config.model_copy(update={"seed": 9})
    prepare(other)
    build_features(other)
    assert read_manifest(manifest.parent)["key"] != key
