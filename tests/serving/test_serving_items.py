"""The catalogue lives: new items are in lists at once, removed ones never again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from live_client import Live, live
from tiny_bundle import N_ITEMS, fitted, items_frame, make_bundle

from recsys.words import Words

WORDS = ["red", "green", "blue", "yellow"]


def titled() -> pl.DataFrame:
    titles = [f"{WORDS[i % 4]} thing {i}" for i in range(1, N_ITEMS + 1)]
    return items_frame().with_columns(pl.Series("title", titles))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"), items=titled())


@pytest.fixture
def endpoint(bundle: Path, tmp_path: Path) -> Iterator[Live]:
    with live(bundle, tmp_path / "state") as endpoint:
        yield endpoint


def test_a_new_item_is_in_lists_at_once(endpoint: Live) -> None:
    best = endpoint.items(history=["i05"])[0]
    told = endpoint.add("new", attributes={"title": "Brand new"}, like=[best, "ghost"])
    assert told["placed_by"] == "like" and told["unknown"] == ["ghost"] and told["searchable"]
    rows = endpoint.ask(history=["i05"], k=3)["items"]
    assert [row["item_id"] for row in rows[:2]] == [best, "new"]
    assert rows[1]["title"] == "Brand new"
    assert rows[1]["score"] == pytest.approx(rows[0]["score"], rel=1e-5)
    assert endpoint.client.get("/v1/model").json()["catalogue"]["added"] == 1


def test_its_texts_place_it_where_nothing_else_does(endpoint: Live) -> None:
    told = endpoint.add("new", attributes={"title": "A red thing 12"})
    assert (told["placed_by"], told["searchable"]) == ("words", True)
    assert told["like"][0] == "i12"
    assert "new" in endpoint.items(history=["i05"], k=N_ITEMS + 1)


def test_a_vector_places_it_too(endpoint: Live) -> None:
    index = endpoint.service.model.base.index
    assert index is not None
    told = endpoint.add("new", vector=index.vectors[9].tolist())
    assert told["placed_by"] == "vector"
    alike = endpoint.client.post("/v1/similar", json={"items": ["new"], "k": 1}).json()
    assert alike["lists"][0]["items"][0]["item_id"] == "i09"
    wrong = endpoint.client.post("/v1/items", json={"item_id": "w", "vector": [1.0]})
    assert wrong.status_code == 422 and "vectors of 8 numbers" in wrong.json()["error"]


def test_what_has_no_place_is_refused(endpoint: Live) -> None:
    for body in ({"like": ["ghost"]}, {"attributes": {"title": "unheard"}}, {}):
        response = endpoint.client.post("/v1/items", json={"item_id": "new", **body})
        assert response.status_code == 422, body
        assert "like" in response.json()["error"]
    for vector in ([0.0] * 8, [1.7e308] * 8):
        response = endpoint.client.post("/v1/items", json={"item_id": "new", "vector": vector})
        assert response.status_code == 422, vector
    both = endpoint.client.post("/v1/items", json={"item_id": "n", "like": ["i01"], "vector": [1]})
    assert both.json()["problems"][0]["problem"] == "has both of like and vector"


def test_removed_is_never_again_and_added_again_is_back(endpoint: Live) -> None:
    best = endpoint.items(history=["i05"])[0]
    response = endpoint.client.delete(f"/v1/items/{best}")
    assert response.json() == {"item_id": best, "known": True}
    assert best not in endpoint.items(history=["i05"], k=N_ITEMS)
    assert endpoint.items(history=["i05"], allow=[best]) == []
    assert endpoint.add(best)["placed_by"] == "model"
    assert endpoint.items(history=["i05"])[0] == best
    assert endpoint.client.delete("/v1/items/a%2Fb%20c").json() == {
        "item_id": "a/b c",
        "known": False,
    }


def test_it_lives_through_restarts_and_other_models(bundle: Path, tmp_path: Path) -> None:
    state, second = tmp_path / "state", make_bundle(tmp_path, model=fitted(seed=9), items=titled())
    with live(bundle, state, find=lambda: second) as endpoint:
        endpoint.add("new", like=["i07"])
        endpoint.client.delete("/v1/items/i08")
        assert endpoint.client.post("/v1/model/reload").json()["result"] == "loaded"
        items = endpoint.items(history=["i05"], k=N_ITEMS + 1)
        assert "new" in items and "i08" not in items
        assert abs(items.index("new") - items.index("i07")) == 1
    with live(second, state) as endpoint:
        assert endpoint.items(history=["i05"], k=N_ITEMS + 1) == items


def test_a_model_that_knows_the_item_takes_over(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        endpoint.add("i99", like=["i07"])
    named = titled().with_columns(item_id=pl.col("item_id").replace("i40", "i99"))
    other = make_bundle(tmp_path, items=named)
    with live(other, tmp_path / "state") as endpoint:
        assert endpoint.client.get("/v1/model").json()["catalogue"]["added"] == 0
        assert endpoint.items(history=["i05"], k=100).count("i99") == 1


def test_a_change_by_another_process_is_taken_over(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path) as one, live(bundle, tmp_path, watch=0.05) as two:
        one.add("new", like=["i07"])
        for _ in range(100):
            if "new" in two.items(history=["i05"], k=N_ITEMS + 1):
                return
    pytest.fail("the other process never saw the item")


def test_items_are_found_by_their_words(endpoint: Live) -> None:
    def found(q: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = endpoint.client.get("/v1/items", params={"q": q}).json()[
            "items"
        ]
        return rows

    assert found("RED thing 12") == [{"item_id": "i12", "title": "red thing 12"}]
    assert {row["item_id"] for row in found("thi red")} == set()
    assert len(found("thing re")) == 10
    assert found("") == found("nothing") == found("!?") == []
    assert endpoint.client.get("/v1/items").status_code == 422


def test_words_weigh_by_their_rarity() -> None:
    table = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", *(f"x{i}" for i in range(40))],
            "title": ["rare gem", "rare", "gem stone stone", None, *["filler"] * 40],
            "genre": ["g1", "g2", "g2", "g1", *["g3"] * 40],
        }
    )
    words = Words(table)
    alike = words.alike({"title": "Rare gem"}, 3)
    assert [item for item, _ in alike] == ["a", "b", "c"]
    assert 0 < alike[2][1] < alike[0][1] <= 1
    assert words.alike({"title": "filler"}, 3) == []  # says nothing, nearly all have it
    assert [item for item, _ in words.alike({"kind": "g1"}, 5)] == ["d", "a"]
