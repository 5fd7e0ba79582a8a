"""What a recommender is asked and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EMPTY_HISTORY = "empty_history"
UNKNOWN_HISTORY = "unknown_history"
UNKNOWN_USER = "unknown_user"


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
