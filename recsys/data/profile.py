"""A data set in figures that can be drawn: volumes, lengths, gaps, frequency, and how the test drifts.

Everything is counted from the packed sequences and one fold. What a reader must not mistake for
knowledge of a model: the test and validation events are counted here too, to show how they differ.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64, SequenceStore, Split, Targets
from recsys.schema import Clock

Float64 = npt.NDArray[np.float64]

PERIODS: Final = 60
BINS: Final = 40
CURVE_POINTS: Final = 160
TRAINING, VALIDATION, TEST, UNUSED = range(4)
PARTS: Final = ("training", "validation", "test", "unused")
"""Unused: in no part, such as what a leave-one-out split leaves between."""


def profile(store: SequenceStore, split: Split, clock: Clock) -> dict[str, Any]:
    """Return the profile of a fold as JSON-like values.

    Keys: `volume` (events a period and part; only of an absolute clock), `lengths` (training events of
    a user), `gaps` (seconds between consecutive events, by part; only with times), `regularity`
    (standard deviation of a user's training gaps), `frequency` (training events of an item by its
    rank), `drift` (the same figure of each part). Histograms are `{"edges": [...], "counts": ...}`
    with one more edge than counts.
    """
    part = parts_of_events(store, split)
    timed = store.timestamps is not None and clock != "none"
    found: dict[str, Any] = {"clock": clock, "parts": list(PARTS)}
    lengths = split.train_end - store.offsets[:-1]
    found["lengths"] = _log_histogram(lengths[lengths > 0].astype(np.float64))
    counts = _counts_by_part(store, part)
    found["frequency"] = frequency_curve(counts[TRAINING])
    if timed:
        assert store.timestamps is not None
        found |= _of_times(np.asarray(store.timestamps), store.offsets, part, clock)
    found["drift"] = _drift(store, split, part, counts, found.get("gap_medians"))
    return found


def parts_of_events(store: SequenceStore, split: Split) -> npt.NDArray[np.int8]:
    """Return which part every event belongs to, int8 [E]; see `PARTS`."""
    part = np.full(store.n_events, UNUSED, dtype=np.int8)
    position = np.arange(store.n_events)
    user = np.repeat(np.arange(store.n_users), np.diff(store.offsets))
    part[position < split.train_end[user]] = TRAINING
    for name, targets in ((VALIDATION, split.validation), (TEST, split.test)):
        part[_positions(targets)] = name
    return part


def _positions(targets: Targets) -> Int64:
    """Return the positions of all events that targets ask for."""
    lengths = targets.end - targets.start
    first = np.repeat(targets.start - (np.cumsum(lengths) - lengths), lengths)
    return np.asarray(first + np.arange(lengths.sum()), dtype=np.int64)


def _counts_by_part(store: SequenceStore, part: npt.NDArray[np.int8]) -> dict[int, Int64]:
    """Count each item's events in each part, int64 [n_items]."""
    size = store.n_items + 1
    return {
        name: np.bincount(np.asarray(store.items[part == name]), minlength=size)[1:].astype(
            np.int64
        )
        for name in range(len(PARTS))
    }


