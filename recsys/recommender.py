"""The recommender: external ids in, ranked external ids out, for any history, known user or nobody.

It is what the endpoint, the command line and a batch job call alike. Requests that arrive together
share one model call and one search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.baskets import baskets_of_times, number_labels
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import Int64
from recsys.errors import ArtifactError, DataError
from recsys.models import EncoderModel
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.blocks import block_rows
from recsys.retrieval.exclusion import Integers, Setting
from recsys.retrieval.rescore import search_rescored
from recsys.schema import PAD

EMPTY_HISTORY = "empty_history"
UNKNOWN_HISTORY = "unknown_history"
UNKNOWN_USER = "unknown_user"

Observer = Callable[[str, float], None]
"""Called with a stage's name and its seconds."""


@dataclass(frozen=True)
class Query:
    """One request for a list. Exactly one of `history` and `user_id` is given.

    Attributes:
        history: external item ids, oldest first; unknown ones are skipped and reported.
        times: seconds of the history's events, if known; the history is then sorted by them (stably).
        baskets: a label for each item of the history, equal for items that were one basket, which then
            stands at the place of its first. Only a model of baskets as sets reads them. Without
            labels it takes items for one basket whose times lie in the same `data.basket_minutes` of
            the data it learned from, or are equal if that had none; without times each item is one.
        user_id: a user whose newest events travel in the bundle.
        k: length of the list.
        exclude: items never wanted; unknown ones are reported.
        allow: only these items, if given; unknown ones are reported.
        exclude_seen: leave out the items of the history (True) or none of them (False); None follows
            the rule by which the model was evaluated, which is in the bundle.
        repeat_window: leave out the items of the newest so many events of the history, at least 1, and
            let older ones come again; unknown items count as events. Not together with
            `exclude_seen=False`.
    """

    history: Sequence[str] | None = None
    times: Sequence[int] | None = None
    baskets: Sequence[str | int] | None = None
    user_id: str | None = None
    k: int = 10
    exclude: Sequence[str] = ()
    allow: Sequence[str] | None = None
    exclude_seen: bool | None = None
    repeat_window: int | None = None


