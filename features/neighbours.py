"""Neighbours: the items most consumed together with each item, near in time and regular themselves.

    s_ij    = sum over users u with both of 1 / ln(1 + |I_u|) / sqrt(N_i N_j)
    delta   = mean |t_i - t_j| over all pairs of their events, seconds
    score_ij = 0.4 s / (1 + s) + 0.8 / (1 + ln(1 + delta)) + 0.5 / (1 + ln(1 + var_j))

I_u are the different items of user u, N_i the users of item i, var_j the gap variance of item j
(99,999,999 where it is undefined); without times the terms of time are left out. Only the newest events
of a user count, everywhere in these formulas, so that a user costs a bounded number of pairs. Source:
UniRec (CIKM 2024, arXiv 2406.18470), whose public code always misses the third term's look-up.

Pairs are never all there at once. The events of one item after another are joined with the windows of
their users, `PAIRS` pairs at a time, and summed by partner; what stays are `keep` items each. The sums of
an item are taken in the order of its own events, in slices that begin anew with every item, so the
result does not depend on how items are spread over tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.ordering import run_starts, stable_order
from recsys.data.sequences import Int32, Int64

Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer]

PAIRS: Final = 1 << 21
"""Pairs that are held at once, about 80 bytes each."""
UNDEFINED_VARIANCE: Final = 99_999_999.0


@dataclass(frozen=True)
class Windows:
    """The newest training events of every user, as stretches of the store's arrays.

    Attributes:
        items: int32 [E], the store's.
        times: int64 [E] seconds, or None.
        starts, ends: int64 [U]; user u's events are `starts[u]:ends[u]`.
        repeats: integers [E]; how many events of the window have this event's item; 0 outside.
        weights: float64 [U]; 1 / ln(1 + |I_u|).
    """

    items: Int32
    times: Int64 | None
    starts: Int64
    ends: Int64
    repeats: Counts
    weights: Float64


@dataclass(frozen=True)
class ItemEvents:
    """The windows' events of some items, by item, then position in the store.

    `item` int32 [M], `user` int32 [M], `position` int64 [M].
    """

    item: Int32
    user: Int32
    position: Int64

    def slice(self, first: int, end: int) -> ItemEvents:
        """Return the rows `first:end`."""
        return ItemEvents(self.item[first:end], self.user[first:end], self.position[first:end])


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs of events with equal (item, other), by item, then other.

    `shares` float64 sums to the users' weights, `seconds` int64 to the distances in time, `events`
    int64 counts pairs of events.
    """

    item: Int64
    other: Int64
    shares: Float64
    seconds: Int64
    events: Int64


def count_repeats(user: Int32, item: Int32) -> Int64:
    """Return for each event how many of the same user have the same item, int64 [E]."""
    order = stable_order([user, item])
    starts = np.flatnonzero(run_starts([user[order], item[order]]))
    lengths = np.diff(np.append(starts, len(order)))
    repeats = np.empty(len(order), dtype=np.int64)
    repeats[order] = np.repeat(lengths, lengths)
    return repeats


def user_weights(distinct_items: Int64) -> Float64:
    """Return 1 / ln(1 + |I_u|), 0 for users without items."""
    weights = np.zeros(len(distinct_items))
    some = distinct_items > 0
    weights[some] = 1.0 / np.log1p(distinct_items[some])
    return weights


def find_neighbours(
    events: ItemEvents,
    windows: Windows,
    item_users: Int64,
    item_variance: Float64 | None,
    keep: int,
) -> dict[int, Int32]:
    """Return the best neighbours of every item of `events` that has any, best first, at most `keep`.

    Args:
        events: the windows' events of the items that are asked for.
        windows: all users' windows.
        item_users: int64 [n_items + 1], N_i.
        item_variance: float64 [n_items + 1], NaN where undefined; None if no item has one.
        keep: neighbours an item; equal scores go by the smaller index.
    """
    best: dict[int, Int32] = {}
    for sums in pair_sums(events, windows, len(item_users)):
        scores = pair_scores(sums, item_users, item_variance, timed=windows.times is not None)
        starts = np.flatnonzero(run_starts([sums.item]))
        ends = np.append(starts[1:], len(scores))
        for first, end in zip(starts.tolist(), ends.tolist(), strict=True):
            chosen = first + _largest(scores[first:end], keep)
            best[int(sums.item[first])] = sums.other[chosen].astype(np.int32)
    return best


def pair_scores(
    sums: PairSums, item_users: Int64, item_variance: Float64 | None, *, timed: bool = True
) -> Float64:
    """Return the score of every pair; without times that of co-consumption alone."""
    s = sums.shares / np.sqrt(item_users[sums.item] * item_users[sums.other].astype(np.float64))
    score: Float64 = 0.4 * s / (1.0 + s)
    if not timed:
        return score
    score += 0.8 / (1.0 + np.log1p(sums.seconds / sums.events))
    variance = np.full(len(score), UNDEFINED_VARIANCE)
    if item_variance is not None:
        variance = np.nan_to_num(item_variance[sums.other], nan=UNDEFINED_VARIANCE)
    score += 0.5 / (1.0 + np.log1p(variance))
    return score


