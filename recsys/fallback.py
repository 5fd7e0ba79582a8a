"""What a request gets when the model fails: the next rung that has something, each use counted.

    model -> item_to_item -> popular_in_segment -> popular

`item_to_item` adds up, over the newest known items of the history, the places that the items most like
them have: sum of 1 / ((1 + age) rank). `popular_in_segment` are the items of most training events among
those of the history's commonest segment, say its category; `popular` those of all. A list that a rung
does not fill is filled by the next. Exclusions hold on every rung, for lists of similar items and for
continuations as well. A text in a history stands for the item most like it. Published playlists have
rungs of their own: `recsys.playlist_ladder`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from recsys.data.sequences import Int64
from recsys.decoding import Rules
from recsys.recommender import Continuation, Continue, Query, Recommendation, Recommender
from recsys.recommender.resolve import check_k
from recsys.retrieval.exclusion import Bools, Exclusion, Integers
from recsys.schema import PAD

log = logging.getLogger(__name__)

MODEL, ITEM_TO_ITEM, SEGMENT, POPULAR = "model", "item_to_item", "popular_in_segment", "popular"
RUNGS: Final = (ITEM_TO_ITEM, SEGMENT, POPULAR)
SEGMENTS: Final = ("category", "genre", "genres", "artist", "brand")
"""Columns of the catalogue that may be its segments; the first one there is counts."""
NEWEST: Final = 5
"""Items of the history that are looked at."""
NEIGHBOURS: Final = 50


class Ladder:
    """The rungs below a model, from what its bundle holds."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        bundle = recommender.bundle
        self._order: Int64 = np.argsort(-bundle.popularity[1:], kind="stable") + 1
        column = next((name for name in SEGMENTS if name in bundle.items.columns), None)
        self._segments: list[str | None] | None = None
        if column is not None:
            self._segments = [
                None,
                *(str(v) if v else None for v in bundle.items[column].to_list()),
            ]

    def answer(self, query: Query) -> tuple[Recommendation, str]:
        """Return a list for a query and the rung that began it.

        Raises:
            DataError: the query is malformed.
        """
        resolved = self._recommender.resolve_without_model(query)
        permitted = self._permitted(resolved.rule, resolved.history.seen)
        chosen, rung = self._choose(resolved.history.items, permitted, query.k)
        return self._recommender.answer(resolved, chosen, place_scores(len(chosen))), rung

    def similar(self, item_ids: Sequence[str], k: int) -> tuple[dict[str, Recommendation], str]:
        """Return, for every known item id, k items in place of those most like it, and the lowest rung.

        A rung lists what it would for a history of that one item. The item itself is never in its list.
        """
        check_k(k)
        bundle, rule = self._recommender.bundle, Exclusion(blocked=self._recommender.removed)
        lists: dict[str, Recommendation] = {}
        lowest = ITEM_TO_ITEM
        indices = bundle.item_ids.encode(item_ids).astype(np.int64)
        for name, index in zip(item_ids, indices, strict=True):
            if index != PAD:
                own = np.array([index], dtype=np.int64)
                chosen, rung = self._choose(own, self._permitted(rule, own), k)
                names = bundle.item_ids.decode(np.array(chosen, dtype=np.int64))
                lists[name] = Recommendation(names, place_scores(len(chosen)))
                lowest = max(lowest, rung, key=RUNGS.index)
        return lists, lowest

    def continued(self, request: Continue) -> tuple[Continuation, str]:
        """Return lists for a continuation and the rung that began them: one for each group.

        The ranked items are dealt to the lists in turn, so that lists share none where there are enough;
        required items come last. A list that cannot be filled is left out. Nothing here has a
        probability.

        Raises:
            DataError: the request is malformed, or its rules leave no list of so many items.
        """
        self._recommender.check_continue(request)
        resolved = self._recommender.resolve_without_model(request.query())
        rules = self._recommender.rules_of(request, resolved)
        permitted = self._permitted(resolved.rule, resolved.history.seen)
        permitted[rules.required] = False  # they come by themselves
        wanted = int(np.count_nonzero(permitted))
        ranked, rung = self._choose(resolved.history.items, permitted, wanted)
        groups, lists = request.settings.groups, list[list[int]]()
        for group in range(groups):
            own = ranked[group::groups] + [x for g in range(groups) if g != group
                                           for x in ranked[g::groups]]  # fmt: skip
            items = _within(own, rules, request.steps)
            if items is not None and items not in lists:
                lists.append(items)
        return self._recommender.continuation(resolved, lists), rung

    def _choose(self, history: Int64, permitted: Bools, k: int) -> tuple[list[int], str]:
        """Return the first k permitted items of the rungs, each once, and the rung that began."""
        return fill(RUNGS, lambda rung: (i for i in self._ranked(rung, history) if permitted[i]), k)

    def _permitted(self, rule: Exclusion, seen: Integers) -> Bools:
        """Return bool [n_items + 1], which items may be shown."""
        n_items = self._recommender.bundle.model.n_items
        permitted = np.ones(n_items + 1, dtype=np.bool_)
        permitted[[PAD, *rule.forbidden(seen).tolist()]] = False
        if (allowed := rule.candidates(n_items)) is not None:
            permitted &= np.isin(np.arange(n_items + 1), allowed)
        return permitted

    def _ranked(self, rung: str, history: Int64) -> Iterable[int]:
        """Return the items of a rung, best first."""
        match rung:
            case "item_to_item":
                return self._alike(history)
            case "popular_in_segment":
                return self._popular_in_segment(history)
            case _:
                return map(int, self._order)

    def _alike(self, history: Int64) -> list[int]:
        votes = alike_votes(self._recommender, history)
        return sorted(votes, key=lambda item: (-votes[item], item))

    def _popular_in_segment(self, history: Int64) -> Iterable[int]:
        segments = self._segments
        if segments is None:
            return ()
        own = Counter(s for item in history.tolist() if (s := segments[item]) is not None)
        if not own:
            return ()
        [(segment, _)] = own.most_common(1)
        return (int(item) for item in self._order if segments[item] == segment)