@dataclass(frozen=True)
class Recommendation:
    """A ranked list: best first, ties by ascending item id; full whenever enough items are allowed.

    Attributes:
        items: external item ids.
        scores: the model's scores, descending.
        unknown: history ids that the catalogue does not hold, in order, each once.
        unknown_allowed: the same for `allow`.
        unknown_excluded: the same for `exclude`.
        fallback: why the list is the default one of an empty history, or None: `empty_history`,
            `unknown_history` (no id was known), `unknown_user` (nor were events of the user).
    """

    items: list[str]
    scores: list[float]
    unknown: list[str] = field(default_factory=list)
    unknown_allowed: list[str] = field(default_factory=list)
    unknown_excluded: list[str] = field(default_factory=list)
    fallback: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the list as plain mappings: `item_id`, `score` and `rank`, which counts from 1."""
        return [
            {"item_id": item, "score": score, "rank": rank}
            for rank, (item, score) in enumerate(zip(self.items, self.scores, strict=True), 1)
        ]


@dataclass(frozen=True)
class _Events:
    """A history in dense indices, oldest first; times are 0 where not known.

    The model reads `items`. The exclusion goes by `seen`: every event, PAD where the item is unknown.
    """

    items: Int64
    times: Int64
    baskets: Int64
    seen: Integers
    unknown: list[str] = field(default_factory=list)
    fallback: str | None = None


@dataclass(frozen=True)
class _Resolved:
    """A query in dense indices."""

    query: Query
    history: _Events
    rule: Exclusion
    unknown_allowed: list[str]
    unknown_excluded: list[str]


class Recommender:
    """Answers queries from a bundle. Safe to call from several threads; it holds no mutable state.

    Args:
        bundle: a loaded bundle.
        observe: told the seconds of each stage (`resolve`, `encode`, `search`, `answer`).
        max_history: newest events of a history that the model reads, if it would read more; the
            exclusion goes by all of them nevertheless.

    Raises:
        DataError: the bundle's rule of exclusion is none.
    """

    def __init__(
        self, bundle: Bundle, observe: Observer | None = None, max_history: int | None = None
    ) -> None:
        self.bundle = bundle
        Exclusion.from_setting(bundle.exclude)  # a rule that is none is refused now, not later
        longest = bundle.model.max_length
        self._reads = longest if max_history is None else min(longest, max_history)
        self._observe = observe or (lambda stage, seconds: None)
        self._ids: list[str] = ["", *bundle.item_ids.ids.to_list()]
        self._clock = bundle.recent is not None and bundle.recent.timestamps is not None
        self._device = next(
            (tensor.device for tensor in bundle.model.state_dict().values()), torch.device("cpu")
        )
        self._norms = None if bundle.index is None else _norms(bundle.index.columns)
        bundle.item_ids.encode([])  # builds the lookup now, not under the first request
        if bundle.user_ids is not None:
            bundle.user_ids.encode([])

    @torch.inference_mode()
    def recommend(self, requests: Sequence[Query]) -> list[Recommendation]:
        """Return one list per query, in order; all share one model call.

        Raises:
            DataError: a query is malformed (see `Query`).
        """
        if not requests:
            return []
        started = time.perf_counter()
        resolved = [self._resolve(query) for query in requests]
        batch = self._batch(resolved)
        started = self._tell("resolve", started)
        found: list[tuple[list[int], list[float]]] = [([], [])] * len(resolved)
        output = self._encode(batch)
        started = self._tell("encode", started)
        for group in _groups(resolved):
            answers = self._search(output, batch, resolved, group)
            for row, answer in zip(group, answers, strict=True):
                found[row] = answer
        started = self._tell("search", started)
        lists = [self._answer(r, *f) for r, f in zip(resolved, found, strict=True)]
        self._tell("answer", started)
        return lists

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
        for _, k in requests:
            _check_k(k)
        distinct = list(dict.fromkeys(name for item_ids, _ in requests for name in item_ids))
        if not distinct:
            return [{} for _ in requests]
        indices = self.bundle.item_ids.encode(distinct).astype(np.int64)
        names = [name for name, index in zip(distinct, indices, strict=True) if index != PAD]
        answers = self._nearest(indices[indices != PAD], max(k for _, k in requests))
        found = dict(zip(names, answers, strict=True))
        return [
            {name: _cut(*found[name], k) for name in dict.fromkeys(item_ids) if name in found}
            for item_ids, k in requests
        ]

    def _nearest(self, known: Int64, k: int) -> list[tuple[list[str], list[float]]]:
        """Return the ids and likeness of the k items most like each known one."""
        n_items, answers = self.bundle.model.n_items, list[tuple[list[str], list[float]]]()
        step = block_rows(n_items + 1)
        for at in range(0, len(known), step):
            part = known[at : at + step]
            own = [[index] for index in part.tolist()]
            scores = self._likeness(part, own)  # [b, n_items + 1]
            Exclusion().mask_(scores, Histories.from_lists(own))
            pairs = _pairs(*topk_rows(scores, min(k, n_items)))
            answers += [([self._ids[i] for i in items], values) for items, values in pairs]
        return answers

    def unknown_items(self, item_ids: Sequence[str]) -> list[str]:
        """Return those ids that the catalogue does not hold, in order, each once."""
        return self._translate(item_ids)[1]

    def _resolve(self, query: Query) -> _Resolved:
        """Check a query and translate its ids."""
        _check_k(query.k)
        if (query.history is None) == (query.user_id is None):
            raise DataError("give either a history or a user_id, not both and not neither")
        setting = self._setting(query)
        history = self._history(query)
        blocked, unknown_excluded = self._translate(query.exclude)
        allowed, unknown_allowed = self._translate(query.allow or ())
        some = None if query.allow is None else allowed
        rule = Exclusion.from_setting(setting, blocked=blocked, allowed=some)
        return _Resolved(query, history, rule, unknown_allowed, unknown_excluded)

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

    def _translate(self, item_ids: Sequence[str]) -> tuple[Int64, list[str]]:
        """Return the indices of known ids, and the unknown ids in order, each once."""
        if not item_ids:
            return np.zeros(0, dtype=np.int64), []
        indices = self.bundle.item_ids.encode(item_ids).astype(np.int64)
        known = indices != PAD
        if known.all():
            return indices, []
        missing = (name for name, there in zip(item_ids, known, strict=True) if not there)
        return indices[known], list(dict.fromkeys(missing))

    def _history(self, query: Query) -> _Events:
        """Return the known events of a query in their order."""
        if query.history is None:
            return self._user_history(query)
        items = self.bundle.item_ids.encode(query.history).astype(np.int64)
        _check_length("times", query.times, items)
        _check_length("baskets", query.baskets, items)
        order, times = np.arange(len(items)), np.zeros(len(items), dtype=np.int64)
        if query.times is not None:
            times = np.asarray(query.times, dtype=np.int64)
            order = np.argsort(times, kind="stable")
        baskets = np.arange(len(order))
        if self.bundle.model.reads_baskets:
            baskets = self._baskets(query, times, order)
            inside = np.argsort(baskets, kind="stable")
            order, baskets = order[inside], baskets[inside]
        seen = items[order]
        known = seen != PAD
        unknown = [] if known.all() else self.unknown_items(query.history)
        fallback = None
        if not known.any():
            fallback = UNKNOWN_HISTORY if len(items) else EMPTY_HISTORY
        return _Events(seen[known], times[order][known], baskets[known], seen, unknown, fallback)

    def _baskets(self, query: Query, times: Int64, order: Int64) -> Int64:
        """Number the baskets of the events `order` of a query's history (see `Query.baskets`)."""
        if query.baskets is not None:
            return number_labels([query.baskets[place] for place in order.tolist()])
        if query.times is None:
            return np.arange(len(order))
        slots = baskets_of_times(times[order], self.bundle.basket_minutes)
        return number_labels(slots.tolist())

    def _user_history(self, query: Query) -> _Events:
        """Return the events of a user that travel in the bundle."""
        if query.times is not None or query.baskets is not None:
            raise DataError("times and baskets belong to a history; a user_id has its own")
        users, recent = self.bundle.user_ids, self.bundle.recent
        user = -1 if users is None else int(users.encode([str(query.user_id)])[0])
        nothing = np.zeros(0, dtype=np.int64)
        if user < 0 or recent is None:
            return _Events(nothing, nothing, nothing, nothing, fallback=UNKNOWN_USER)
        part = slice(int(recent.offsets[user]), int(recent.offsets[user + 1]))
        items = recent.items[part].astype(np.int64)
        times = np.zeros_like(items) if recent.timestamps is None else recent.timestamps[part]
        baskets = np.arange(len(items)) if recent.baskets is None else recent.baskets[part]
        fallback = None if len(items) else EMPTY_HISTORY
        seen = self._seen(user)
        return _Events(items, times, baskets.astype(np.int64), seen, fallback=fallback)

    def _seen(self, user: int) -> Integers:
        """Return the items of all events of a user of the bundle, oldest first."""
        store = self.bundle.seen
        if store is None:
            raise ArtifactError(f"bundle {self.bundle.path} has users without what they have seen")
        return store.items[int(store.offsets[user]) : int(store.offsets[user + 1])]

    def _batch(self, resolved: Sequence[_Resolved]) -> SequenceBatch:
        """Pack the newest events of all queries."""
        n, model = self._reads, self.bundle.model
        some = [r.history for r in resolved]
        items = [events.items[-n:].tolist() for events in some]
        times = [events.times[-n:].tolist() for events in some] if self._clock else None
        baskets = [e.baskets[-n:].tolist() for e in some] if model.reads_baskets else None
        return batch_from_lists(items, times, n, baskets).to(self._device)

    def _encode(self, batch: SequenceBatch) -> Tensor:
        """Return query vectors [B, D] where there is an index, else all scores [B, n_items + 1]."""
        model = self.bundle.model
        if self.bundle.index is not None and isinstance(model, EncoderModel):
            return model.encode_sequences(batch).float().cpu()
        return model.score(batch).float().cpu()

    def _search(
        self, output: Tensor, batch: SequenceBatch, resolved: Sequence[_Resolved], group: list[int]
    ) -> list[tuple[list[int], list[float]]]:
        """Return `(item indices, scores)` for the queries of a group, which share one allow-list."""
        index, model = self.bundle.index, self.bundle.model
        some = [resolved[row] for row in group]
        rows = output[group]  # a copy: masking must not touch the model's own tensors
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
            part = batch if len(group) == len(resolved) else self._batch(some)
            found = search_rescored(index, model, part, rows, k, exclusion, histories)
        return _pairs(*found)

    def _likeness(self, known: Int64, own: list[list[int]]) -> Tensor:
        """Return how like every item is to each known one, [B, n_items + 1]."""
        if self.bundle.index is not None and self._norms is not None:
            columns, mine = self.bundle.index.columns, torch.from_numpy(known)
            unit = columns[:, mine] / self._norms[mine]  # [D, B]
            return (unit.T @ columns).div_(self._norms)
        zeros = [[0]] * len(own)
        batch = batch_from_lists(own, zeros if self._clock else None, 1, zeros)
        return self.bundle.model.score(batch.to(self._device)).float().cpu().clone()

    def _answer(self, r: _Resolved, items: list[int], scores: list[float]) -> Recommendation:
        k = r.query.k
        names = [self._ids[i] for i in items[:k]]
        return Recommendation(
            names,
            scores[:k],
            unknown=r.history.unknown,
            unknown_allowed=r.unknown_allowed,
            unknown_excluded=r.unknown_excluded,
            fallback=r.history.fallback,
        )

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


