"""The statistics of the features stage: what they are of, that partitions do not matter, and the clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features import clock
from features.frequency import gap_variances
from features.uniformity import gap_moments
from pipelines import features as features_stage
from pipelines import neighbours as neighbours_stage
from pipelines import prepare as prepare_stage
from pipelines.features import build_features
from pipelines.neighbours import build_neighbours
from pipelines.prepare import prepare
from pipelines.ray_session import ray_session
from pipelines.stages import plan
from pipelines.statistics import clock_report, training_statistics
from recsys.config import ExperimentConfig, PopularityConfig, RayConfig, parse_config
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.manifest import read_manifest

pytestmark = pytest.mark.ray

START = 1_600_000_000
DAY = 86_400


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """A session of two workers for all tests of this file."""
    with ray_session(RayConfig(workers=2, object_store_mb=80)):
        yield


def make_log(seed: int = 0, rows: int = 400, step: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 20, rows),
            "item_id": rng.integers(0, 30, rows),
            "timestamp": START + np.sort(rng.integers(0, 10_000, rows)) * step,
        }
    )


def experiment(folder: Path, log: pl.DataFrame, **sections: Any) -> ExperimentConfig:
    folder.mkdir(parents=True, exist_ok=True)
    log.write_parquet(folder / "events.parquet")
    return parse_config(
        {
            "name": "test",
            "output": str(folder / "out"),
            "split": {"kind": "leave_one_out"},
            "models": {"pop": {"kind": "pop"}},
            "ray": {"workers": 2, "partitions": 3},
            **sections,
            "data": {"events": [str(folder / "events.parquet")], **sections.get("data", {})},
        }
    )


def build(config: ExperimentConfig) -> Path:
    prepare(config)
    return build_features(config)


def arrays(statistics: TrainingStatistics) -> dict[str, bytes | None]:
    names = ("user_gap_variance", "item_gap_variance", "item_counts", "neighbours")
    found = {name: getattr(statistics, name) for name in names}
    return {name: None if a is None else np.asarray(a).tobytes() for name, a in found.items()}


@pytest.mark.parametrize("refit", [False, True])
def test_statistics_are_of_the_training_events(tmp_path: Path, refit: bool) -> None:
    config = experiment(tmp_path, make_log(), split={"kind": "rolling", "folds": 2, "window": 0.1})
    features = build(config)
    store = SequenceStore.load(features / "sequences")
    assert store.timestamps is not None
    for fold in ("fold0", "fold1"):
        split = Split.load(config.workspace / "prepared" / "splits" / fold)
        split = split.refitted() if refit else split
        user, item = TrainingData(store, split.train_end).events()
        trains = np.arange(store.n_events) < np.repeat(split.train_end, np.diff(store.offsets))
        times = store.timestamps[trains]
        assert 0 < trains.sum() < store.n_events
        found = training_statistics(config, fold, refit)
        assert np.array_equal(found.item_counts, np.bincount(item, minlength=store.n_items + 1))
        np.testing.assert_array_equal(
            found.user_gap_variance, gap_moments(user, times, store.n_users).variance()
        )
        np.testing.assert_array_equal(
            found.item_gap_variance, gap_variances(item, times, store.n_items)
        )
        assert found.neighbours is None


def test_neither_partitions_nor_files_nor_ranges_move_a_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = {"neighbours": "on", "neighbour_window": 8, "neighbours_kept": 4}
    log = make_log(rows=1200)
    one = experiment(
        tmp_path / "a", log, features=on, refit=True, ray={"workers": 1, "partitions": 1}
    )
    build(one)
    build_neighbours(one)
    monkeypatch.setattr(prepare_stage, "EVENTS_PER_FILE", 170)
    monkeypatch.setattr(features_stage, "EVENTS_PER_RANGE", 150)
    monkeypatch.setattr(neighbours_stage, "EVENTS_PER_RANGE", 90)
    four = experiment(
        tmp_path / "b", log, features=on, refit=True, ray={"workers": 2, "partitions": 4}
    )
    build(four)
    build_neighbours(four)
    assert len(list((four.workspace / "prepared" / "events").iterdir())) > 4
    for refit in (False, True):
        expected = arrays(training_statistics(one, "main", refit))
        assert None not in expected.values()
        assert arrays(training_statistics(four, "main", refit)) == expected
    assert not (four.workspace / "features" / "scratch").exists()
    assert not (four.workspace / "neighbours" / "scratch").exists()


def test_moving_held_out_events_moves_no_statistic(tmp_path: Path) -> None:
    """Validation and test get other items and other times; what training says stays to the last bit."""
    both = {"features": {"neighbours": "on"}, "refit": True}
    log = make_log()
    first = experiment(tmp_path / "a", log, **both)
    build(first)
    build_neighbours(first)
    from_end = pl.int_range(pl.len()).reverse().over("user_id")
    for last, refit in ((2, False), (1, True)):  # a refit may see validation, and nothing of test
        held_out = from_end < last
        changed = log.with_columns(
            item_id=pl.when(held_out).then((pl.col("item_id") + 7) % 30).otherwise("item_id"),
            timestamp=pl.col("timestamp") + pl.when(held_out).then(50_000).otherwise(0),
        )
        other = experiment(tmp_path / str(last), changed, **both)
        build(other)
        build_neighbours(other)
        before = arrays(training_statistics(first, "main", refit))
        assert arrays(training_statistics(other, "main", refit)) == before
        assert clock_report(other, "main", refit) == clock_report(first, "main", refit)
    for name, seen in arrays(training_statistics(first, "main")).items():
        assert seen != arrays(training_statistics(first, "main", refit=True))[name]


def test_neighbours_are_made_when_a_model_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(tmp_path, make_log())
    build(config)
    assert [step.title for step in plan(config, "features")] == ["features"]
    monkeypatch.setattr(PopularityConfig, "needs_neighbours", True, raising=False)
    assert [step.title for step in plan(config, "features")] == ["features", "features neighbours"]
    with pytest.raises(ArtifactError, match="run `recsys features`"):
        training_statistics(config, "main")
    directory = build_neighbours(config)
    table = training_statistics(config, "main").neighbours
    assert table is not None and table.shape == (31, 10) and table[0].tolist() == [0] * 10
    before = (directory / "manifest.json").stat().st_mtime_ns
    assert (build_neighbours(config) / "manifest.json").stat().st_mtime_ns == before
    assert read_manifest(directory)["statistics"] == ["main"]
    with pytest.raises(ConfigError, match=r"models\.pop needs neighbours"):
        experiment(tmp_path, make_log(), features={"neighbours": "off"})


def test_a_relative_clock_has_gaps_of_users_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = experiment(tmp_path, make_log(step=DAY), data={"clock": "relative"})
    with caplog.at_level(logging.WARNING):
        features = build(config)
    statistics = training_statistics(config, "main")
    assert statistics.item_gap_variance is None
    assert statistics.user_gap_variance is not None
    assert np.isfinite(statistics.user_gap_variance).any()
    report = read_manifest(features)["clock"]["main"]
    assert report["features"]["item_gaps"]["on"] is False
    assert "relative" in report["features"]["item_gaps"]["why"]
    assert report["features"]["user_gaps"]["on"] and report["resolution"] == "day"
    said = [record.getMessage() for record in caplog.records]
    assert (
        sum("gap variance of items, calendar, hour of the day: off" in line for line in said) == 1
    )
    assert sum("all gaps are whole days" in line for line in said) == 1


def test_without_a_clock_there_are_counts_and_neighbours(tmp_path: Path) -> None:
    config = experiment(
        tmp_path,
        make_log().drop("timestamp"),
        data={"clock": "none"},
        features={"neighbours": "on"},
    )
    features = build(config)
    build_neighbours(config)
    statistics = training_statistics(config, "main")
    assert statistics.user_gap_variance is None and statistics.item_gap_variance is None
    assert statistics.item_counts.sum() > 0
    assert statistics.neighbours is not None
    assert (statistics.neighbours[1:] != np.arange(1, 31)[:, None]).any()
    assert read_manifest(features)["clock"]["main"]["features"][clock.USER_GAPS]["on"] is False


def test_constant_times_are_told_and_switch_off_what_is_of_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = experiment(tmp_path, make_log().with_columns(timestamp=pl.lit(START)))
    with caplog.at_level(logging.WARNING):
        build(config)
    statistics = training_statistics(config, "main")
    assert statistics.user_gap_variance is None and statistics.item_gap_variance is None
    assert "one and the same time" in caplog.text


@pytest.mark.parametrize("bad", [None, 9_999_999_999])
def test_missing_and_future_times_never_reach_the_statistics(
    tmp_path: Path, bad: int | None
) -> None:
    """Preparation refuses them with the rows, or drops them and counts them, as configured."""
    log = make_log()
    place = pl.int_range(pl.len()) == 7
    damaged = log.with_columns(timestamp=pl.when(place).then(bad).otherwise("timestamp"))
    with pytest.raises(DataError, match=r"(?s)times that are missing.*row 8"):
        prepare(experiment(tmp_path / "a", damaged))
    drop = {"on_problem": {"bad_times": "drop"}}
    dropped = experiment(tmp_path / "b", damaged, data=drop)
    build(dropped)
    without = experiment(tmp_path / "c", log.filter(~place))
    build(without)
    expected = arrays(training_statistics(without, "main"))
    assert arrays(training_statistics(dropped, "main")) == expected
