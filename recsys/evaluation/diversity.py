"""How different lists are, inside and from one another: alpha-NDCG, distinct-n, oracle@k, overlap.

`beyond` has the intra-list distance, and the coverage of the catalogue by lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.data.sequences import Int64
from recsys.evaluation.metrics import Float64
from recsys.schema import PAD

Topics = frozenset[int]
EXACT_PLACES = 6
"""Places up to which the ideal of alpha-NDCG is the true maximum."""


@dataclass(frozen=True)
class AlphaNDCG:
    """A value and how it is normalised: by the true ideal, or by a greedy one, which it may exceed."""

    value: float
    exact: bool


def alpha_dcg(ranked: Sequence[Topics], k: int, alpha: float) -> float:
    """Return the sum over the first k places r of gain / log2(1 + r).

    gain = sum over the item's topics of (1 - alpha)^(earlier items with the topic).

    >>> round(alpha_dcg([frozenset({1}), frozenset({1, 2})], 2, 0.5), 4)
    1.9464
    """
    counts: dict[int, int] = {}
    total = 0.0
    for place, topics in enumerate(ranked[:k], start=1):
        total += _gain(topics, counts, alpha) / float(np.log2(1 + place))
        counts = _with(topics, counts)
    return total


def alpha_ndcg(
    ranked: Sequence[Topics], pool: Sequence[Topics], k: int, alpha: float = 0.5
) -> AlphaNDCG:
    """Return alpha-DCG at k over that of the ideal order of `pool`, all items that are relevant.

    Source: Clarke et al. 2008. To find the ideal is NP-hard: for k up to 6 it is exact, above it is the
    greedy order, below the true maximum, so that a value may exceed 1; `exact` says which. NaN for a
    pool without topics.
    """
    exact = k <= EXACT_PLACES
    ideal = best_alpha_dcg(pool, k, alpha) if exact else greedy_alpha_dcg(pool, k, alpha)
    value = alpha_dcg(ranked, k, alpha) / ideal if ideal > 0 else float("nan")
    return AlphaNDCG(value, exact)


def greedy_alpha_dcg(pool: Sequence[Topics], k: int, alpha: float) -> float:
    """Return alpha-DCG at k of the order that takes the greatest gain at each place, ties in order."""
    left, counts, total = list(pool), dict[int, int](), 0.0
    for place in range(1, min(k, len(pool)) + 1):
        gains = [_gain(topics, counts, alpha) for topics in left]
        best = left.pop(int(np.argmax(gains)))
        total += max(gains) / float(np.log2(1 + place))
        counts = _with(best, counts)
    return total


def best_alpha_dcg(pool: Sequence[Topics], k: int, alpha: float) -> float:
    """Return the greatest alpha-DCG at k of any order, by branch and bound.

    Gains only fall as topics are covered, so the greatest gains of now bound what may follow; items of
    the same topics are tried once.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = greedy_alpha_dcg(pool, k, alpha)

    def extend(left: tuple[Topics, ...], counts: dict[int, int], place: int, total: float) -> None:
        nonlocal best
        best = max(best, total)
        if place == k or not left:
            return
        gains = np.array([_gain(topics, counts, alpha) for topics in left])
        order = np.argsort(-gains, kind="stable")
        most = gains[order[: k - place]]
        if total + float(most @ discount[place : place + len(most)]) <= best + 1e-12:
            return
        tried = set[Topics]()
        for at in order.tolist():
            if left[at] not in tried:
                tried.add(left[at])
                gained = float(gains[at] * discount[place])
                rest = left[:at] + left[at + 1 :]
                extend(rest, _with(left[at], counts), place + 1, total + gained)

    extend(tuple(pool), {}, 0, 0.0)
    return best


def _gain(topics: Topics, counts: dict[int, int], alpha: float) -> float:
    return float(sum((1.0 - alpha) ** counts.get(topic, 0) for topic in sorted(topics)))


def _with(topics: Topics, counts: dict[int, int]) -> dict[int, int]:
    return counts | {topic: counts.get(topic, 0) + 1 for topic in topics}


def distinct_n(lists: Int64, n: int) -> Float64:
    """Return (distinct n-grams) / (all n-grams) over the lists of each request, float64 [N].

    An n-gram is n neighbouring items of one list; the denominator is the sum over the lists of
    length - n + 1, so the value is at most 1. `lists` [N, B, T] are filled up with PAD at the right. NaN
    where no list has n items.

    >>> distinct_n(np.array([[[1, 2, 3], [1, 2, 0]]]), 2).round(4)
    array([0.6667])
    """
    requests, _, steps = lists.shape
    if steps < n:
        return np.full(requests, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(lists, n, axis=2).reshape(requests, -1, n)
    values = np.full(requests, np.nan)
    for row, grams in enumerate(windows):
        whole = grams[(grams != PAD).all(1)]
        if len(whole):
            values[row] = len(np.unique(whole, axis=0)) / len(whole)
    return values


def oracle_at(values: Float64, k: int) -> Float64:
    """Return the best value among the first k lists of each request, float64 [N].

    `values` [N, B] is any metric of each list, best list first; NaN for a list that is not there. NaN
    where none of the k is.

    >>> oracle_at(np.array([[0.2, 0.5, 0.9]]), 2)
    array([0.5])
    """
    known = np.where(np.isnan(values[:, :k]), -np.inf, values[:, :k])
    best: Float64 = known.max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(best), np.nan, best)


def overlap(lists: Int64) -> Float64:
    """Return the mean over pairs of lists of |common items| / |items of either|, float64 [N].

    `lists` [N, B, T] are filled up with PAD; lists of nothing take no part. NaN with fewer than two.
    """
    values = np.full(len(lists), np.nan)
    for row, some in enumerate(lists):
        sets = [set(one[one != PAD].tolist()) for one in some]
        sets = [one for one in sets if one]
        pairs = [
            len(one & other) / len(one | other)
            for at, one in enumerate(sets)
            for other in sets[at + 1 :]
        ]
        if pairs:
            values[row] = float(np.mean(pairs))
    return values
