"""What a request about published playlists gets when the model fails, each use counted.

    playlists like a list:   model -> shared_songs -> item_to_item
    playlists for a song:    model -> item_to_item -> shared_lists

A rung gives songs a weight w, and playlists P, each a set of songs, are ranked by

    score(P) = sum over s in P of w_s / sqrt(|P|)

`shared_songs`: w is 1 for the songs of the list, which ranks as the cosine of two sets does.
`item_to_item`: w are the places that songs have among those most like the newest of the list, or like
the song (see `recsys.fallback`). `shared_lists`: w_s is the share of the playlists with s that hold the
song, too; 0 for the song itself. Ties go by row. A playlist of score 0 has nothing to do with what was
asked and is in no answer: there is no popular playlist that would do, so the answer may be short. Nor is,
for a song, a playlist of that song alone, which tells nothing of others. What a rung does not fill is
filled by the next, so scores are 1 / place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64
from recsys.fallback import ITEM_TO_ITEM, alike_votes, fill, place_scores
from recsys.recommender import FoundPlaylists, PlaylistsForSong, Recommender, SimilarPlaylists
from recsys.recommender.playlists import check_for_song, check_similar
from recsys.recommender.requests import EMPTY_HISTORY, UNKNOWN_HISTORY

Float64 = npt.NDArray[np.float64]

SHARED_SONGS, SHARED_LISTS = "shared_songs", "shared_lists"
LIKE_A_LIST: Final = (SHARED_SONGS, ITEM_TO_ITEM)
FOR_A_SONG: Final = (ITEM_TO_ITEM, SHARED_LISTS)


class PlaylistLadder:
    """The rungs below a model, from the lists that its bundle holds."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._finder = recommender.playlists

    def similar(self, request: SimilarPlaylists) -> tuple[FoundPlaylists, str]:
        """Return playlists like a list, and the rung that began them.

        Raises:
            DataError: as the model's own answer would; the bundle has no playlists, or not this one.
        """
        check_similar(request)
        index, _ = self._finder.parts()
        known = self._recommender.bundle.item_ids
        items, unknown = self._finder.translate(request.items or ())
        repeated, closed = len(items) - len(np.unique(items)), np.zeros(0, dtype=np.int64)
        if request.playlist is not None:
            closed = np.array([self._finder.row(index, request.playlist)])
            items = known.encode(self._finder.songs_of(request.playlist)).astype(np.int64)
        elif not len(items):
            why = UNKNOWN_HISTORY if request.items else EMPTY_HISTORY
            return FoundPlaylists([], [], unknown=unknown, fallback=why), SHARED_SONGS
        rows, rung = self._choose(LIKE_A_LIST, items, closed, request.k)
        names = index.names.decode(rows)
        return FoundPlaylists(names, place_scores(len(rows)), [], unknown, repeated), rung

    def for_song(self, request: PlaylistsForSong) -> tuple[FoundPlaylists, str]:
        """Return playlists that a song may go into, and the rung that began them.

        Raises:
            DataError: as the model's own answer would.
        """
        check_for_song(request)
        index, _ = self._finder.parts()
        items, unknown = self._finder.translate([request.item])
        if not len(items):
            found = FoundPlaylists([], [], unknown=unknown, fallback=UNKNOWN_HISTORY)
            return found, ITEM_TO_ITEM
        holders = self._finder.holders(index, int(items[0]))
        closed = self._finder.closed(index, holders, request.holding)
        rows, rung = self._choose(FOR_A_SONG, items, closed, request.k)
        holds = np.isin(rows, holders).tolist()
        return FoundPlaylists(index.names.decode(rows), place_scores(len(rows)), holds), rung

    def _choose(
        self, rungs: Sequence[str], items: Int64, closed: Int64, k: int
    ) -> tuple[Int64, str]:
        """Return the first k open playlists of the rungs, each once, and the rung that began."""
        rows, rung = fill(rungs, lambda rung: self._ranked(rung, items, closed), k)
        return np.array(rows, dtype=np.int64), rung

    def _ranked(self, rung: str, items: Int64, closed: Int64) -> list[int]:
        """Return the open playlists of a rung, best first."""
        rows, songs, sizes = self._held
        weights = self._weights(rung, items)
        scores = np.bincount(rows, weights[songs], len(sizes)) / np.sqrt(np.maximum(sizes, 1))
        scores[closed] = 0
        order = np.argsort(-scores, kind="stable")
        found: list[int] = order[: np.count_nonzero(scores)].tolist()
        return found

    def _weights(self, rung: str, items: Int64) -> Float64:
        """Return what every song counts on a rung, float64 [n_items + 1]."""
        weights = np.zeros(self._recommender.bundle.model.n_items + 1)
        match rung:
            case "shared_songs":
                weights[items] = 1
            case "item_to_item":
                votes = alike_votes(self._recommender, items)
                weights[list(votes)] = list(votes.values())
            case _:
                rows, songs, sizes = self._held
                with_it = np.zeros(len(sizes), dtype=np.bool_)
                with_it[rows[songs == items[0]]] = True
                both = np.bincount(songs[with_it[rows]], minlength=len(weights))
                every = np.bincount(songs, minlength=len(weights))
                weights = both / np.maximum(every, 1)
                weights[items[0]] = 0  # as for item_to_item, the song says nothing of itself
        return weights

    @cached_property
    def _held(self) -> tuple[Int64, Int64, Int64]:
        """Return `(playlist rows [E], the song that each of them holds [E], songs of a row [P + 1])`.

        A song that stands in a playlist twice is held once. Made when it is first needed.
        """
        (index, _), seen = self._finder.parts(), self._recommender.bundle.seen
        assert seen is not None  # the bundle was not written without it
        users, size = index.users[1:], self._recommender.bundle.model.n_items + 1
        begin, lengths = seen.offsets[users], seen.offsets[users + 1] - seen.offsets[users]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        songs = np.asarray(seen.items[np.repeat(begin, lengths) + inside], dtype=np.int64)
        pairs = np.unique(np.repeat(np.arange(1, len(index) + 1), lengths) * size + songs)
        rows = pairs // size
        return rows, pairs % size, np.bincount(rows, minlength=len(index) + 1)
