"""Accuracy metrics, one value per target, from the ranks of its relevant items.

All of them look at *places*: sort a target's relevant items by rank; the place of the n-th is
max(rank, n). Without ties that is the rank itself. Under ties the rank is an average, which may be a
half and may put two relevant items on one place; the place keeps every metric at most 1. An item is a
hit at k if its place is at most k; a forbidden item has rank and place infinity and is never a hit.

Gains are binary. A target without relevant items has no value (NaN); `rank_targets` drops and counts
such targets, so that none reaches an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64

Float64 = npt.NDArray[np.float64]
CLICK_LIMIT = 500
"""Places that a listener looks at, ten at a time."""
Key = tuple[str, int | None]
"""Name of a metric and its cut-off k, or None where it has none."""


@dataclass(frozen=True)
class Places:
    """The relevant items of T targets, flat, best first inside each target.

    Attributes:
        target: int64 [P], whose item it is.
        nth: int64 [P], 1 for a target's best relevant item, 2 for the next, ...
        place: float64 [P], see above.
        n_relevant: int64 [T].
    """

    target: Int64
    nth: Int64
    place: Float64
    n_relevant: Int64

    @classmethod
    def of(cls, ranks: Float64, offsets: Int64) -> Places:
        """Take target t's ranks from `ranks[offsets[t]:offsets[t + 1]]`, ascending."""
        n_relevant = np.diff(offsets)
        target = np.repeat(np.arange(len(n_relevant)), n_relevant)
        nth = np.arange(len(ranks)) - offsets[:-1][target] + 1
        return cls(target, nth, np.maximum(ranks, nth), n_relevant)

    def total(self, values: npt.NDArray[np.generic]) -> Float64:
        """Return the sum over each target's items of `values` [P], float64 [T]."""
        return np.bincount(self.target, values, minlength=len(self.n_relevant)).astype(np.float64)

    def hits(self, k: int) -> Float64:
        """Count the relevant items within the first k places, float64 [T]."""
        return self.total(self.place <= k)

    def first(self) -> Float64:
        """Return the place of each target's best relevant item, infinity where there is none."""
        first = np.full(len(self.n_relevant), np.inf)
        best = self.nth == 1
        first[self.target[best]] = self.place[best]
        return first


def hit_rate(places: Places, k: int) -> Float64:
    """Return 1 where a relevant item is among the first k, else 0.

    >>> hit_rate(Places.of(np.array([2.0, 9.0]), np.array([0, 2])), 5)
    array([1.])
    """
    return _defined((places.hits(k) > 0).astype(np.float64), places)


def recall(places: Places, k: int) -> Float64:
    """Return hits(k) / number of relevant items (also where that is more than k).

    >>> recall(Places.of(np.array([2.0, 9.0]), np.array([0, 2])), 5)
    array([0.5])
    """
    return _share(places.hits(k), places.n_relevant)


def precision(places: Places, k: int) -> Float64:
    """Return hits(k) / k (also where the list is shorter than k).

    >>> precision(Places.of(np.array([2.0, 9.0]), np.array([0, 2])), 5)
    array([0.2])
    """
    return _defined(places.hits(k) / k, places)


def r_precision(places: Places) -> Float64:
    """Return hits(R) / R, where R is the target's number of relevant items.

    >>> r_precision(Places.of(np.array([2.0, 9.0]), np.array([0, 2])))
    array([0.5])
    """
    limit = places.n_relevant[places.target]
    return _share(places.total(places.place <= limit), places.n_relevant)


def ndcg(places: Places, k: int) -> Float64:
    """Return DCG / ideal DCG at k.

    DCG = sum over hits of 1 / log2(1 + place); the ideal has the first min(k, R) places all relevant.

    >>> ndcg(Places.of(np.array([1.0, 9.0]), np.array([0, 2])), 5).round(4)
    array([0.6131])
    """
    hit = places.place <= k
    gain = np.zeros(len(places.place))
    gain[hit] = 1.0 / np.log2(1.0 + places.place[hit])
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    return _share(places.total(gain), ideal[np.minimum(places.n_relevant, k)])


def reciprocal_rank(places: Places, k: int | None = None) -> Float64:
    """Return 1 / place of the best relevant item, 0 if that is beyond k (MRR is the mean of it).

    >>> reciprocal_rank(Places.of(np.array([2.0, 9.0]), np.array([0, 2])), 5)
    array([0.5])
    """
    first = places.first()
    inverse = 1.0 / first
    return _defined(inverse if k is None else np.where(first <= k, inverse, 0.0), places)


