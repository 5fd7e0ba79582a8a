"""Playlists of a bundle: those like a list, and those a song may go into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch

from recsys.bundle import Bundle
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.models import EncoderModel
from recsys.playlist_index import PlaylistIndex
from recsys.recommender.requests import EMPTY_HISTORY, UNKNOWN_HISTORY
from recsys.recommender.resolve import Resolver, check_k
from recsys.retrieval import Exclusion, Histories
from recsys.retrieval.index import Index
from recsys.schema import PAD

Holding = Literal["any", "without", "with"]


@dataclass(frozen=True)
class SimilarPlaylists:
    """Ask for published playlists like a list. Exactly one of `items` and `playlist` is given.

    Attributes:
        items: external ids in the list's order. Unknown ones are left out and reported; one that stands
            twice counts twice; of more than the model reads the newest (last) count.
        playlist: a published one, which is then not in its own answer.
        k: how many.
    """

    items: Sequence[str] | None = None
    playlist: str | None = None
    k: int = 10


@dataclass(frozen=True)
class PlaylistsForSong:
    """Ask for published playlists that a song may go into.

    Attributes:
        item: external id.
        holding: `without` only those that do not hold it yet, `with` only those that do, `any` both.
        k: how many.
    """

    item: str
    holding: Holding = "without"
    k: int = 10


@dataclass(frozen=True)
class FoundPlaylists:
    """Playlists, best first, ties by name.

    Attributes:
        playlists: their names.
        scores: cosines with the list, or the song's scores for each.
        holds: whether each holds the song; empty for a list.
        unknown: ids that the catalogue does not hold, in order, each once.
        repeated: items of the list that had stood in it before.
        dropped: oldest known items of the list that the model does not read.
        fallback: why there is no answer: `empty_history` (nothing was given), `unknown_history` (no id
            was known); or None.
    """

    playlists: list[str]
    scores: list[float]
    holds: list[bool] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    repeated: int = 0
    dropped: int = 0
    fallback: str | None = None


class PlaylistFinder:
    """Searches the playlists that travel in a bundle.

    Args:
        bundle: a loaded bundle.
        resolver: translates items.
        reads: newest items of a list that the model is given.
        device: where the model is.
    """

    def __init__(
        self, bundle: Bundle, resolver: Resolver, reads: int, device: torch.device
    ) -> None:
        self.bundle = bundle
        self._resolver = resolver
        self._reads = reads
        self._device = device

    def similar(self, requests: Sequence[SimilarPlaylists]) -> list[FoundPlaylists]:
        """Return the playlists most like each list, by the cosine of their vectors; one model call.

        Raises:
            DataError: the bundle has no playlists, or a request is malformed or names none of them.
        """
        if not requests:
            return []
        index, model = self.parts()
        for one in requests:
            check_similar(one)
        rows = [None if one.playlist is None else self.row(index, one.playlist) for one in requests]
        lists = [self.translate(one.items or ()) for one in requests]
        kept = [items[-self._reads :].tolist() for items, _ in lists]
        found = model.embed_lists(self._batch(kept).to(self._device)).float().cpu()  # [B, E]
        for place, row in enumerate(rows):
            if row is not None:
                found[place] = index.alike.vectors[row]
        queries = torch.nn.functional.normalize(found, dim=1)
        answers = []
        for place, (one, row) in enumerate(zip(requests, rows, strict=True)):
            items, unknown = lists[place]
            if row is None and not kept[place]:
                why = UNKNOWN_HISTORY if one.items else EMPTY_HISTORY
                answers.append(FoundPlaylists([], [], unknown=unknown, fallback=why))
                continue
            closed = [] if row is None else [row]
            names, scores, _ = self._search(index.alike, index, queries[place], one.k, closed)
            facts = (len(items) - len(set(items.tolist())), len(items) - len(kept[place]))
            answers.append(FoundPlaylists(names, scores, [], unknown, *facts))
        return answers

    def for_song(self, requests: Sequence[PlaylistsForSong]) -> list[FoundPlaylists]:
        """Return, for each song, the playlists that it scores highest for.

        The score is the inner product of a playlist's query and the song's vector: what the model would
        give the song as the next of that playlist (its first part, if a model's score has more).

        Raises:
            DataError: the bundle has no playlists, or a request is malformed.
        """
        if not requests:
            return []
        index, _ = self.parts()
        return [self._for_song(index, one) for one in requests]

    def check(self, playlist: str) -> None:
        """Raise `DataError` if the bundle has no playlists, or none of that name."""
        self.row(self.parts()[0], playlist)

    def songs_of(self, playlist: str) -> list[str]:
        """Return the external ids of a published playlist's songs, in order; see `Recommender.songs_of`."""
        index, _ = self.parts()
        user, seen = int(index.users[self.row(index, playlist)]), self.bundle.seen
        assert seen is not None  # the bundle was not written without it
        part = seen.items[int(seen.offsets[user]) : int(seen.offsets[user + 1])]
        return self.bundle.item_ids.decode(part)

    def _for_song(self, index: PlaylistIndex, one: PlaylistsForSong) -> FoundPlaylists:
        check_for_song(one)
        items, unknown = self.translate([one.item])
        if not len(items):
            return FoundPlaylists([], [], unknown=unknown, fallback=UNKNOWN_HISTORY)
        assert self.bundle.index is not None
        holders = self.holders(index, int(items[0]))
        closed = self.closed(index, holders, one.holding)
        query = self.bundle.index.vectors[int(items[0])]
        names, scores, rows = self._search(index.asking, index, query, one.k, closed)
        inside = set(holders.tolist())
        return FoundPlaylists(names, scores, [row in inside for row in rows])

    def _search(
        self,
        vectors: Index,
        index: PlaylistIndex,
        query: torch.Tensor,
        k: int,
        closed: Sequence[int] | Int64,
    ) -> tuple[list[str], list[float], list[int]]:
        exclusion = Exclusion(seen=False, blocked=np.asarray(closed, dtype=np.int64))
        nothing = Histories.from_lists([[]])
        rows, scores = vectors.search(query[None], min(k, len(index)), exclusion, nothing)
        found = rows[0][rows[0] >= 0]
        return index.names.decode(found.numpy()), scores[0, : len(found)].tolist(), found.tolist()

    def holders(self, index: PlaylistIndex, item: int) -> Int64:
        """Return the rows of the playlists that hold an item, ascending."""
        seen = self.bundle.seen
        assert seen is not None
        places = np.flatnonzero(np.asarray(seen.items) == item)
        users = np.unique(np.searchsorted(seen.offsets, places, side="right") - 1)
        return np.flatnonzero(np.isin(index.users, users)).astype(np.int64)

    def closed(self, index: PlaylistIndex, holders: Int64, holding: Holding) -> Int64:
        """Return the rows that are in no answer about a song, by who holds it."""
        every = np.arange(1, len(index) + 1)
        closed = {"any": every[:0], "without": holders, "with": np.setdiff1d(every, holders)}
        return closed[holding]

    def translate(self, item_ids: Sequence[str]) -> tuple[Int64, list[str]]:
        """Return the indices of known ids, and the unknown ids in order, each once."""
        return self._resolver.translate(item_ids)

    def row(self, index: PlaylistIndex, name: str) -> int:
        """Return the row of a published playlist; `DataError` if there is none of that name."""
        row = int(index.names.encode([name])[0])
        if row == PAD:
            raise DataError(
                f"playlist {name!r} is none of the {len(index)} that bundle {self.bundle.name} holds; send "
                "its items instead"
            )
        return row

    def parts(self) -> tuple[PlaylistIndex, EncoderModel]:
        """Return the playlists and their model; `DataError` for a bundle without."""
        index, model = self.bundle.playlists, self.bundle.model
        if index is None or not isinstance(model, EncoderModel):
            raise DataError(
                f"bundle {self.bundle.name} holds no playlists; publish a learned model with "
                "publish.playlists.enabled=true"
            )
        return index, model

    def _batch(self, lists: list[list[int]]) -> SequenceBatch:
        places = [list(range(len(one))) for one in lists]
        zeros = [[0] * len(one) for one in lists]
        return batch_from_lists(lists, zeros, self._reads, places)


def check_similar(one: SimilarPlaylists) -> None:
    """Raise `DataError` for a request that is none."""
    check_k(one.k)
    if (one.items is None) == (one.playlist is None):
        raise DataError("give exactly one of items and playlist")


def check_for_song(one: PlaylistsForSong) -> None:
    """Raise `DataError` for a request that is none."""
    check_k(one.k)
    if one.holding not in get_args(Holding):
        allowed = ", ".join(get_args(Holding))
        raise DataError(f"holding is {one.holding!r}; allowed are {allowed}")
