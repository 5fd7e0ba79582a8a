"""Queries in dense indices: ids translated, histories sorted and cut, the rule of exclusion made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recsys.bundle import Bundle
from recsys.data.baskets import baskets_of_times, number_labels
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import Int64
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError
from recsys.recommender.item_texts import (
    ItemText,
    ReadText,
    TextReader,
    joined_texts,
    read_texts,
)
from recsys.recommender.lists_before import ListsBefore, lists_before, with_lists_before
from recsys.recommender.requests import EMPTY_HISTORY, UNKNOWN_HISTORY, UNKNOWN_USER, Query
from recsys.retrieval import Exclusion
from recsys.retrieval.exclusion import Integers, Setting
from recsys.schema import PAD


@dataclass(frozen=True)
class Events:
    """A history in dense indices, oldest first; times are 0 where not known.

    The model reads `items`, of which -k is the k-th of `sentences`. The exclusion goes by `seen`: every
    event, PAD where the item is unknown or a text, which `texts` says what it was read as.
    """

    items: Int64
    times: Int64
    baskets: Int64
    seen: Integers
    unknown: list[str] = field(default_factory=list)
    fallback: str | None = None
    texts: list[ReadText] = field(default_factory=list)
    sentences: TokenStore | None = None


@dataclass(frozen=True)
class Resolved:
    """A query in dense indices."""

    query: Query
    history: Events
    rule: Exclusion
    unknown_allowed: list[str]
    unknown_excluded: list[str]
    previous: ListsBefore | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What an answer says of how its query was understood, by the answers' own names."""
        previous = self.previous
        return {
            "unknown": self.history.unknown,
            "unknown_allowed": self.unknown_allowed,
            "unknown_excluded": self.unknown_excluded,
            "unknown_previous": [] if previous is None else previous.unknown,
            "dropped_previous": 0 if previous is None else previous.dropped,
            "texts": self.history.texts,
            "fallback": self.history.fallback,
        }


