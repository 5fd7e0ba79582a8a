"""Published playlists over HTTP and on the command line are those of the recommender."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_client import Live, live
from tiny_bundle import events, fitted, make_bundle, users_frame
from typer.testing import CliRunner

from pipelines.cli import app
from recsys.bundle import load_bundle
from recsys.config import IndexConfig, ModelConfig, Seq2SeqConfig, UniRecConfig
from recsys.models import EncoderModel
from recsys.playlist_index import build_playlists
from recsys.recommender import PlaylistsForSong, Query, Recommender, SimilarPlaylists

ITEMS = ["i05", "i09", "i11", "i05"]
CONFIG = Seq2SeqConfig(width=8, hidden=12, max_length=6)


def make_playlists(folder: Path, config: ModelConfig) -> Path:
    model = fitted(config)
    assert isinstance(model, EncoderModel)
    playlists = build_playlists(model, events(), users_frame()["user_id"], IndexConfig())
    return make_bundle(folder, config, model=model, playlists=playlists)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_playlists(tmp_path_factory.mktemp("bundles"), CONFIG)


@pytest.fixture(scope="module")
def endpoint(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(bundle, tmp_path_factory.mktemp("state")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender(load_bundle(bundle))


def asked(endpoint: Live, what: str, **body: Any) -> dict[str, Any]:
    response = endpoint.client.post(f"/v1/playlists/{what}", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def names(answer: dict[str, Any]) -> list[str]:
    return [row["playlist"] for row in answer["playlists"]]


def test_similar_playlists(endpoint: Live, recommender: Recommender) -> None:
    [expected] = recommender.similar_playlists([SimilarPlaylists(ITEMS, k=4)])
    answer = asked(endpoint, "similar", items=ITEMS, k=4)
    assert names(answer) == expected.playlists
    assert (answer["repeated"], answer["dropped"], answer["fallback"]) == (1, 0, None)
    [own] = recommender.similar_playlists([SimilarPlaylists(playlist="u05", k=4)])
    assert names(asked(endpoint, "similar", playlist="u05", k=4)) == own.playlists


def test_playlists_for_a_song(endpoint: Live, recommender: Recommender) -> None:
    for holding in ("any", "with", "without"):
        [expected] = recommender.playlists_for_song([PlaylistsForSong("i07", holding, 5)])  # type: ignore[arg-type]
        answer = asked(endpoint, "for-song", item="i07", holding=holding, k=5)
        assert names(answer) == expected.playlists
        assert [row["holds"] for row in answer["playlists"]] == expected.holds


def test_songs_for_a_playlist(endpoint: Live, recommender: Recommender) -> None:
    songs = recommender.songs_of("u05")
    [expected] = recommender.recommend([Query(user_id="u05", k=5, exclude_seen=True)])
    answer = asked(endpoint, "songs", playlist="u05", k=5)
    assert [row["item_id"] for row in answer["items"]] == expected.items
    assert not {row["item_id"] for row in answer["items"]} & set(songs)
    assert asked(endpoint, "songs", items=[], k=3)["fallback"] == "empty_history"


def test_songs_for_a_playlist_by_a_model_that_reads_times(tmp_path: Path) -> None:
    """A published list has its own times; items have none, and that is said."""
    config = UniRecConfig(width=8, blocks=1, max_length=6)
    bundle = make_playlists(tmp_path, config)
    [expected] = Recommender(load_bundle(bundle)).recommend(
        [Query(user_id="u05", k=5, exclude_seen=True)]
    )
    with live(bundle, None) as timed:
        answer = asked(timed, "songs", playlist="u05", k=5)
        assert [row["item_id"] for row in answer["items"]] == expected.items
        refused = timed.client.post("/v1/playlists/songs", json={"items": ["i05", "i09"]})
        assert refused.status_code == 422 and "2 items has no times" in refused.text


def test_lists_of_nothing_known_have_no_answer_and_say_so(endpoint: Live) -> None:
    empty = asked(endpoint, "similar", items=[])
    assert (empty["playlists"], empty["fallback"]) == ([], "empty_history")
    ghost = asked(endpoint, "similar", items=["ghost", "ghost"])
    assert (ghost["fallback"], ghost["unknown"]) == ("unknown_history", ["ghost"])
    assert asked(endpoint, "for-song", item="ghost")["fallback"] == "unknown_history"
    long = asked(endpoint, "similar", items=[f"i{n:02d}" for n in range(1, 10)])
    assert long["dropped"] == 3 and len(long["playlists"]) == 10


@pytest.mark.parametrize(
    ("what", "body", "says"),
    [
        ("similar", {}, "has neither of items and playlist"),
        ("similar", {"items": ["i05"], "playlist": "u05"}, "has both of items and playlist"),
        ("similar", {"playlist": "nobody"}, "is none of the 11 that bundle tiny holds"),
        ("songs", {"playlist": "nobody"}, "is none of the 11"),
        ("similar", {"items": [None]}, "is no id"),
        ("similar", {"items": ["i05"], "k": 0}, "is less than 1"),
        ("for-song", {"k": 3}, "body.item"),
        ("for-song", {"item": "i05", "holding": "maybe"}, "any, without, with"),
        ("for-song", {"itm": "i05"}, "did you mean 'item'"),
    ],
)
def test_bad_requests_are_named(endpoint: Live, what: str, body: Any, says: str) -> None:
    response = endpoint.client.post(f"/v1/playlists/{what}", json=body)
    assert response.status_code == 422
    assert says in response.text


def test_a_bundle_without_playlists_says_how_to_get_them(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path / "plain"), tmp_path / "state") as endpoint:
        response = endpoint.client.post("/v1/playlists/similar", json={"items": ["i05"]})
        assert response.status_code == 422
        assert "publish.playlists.enabled=true" in response.text


def test_new_items_take_part(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        endpoint.add("new", like=["i05"])
        one, other = (asked(endpoint, "similar", items=[item, "i09"]) for item in ("new", "i05"))
        assert one["unknown"] == [] and names(one) == names(other)
        assert asked(endpoint, "for-song", item="new", holding="any")["fallback"] is None


def test_a_deleted_users_list_is_found_no_more(bundle: Path, tmp_path: Path) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        before = names(asked(endpoint, "similar", items=ITEMS))
        assert endpoint.client.delete(f"/v1/users/{before[0]}").status_code == 200
        assert names(asked(endpoint, "similar", items=ITEMS)) == before[1:]
        for what in ("similar", "songs"):
            body = {"playlist": before[0]}
            response = endpoint.client.post(f"/v1/playlists/{what}", json=body)
            assert response.status_code == 422 and "was deleted" in response.text


def test_a_model_that_fails_has_rungs_below_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(bundle, tmp_path / "state") as endpoint:
        ladder = endpoint.service.model.playlist_ladder
        like, _ = ladder.similar(SimilarPlaylists(ITEMS, k=4))
        song, _ = ladder.for_song(PlaylistsForSong("i07", k=4))

        def broken(requests: object) -> None:
            raise RuntimeError

        assert asked(endpoint, "similar", items=ITEMS)["source"] == "model"
        for name in ("similar_playlists", "playlists_for_song", "recommend"):
            monkeypatch.setattr(endpoint.service.model.recommender, name, broken)
        answer = asked(endpoint, "similar", items=ITEMS, k=4)
        assert (answer["source"], names(answer)) == ("shared_songs", like.playlists)
        answer = asked(endpoint, "for-song", item="i07", k=4)
        assert (answer["source"], names(answer)) == ("item_to_item", song.playlists)
        answer = asked(endpoint, "songs", playlist="u05", k=5)
        held = set(endpoint.service.model.recommender.songs_of("u05"))
        listed = {row["item_id"] for row in answer["items"]}
        assert answer["source"] == "item_to_item" and len(listed) == 5 and not listed & held
        assert endpoint.metric('recsys_lists_total{source="shared_songs"}') == 1
        assert endpoint.metric('recsys_lists_total{source="item_to_item"}') == 2
        assert endpoint.metric('recsys_lists_total{source="model"}') == 1
        assert endpoint.metric("recsys_model_failures_total") == 3


def test_the_command_line_prints_the_same(bundle: Path, recommender: Recommender) -> None:
    run = CliRunner().invoke
    done = run(app, ["playlists", "similar", str(bundle), "--items", ",".join(ITEMS), "--json"])
    [expected] = recommender.similar_playlists([SimilarPlaylists(ITEMS)])
    assert json.loads(done.output)["playlists"] == expected.playlists
    done = run(app, ["playlists", "for-song", str(bundle), "--item", "i07", "--holding", "with"])
    assert done.exit_code == 0 and "holds it" in done.output
    done = run(app, ["playlists", "songs", str(bundle), "--playlist", "u05", "-k", "3"])
    assert done.exit_code == 0 and len(done.output.splitlines()) == 4
    done = run(app, ["playlists", "similar", str(bundle), "--items", "ghost"])
    assert "nothing known was asked about (unknown_history)" in done.output
