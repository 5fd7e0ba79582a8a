"""A history that mixes known items and raw texts: what each text is read as, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_client import live
from text_bundle import frozen_bundle, learned_bundle, recformer_bundle, titled
from tiny_bundle import make_bundle

from features.text_tower import TextTower
from recsys.bundle import load_bundle
from recsys.config.recformer import LexicalConfig
from recsys.errors import DataError
from recsys.growth import NewItem
from recsys.recommender import Continue, ItemText, Query, Recommender
from serving.rules import MAX_TEXTS
from serving.text_places import TextPlaces

pytest.importorskip("tokenizers")

OPEN = {"exclude_seen": False, "k": 40}


def text_of(item: int) -> dict[str, Any]:
    return {"text": {"title": titled()["title"][item - 1]}}


@pytest.mark.parametrize("make", [frozen_bundle, learned_bundle, recformer_bundle])
def test_a_text_is_read_as_the_item_most_like_it(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with live(make(tmp_path), None) as endpoint:
        mixed = endpoint.ask(history=["i05", text_of(17), "i09"], **OPEN)
        known = endpoint.ask(history=["i05", "i17", "i09"], **OPEN)
        assert mixed["items"] == known["items"] and mixed["unknown"] == []
        assert mixed["texts"] == [{"place": 1, "read_as": "i17"}]
        assert mixed["items"] != endpoint.ask(history=["i05", "i09"], **OPEN)["items"]
        # What it is read as was not had by anybody, and may be in the list.
        assert "i17" in endpoint.items(history=["i05", text_of(17)], k=40)
        lists = endpoint.client.post(
            "/v1/playlists/continue", json={"history": [text_of(17), "i09"], "steps": 3}
        ).json()
        assert lists["texts"] == [{"place": 0, "read_as": "i17"}] and lists["lists"]
        assert endpoint.metric('recsys_history_texts_total{result="read"}') == 3


def test_texts_have_their_time_and_what_says_nothing_is_left_out(tmp_path: Path) -> None:
    with live(frozen_bundle(tmp_path), tmp_path / "state") as endpoint:
        late = {**text_of(17), "time": 30}
        timed = [late, {"item": "i05", "time": 10}, {"item": "ghost", "time": 20}]
        answer = endpoint.ask(history=timed, **OPEN)
        assert answer["items"] == endpoint.ask(history=["i05", "i17"], **OPEN)["items"]
        assert (answer["unknown"], answer["texts"][0]["place"]) == (["ghost"], 0)
        silent = {"text": {"title": "  ", "colour": "amber"}}  # the model reads titles
        answer = endpoint.ask(history=["i05", silent], **OPEN)
        assert answer["texts"] == [{"place": 1, "read_as": None}]
        assert answer["items"] == endpoint.ask(history=["i05"], **OPEN)["items"]
        assert endpoint.ask(history=[silent])["fallback"] == "unknown_history"
        endpoint.add("new", attributes={"title": "amber desk"})
        assert endpoint.ask(history=["new", text_of(17)], **OPEN)["texts"][0]["read_as"]
    logged = (next((tmp_path / "state" / "answers").glob("*.jsonl"))).read_text(encoding="utf-8")
    assert "lamp" not in logged


def test_what_a_library_is_asked_is_the_same(tmp_path: Path) -> None:
    bundle = load_bundle(learned_bundle(tmp_path))
    text = ItemText({"title": titled()["title"][16]})
    reading = Recommender(bundle, read_texts=TextPlaces(bundle).read)
    queries = [Query(history=["i05", one, "i09"], k=40) for one in (text, "i17")]
    mixed, known = reading.recommend(queries)
    assert [item for item in mixed.items if item != "i17"] == known.items
    [lists] = reading.continue_lists([Continue(history=[text], steps=2)])
    assert lists.texts[0].read_as == "i17"
    with pytest.raises(DataError, match=r"holds texts \(the first at 1\), but bundle tiny"):
        Recommender(bundle).recommend(queries)


def test_a_text_is_not_read_as_an_item_that_was_removed(tmp_path: Path) -> None:
    bundle = load_bundle(learned_bundle(tmp_path))
    reading = Recommender(bundle, read_texts=TextPlaces(bundle).read)
    query = Query(history=[ItemText({"title": titled()["title"][16]})], k=5)
    assert reading.recommend([query])[0].texts[0].read_as == "i17"
    reading.removed = bundle.item_ids.encode(["i17"]).astype(np.int64)
    assert reading.recommend([query])[0].texts[0].read_as not in ("i17", None)


def test_a_model_that_reads_no_texts_says_so(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), None) as endpoint:
        for path in ("/v1/recommend", "/v1/playlists/continue"):
            refused = endpoint.client.post(path, json={"history": ["i05", text_of(17)]})
            assert refused.status_code == 422
            assert "the model of bundle tiny reads none" in refused.json()["error"]


def test_a_tower_that_cannot_read_here_is_not_the_end_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(frozen_bundle(tmp_path), None) as endpoint:

        def broken(self: Any, items: Any) -> None:
            raise DataError("no encoder here")

        monkeypatch.setattr("features.text_tower.TextTower.vectors", broken)
        for _ in range(2):
            refused = endpoint.client.post("/v1/recommend", json={"history": [text_of(17)]})
            assert refused.status_code == 422 and "no encoder here" not in refused.text
        assert endpoint.ask(history=["i05"])["source"] == "model"


def test_an_item_that_was_placed_keeps_its_words_when_the_reader_is_given_up(
    tmp_path: Path,
) -> None:
    places = TextPlaces(load_bundle(recformer_bundle(tmp_path, LexicalConfig())))
    item = NewItem("new", attributes={"title": "amber canyon"}, by_text=True)
    [before] = places.place([item])
    assert before.vector and before.bag
    places.tower = None
    assert places.place([item]) == (before,)
    [other] = places.place([NewItem("other", attributes={"title": "cobalt"}, by_text=True)])
    assert not other.vector and not other.bag


def test_texts_that_are_asked_for_again_are_kept_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.text_places.LATELY", 2)
    places = TextPlaces(load_bundle(recformer_bundle(tmp_path, LexicalConfig())))
    read: list[str] = []
    whole = TextPlaces._read
    monkeypatch.setattr(
        TextPlaces,
        "_read",
        lambda self, items: (read.extend(i["title"] for i in items), whole(self, items))[1],
    )
    for title in ("a", "b", "a", "c", "a", "b"):
        places.read([{"title": title}])
    assert read == ["a", "b", "c", "b"]  # b was the oldest when c came, though a was read first


@pytest.mark.parametrize("make", [frozen_bundle, recformer_bundle])
def test_a_text_at_which_the_tower_breaks_is_left_out_and_nobody_else_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    method = "vectors" if make is frozen_bundle else "sentences"
    whole, asked = getattr(TextTower, method), []

    def broken(self: TextTower, items: Any) -> Any:
        asked.append(len(items))
        if any(item["title"] == "odd" for item in items):
            raise RuntimeError("nobody foresaw this")
        return whole(self, items)

    monkeypatch.setattr(TextTower, method, broken)
    with live(make(tmp_path), tmp_path / "state") as endpoint:
        answer = endpoint.ask(history=["i05", {"text": {"title": "odd"}}, text_of(17)], **OPEN)
        assert answer["texts"] == [{"place": 1, "read_as": None}, {"place": 2, "read_as": "i17"}]
        assert answer["source"] == "model" and endpoint.metric("recsys_model_failures_total") == 0
        assert asked == [2, 1, 1]  # together, then each alone
        endpoint.ask(history=[text_of(17), text_of(3), text_of(4)])
        assert asked == [2, 1, 1, 2]  # what was read is known, what is new is read at once
        endpoint.add("new", attributes={"title": "odd"}, like=["i03"])  # placed by what it is like
        assert endpoint.ask(history=[{"text": {"title": "odd"}}])["fallback"] == "unknown_history"


@pytest.mark.parametrize(
    ("history", "place", "what", "allowed"),
    [
        ([text_of(1)] * (MAX_TEXTS + 1), "history", "has 21 items given by", "at most 20 of them"),
        ([{"text": {}}], "history.0.text", "is not allowed", "an object of 1 to 50 texts"),
        ([{"text": "amber"}], "history.0.text", "is not allowed", "an object of 1 to 50 texts"),
        ([{"text": {"title": 7}}], "history.0.text.title", "is not allowed", "at most 2000"),
        ([{"text": {"title": "x" * 2001}}], "history.0.text.title", "is not allowed", "2000 char"),
        ([{"text": {"title": "x"}, "tme": 1}], "history.0.tme", "is a key that", "text, time"),
        ([{"text": {"title": "x"}, "time": "now"}], "history.0.time", "is no whole", "seconds"),
        (["i05", {**text_of(1), "time": 1}], "history", "has times for 1 of 2", "a list of events"),
        ([{"texts": {}}], "history.0.item", "is missing", "a text of 1 to 512"),
    ],
)
def test_bad_texts_are_named(
    tmp_path: Path, history: Any, place: str, what: str, allowed: str
) -> None:
    with live(make_bundle(tmp_path), None) as endpoint:
        response = endpoint.client.post("/v1/recommend", json={"history": history})
        assert response.status_code == 422
        found = {one["place"]: one for one in response.json()["problems"]}[f"body.{place}"]
        assert found["problem"].startswith(what) and allowed in found["allowed"] and found["fix"]