def _norms(columns: Tensor) -> Tensor:
    """Return the length of every item vector [n_items + 1], never zero."""
    lengths: Tensor = torch.linalg.vector_norm(columns, dim=0)
    return lengths.clamp_(min=1e-12)


def _groups(resolved: Sequence[_Resolved]) -> list[list[int]]:
    """Return rows that can be searched together: all without an allow-list, others one by one."""
    free = [row for row, r in enumerate(resolved) if r.rule.allowed is None]
    own = [[row] for row, r in enumerate(resolved) if r.rule.allowed is not None]
    return [free, *own] if free else own


def _cut(items: list[str], scores: list[float], k: int) -> Recommendation:
    return Recommendation(items[:k], scores[:k])


def _pairs(items: Tensor, scores: Tensor) -> list[tuple[list[int], list[float]]]:
    """Turn padded rows into lists without padding."""
    lengths = (items >= 0).sum(1).tolist()
    rows = zip(items.tolist(), scores.tolist(), lengths, strict=True)
    return [(i[:n], s[:n]) for i, s, n in rows]


def _check_length(name: str, values: Sequence[object] | None, items: Int64) -> None:
    if values is not None and len(values) != len(items):
        raise DataError(
            f"{len(values)} {name} for a history of {len(items)} items; give one for each item"
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise DataError(f"k is {k}; a list has at least 1 item")
