"""Strategies and continuations over HTTP are those of the recommender."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from live_client import Live, live
from tiny_bundle import N_ITEMS, events, items_frame, make_bundle

from recsys.bundle import load_bundle
from recsys.config import MarkovConfig
from recsys.recommender import Continue, Query, Recommender, SearchSettings

HISTORY = ["i05", "i09", "i11"]
LAST = int(events().timestamps[-1])  # type: ignore[index]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artists = pl.Series("artist", [f"artist {i % 6}" for i in range(N_ITEMS)])
    folder = tmp_path_factory.mktemp("bundles")
    return make_bundle(folder, items=items_frame().with_columns(artists))


@pytest.fixture(scope="module")
def endpoint(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(bundle, tmp_path_factory.mktemp("state")) as endpoint:
        yield endpoint


def continued(endpoint: Live, **body: Any) -> dict[str, Any]:
    response = endpoint.client.post("/v1/playlists/continue", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("strategy", ["top", "beam", "diverse", "mmr", "dpp"])
def test_a_strategy_gives_the_recommenders_list(
    endpoint: Live, bundle: Path, strategy: Any
) -> None:
    settings = SearchSettings(groups=3, beams=2, diversity=0.4, candidates=20)
    query = Query(history=HISTORY, k=6, strategy=strategy, settings=settings)
    [expected] = Recommender(load_bundle(bundle)).recommend([query])
    body = {"strategy": strategy, "groups": 3, "beams": 2, "diversity": 0.4, "candidates": 20}
    answer = endpoint.ask(history=HISTORY, k=6, **body)
    assert answer["strategy"] == strategy
    assert [row["item_id"] for row in answer["items"]] == expected.items


def test_the_knob_turns_the_list(endpoint: Live) -> None:
    near, far = (endpoint.items(history=HISTORY, strategy="mmr", diversity=d) for d in (0.0, 1.0))
    assert near == endpoint.items(history=HISTORY)
    assert near != far


def test_continuations_are_several_lists_within_the_rules(endpoint: Live, bundle: Path) -> None:
    body = {"steps": 5, "groups": 2, "beams": 2, "diversity": 0.7, "candidates": 40}
    rules: dict[str, Any] = {"exclude": ["i01"], "required": ["i20"], "at_most": {"artist": 1}}
    answer = continued(endpoint, history=HISTORY, **body, **rules)
    settings = SearchSettings(groups=2, beams=2, diversity=0.7, candidates=40)
    asked = Continue(history=HISTORY, steps=5, settings=settings, **rules)
    [expected] = Recommender(load_bundle(bundle)).continue_lists([asked])
    lists = [[row["item_id"] for row in one["items"]] for one in answer["lists"]]
    assert lists == [one.items for one in expected.lists]
    assert answer["exact"] and answer["history_source"] == "request"
    for one, items in zip(answer["lists"], lists, strict=True):
        assert "i20" in items and not {"i01", *HISTORY} & set(items)
        assert sum(row["score"] for row in one["items"]) == pytest.approx(one["log_probability"])


def test_live_events_and_new_items_take_part(endpoint: Live) -> None:
    endpoint.add("new", like=["i20"])
    answer = continued(endpoint, history=HISTORY, steps=4, required=["new"])
    assert all("new" in [row["item_id"] for row in one["items"]] for one in answer["lists"])
    endpoint.happen(("u07", "i30", LAST + 3))
    answer = continued(endpoint, user_id="u07", steps=4)
    assert answer["history_source"] == "bundle"
    assert all("i30" not in [row["item_id"] for row in one["items"]] for one in answer["lists"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"required": ["ghost"]}, "is not in the catalogue"),
        ({"required": ["i05"]}, "may not be shown"),
        ({"allow": ["i01"], "steps": 5}, "5"),
        ({"at_most": {"colour": 1}}, "no attribute"),
        ({"dissimilarity": "category"}, "label"),
        ({"groups": 16, "beams": 16}, "at most 32 lists"),
        ({"groups": 4, "candidates": 2}, "no more than candidates"),
        ({"required": ["i01", "i02"], "steps": 1}, "as many required items as steps"),
        ({"at_most": {"artist": 0}}, "body.at_most.artist"),
        ({"dissimilarity": "x"}, "is none of the words"),
    ],
)
def test_what_cannot_be_is_said(endpoint: Live, body: dict[str, Any], said: str) -> None:
    response = endpoint.client.post("/v1/playlists/continue", json={"history": HISTORY, **body})
    assert response.status_code == 422
    assert said in response.text


def test_a_model_that_only_ranks_says_so(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path, MarkovConfig()), None) as endpoint:
        for body in ({"strategy": "diverse"}, {"strategy": "mmr"}):
            response = endpoint.client.post("/v1/recommend", json={"history": ["i05"], **body})
            assert response.status_code == 422 and "strategy top" in response.text
        assert endpoint.items(history=["i05"])
