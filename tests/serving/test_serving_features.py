"""The endpoint and the feature store: live events reach it, and its failures reach nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from live_client import Live, live
from redis_server import free_port, redis_server
from tiny_bundle import events, items_frame, make_bundle, users_frame

from features.online import UserState
from features.store import FeatureStore, StoreSettings, write_offline
from features.user_rows import UserRow, published_rows
from serving.feature_reader import FeatureReader

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of ibis, as Feast uses it
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
LAST = int(events().timestamps[-1])  # type: ignore[index]
KEEP = 100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"), recent_events=KEEP)


def fill(folder: Path, **kind: Any) -> StoreSettings:
    """Publish the tiny bundle's users into a store."""
    settings = StoreSettings(folder, "tiny", recent_events=KEEP, timeout=1, **kind)
    settings.save()
    users = published_rows(events(), users_frame()["user_id"], items_frame()["item_id"], KEEP)
    counts = items_frame().select("item_id").with_columns(events=pl.lit(1), users=pl.lit(1))
    at = datetime.now(UTC)
    write_offline(folder, users, counts, at)
    store = FeatureStore(settings)
    store.materialise(at)
    store.close()
    return settings


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    with ExitStack() as stack:
        kind: dict[str, Any] = {"online": request.param}
        if request.param == "redis":
            kind["redis"] = stack.enter_context(redis_server(tmp_path))
        yield fill(tmp_path / "feast", **kind)


@pytest.fixture
def endpoint(bundle: Path, settings: StoreSettings, tmp_path: Path) -> Iterator[Live]:
    with live(bundle, tmp_path / "state", features=settings.directory, feature_timeout=2) as one:
        yield one


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def pushed(endpoint: Live) -> None:
    ledger = endpoint.service.ledger
    assert ledger is not None
    wait_for(lambda: ledger.waiting() == 0, "events were never pushed")


def test_lists_are_the_same_with_and_without_the_store(
    endpoint: Live, bundle: Path, tmp_path: Path
) -> None:
    with live(bundle, tmp_path / "other") as plain:
        for user in ("u01", "u07", "u11"):
            stored = endpoint.ask(user_id=user, k=40)
            assert stored["history_source"] == "feature_store"
            assert stored["items"] == plain.ask(user_id=user, k=40)["items"]
        for one in (endpoint, plain):
            one.happen(("u07", "i05", LAST + 5), ("u07", "i09", LAST + 6), ("new", "i05", 3))
        for _ in range(2):  # before and after the events have reached the store
            for user in ("u07", "new"):
                stored = endpoint.ask(user_id=user, k=40)
                assert stored["items"] == plain.ask(user_id=user, k=40)["items"]
            pushed(endpoint)


def test_many_clients_at_once_lose_and_double_nothing(
    endpoint: Live, settings: StoreSettings
) -> None:
    """Every event is sent three times, by eight clients, while the writer is at work."""
    users = [f"u{u:02d}" for u in range(12)] + ["new"]
    sent = [(users[i % 13], f"i{i % 40 + 1:02d}", LAST + 10 + i) for i in range(130)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(endpoint.happen, sent * 3))
    pushed(endpoint)
    store = FeatureStore(settings)
    for place, user in enumerate(users):
        row = store.user(user)
        own = [event for event in sent if event[0] == user]
        base = 0 if user == "new" else 2 * place
        assert row is not None and row.state.events == base + len(own)
        assert list(row.state.items)[-len(own) :] == [item for _, item, _ in own]
        assert list(row.state.times)[-len(own) :] == [at for _, _, at in own]
    store.close()


def test_what_was_not_pushed_before_the_end_is_pushed_after_the_start(
    bundle: Path, settings: StoreSettings, tmp_path: Path
) -> None:
    with live(bundle, tmp_path / "state") as without_store:
        without_store.happen(("u07", "i05", LAST + 5), ("u07", "i09", LAST + 6))
    with live(bundle, tmp_path / "state", features=settings.directory) as endpoint:
        pushed(endpoint)
    with live(bundle, tmp_path / "state", features=settings.directory) as endpoint:
        pushed(endpoint)
    store = FeatureStore(settings)
    row = store.user("u07")
    assert row is not None
    assert (row.state.items[-2:], row.state.events) == (("i05", "i09"), 16)
    store.close()