def pair_sums(events: ItemEvents, windows: Windows, n_ids: int) -> Iterator[PairSums]:
    """Yield the sums of whole items, in order; `n_ids` is above every item."""
    pairs = (windows.ends - windows.starts)[events.user]
    starts = np.flatnonzero(run_starts([events.item]))
    for first, end in _blocks(np.append(starts, len(pairs)), pairs, n_ids):
        block = events.slice(first, end)
        upto = np.cumsum(pairs[first:end])
        cuts = np.searchsorted(upto, np.arange(PAIRS, upto[-1], PAIRS), side="right")
        edges = np.unique(np.concatenate([[0], cuts, [end - first]]))
        parts = [
            _sum_pairs(block.slice(low, high), windows, n_ids)
            for low, high in pairwise(edges.tolist())
        ]
        sums = parts[0] if len(parts) == 1 else _join(parts, n_ids)
        if len(sums.item):  # none where every user has but this one item
            yield sums


def _blocks(edges: Int64, pairs: Int64, n_ids: int) -> Iterator[tuple[int, int]]:
    """Yield the rows of whole items that have at most `PAIRS` pairs together, or of a single item."""
    upto = np.concatenate([[0], np.cumsum(pairs)])[edges]
    most_items = max(1, (1 << 40) // n_ids)  # so that (item, other, row) fits 63 bits
    item, n_items = 0, len(edges) - 1
    while item < n_items:
        last = int(np.searchsorted(upto, upto[item] + PAIRS, side="right")) - 1
        last = min(max(last, item + 1), item + most_items)
        yield int(edges[item]), int(edges[last])
        item = last


def _sum_pairs(events: ItemEvents, windows: Windows, n_ids: int) -> PairSums:
    """Join events with their users' windows and sum by (item, other)."""
    lengths = (windows.ends - windows.starts)[events.user]
    row = np.repeat(np.arange(len(lengths)), lengths)
    first = np.cumsum(lengths) - lengths
    other = np.arange(len(row)) + np.repeat(windows.starts[events.user] - first, lengths)
    partner = windows.items[other]
    different = partner != events.item[row]
    row, other, partner = row[different], other[different], partner[different]
    position = events.position[row]
    # A user counts once for a pair of items, however many of their events make it up.
    times_counted = windows.repeats[position] * windows.repeats[other].astype(np.int64)
    shares = windows.weights[events.user[row]] / times_counted
    if windows.times is None:
        seconds = np.zeros(len(row), dtype=np.int64)
    else:
        seconds = np.abs(windows.times[position] - windows.times[other])
    item = events.item[row].astype(np.int64)
    return _reduce(
        PairSums(item, partner.astype(np.int64), shares, seconds, np.ones_like(item)), n_ids
    )


def _join(parts: list[PairSums], n_ids: int) -> PairSums:
    names = ("item", "other", "shares", "seconds", "events")
    return _reduce(
        PairSums(*(np.concatenate([getattr(p, name) for p in parts]) for name in names)), n_ids
    )


def _reduce(pairs: PairSums, n_ids: int) -> PairSums:
    """Sum rows of equal (item, other); rows of one sum are added in their order."""
    if not len(pairs.item):
        return pairs
    base = int(pairs.item[0])
    key = (pairs.item - base) * n_ids + pairs.other
    order = _sorting_order(key)
    starts = np.flatnonzero(run_starts([key[order]]))
    sums = (
        np.add.reduceat(column[order], starts)
        for column in (pairs.shares, pairs.seconds, pairs.events)
    )
    chosen = order[starts]
    return PairSums(pairs.item[chosen], pairs.other[chosen], *sums)


def _sorting_order(key: Int64) -> Int64:
    """Return the stable order of non-negative keys; by one sort of (key, row) where 63 bits hold it."""
    bits = max(1, (len(key) - 1).bit_length())
    if int(key.max()).bit_length() + bits > 63:
        return stable_order([key])
    both = (key << bits) | np.arange(len(key), dtype=np.int64)
    both.sort()  # vectorised for plain integers, unlike an argsort
    return both & ((1 << bits) - 1)


def _largest(scores: Float64, keep: int) -> Int64:
    """Return the places of the `keep` highest scores, highest first, ties by place."""
    candidates = np.arange(len(scores))
    if len(scores) > keep:
        limit = np.partition(scores, len(scores) - keep)[len(scores) - keep]
        candidates = np.flatnonzero(scores >= limit)
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:keep]]
