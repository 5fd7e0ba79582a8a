"""Event logs with a planted truth: what the next item depends on is known, so a part can be put to the test.

The next item is the successor of the newest one by one of four random permutations or, in one of ten
events, any item. The scenario says by which:

    gap         by how long before the newest event the one before it was: about 1, 5, 25 or 120 hours
    calendar    by the quarter of the day of the newest event
    regularity  after some of the items by whether the user's gaps are all alike or not, else any item; the
                gaps of both kinds of users have the same distribution, so no single one of them tells
    thinned     always the same, but it is the successor of the newest but one rare item; regular users
                take two frequent items after every rare one, irregular users leave out all but the
                newest two. Nothing is trained on irregular users, and they alone are asked about
    rare        always the same, but of groups: a rare item is taken right after the frequent item of its
                group, and has its successors. Every rare item is seen a few times; asked is what follows
                a rare item that is taken without its frequent one
    drift       by the era: three are over when the fourth begins, whose users alone are asked
    returns     not at all: three of five events, and the one that is asked about, are of any item that the
                user has taken before, the others of any of 6,000
    null        always the same: neither times nor rarity mean anything

Of the users that are asked about every other one validates and the rest test: the target is the last
event, and what trains ends two events before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from features.neighbours import (
    ItemEvents,
    Windows,
    count_repeats,
    find_neighbours,
    user_weights,
)
from features.uniformity import gap_moments
from recsys.data.filters import distinct_pairs
from recsys.data.sequences import Int64, SequenceStore, Split, Targets, TrainingData
from recsys.data.statistics import TrainingStatistics

HOUR: Final = 3600
BEGIN: Final = 1_388_534_400
NOISE: Final = 0.1
KEPT: Final = 10
GAP_HOURS: Final = (1.0, 5.0, 25.0, 120.0)

ITEMS: Final = 100
KEYS: Final = 20
FILLERS: Final = 20
RARE_GROUPS: Final = 40
RARE_ITEMS: Final = 30
"""Of each group."""
WIDE: Final = 6000
"""Items in `returns`: hardly one is seen often enough to be known by what follows it."""
RETURN: Final = 0.6
DAYS: Final = 300
ERA: Final = 75
"""Days."""

Rng = np.random.Generator
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """A log, its split and the statistics of its training events."""

    store: SequenceStore
    split: Split
    statistics: TrainingStatistics

    def fingerprint(self) -> str:
        """Return a hash of the events and the split."""
        assert self.store.timestamps is not None
        split = self.split
        targets = [x for t in (split.validation, split.test) for x in (t.user, t.start, t.end)]
        arrays = [self.store.items, self.store.offsets, self.store.timestamps, split.train_end]
        digest = hashlib.sha256()
        for array in [*arrays, *targets]:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def data(self) -> TrainingData:
        """What may be learned from."""
        return TrainingData(self.store, self.split.train_end)


@dataclass(frozen=True)
class Log:
    """One user's events: items from 0 on, their hours since 2014; whether they train, and are asked."""

    items: list[int]
    hours: Float64
    trains: bool = True
    asked: bool = True


def plant(scenario: str, users: int = 1500, seed: int = 0) -> Planted:
    """Return the log of a scenario, a function of the seed."""
    rng = np.random.default_rng(seed)
    size = RARE_GROUPS if scenario == "rare" else ITEMS
    successions = np.stack([rng.permutation(size) for _ in range(4)])
    logs = [SCENARIOS[scenario](rng, successions, user) for user in range(users)]
    lengths = np.array([len(log.items) for log in logs])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([log.items for log in logs]).astype(np.int32) + 1
    hours = np.concatenate([log.hours for log in logs])
    times = BEGIN + np.round(hours * HOUR).astype(np.int64)
    store = SequenceStore(items, offsets, int(items.max()), timestamps=times)
    trains = np.array([log.trains for log in logs])
    asked = np.flatnonzero([log.asked for log in logs])
    split = Split(
        train_end=np.where(trains, offsets[1:] - 2, offsets[:-1]),
        validation=_last(offsets, asked[::2]),
        test=_last(offsets, asked[1::2]),
    )
    return Planted(store, split, statistics_of(TrainingData(store, split.train_end)))


def _last(offsets: Int64, users: Int64) -> Targets:
    end = offsets[users + 1]
    return Targets(users.astype(np.int32), end - 1, end)


def _walk(rng: Rng, successions: Int64, choices: Int64) -> list[int]:
    """Return a walk: from the item at place p the succession `choices[p]` leads to the next one."""
    size = successions.shape[1]
    items = [int(rng.integers(size))]
    for choice in choices[:-1]:
        noise = rng.random() < NOISE
        items.append(int(rng.integers(size) if noise else successions[choice, items[-1]]))
    return items


def _hours(rng: Rng, gaps: Float64) -> Float64:
    """Return times that have these gaps (the first counts from the user's beginning)."""
    return rng.uniform(0, DAYS * 24) + np.cumsum(gaps)


def _length(rng: Rng) -> int:
    return int(rng.integers(10, 21))


