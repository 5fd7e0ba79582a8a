"""The lists before a history over HTTP: read by a model that learned from them, else named as unread."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_client import live
from tiny_bundle import make_bundle

from recsys.bundle import load_bundle
from recsys.config import LagMarkovConfig
from recsys.recommender import Query, Recommender
from serving.schemas import RecommendRequest

PREVIOUS = [["i30"], ["i01", "i02", "x"], ["i03", 5]]


def test_a_model_that_learned_from_them_reads_them(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, LagMarkovConfig(previous=2, previous_weight=3))
    query = Query(history=["i05"], previous=[["i01", "i02"], ["i03"]], k=5)
    [expected] = Recommender(load_bundle(bundle)).recommend([query])
    with live(bundle, None) as endpoint:
        answer = endpoint.ask(history=["i05"], previous=PREVIOUS, k=5)
        assert [row["item_id"] for row in answer["items"]] == expected.items
        scores = [row["score"] for row in answer["items"]]
        assert scores == pytest.approx(expected.scores, rel=1e-5)
        assert (answer["dropped_previous"], answer["unknown_previous"]) == (1, ["x", "5"])
        assert endpoint.ask(history=["i05"], k=5)["items"] != answer["items"]
        user = [endpoint.ask(user_id="u07", previous=p)["items"] for p in (None, [["i01"]])]
        assert user[0] != user[1]
        assert endpoint.client.get("/v1/model").json()["reads"]["previous"] == 2
        assert endpoint.metric('recsys_unknown_ids_total{field="previous"}') == 2
        assert endpoint.metric("recsys_unread_previous_lists_total") == 1
        body = {"history": ["i05"], "previous": PREVIOUS}
        lists = endpoint.client.post("/v1/playlists/continue", json=body)
        assert lists.status_code == 422 and "makes no lists item by item" in lists.text


def test_another_leaves_them_unread_and_says_so(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), None) as endpoint:
        plain = endpoint.ask(history=["i05"])
        told = endpoint.ask(history=["i05"], previous=PREVIOUS)
        assert told["items"] == plain["items"]
        assert (plain["dropped_previous"], told["dropped_previous"]) == (0, 3)
        assert endpoint.client.get("/v1/model").json()["reads"] == {
            "history": 6,
            "times": False,
            "previous": 0,
            "texts": [],
        }
        body = {"history": ["i05"], "previous": PREVIOUS, "steps": 2}
        lists = endpoint.client.post("/v1/playlists/continue", json=body).json()
        assert (lists["dropped_previous"], lists["unknown_previous"]) == (3, [])
        assert endpoint.metric("recsys_unread_previous_lists_total") == 6


def test_the_documentation_has_an_example() -> None:
    examples = RecommendRequest.model_json_schema()["examples"]
    assert sum("previous" in example for example in examples) == 1