def test_a_deleted_user_is_gone_from_the_store(endpoint: Live, settings: StoreSettings) -> None:
    endpoint.happen(("u07", "i05", LAST + 5))
    endpoint.client.delete("/v1/users/u07")
    store = FeatureStore(settings)
    wait_for(lambda: store.user("u07") == UserRow(), "the row was never emptied")
    endpoint.happen(("u07", "i09", LAST + 6))
    pushed(endpoint)
    row = store.user("u07")
    assert row is not None and row.state == UserState(("i09",), (LAST + 6,), 1)
    assert endpoint.ask(user_id="u07")["items"] == endpoint.ask(history=["i09"])["items"]
    store.close()


@pytest.mark.redis
def test_a_store_that_dies_and_comes_back_empty_costs_no_answer(
    bundle: Path, tmp_path: Path
) -> None:
    port = free_port()
    features = tmp_path / "feast"
    with live(bundle, tmp_path / "other") as plain, ExitStack() as stack:
        with redis_server(tmp_path, port) as address:
            fill(features, online="redis", redis=address)
            settings = {"features": features, "feature_timeout": 0.5}
            one = stack.enter_context(live(bundle, tmp_path / "state", **settings))
            assert one.ask(user_id="u07")["history_source"] == "feature_store"
        for endpoint in (one, plain):  # Redis is dead
            endpoint.happen(("u07", "i05", LAST + 5), ("new", "i09", LAST + 6))
        expected = {user: plain.ask(user_id=user, k=40)["items"] for user in ("u07", "new")}
        for _ in range(20):
            for user, items in expected.items():
                answer = one.ask(user_id=user, k=40)
                assert answer["items"] == items
                assert answer["history_source"] != "feature_store"
        with redis_server(tmp_path, port) as address:  # and lost everything
            pushed(one)
            wait_for(
                lambda: one.ask(user_id="new")["history_source"] == "feature_store",
                "the store was not found again",
            )
            assert one.ask(user_id="u07", k=40)["items"] == expected["u07"]
            store = FeatureStore(StoreSettings.load(features))
            assert store.user("u07") is None  # no row is made up from live events alone
            store.close()
            assert one.metric('recsys_feature_misses_total{reason="missing"}') >= 1


class Slow:
    """A store that takes its time, or fails."""

    def __init__(self) -> None:
        self.seconds, self.broken, self.reads = 0.0, False, 0
        self.let_go = threading.Event()

    def user(self, user_id: str) -> UserRow | None:
        self.reads += 1
        if self.broken:
            raise sqlite3.OperationalError("secret")
        self.let_go.wait(self.seconds)
        return UserRow(UserState(("i01",), (5,), 1)) if user_id == "u" else None

    def close(self) -> None:
        pass


def test_the_reader_waits_only_so_long_and_then_leaves_the_store_alone() -> None:
    store, counted = Slow(), list[str]()
    reader = FeatureReader(lambda: store, 0.05, counted.append)

    async def run() -> None:
        assert await reader.user("u") is not None
        assert await reader.user("nobody") is None
        store.seconds = 10
        began = time.monotonic()
        assert await reader.user("u") is None
        assert [await reader.user("u") for _ in range(7)] == [None] * 7
        assert time.monotonic() - began < 1
        assert counted == ["missing"] + ["timeout"] * 3 + ["paused"] * 5
        store.let_go.set()
        reader._again = 0
        store.seconds = 0
        assert await reader.user("u") is not None
        store.broken = True
        assert await reader.user("u") is None
        assert counted[-1] == "error"

    reader.start()
    asyncio.run(run())
    reader.stop()