def by_gap(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `gap`."""
    kinds = rng.integers(4, size=_length(rng))
    gaps = np.array(GAP_HOURS)[kinds] * rng.uniform(0.8, 1.25, len(kinds))
    kinds[0] = 0  # there is no gap before the first event
    return Log(_walk(rng, successions, kinds), _hours(rng, gaps))


def by_calendar(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `calendar`."""
    hours = _hours(rng, rng.uniform(1, 72, _length(rng)))
    quarters = (hours % 24 // 6).astype(np.int64)
    return Log(_walk(rng, successions, quarters), hours)


def by_regularity(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `regularity`: only after the first KEYS items the user's kind decides, so that what was
    taken before tells little of the kind; one of them is the newest when the user is asked.
    """
    length = _length(rng)
    gaps = 10 ** rng.uniform(0, 2, length)
    if user % 2 == 0:
        gaps = gaps[0] * rng.uniform(0.99, 1.01, length)
    items = [int(rng.integers(ITEMS))]
    while len(items) < length:
        decides = items[-1] < KEYS and rng.random() >= NOISE
        last_but_one = len(items) == length - 2
        new = successions[user % 2, items[-1]] if decides else rng.integers(ITEMS)
        items.append(int(rng.integers(KEYS) if last_but_one else new))
    return Log(items, _hours(rng, gaps))


def thinned(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `thinned`: two interleaved walks over rare items, frequent items in between."""
    steps = np.zeros(4, dtype=np.int64)
    walks = [_walk(rng, successions, steps) for _ in range(2)]
    rare = [walk[step] for step in range(4) for walk in walks]
    fillers = [(ITEMS + rng.integers(FILLERS, size=2)).tolist() for _ in rare]
    regular = user % 4 != 3
    if regular:
        items = [i for one, some in zip(rare, fillers, strict=True) for i in (one, *some)]
    else:
        items = [*rare[:-1], *fillers[-2], rare[-1]]
    gaps = np.full(len(items), 10.0) if regular else 10 ** rng.uniform(0, 2, len(items))
    return Log(items, _hours(rng, gaps), trains=regular, asked=not regular)


def of_rare_items(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `rare`: groups 0..G-1 have a frequent item each, rare items follow."""
    walk = _walk(rng, successions, np.zeros(_length(rng), dtype=np.int64))
    items, gaps = [], []
    for group in walk:
        items.append(group)
        gaps.append(float(rng.uniform(1, 72)))
        if rng.random() < 0.3:
            items.append(_rare_of(rng, group))
            gaps.append(1 / 60)
    group = int(rng.integers(RARE_GROUPS))
    items += [_rare_of(rng, group), int(successions[0, group])]
    return Log(items, _hours(rng, np.array([*gaps, *rng.uniform(1, 72, 2)])))


def _rare_of(rng: Rng, group: int) -> int:
    return RARE_GROUPS + group * RARE_ITEMS + int(rng.integers(RARE_ITEMS))


def by_era(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `drift`: every fourth user begins in the last era, the others end before it."""
    new = user % 4 == 3
    gaps = rng.uniform(1, 36, _length(rng))
    begin = rng.uniform(3 * ERA, DAYS) if new else rng.uniform(0, 3 * ERA - 30)
    hours = 24 * begin + np.cumsum(gaps)  # of at most 30 days
    eras = np.minimum(hours // (24 * ERA), 3).astype(np.int64)
    return Log(_walk(rng, successions, eras), hours, asked=new)


def of_returns(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `returns`."""
    length = _length(rng)
    items: list[int] = []
    for place in range(length):
        returns = place > 2 and rng.random() < RETURN
        items.append(items[rng.integers(place)] if returns else int(rng.integers(WIDE)))
    items[-1] = items[rng.integers(length - 1)]
    return Log(items, _hours(rng, rng.uniform(1, 72, length)))


def of_nothing(rng: Rng, successions: Int64, user: int) -> Log:
    """Scenario `null`."""
    length = _length(rng)
    items = _walk(rng, successions, np.zeros(length, dtype=np.int64))
    return Log(items, _hours(rng, rng.uniform(1, 72, length)))


SCENARIOS: Final[dict[str, Callable[[Rng, Int64, int], Log]]] = {
    "gap": by_gap,
    "calendar": by_calendar,
    "regularity": by_regularity,
    "thinned": thinned,
    "rare": of_rare_items,
    "drift": by_era,
    "returns": of_returns,
    "null": of_nothing,
}


def statistics_of(data: TrainingData) -> TrainingStatistics:
    """Return the statistics of training events, by the functions of the features stage."""
    store, (user, item) = data.store, data.events()
    assert store.timestamps is not None
    trained = np.arange(store.n_events) < np.repeat(data.train_end, np.diff(store.offsets))
    times = np.asarray(store.timestamps[trained])
    by_item = gap_moments(item.astype(np.int64), times, store.n_items + 1).variance()
    by_user = gap_moments(user, times, store.n_users).variance()
    found = TrainingStatistics(by_user, by_item, data.item_counts())
    return replace(found, neighbours=neighbours_of(data, by_item))


def neighbours_of(
    data: TrainingData, item_variance: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    """Return every item's neighbours, int32 [n_items + 1, KEPT], filled up with the item itself."""
    store, (user, item) = data.store, data.events()
    position = np.flatnonzero(
        np.arange(store.n_events) < np.repeat(data.train_end, np.diff(store.offsets))
    )
    repeats = np.zeros(store.n_events, dtype=np.uint16)
    repeats[position] = count_repeats(user, item)
    pair_user, pair_item = distinct_pairs(user.astype(np.int32), item)
    windows = Windows(
        items=store.items,
        times=store.timestamps,
        starts=store.offsets[:-1],
        ends=data.train_end,
        repeats=repeats,
        weights=user_weights(np.bincount(pair_user, minlength=store.n_users)),
    )
    order = np.lexsort((position, item))
    events = ItemEvents(item[order], user[order].astype(np.int32), position[order])
    users_of = np.bincount(pair_item, minlength=store.n_items + 1).astype(np.int64)
    table = np.repeat(np.arange(store.n_items + 1, dtype=np.int32)[:, None], KEPT, axis=1)
    for which, best in find_neighbours(events, windows, users_of, item_variance, KEPT).items():
        table[which, : len(best)] = best
    return table
