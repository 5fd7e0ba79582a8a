"""Events are in the very next list of their user; a deleted user is a stranger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_client import Live, live
from tiny_bundle import N_ITEMS, events, make_bundle

from recsys.bundle import load_bundle
from recsys.recommender import Query, Recommender

LAST = int(events().timestamps[-1])  # type: ignore[index]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def endpoint(bundle: Path, tmp_path: Path) -> Iterator[Live]:
    with live(bundle, tmp_path / "state") as endpoint:
        yield endpoint


def test_events_are_in_the_next_list(endpoint: Live, bundle: Path) -> None:
    recommender = Recommender(load_bundle(bundle))
    assert endpoint.ask(user_id="u07")["history_source"] == "bundle"
    told = endpoint.happen(("u07", "i05", LAST + 1), ("u07", "i09", LAST + 2))
    assert told == {"accepted": 2, "repeated": 0, "unknown": []}
    answer = endpoint.ask(user_id="u07", k=N_ITEMS)
    store = recommender.bundle.recent
    assert store is not None and recommender.bundle.seen is not None
    recent = recommender.bundle.item_ids.decode(store.items[store.offsets[7] : store.offsets[8]])
    seen = recommender.bundle.seen
    before = recommender.bundle.item_ids.decode(seen.items[seen.offsets[7] : seen.offsets[8]])
    query = Query(history=[*recent, "i05", "i09"], before=before, k=N_ITEMS)
    [expected] = recommender.recommend([query])
    assert [row["item_id"] for row in answer["items"]] == expected.items
    assert not {"i05", "i09", *before} & set(expected.items)


def test_a_stranger_becomes_somebody(endpoint: Live) -> None:
    assert endpoint.ask(user_id="new")["fallback"] == "unknown_user"
    endpoint.happen(("new", "i05", 100), ("new", "i09", 50))
    answer = endpoint.ask(user_id="new")
    assert (answer["fallback"], answer["history_source"]) == (None, "live_events")
    timed = [{"item": "i05", "time": 100}, {"item": "i09", "time": 50}]
    assert answer["items"] == endpoint.ask(history=timed)["items"]


def test_the_same_event_again_changes_nothing(endpoint: Live) -> None:
    endpoint.happen(("new", "i05", 100))
    before = endpoint.ask(user_id="new")["items"]
    assert endpoint.happen(("new", "i05", 100)) == {"accepted": 0, "repeated": 1, "unknown": []}
    assert endpoint.ask(user_id="new")["items"] == before
    assert endpoint.happen(("new", "i05"), event_id="e1")["accepted"] == 1
    assert endpoint.happen(("new", "i05"), event_id="e1")["repeated"] == 1
    assert endpoint.metric('recsys_events_total{result="repeated"}') == 2


def test_repeats_at_the_same_time_from_many_clients(endpoint: Live) -> None:
    sent = [("crowd", f"i{i % 40 + 1:02d}", 1000 + i) for i in range(30)] * 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(endpoint.happen, sent))
    assert sum(answer["accepted"] for answer in answers) == 30
    history = endpoint.service.ledger.events_of("crowd")  # type: ignore[union-attr]
    assert sorted(event.time for event in history) == list(range(1000, 1030))


def test_events_survive_a_restart_and_another_model(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        endpoint.happen(("new", "i05", 100))
        before = endpoint.ask(user_id="new")["items"]
    with live(bundle, tmp_path / "state") as endpoint:
        assert endpoint.ask(user_id="new")["items"] == before


def test_unknown_items_are_named_and_wait_for_a_model(endpoint: Live) -> None:
    assert endpoint.happen(("new", "ghost", 5), ("new", "i05", 6))["unknown"] == ["ghost"]
    answer = endpoint.ask(user_id="new")
    assert (answer["unknown"], answer["fallback"]) == (["ghost"], None)


def test_a_deleted_user_is_a_stranger_for_good(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        endpoint.happen(("u07", "i05", LAST + 1))
        endpoint.ask(user_id="u07")
        response = endpoint.client.delete("/v1/users/u07")
        assert response.json() == {"user_id": "u07", "deleted": True}
        stranger = endpoint.ask(history=[])["items"]
        answer = endpoint.ask(user_id="u07")
        assert (answer["items"], answer["fallback"]) == (stranger, "empty_history")
        endpoint.happen(("u07", "i09", LAST + 9))
        assert endpoint.ask(user_id="u07")["items"] == endpoint.ask(history=["i09"])["items"]
    with live(bundle, tmp_path / "state") as endpoint:
        assert endpoint.ask(user_id="u07")["items"] == endpoint.ask(history=["i09"])["items"]
    lines = "".join(p.read_text() for p in (tmp_path / "state" / "answers").glob("*.jsonl"))
    users = [json.loads(line)["user"] for line in lines.splitlines()]
    assert users.count("u07") == 3  # of four: the one from before the deletion is gone


def test_an_endpoint_without_state_says_so(bundle: Path) -> None:
    with live(bundle, None) as endpoint:
        response = endpoint.client.post(
            "/v1/events", json={"events": [{"user_id": "u", "item": "i01"}]}
        )
        assert response.status_code == 409
        assert "--state" in response.json()["error"]


def test_times_of_the_future_are_refused(endpoint: Live) -> None:
    milliseconds = int(time.time() * 1000)
    event = {"user_id": "u", "item": "i01", "time": milliseconds}
    response = endpoint.client.post("/v1/events", json={"events": [event]})
    assert response.status_code == 422
    [problem] = response.json()["problems"]
    assert problem["place"] == "body.events.0.time"
    assert "not milliseconds" in problem["fix"]


def test_a_text_is_no_key_of_an_event_that_happened(endpoint: Live) -> None:
    event = {"user_id": "u", "item": "i01", "text": {"title": "amber"}}
    response = endpoint.client.post("/v1/events", json={"events": [event]})
    assert response.status_code == 422
    [problem] = response.json()["problems"]
    assert problem["place"] == "body.events.0.text"
    assert problem["problem"].startswith("is a key that")


def test_answers_are_logged_with_what_was_shown(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path) as endpoint:
        known = endpoint.ask(user_id="u07", k=3)
        other = endpoint.ask(history=["i01", "i02"], k=2)
    [file] = (tmp_path / "answers").glob("answers-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["request"] for line in lines] == [known["request_id"], other["request_id"]]
    assert lines[0]["user"] == "u07" and lines[0]["history"] is None
    assert lines[0]["items"] == [row["item_id"] for row in known["items"]]
    assert lines[1]["history"] == ["i01", "i02"]
    assert lines[1]["model"] == bundle.name
