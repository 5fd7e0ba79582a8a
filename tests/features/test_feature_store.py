"""The feature store, both kinds: what is read online is what the offline files say, and what was pushed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis_server import redis_server

from features.definitions import COLUMNS, EVENT_TIME, FREQUENCY, GAPS, HISTORY, UNIFORMITY
from features.online import UserState
from features.store import FeatureStore, StoreSettings, write_offline
from features.user_rows import LiveEvent, UserRow, published_rows
from recsys.data.sequences import SequenceStore
from recsys.errors import ArtifactError, DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of ibis, as Feast uses it
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
KEPT = 10
AT = datetime.now(UTC) - timedelta(minutes=1)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def settings(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[StoreSettings]:
    folder = tmp_path_factory.mktemp("feast")
    with ExitStack() as stack:
        redis = ""
        if request.param == "redis":
            redis = stack.enter_context(redis_server(folder))
        yield StoreSettings(folder / "store", "tiny-data", request.param, redis, KEPT, timeout=2)


@pytest.fixture(scope="module")
def users(tiny_store: SequenceStore) -> pl.DataFrame:
    names = pl.Series([f"u{u:02d}" for u in range(tiny_store.n_users)])
    items = pl.Series([f"i{i:02d}" for i in range(tiny_store.n_items)])
    return published_rows(tiny_store, names, items, KEPT)


@pytest.fixture(scope="module")
def frequency(tiny_store: SequenceStore) -> pl.DataFrame:
    events = np.bincount(tiny_store.items, minlength=tiny_store.n_items + 1)[1:]
    ids = [f"i{i:02d}" for i in range(tiny_store.n_items)]
    return pl.DataFrame({"item_id": ids, "events": events, "users": events // 2})


@pytest.fixture(scope="module")
def store(
    settings: StoreSettings, users: pl.DataFrame, frequency: pl.DataFrame
) -> Iterator[FeatureStore]:
    settings.save()
    opened = FeatureStore(StoreSettings.load(settings.directory))
    write_offline(settings.directory, users, frequency, AT)
    opened.materialise(AT)
    yield opened
    opened.close()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    return bool(one == other)


@pytest.mark.parametrize("view", [HISTORY, GAPS, UNIFORMITY, FREQUENCY])
def test_online_equals_offline_for_everyone(
    store: FeatureStore, users: pl.DataFrame, frequency: pl.DataFrame, view: str
) -> None:
    source = frequency if view == FREQUENCY else users
    key = "item_id" if view == FREQUENCY else "user_id"
    asked = source.select(key).with_columns(pl.lit(datetime.now(UTC)).alias(EVENT_TIME))
    offline = store.historical(view, asked)
    assert offline.height == source.height
    for row, original in zip(offline.to_dicts(), source.to_dicts(), strict=True):
        online = store.online(view, row[key])
        for column in COLUMNS[view]:
            assert same(online[column], original[column]), (row[key], column)
            assert same(row[column], original[column]), (row[key], column)


def test_repeated_questions_offline_lose_no_row(store: FeatureStore, users: pl.DataFrame) -> None:
    asked = pl.concat([users.select("user_id").head(3)] * 50).with_columns(
        pl.lit(datetime.now(UTC)).alias(EVENT_TIME)
    )
    found = store.historical(HISTORY, asked)
    assert found["user_id"].to_list() == asked["user_id"].to_list()
    newest = users["recent_items"].head(3).to_list()
    assert found["recent_items"].to_list()[:3] == newest


def test_an_offline_store_that_loses_rows_is_noticed(
    store: FeatureStore, users: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Job:
        def to_arrow(self) -> Any:
            return users.head(1).to_arrow()

    monkeypatch.setattr(store._store, "get_historical_features", lambda **asked: Job())
    asked = users.select("user_id").with_columns(pl.lit(AT).alias(EVENT_TIME))
    with pytest.raises(DataError, match="gave 1 rows of gaps for 40 asked"):
        store.historical(GAPS, asked)


def test_a_pushed_row_is_in_the_next_read_of_every_view(
    store: FeatureStore, settings: StoreSettings, tiny_store: SequenceStore
) -> None:
    reader = FeatureStore(settings)
    before = reader.user("u07")
    assert before is not None
    last = before.state.times[-1]
    row = before
    for number in range(1, 6):  # several within one second
        row = row.after([LiveEvent("i03", last + 60 * number, number)], KEPT)
        store.push({"u07": row})
        assert reader.user("u07") == row
    values = row.values()
    for view in (HISTORY, GAPS, UNIFORMITY):
        online = reader.online(view, "u07")
        assert all(same(online[column], values[column]) for column in COLUMNS[view])
    reader.close()


def test_strangers_have_no_row_and_the_deleted_an_empty_one(store: FeatureStore) -> None:
    assert store.user("nobody") is None
    once = UserRow(UserState(("i01",), (5,), 1), 1)
    store.push({"new": once})
    assert store.user("new") == once
    store.delete(["new"])
    assert store.user("new") == UserRow()


def test_a_directory_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no feature store"):
        StoreSettings.load(tmp_path)
    (tmp_path / "store.json").write_text('{"colour": 1}')
    with pytest.raises(ArtifactError, match="no readable settings file"):
        StoreSettings.load(tmp_path)
