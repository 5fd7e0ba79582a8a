"""The recommender: external ids in, ranked external ids out, for any history, known user or nobody.

It is what the endpoint, the command line and a batch job call alike. Requests that arrive together
share one model call and one search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import Int64
from recsys.decoding import Rules
from recsys.errors import DataError
from recsys.models import EncoderModel
from recsys.recommender.item_texts import TextReader
from recsys.recommender.likeness import Likeness, pairs
from recsys.recommender.lists import ListMaker
from recsys.recommender.playlists import (
    FoundPlaylists,
    PlaylistFinder,
    PlaylistsForSong,
    SimilarPlaylists,
)
from recsys.recommender.requests import (
    Continuation,
    Continue,
    ContinuedList,
    Query,
    Recommendation,
)
from recsys.recommender.resolve import Resolved, Resolver
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.rescore import search_rescored

Observer = Callable[[str, float], None]
"""Called with a stage's name and its seconds."""


class Recommender:
    """Answers queries from a bundle. Safe to call from several threads; what changes is `removed` alone.

    Args:
        bundle: a loaded bundle.
        observe: told the seconds of each stage (`resolve`, `encode`, `search`, `answer`).
        max_history: newest events of a history that the model reads, if it would read more; the
            exclusion goes by all of them nevertheless.
        read_texts: reads texts of a history; without it such histories are refused.

    Attributes:
        playlists: finds the published playlists of the bundle, if it holds any.

    Raises:
        DataError: the bundle's rule of exclusion is none.
    """

    def __init__(
        self,
        bundle: Bundle,
        observe: Observer | None = None,
        max_history: int | None = None,
        read_texts: TextReader | None = None,
    ) -> None:
        self.bundle = bundle
        Exclusion.from_setting(bundle.exclude)  # a rule that is none is refused now, not later
        longest = bundle.model.max_length
        reads = longest if max_history is None else min(longest, max_history)
        self._observe = observe or (lambda stage, seconds: None)
        self._ids: list[str] = ["", *bundle.item_ids.ids.to_list()]
        self._device = next(
            (tensor.device for tensor in bundle.model.state_dict().values()), torch.device("cpu")
        )
        self._resolver = Resolver(bundle, reads, read_texts)
        self._maker = ListMaker(bundle, self._resolver, self._device)
        self._likeness = Likeness(bundle, self._device)
        self.playlists = PlaylistFinder(bundle, self._resolver, reads, self._device)

    @property
    def removed(self) -> Int64:
        """Items that are in no list, whatever is asked."""
        return self._resolver.removed

    @removed.setter
    def removed(self, items: Int64) -> None:
        self._resolver.removed = self._likeness.removed = items

    @torch.inference_mode()
    def nearest(self, items: Int64, k: int) -> list[list[int]]:
        """Return the indices of the k items most like each of some, none of which is PAD."""
        return [found for found, _ in self._likeness.nearest(items, k)]

    def resolve_without_model(self, query: Query) -> Resolved:
        """Return a query in dense indices for what stands in for the model, with the rule of its list.

        Raises:
            DataError: it is malformed.
        """
        return self._resolver.resolve(query, by_model=False)

    @torch.inference_mode()
    def recommend(self, requests: Sequence[Query]) -> list[Recommendation]:
        """Return one list per query, in order; all share one model call.

        Raises:
            DataError: a query is malformed (see `Query`).
        """
        if not requests:
            return []
        started = time.perf_counter()
        resolved = [self._resolver.resolve(query) for query in requests]
        batch = self._resolver.batch(resolved).to(self._device)
        started = self._tell("resolve", started)
        found: list[tuple[list[int], list[float]]] = [([], [])] * len(resolved)
        output = self._encode(batch)
        started = self._tell("encode", started)
        for group in _groups(resolved):
            some = [resolved[row] for row in group]
            for row, answer in zip(group, self._search(output[group], some, batch), strict=True):
                found[row] = answer
        for row, answer in self._maker.merged(resolved, output):
            found[row] = answer
        started = self._tell("search", started)
        answers = [self.answer(r, *f) for r, f in zip(resolved, found, strict=True)]
        self._tell("answer", started)
        return answers

    @torch.inference_mode()
    def continue_lists(self, requests: Sequence[Continue]) -> list[Continuation]:
        """Return the lists that may follow each history, in order; equal requests share one search.

        Raises:
            DataError: a request is malformed, its rules leave no list of so many items, or the model
                ranks items but makes no lists.
        """
        if not requests:
            return []
        started = time.perf_counter()
        resolved = [self._resolver.resolve(one.query()) for one in requests]
        started = self._tell("resolve", started)
        answers = self._maker.continued(requests, resolved)
        self._tell("search", started)
        return answers

    def check_continue(self, request: Continue) -> None:
        """Raise the `DataError` with which `continue_lists` would refuse this one request.

        A server that answers several clients' requests together asks this first: one bad request
        should not fail the others.
        """
        self._maker.check(request, self._resolver.resolve(request.query()))

    def rules_of(self, request: Continue, resolved: Resolved) -> Rules:
        """Return what the lists of a continuation may and must hold."""
        return self._maker.rules_of(request, resolved)

    def continuation(self, resolved: Resolved, lists: Sequence[Sequence[int]]) -> Continuation:
        """Return lists of item indices that no model made as the answer to a request."""
        made = [
            ContinuedList([self._ids[i] for i in items], None, None, [None] * len(items), group)
            for group, items in enumerate(lists, start=1)
        ]
        return Continuation(made, exact=False, **resolved.about)

    def recommend_batch(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        k: int = 10,
        exclude_seen: bool | None = None,
        repeat_window: int | None = None,
        block: int = 256,
    ) -> Iterator[pl.DataFrame]:
        """Yield lists of many users, `block` users at a time, in bounded memory.

        A table has the columns `user_id, rank` (from 1)`, item_id, score, fallback, model_version`,
        one row an item. Without `user_ids`, all users of the bundle in their order. What was seen is
        treated as a `Query` says.
        """
        users = self.bundle.user_ids
        if user_ids is None and users is None:
            raise DataError(
                f"bundle {self.bundle.path} holds no users; name them, or use histories"
            )
        total = len(user_ids) if user_ids is not None else len(users or ())
        for at in range(0, total, block):
            if user_ids is not None:
                some = list(user_ids[at : at + block])
            else:
                some = [] if users is None else users.ids[at : at + block].to_list()
            asked = Query(k=k, exclude_seen=exclude_seen, repeat_window=repeat_window)
            yield self._table(some, self.recommend([replace(asked, user_id=u) for u in some]))

    @torch.inference_mode()
    def similar(self, item_ids: Sequence[str], k: int = 10) -> dict[str, Recommendation]:
        """Return, for every known item id, the k items most like it; unknown ids are left out.

        Likeness is the cosine of the item vectors (all items compared, whatever the index). A model
        without vectors is asked what follows a history of that one item. The item itself is never in
        its list.
        """
        return self.similar_batch([(item_ids, k)])[0]

    @torch.inference_mode()
    def similar_batch(
        self, requests: Sequence[tuple[Sequence[str], int]]
    ) -> list[dict[str, Recommendation]]:
        """Answer several requests `(item ids, k)` for `similar` together, in order.

        An item that several ask for is compared once; memory is bounded by blocks of items.
        """
        return [
            {name: self._named(*pair) for name, pair in found.items()}
            for found in self._likeness.answer(requests)
        ]

    @torch.inference_mode()
    def similar_playlists(self, requests: Sequence[SimilarPlaylists]) -> list[FoundPlaylists]:
        """Return the published playlists most like each list; see `PlaylistFinder.similar`.

        The songs for a list are `recommend`'s answer to it as a history.
        """
        return self.playlists.similar(requests)

    @torch.inference_mode()
    def playlists_for_song(self, requests: Sequence[PlaylistsForSong]) -> list[FoundPlaylists]:
        """Return the published playlists for each song; see `PlaylistFinder.for_song`."""
        return self.playlists.for_song(requests)

    def songs_of(self, playlist: str) -> list[str]:
        """Return the external ids of a published playlist's songs, in order.

        Raises:
            DataError: the bundle has no playlists, or none of that name.
        """
        return self.playlists.songs_of(playlist)

    def _named(self, items: list[int], scores: list[float]) -> Recommendation:
        return Recommendation([self._ids[i] for i in items], scores)

    def unknown_items(self, item_ids: Sequence[str]) -> list[str]:
        """Return those ids that the catalogue does not hold, in order, each once."""
        return self._resolver.translate(item_ids)[1]

    def _encode(self, batch: SequenceBatch) -> Tensor:
        """Return query vectors [B, D] where there is an index, else all scores [B, n_items + 1]."""
        model = self.bundle.model
        if self.bundle.index is not None and isinstance(model, EncoderModel):
            return model.encode_sequences(batch).float().cpu()
        return model.score(batch).float().cpu()

    def _search(
        self, rows: Tensor, some: Sequence[Resolved], batch: SequenceBatch
    ) -> list[tuple[list[int], list[float]]]:
        """Return `(item indices, scores)` for queries that share one allow-list.

        `rows` is what the model made of them, free to be overwritten; `batch` holds the histories of
        all queries that were asked together.
        """
        index, model = self.bundle.index, self.bundle.model
        # Each query has a rule of its own. What it forbids is the query's history to the search.
        closed = [r.rule.forbidden(r.history.seen) for r in some]
        histories = Histories.from_lists(closed)
        exclusion = Exclusion(allowed=some[0].rule.allowed)
        k = min(max(r.query.k for r in some), model.n_items)
        if index is None or not isinstance(model, EncoderModel):
            found = topk_rows(exclusion.mask_(rows, histories), k)
        elif model.is_inner_product:
            found = index.search(rows, k, exclusion, histories)
        else:
            if len(some) < len(batch):
                batch = self._resolver.batch(some).to(self._device)
            found = search_rescored(index, model, batch, rows, k, exclusion, histories)
        return pairs(*found)

    def answer(self, r: Resolved, items: list[int], scores: list[float]) -> Recommendation:
        """Return a list of item indices as the answer to a query."""
        k = r.query.k
        names = [self._ids[i] for i in items[:k]]
        return Recommendation(names, scores[:k], **r.about)

    def _table(self, users: list[str], answers: list[Recommendation]) -> pl.DataFrame:
        lengths = [len(a.items) for a in answers]
        columns = {
            "user_id": np.repeat(np.array(users, dtype=object), lengths).tolist(),
            "rank": [rank for n in lengths for rank in range(1, n + 1)],
            "item_id": [item for a in answers for item in a.items],
            "score": [score for a in answers for score in a.scores],
            "fallback": [a.fallback for a in answers for _ in a.items],
        }
        schema = {
            "user_id": pl.String,
            "rank": pl.Int32,
            "item_id": pl.String,
            "score": pl.Float32,
            "fallback": pl.String,
        }
        version = f"{self.bundle.name}@{self.bundle.version}"
        return pl.DataFrame(columns, schema=schema).with_columns(model_version=pl.lit(version))

    def _tell(self, stage: str, started: float) -> float:
        """Report a stage's seconds; return the start of the next."""
        now = time.perf_counter()
        self._observe(stage, now - started)
        return now


def _groups(resolved: Sequence[Resolved]) -> list[list[int]]:
    """Return rows of the top strategy that can share a search: all without an allow-list, others one
    by one.
    """
    top = [(row, r) for row, r in enumerate(resolved) if r.query.strategy == "top"]
    free = [row for row, r in top if r.rule.allowed is None]
    own = [[row] for row, r in top if r.rule.allowed is not None]
    return [free, *own] if free else own