def _of_times(
    times: Int64, offsets: Int64, part: npt.NDArray[np.int8], clock: Clock
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if clock == "absolute":
        found["volume"] = _volume(times, part)
    gaps, user, at = _gaps(times, offsets)
    edges = _log_edges(gaps[gaps > 0])
    found["gaps"] = {
        "edges": edges.tolist(),
        "counts": {
            PARTS[name]: np.histogram(gaps[(part[at] == name) & (gaps > 0)], edges)[0].tolist()
            for name in (TRAINING, VALIDATION, TEST)
        },
        "zero": {
            PARTS[name]: int((gaps[part[at] == name] == 0).sum())
            for name in (TRAINING, VALIDATION, TEST)
        },
    }
    found["gap_medians"] = {
        PARTS[name]: float(np.median(chosen)) if len(chosen := gaps[part[at] == name]) else None
        for name in (TRAINING, VALIDATION, TEST)
    }
    spread = gap_spread(gaps[part[at] == TRAINING], user[part[at] == TRAINING], len(offsets) - 1)
    known = spread[~np.isnan(spread)]
    found["regularity"] = {
        **_log_histogram(known[known > 0]),
        "zero": int((known == 0).sum()),
        "undefined": int(np.isnan(spread).sum()),
    }
    return found


def _volume(times: Int64, part: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return events of each part in `PERIODS` equal periods from the first event to the last."""
    if not len(times):
        return {"edges": [], "counts": {name: [] for name in PARTS}}
    low, high = int(times.min()), int(times.max())
    edges = np.linspace(low, max(high, low + 1), PERIODS + 1)
    counts = {
        title: np.histogram(times[part == name], edges)[0].tolist()
        for name, title in enumerate(PARTS)
    }
    return {"edges": edges.tolist(), "counts": counts}


def _gaps(times: Int64, offsets: Int64) -> tuple[Float64, Int32, Int64]:
    """Return `(seconds to the event before [G], user [G], position [G])` of all but first events."""
    user = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    if len(times) < 2:
        empty = np.zeros(0, dtype=np.int64)
        return empty.astype(np.float64), empty.astype(np.int32), empty
    at = 1 + np.flatnonzero(user[1:] == user[:-1])
    return (times[at] - times[at - 1]).astype(np.float64), user[at], at


def gap_spread(gaps: Float64, user: Int32, n_users: int) -> Float64:
    """Return the standard deviation (ddof 1) of each user's gaps, NaN with fewer than two.

    >>> gap_spread(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1], dtype=np.int32), 2).round(3)
    array([1.414,   nan])
    """
    n = np.bincount(user, minlength=n_users).astype(np.float64)
    mean = np.bincount(user, gaps, minlength=n_users) / np.maximum(n, 1)
    squares = np.bincount(user, (gaps - mean[user]) ** 2, minlength=n_users)
    out = np.full(n_users, np.nan)
    np.divide(squares, n - 1, out=out, where=n > 1)
    spread: Float64 = np.sqrt(out)
    return spread


def spread_before(store: SequenceStore, ends: Int64) -> Float64:
    """Return the standard deviation of the gaps of each user's events before `ends`, seconds, float64 [U].

    `ends` (int64 [U]) are positions in the store. Where events come in baskets a gap is from one's first
    event to the next one's. NaN where a user has fewer than two gaps, or where the data have no times.
    """
    if store.timestamps is None:
        return np.full(store.n_users, np.nan)
    times, offsets = np.asarray(store.timestamps), store.offsets
    place = np.arange(len(times))
    if store.baskets is not None:
        begins = np.ones(len(times), dtype=np.bool_)
        begins[1:] = np.diff(np.asarray(store.baskets)) != 0
        begins[offsets[:-1][offsets[:-1] < len(times)]] = True  # of each user the first
        place = np.flatnonzero(begins)
        offsets = np.searchsorted(place, offsets)
    gaps, user, at = _gaps(times[place], offsets)
    inside = place[at] < ends[user]
    return gap_spread(gaps[inside], user[inside], store.n_users)


def frequency_curve(counts: Int64) -> dict[str, Any]:
    """Return training events by rank of the item (thinned to points even in the logarithm), and the
    shares of all training events that the most frequent 1, 10 and 20 % of the trained items have.
    """
    ordered = np.sort(counts[counts > 0])[::-1]
    n, total = len(ordered), max(1, int(ordered.sum()))
    if not n:
        return {"rank": [], "events": [], "trained": 0, "cold": len(counts), "top_shares": {}}
    ranks = np.unique(np.geomspace(1, n, CURVE_POINTS).round().astype(np.int64))
    cumulative = np.cumsum(ordered)
    shares = {
        f"{share:.0%}": float(cumulative[max(1, round(share * n)) - 1] / total)
        for share in (0.01, 0.1, 0.2)
    }
    return {
        "rank": ranks.tolist(),
        "events": ordered[ranks - 1].tolist(),
        "trained": n,
        "cold": int((counts == 0).sum()),
        "top_shares": shares,
    }


def divergence(one: Int64, other: Int64) -> float | None:
    """Return the Jensen-Shannon divergence of two counts' shares in bits: 0 equal, 1 disjoint.

    >>> divergence(np.array([1, 0]), np.array([0, 5]))
    1.0
    """
    if not one.sum() or not other.sum():
        return None
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2

    def towards(x: Float64) -> float:
        some = x > 0
        return float((x[some] * np.log2(x[some] / middle[some])).sum())

    return (towards(p) + towards(q)) / 2


def _drift(
    store: SequenceStore,
    split: Split,
    part: npt.NDArray[np.int8],
    counts: dict[int, Int64],
    medians: dict[str, float | None] | None,
) -> list[dict[str, Any]]:
    """Return a row for every part: its size, and how far its items are from those of training."""
    user = np.repeat(np.arange(store.n_users), np.diff(store.offsets))
    trained = counts[TRAINING] > 0
    known = split.train_end > store.offsets[:-1]
    rows = []
    for name in (TRAINING, VALIDATION, TEST):
        mine, inside = counts[name], part == name
        users = np.unique(user[inside])
        events = int(inside.sum())
        rows.append(
            {
                "part": PARTS[name],
                "events": events,
                "users": len(users),
                "items": int((mine > 0).sum()),
                "users_new": _ratio(int((~known[users]).sum()), len(users)),
                "events_of_new_items": _ratio(int(mine[~trained].sum()), events),
                "item_divergence": divergence(counts[TRAINING], mine),
                "median_gap_seconds": None if medians is None else medians[PARTS[name]],
            }
        )
    return rows


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _log_edges(values: Float64) -> Float64:
    """Return the edges of `BINS` bins of equal width in the logarithm; none without values."""
    if not len(values):
        return np.zeros(0)
    low, high = float(values.min()), float(values.max())
    edges: Float64 = np.geomspace(low, max(high, low * 1.001), BINS + 1)
    edges[0], edges[-1] = low, max(high, low * 1.001)  # rounding must not lose the ends
    return edges


def _log_histogram(values: Float64) -> dict[str, Any]:
    edges = _log_edges(values)
    counts = np.histogram(values, edges)[0].tolist() if len(edges) else []
    return {"edges": edges.tolist(), "counts": counts}
