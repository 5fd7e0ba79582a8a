"""What a request gets when the model fails: the next rung that has something, each use counted.

    model -> item_to_item -> popular_in_segment -> popular

`item_to_item` adds up, over the newest known items of the history, the places that the items most like
them have: sum of 1 / ((1 + age) rank). `popular_in_segment` are the items of most training events among
those of the history's commonest segment, say its category; `popular` those of all. A list that a rung
does not fill is filled by the next. Exclusions hold on every rung.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np

from recsys.data.sequences import Int64
from recsys.recommender import Query, Recommendation, Recommender
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
        resolved = self._recommender.resolve(query)
        permitted = self._permitted(resolved.rule, resolved.history.seen)
        chosen: dict[int, float] = {}
        first = POPULAR
        for rung in RUNGS:
            before = len(chosen)
            for item in self._ranked(rung, resolved.history.items):
                if len(chosen) == query.k:
                    break
                if permitted[item]:
                    chosen.setdefault(item, 1 / (1 + len(chosen)))
            if before == 0 and chosen:
                first = rung
        answer = self._recommender.answer(resolved, list(chosen), list(chosen.values()))
        return answer, first

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
        try:
            match rung:
                case "item_to_item":
                    return self._alike(history)
                case "popular_in_segment":
                    return self._popular_in_segment(history)
                case _:
                    return map(int, self._order)
        except Exception as error:  # one broken rung must not take the ones below with it
            log.error("a rung failed", extra={"rung": rung, "error": type(error).__name__})
            return ()

    def _alike(self, history: Int64) -> list[int]:
        newest = list(dict.fromkeys(history[::-1].tolist()))[:NEWEST]
        votes: dict[int, float] = {}
        near = self._recommender.nearest(np.array(newest, dtype=np.int64), NEIGHBOURS)
        for age, neighbours in enumerate(near):
            for rank, item in enumerate(neighbours, start=1):
                votes[item] = votes.get(item, 0.0) + 1 / ((1 + age) * rank)
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
