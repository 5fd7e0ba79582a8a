"""Published playlists: their vectors, the search for them, their place in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tiny_bundle import N_ITEMS, N_USERS, SASREC, events, fitted, make_bundle, users_frame

from recsys.bundle import load_bundle
from recsys.config import IndexConfig, Seq2SeqConfig, SetModelConfig
from recsys.config.sets import DeepSetsConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore
from recsys.errors import ArtifactError, DataError
from recsys.models import EncoderModel
from recsys.playlist_index import PlaylistIndex, build_playlists, by_length, list_vectors
from recsys.recommender import PlaylistsForSong, Recommender, SimilarPlaylists
from recsys.retrieval import Exclusion, Histories

CONFIGS: dict[str, Any] = {
    "sasrec": SASREC,
    "seq2seq": Seq2SeqConfig(width=8, hidden=12, max_length=6),
    "set": SetModelConfig(encoder=DeepSetsConfig(width=8), max_length=6),
}


def encoder(name: str) -> EncoderModel:
    model = fitted(CONFIGS[name])
    assert isinstance(model, EncoderModel)
    return model


def playlists_of(model: EncoderModel, **settings: Any) -> PlaylistIndex:
    return build_playlists(model, events(), users_frame()["user_id"], IndexConfig(), **settings)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_vectors_are_those_of_each_list_alone(name: str) -> None:
    model, store = encoder(name), events()
    chosen = np.array([7, 0, 11, 2])
    embeddings, queries = list_vectors(model, store, chosen)
    assert embeddings.shape == (4, model.embedding_width)
    for row, user in enumerate(chosen):
        items = store.items[store.offsets[user] : store.offsets[user + 1]].tolist()
        times = [[0] * len(items)]
        batch = batch_from_lists([items], times, model.max_length)
        np.testing.assert_allclose(embeddings[row], model.embed_lists(batch)[0], atol=1e-5)
        np.testing.assert_allclose(queries[row], model.encode_sequences(batch)[0], atol=1e-5)
    assert (embeddings[1] == 0).all()  # nobody's list is empty


def test_blocks_are_of_like_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.playlist_index.BLOCK", 2)
    blocks = by_length(np.array([5, 1, 9, 1, 3]))
    assert [block.tolist() for block in blocks] == [[1, 3], [4, 0], [2]]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_playlist_is_most_like_its_own_songs(name: str, tmp_path: Path) -> None:
    model = encoder(name)
    path = make_bundle(tmp_path, CONFIGS[name], model=model, playlists=playlists_of(model))
    recommender = Recommender(load_bundle(path))
    for user in ("u01", "u05", "u11"):
        [found] = recommender.similar_playlists([SimilarPlaylists(recommender.songs_of(user), k=3)])
        assert found.playlists[0] == user
        assert found.scores[0] == pytest.approx(1, abs=1e-5)
        [others] = recommender.similar_playlists([SimilarPlaylists(playlist=user, k=N_USERS)])
        assert user not in others.playlists and len(others.playlists) == N_USERS - 2
        assert others.playlists[:2] == found.playlists[1:]


def test_playlists_for_a_song_are_ranked_by_its_scores(tmp_path: Path) -> None:
    model = encoder("seq2seq")
    path = make_bundle(tmp_path, CONFIGS["seq2seq"], model=model, playlists=playlists_of(model))
    bundle = load_bundle(path)
    recommender, song = Recommender(bundle), "i07"
    ask = {h: PlaylistsForSong(song, h, N_USERS) for h in ("any", "with", "without")}  # type: ignore[arg-type]
    found = dict(zip(ask, recommender.playlists_for_song(list(ask.values())), strict=True))
    scores = {}
    for user in users_frame()["user_id"].to_list()[1:]:
        items = bundle.item_ids.encode(recommender.songs_of(user)).tolist()
        with torch.no_grad():
            batch = batch_from_lists([items], [[0] * len(items)], model.max_length)
            scores[user] = float(model.score(batch, torch.tensor([7]))[0, 0])
    expected = sorted(scores, key=lambda user: -scores[user])
    assert found["any"].playlists == expected
    np.testing.assert_allclose(found["any"].scores, [scores[u] for u in expected], atol=1e-4)
    holds = {user: song in recommender.songs_of(user) for user in scores}
    assert found["any"].holds == [holds[user] for user in expected]
    assert found["with"].playlists == [user for user in expected if holds[user]] != []
    assert found["without"].playlists == [user for user in expected if not holds[user]]


def test_the_bundle_tells_of_its_playlists_and_checks_them(tmp_path: Path) -> None:
    model = encoder("seq2seq")
    path = make_bundle(
        tmp_path, CONFIGS["seq2seq"], model=model, playlists=playlists_of(model, min_songs=5)
    )
    bundle = load_bundle(path)
    assert bundle.manifest["info"]["playlists"]["playlists"] == len(bundle.playlists or ()) == 9
    assert bundle.playlists is not None and bundle.playlists.users[1] == 3
    damaged = path / "playlists" / "alike" / "vectors.npy"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ArtifactError, match=r"alike/vectors\.npy is damaged"):
        load_bundle(path)


def test_what_cannot_be_published_is_refused(tmp_path: Path) -> None:
    model = encoder("sasrec")
    with pytest.raises(DataError, match="no list has 99 songs"):
        playlists_of(model, min_songs=99)
    with pytest.raises(ArtifactError, match="lists of users"):
        make_bundle(tmp_path, playlists=playlists_of(model), users=None)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (SimilarPlaylists(), "exactly one"),
        (SimilarPlaylists(["i01"], "u01"), "exactly one"),
        (SimilarPlaylists(["i01"], k=0), "k is 0"),
        (PlaylistsForSong("i01", "maybe"), "allowed are any, without, with"),  # type: ignore[arg-type]
    ],
)
def test_malformed_requests_are_refused(asked: Any, says: str, tmp_path: Path) -> None:
    model = encoder("sasrec")
    recommender = Recommender(load_bundle(make_bundle(tmp_path, playlists=playlists_of(model))))
    ask = (
        recommender.similar_playlists
        if isinstance(asked, SimilarPlaylists)
        else recommender.playlists_for_song
    )
    with pytest.raises(DataError, match=says):
        ask([asked])


def test_approximate_search_finds_what_exact_search_finds(tmp_path: Path) -> None:
    """1,000 lists by HNSW: recall at 10 against all compared; cosine and angle agree on the order."""
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 1000)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, N_ITEMS + 1, offsets[-1]).astype(np.int32)
    store = SequenceStore(items, offsets, N_ITEMS)
    names = pl.Series([f"l{n:04d}" for n in range(1000)])
    index = build_playlists(
        encoder("seq2seq"), store, names, IndexConfig(kind="hnsw", ef_search=64)
    )
    queries = index.alike.vectors[1:101]
    nothing = Histories.from_lists([[]] * 100)
    found, scores = index.alike.search(queries, 10, Exclusion(seen=False), nothing)
    cosines = queries @ index.alike.vectors[1:].T  # [100, 1000]
    true = cosines.topk(10).indices + 1
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(hits) / 10 > 0.98
    angular = torch.cdist(queries.double(), index.alike.vectors[1:].double())
    expected = (2 - 2 * cosines.double()).clamp(min=0).sqrt()
    torch.testing.assert_close(angular, expected, atol=2e-3, rtol=0)
    assert (scores.diff(dim=1) <= 0).all()