def fill(
    rungs: Sequence[str], ranked: Callable[[str], Iterable[int]], k: int
) -> tuple[list[int], str]:
    """Return the first k of what the rungs rank, each once, and the rung that began.

    A rung is asked only if those above have not filled the list.
    """
    chosen: dict[int, None] = {}
    first = rungs[-1]
    for rung in rungs:
        if (before := len(chosen)) == k:
            break
        try:
            found = ranked(rung)
        except Exception as error:  # one broken rung must not take the ones below with it
            log.error("a rung failed", extra={"rung": rung, "error": type(error).__name__})
            continue
        for one in found:
            if len(chosen) == k:
                break
            chosen.setdefault(one)
        if before == 0 and chosen:
            first = rung
    return list(chosen), first


def alike_votes(recommender: Recommender, history: Int64) -> dict[int, float]:
    """Return the items most like the newest of a history, each with the sum of 1 / ((1 + age) rank)."""
    newest = list(dict.fromkeys(history[::-1].tolist()))[:NEWEST]
    votes: dict[int, float] = {}
    near = recommender.nearest(np.array(newest, dtype=np.int64), NEIGHBOURS)
    for age, neighbours in enumerate(near):
        for rank, item in enumerate(neighbours, start=1):
            votes[item] = votes.get(item, 0.0) + 1 / ((1 + age) * rank)
    return votes


def place_scores(number: int) -> list[float]:
    """Return what stands for the scores of a list: 1 / place."""
    return [1 / place for place in range(1, number + 1)]


def _within(ranked: Sequence[int], rules: Rules, steps: int) -> list[int] | None:
    """Return the first items that keep the quotas, required ones last; None if they are too few."""
    required = rules.required.tolist()
    counts = [Counter(quota.labels[rules.required].tolist()) for quota in rules.quotas]
    chosen: list[int] = []
    for item in ranked:
        if len(chosen) + len(required) == steps:
            break
        labels = [int(quota.labels[item]) for quota in rules.quotas]
        full = (
            label >= 0 and count[label] >= quota.limit
            for quota, label, count in zip(rules.quotas, labels, counts, strict=True)
        )
        if not any(full):
            chosen.append(item)
            for label, count in zip(labels, counts, strict=True):
                count[label] += 1
    return [*chosen, *required] if len(chosen) + len(required) == steps else None
