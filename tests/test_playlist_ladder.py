"""The rungs below a model that finds playlists, against slow counts over the lists themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import N_USERS, events, fitted, item_name, make_bundle, users_frame

from recsys.bundle import load_bundle
from recsys.config import IndexConfig, Seq2SeqConfig
from recsys.errors import DataError
from recsys.fallback import ITEM_TO_ITEM
from recsys.models import EncoderModel
from recsys.playlist_index import build_playlists
from recsys.playlist_ladder import SHARED_LISTS, SHARED_SONGS, PlaylistLadder
from recsys.recommender import PlaylistsForSong, Recommender, SimilarPlaylists

CONFIG = Seq2SeqConfig(width=8, hidden=12, max_length=6)
STORE = events()
LISTS = {
    f"u{u:02d}": {item_name(i) for i in STORE.items[STORE.offsets[u] : STORE.offsets[u + 1]]}
    for u in range(1, N_USERS)
}
"""Every playlist's songs; user 0 has none, and no playlist."""


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    model = fitted(CONFIG)
    assert isinstance(model, EncoderModel)
    playlists = build_playlists(model, events(), users_frame()["user_id"], IndexConfig())
    folder = tmp_path_factory.mktemp("bundles")
    return Recommender(load_bundle(make_bundle(folder, CONFIG, model=model, playlists=playlists)))


@pytest.fixture
def ladder(recommender: Recommender) -> PlaylistLadder:
    return PlaylistLadder(recommender)


def best(weights: dict[str, float], among: set[str]) -> list[str]:
    """Rank playlists by the sum of their songs' weights over the root of how many they hold."""
    score = {
        name: sum(weights.get(song, 0) for song in LISTS[name]) / math.sqrt(len(LISTS[name]))
        for name in among
    }
    return sorted((n for n in among if score[n] > 0), key=lambda n: (-round(score[n], 9), n))


def alike(recommender: Recommender, *newest: str) -> dict[str, float]:
    votes: dict[str, float] = {}
    near = recommender.similar(newest, 50)
    for age, song in enumerate(newest):
        for rank, other in enumerate(near[song].items, 1):
            votes[other] = votes.get(other, 0) + 1 / ((1 + age) * rank)
    return votes


def broken(*arguments: Any) -> None:
    raise RuntimeError


def test_like_a_list_are_those_that_share_songs_then_those_with_songs_alike(
    ladder: PlaylistLadder, recommender: Recommender
) -> None:
    items = ["i05", "ghost", "i09", "i05"]
    found, rung = ladder.similar(SimilarPlaylists(items, k=N_USERS))
    first = best({"i05": 1, "i09": 1}, set(LISTS))
    rest = best(alike(recommender, "i05", "i09"), set(LISTS) - set(first))
    assert 0 < len(first) < len(LISTS) and rest
    assert (rung, found.playlists) == (SHARED_SONGS, first + rest)
    assert found.scores == [1 / place for place in range(1, len(found.playlists) + 1)]
    assert (found.unknown, found.repeated, found.dropped) == (["ghost"], 1, 0)


def test_what_a_rung_fills_asks_no_rung_below(
    ladder: PlaylistLadder, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = best({"i05": 1, "i09": 1}, set(LISTS))
    asked: list[Any] = []
    monkeypatch.setattr(recommender, "nearest", lambda *given: asked.append(given) or [])
    few, _ = ladder.similar(SimilarPlaylists(["i05", "i09"], k=2))
    assert few.playlists == first[:2] and asked == []
    ladder.similar(SimilarPlaylists(["i05", "i09"], k=len(first) + 1))
    assert len(asked) == 1


def test_a_published_list_is_not_like_itself(ladder: PlaylistLadder) -> None:
    found, rung = ladder.similar(SimilarPlaylists(playlist="u05", k=3))
    expected = best(dict.fromkeys(LISTS["u05"], 1), set(LISTS) - {"u05"})
    assert (rung, found.playlists) == (SHARED_SONGS, expected[:3])


@pytest.mark.parametrize("holding", ["any", "with", "without"])
def test_for_a_song_are_those_with_songs_alike(
    ladder: PlaylistLadder, recommender: Recommender, holding: Any
) -> None:
    found, rung = ladder.for_song(PlaylistsForSong("i07", holding, 4))
    holders = {name for name, songs in LISTS.items() if "i07" in songs}
    among = {"any": set(LISTS), "with": holders, "without": set(LISTS) - holders}[holding]
    assert holders and rung == ITEM_TO_ITEM
    assert found.playlists == best(alike(recommender, "i07"), among)[:4]
    assert found.holds == [name in holders for name in found.playlists]


def test_without_likeness_the_lists_that_songs_share_decide(
    ladder: PlaylistLadder, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "nearest", broken)
    found, rung = ladder.for_song(PlaylistsForSong("i07", "without", N_USERS))
    together = {
        song: np.mean(["i07" in songs for songs in LISTS.values() if song in songs])
        for song in set().union(*LISTS.values()) - {"i07"}
    }
    among = {name for name, songs in LISTS.items() if "i07" not in songs}
    expected = best({song: float(share) for song, share in together.items()}, among)
    assert expected and (rung, found.playlists) == (SHARED_LISTS, expected)
    like, rung = ladder.similar(SimilarPlaylists(["i05"], k=N_USERS))
    assert rung == SHARED_SONGS
    assert set(like.playlists) == {name for name, songs in LISTS.items() if "i05" in songs}


def test_a_song_that_no_list_holds_has_no_playlist_and_none_is_made_up(
    ladder: PlaylistLadder, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "nearest", broken)
    alone = next(n for n in map(item_name, range(1, 41)) if n not in set().union(*LISTS.values()))
    assert ladder.for_song(PlaylistsForSong(alone))[0].playlists == []
    assert ladder.similar(SimilarPlaylists([alone]))[0].playlists == []


def test_what_nobody_knows_and_what_is_malformed(ladder: PlaylistLadder, tmp_path: Path) -> None:
    empty, ghost = (ladder.similar(SimilarPlaylists(items))[0] for items in ([], ["ghost"]))
    assert (empty.playlists, empty.fallback) == ([], "empty_history")
    assert (ghost.fallback, ghost.unknown) == ("unknown_history", ["ghost"])
    assert ladder.for_song(PlaylistsForSong("ghost"))[0].fallback == "unknown_history"
    with pytest.raises(DataError, match="is none of the 11"):
        ladder.similar(SimilarPlaylists(playlist="nobody"))
    with pytest.raises(DataError, match="holding is 'maybe'"):
        ladder.for_song(PlaylistsForSong("i05", "maybe"))  # type: ignore[arg-type]
    plain = Recommender(load_bundle(make_bundle(tmp_path)))
    with pytest.raises(DataError, match="holds no playlists"):
        PlaylistLadder(plain).for_song(PlaylistsForSong("i05"))