class Resolver:
    """Translates queries for the model of a bundle.

    Args:
        bundle: a loaded bundle.
        reads: newest events of a history that the model is given.
        reader: reads the texts of histories.
    """

    def __init__(self, bundle: Bundle, reads: int, reader: TextReader | None = None) -> None:
        self.bundle = bundle
        self._reader = reader
        self._reads = reads
        self.removed: Int64 = np.zeros(0, dtype=np.int64)
        """Items that are in no list; replaced as a whole when that changes."""
        bundle.item_ids.encode([])  # builds the lookup now, not under the first request
        if bundle.user_ids is not None:
            bundle.user_ids.encode([])

    def resolve(self, query: Query, *, by_model: bool = True) -> Resolved:
        """Check a query and translate its ids.

        What stands in for the model (not `by_model`) reads items alone: a text is the one most like it, or
        nothing if that can no longer be told, and no lists before are read.
        """
        check_k(query.k)
        query.check()
        if (query.history is None) == (query.user_id is None):
            raise DataError("give either a history or a user_id, not both and not neither")
        setting = self._setting(query)
        history = self._history(query, by_model)
        blocked, unknown_excluded = self.translate(query.exclude)
        allowed, unknown_allowed = self.translate(query.allow or ())
        some = None if query.allow is None else allowed
        blocked = np.concatenate([blocked, self.removed])
        rule = Exclusion.from_setting(setting, blocked=blocked, allowed=some)
        previous = None
        if query.previous is not None:
            reads = self.bundle.model.reads_previous
            previous = lists_before(query.previous, reads, self.bundle.item_ids)
            if not by_model:
                previous = previous.unread(len(query.previous))
        return Resolved(query, history, rule, unknown_allowed, unknown_excluded, previous)

    def _setting(self, query: Query) -> Setting:
        """Return the rule of exclusion of a query, which is the bundle's where it says nothing."""
        if query.repeat_window is not None:
            if query.exclude_seen is False:
                raise DataError(
                    f"repeat_window is {query.repeat_window}, but exclude_seen is false, which lets "
                    "every item come again; give one of the two"
                )
            return query.repeat_window
        if query.exclude_seen is None:
            return self.bundle.exclude
        return "seen" if query.exclude_seen else "none"

    def translate(self, item_ids: Sequence[str]) -> tuple[Int64, list[str]]:
        """Return the indices of known ids, and the unknown ids in order, each once."""
        if not item_ids:
            return np.zeros(0, dtype=np.int64), []
        indices = self.bundle.item_ids.encode(item_ids).astype(np.int64)
        known = indices != PAD
        if known.all():
            return indices, []
        missing = (name for name, there in zip(item_ids, known, strict=True) if not there)
        return indices[known], list(dict.fromkeys(missing))

    def _history(self, query: Query, by_model: bool) -> Events:
        """Return the known events of a query in their order."""
        if query.history is None:
            return self._user_history(query)
        history = query.history
        names = ["" if isinstance(one, ItemText) else one for one in history]
        items = self.bundle.item_ids.encode(names).astype(np.int64)
        _check_length("times", query.times, items)
        _check_length("baskets", query.baskets, items)
        texts = read_texts(history, self.bundle, self._reader, self.removed, by_model=by_model)
        taken = items
        if texts.said:
            places = [text.place for text in texts.said]
            taken = items.copy()
            taken[places], items[places] = texts.items, PAD
        order, times = np.arange(len(items)), np.zeros(len(items), dtype=np.int64)
        if query.times is not None:
            times = np.asarray(query.times, dtype=np.int64)
            order = np.argsort(times, kind="stable")
        baskets = np.arange(len(order))
        if self.bundle.model.reads_baskets:
            baskets = self._baskets(query, times, order)
            inside = np.argsort(baskets, kind="stable")
            order, baskets = order[inside], baskets[inside]
        read = taken[order]
        known = read != PAD
        if by_model and self.bundle.model.reads_times and query.times is None and known.any():
            raise DataError(
                f"the model of bundle {self.bundle.name} reads when things happened, and this history of "
                f"{len(items)} items has no times; give them, one for each item, in seconds as its data have"
            )
        unknown = list[str]()
        if not known.all():
            unknown = self.translate([one for one in history if not isinstance(one, ItemText)])[1]
        fallback = None
        if not known.any():
            fallback = UNKNOWN_HISTORY if len(items) else EMPTY_HISTORY
        older = self.bundle.item_ids.encode(query.before).astype(np.int64)
        seen = np.concatenate([older, items[order]])
        return Events(
            read[known],
            times[order][known],
            baskets[known],
            seen,
            unknown,
            fallback,
            texts.said,
            texts.sentences,
        )

    def _baskets(self, query: Query, times: Int64, order: Int64) -> Int64:
        """Number the baskets of the events `order` of a query's history (see `Query.baskets`)."""
        if query.baskets is not None:
            return number_labels([query.baskets[place] for place in order.tolist()])
        if query.times is None:
            return np.arange(len(order))
        slots = baskets_of_times(times[order], self.bundle.basket_minutes)
        return number_labels(slots.tolist())

    def _user_history(self, query: Query) -> Events:
        """Return the events of a user that travel in the bundle."""
        if query.times is not None or query.baskets is not None:
            raise DataError("times and baskets belong to a history; a user_id has its own")
        users, recent = self.bundle.user_ids, self.bundle.recent
        user = -1 if users is None else int(users.encode([str(query.user_id)])[0])
        nothing = np.zeros(0, dtype=np.int64)
        if user < 0 or recent is None:
            return Events(nothing, nothing, nothing, nothing, fallback=UNKNOWN_USER)
        part = slice(int(recent.offsets[user]), int(recent.offsets[user + 1]))
        items = recent.items[part].astype(np.int64)
        times = np.zeros_like(items) if recent.timestamps is None else recent.timestamps[part]
        baskets = np.arange(len(items)) if recent.baskets is None else recent.baskets[part]
        fallback = None if len(items) else EMPTY_HISTORY
        seen = self._seen(user)
        return Events(items, times, baskets.astype(np.int64), seen, fallback=fallback)

    def _seen(self, user: int) -> Integers:
        """Return the items of all events of a user of the bundle, oldest first."""
        store = self.bundle.seen
        if store is None:
            raise ArtifactError(f"bundle {self.bundle.path} has users without what they have seen")
        return store.items[int(store.offsets[user]) : int(store.offsets[user + 1])]

    def batch(self, resolved: Sequence[Resolved]) -> SequenceBatch:
        """Pack the newest events of all queries."""
        n, model = self._reads, self.bundle.model
        some = [r.history for r in resolved]
        sentences, items = joined_texts([(e.items[-n:], e.sentences) for e in some])
        times = [events.times[-n:].tolist() for events in some] if model.reads_times else None
        baskets = [e.baskets[-n:].tolist() for e in some] if model.reads_baskets else None
        batch = batch_from_lists(items, times, n, baskets)
        if sentences is not None:
            batch = replace(batch, texts=sentences)
        if not model.reads_previous:
            return batch
        return with_lists_before(batch, [r.previous for r in resolved])


def _check_length(name: str, values: Sequence[object] | None, items: Int64) -> None:
    if values is not None and len(values) != len(items):
        raise DataError(
            f"{len(values)} {name} for a history of {len(items)} items; give one for each item"
        )


def check_k(k: int) -> None:
    """Raise `DataError` for a list of no items."""
    if k < 1:
        raise DataError(f"k is {k}; a list has at least 1 item")