def average_precision(places: Places, k: int) -> Float64:
    """Return the mean precision at the hits: sum over hits of nth / place, over min(k, R).

    With that denominator a perfect list scores 1, also where k < R.

    >>> average_precision(Places.of(np.array([2.0, 4.0]), np.array([0, 2])), 5)
    array([0.5])
    """
    hit = places.place <= k
    gain = np.zeros(len(places.place))
    gain[hit] = places.nth[hit] / places.place[hit]
    return _share(places.total(gain), np.minimum(places.n_relevant, k))


def clicks(places: Places) -> Float64:
    """Return how often a listener asks for ten more until one fits: floor((first place - 1) / 10).

    51 where none is among the first 500 (RecSys Challenge 2018).

    >>> clicks(Places.of(np.array([12.0, 90.0]), np.array([0, 2])))
    array([1.])
    """
    first = places.first()
    shown = np.where(first <= CLICK_LIMIT, np.floor((first - 1.0) / 10.0), CLICK_LIMIT / 10 + 1)
    return _defined(shown, places)


def next_hit_rate(ranks: Float64, offsets: Int64, order: Int32, k: int) -> Float64:
    """Return 1 where the item that comes next (order 0) is among the first k, else 0.

    >>> next_hit_rate(np.array([2.0, 9.0]), np.array([0, 2]), np.array([1, 0], dtype=np.int32), 5)
    array([0.])
    """
    places = Places.of(ranks, offsets)
    return _defined(places.total((ranks <= k) & (order == 0)), places)


def next_recall(ranks: Float64, offsets: Int64, order: Int32, k: int) -> Float64:
    """Return the share of the next k items that are among the first k, in whatever order.

    The denominator is min(k, R): a perfect list scores 1.

    >>> next_recall(np.array([1.0, 9.0]), np.array([0, 2]), np.array([1, 0], dtype=np.int32), 2)
    array([0.5])
    """
    places = Places.of(ranks, offsets)
    found = places.total((places.place <= k) & (order < k))
    return _share(found, np.minimum(places.n_relevant, k))


ACCURACY: Final = ("ndcg", "hr", "recall", "mrr", "map", "precision", "r_precision")
BY_TARGET: Final = (*ACCURACY, "clicks", "next_hr", "next_recall")
"""Metrics with a value for every target, so that two models can be paired by user."""


def target_metrics(
    ranks: Float64, offsets: Int64, ks: Sequence[int], order: Int32 | None = None
) -> dict[Key, Float64]:
    """Return every accuracy metric at every cut-off, float64 [T] each.

    With the `order` of a target's items (see `RankedTargets`) also those of continuing a list.
    """
    places = Places.of(ranks, offsets)
    values: dict[Key, Float64] = {}
    for k in ks:
        values["hr", k] = hit_rate(places, k)
        values["recall", k] = recall(places, k)
        values["ndcg", k] = ndcg(places, k)
        values["mrr", k] = reciprocal_rank(places, k)
        values["map", k] = average_precision(places, k)
        values["precision", k] = precision(places, k)
    values["mrr", None] = reciprocal_rank(places)
    values["r_precision", None] = r_precision(places)
    if order is not None:
        for k in ks:
            values["next_hr", k] = next_hit_rate(ranks, offsets, order, k)
            values["next_recall", k] = next_recall(ranks, offsets, order, k)
        values["clicks", None] = clicks(places)
    return values


def target_metric(ranks: Float64, offsets: Int64, key: Key, order: Int32 | None = None) -> Float64:
    """Return one accuracy metric at one cut-off, float64 [T]: a column of `target_metrics`."""
    places = Places.of(ranks, offsets)
    match key:
        case "hr", int(k):
            return hit_rate(places, k)
        case "recall", int(k):
            return recall(places, k)
        case "ndcg", int(k):
            return ndcg(places, k)
        case "mrr", k:
            return reciprocal_rank(places, k)
        case "map", int(k):
            return average_precision(places, k)
        case "precision", int(k):
            return precision(places, k)
        case "r_precision", None:
            return r_precision(places)
        case "clicks", None:
            return clicks(places)
        case "next_hr", int(k) if order is not None:
            return next_hit_rate(ranks, offsets, order, k)
        case "next_recall", int(k) if order is not None:
            return next_recall(ranks, offsets, order, k)
    raise ValueError(f"{key} is no accuracy metric with a value for every target")


def _share(part: Float64, whole: npt.NDArray[np.generic]) -> Float64:
    """Divide; NaN where there is nothing to divide by."""
    out = np.full(len(part), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out


def _defined(values: Float64, places: Places) -> Float64:
    return np.where(places.n_relevant > 0, values, np.nan)
