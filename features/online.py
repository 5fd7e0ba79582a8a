"""The state of a user and of an item, updated event by event, as plain data; and a request's features.

A state is what an online store keeps under a user or an item: `row()` gives it as integers and lists,
`from_row` takes it back. `user_table` and `item_table` make the same rows of many users and items at
once. Replaying a log event by event ends at the same rows, to the last bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.calendar import calendar
from features.intervals import gap_hours
from features.recent import recent_lists, recent_starts
from features.uniformity import (
    NO_GAPS,
    GapMoments,
    MomentTable,
    gap_moments,
    in_order,
    join_squares,
    split_squares,
)
from recsys.data.ordering import stable_order
from recsys.data.sequences import Int32, Int64, SequenceStore
from recsys.errors import DataError

Item = int | str
KEEP: Final = 100
"""Newest events of a user that are kept."""


@dataclass(frozen=True)
class UserState:
    """What is kept of a user.

    Attributes:
        items: the newest items, oldest first; dense indices or ids, as the caller likes.
        times: their seconds, ascending; empty where events have no time.
        events: events in all.
        late: events that came so late that they lie before all kept ones; they are in no gap.
        gaps: the moments of all gaps, those between forgotten events included.
    """

    items: tuple[Item, ...] = ()
    times: tuple[int, ...] = ()
    events: int = 0
    late: int = 0
    gaps: GapMoments = NO_GAPS

    def after(self, item: Item, time: int | None = None, keep: int = KEEP) -> UserState:
        """Return the state after one event more; equal times keep the order in which events come.

        An event that comes late takes its place among the kept ones, and the gaps are those of the
        right order. One older than all kept ones, when others are forgotten already, is only counted.

        Raises:
            DataError: the event has a time and those before it have none, or the other way round.
        """
        if self.items and (time is None) == bool(self.times):
            raise DataError(
                f"an event of item {item!r} has {'no' if time is None else 'a'} time, unlike those before "
                "it; give all events of a user times, or none"
            )
        if time is None or not self.items:
            return self._inserted(len(self.items), item, time, self.gaps, keep)
        place = bisect_right(self.times, time)
        if place == 0 and self.events > len(self.items):
            return replace(self, events=self.events + 1, late=self.late + 1)
        gaps, inside = self.gaps, 0 < place < len(self.times)
        if inside:
            gaps = gaps.remove(self.times[place] - self.times[place - 1])
        if place > 0:
            gaps = gaps.add(time - self.times[place - 1])
        if place < len(self.times):
            gaps = gaps.add(self.times[place] - time)
        return self._inserted(place, item, time, gaps, keep)

    def _inserted(
        self, place: int, item: Item, time: int | None, gaps: GapMoments, keep: int
    ) -> UserState:
        items = (*self.items[:place], item, *self.items[place:])[-keep:]
        times = self.times
        if time is not None:
            times = (*times[:place], time, *times[place:])[-keep:]
        return UserState(items, times, self.events + 1, self.late, gaps)

    @classmethod
    def of_history(
        cls, items: Sequence[Item], times: Int64 | None = None, keep: int = KEEP
    ) -> UserState:
        """Return the state after a whole history without a step for each event.

        Events are brought into the order of their times, equal ones as they are; without times the
        newest one is the last.
        """
        if times is None:
            return cls(tuple(items[-keep:]), (), len(items))
        table = gap_moments(np.zeros(len(times), dtype=np.int64), times, 1)
        newest = np.argsort(times, kind="stable")[-keep:]
        kept = tuple(items[place] for place in newest.tolist())
        return cls(kept, tuple(times[newest].tolist()), len(items), 0, table.of(0))

    def row(self) -> dict[str, Any]:
        """Return the state as integers and lists of them (items as they are)."""
        counts = {"events": self.events, "late": self.late}
        recent = {"recent_items": list(self.items), "recent_times": list(self.times)}
        return recent | counts | moment_row(self.gaps)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> UserState:
        """Return the state that a row holds; further columns are ignored."""
        items, times = tuple(row["recent_items"]), tuple(row["recent_times"])
        return cls(items, times, int(row["events"]), int(row["late"]), moments_of_row(row))


@dataclass(frozen=True)
class ItemState:
    """What is kept of an item: its events, the newest one's time, the gaps between them.

    An event that comes late (before the newest) counts as an event and in `late`, but in no gap.
    """

    events: int = 0
    late: int = 0
    last_time: int | None = None
    gaps: GapMoments = NO_GAPS

    def after(self, time: int | None = None) -> ItemState:
        """Return the state after one event more, of whichever user."""
        if time is None or self.last_time is None:
            return ItemState(self.events + 1, self.late, time, self.gaps)
        if time < self.last_time:
            return replace(self, events=self.events + 1, late=self.late + 1)
        gaps = self.gaps.add(time - self.last_time)
        return ItemState(self.events + 1, self.late, time, gaps)

    def row(self) -> dict[str, Any]:
        """Return the state as integers; `last_time` is None before the first event."""
        own = {"events": self.events, "late": self.late, "last_time": self.last_time}
        return own | moment_row(self.gaps)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ItemState:
        """Return the state that a row holds; further columns are ignored."""
        return cls(int(row["events"]), int(row["late"]), row["last_time"], moments_of_row(row))


@dataclass(frozen=True)
class UserFeatures:
    """What a model or a client reads of one user, n the number of events looked at.

    Attributes:
        items: the newest items, oldest first.
        gap_hours: int64 [n] hours since the event before, None without times.
        calendar: int64 [n, 7], None without times or a first year.
        gap_variance: of all the user's gaps, seconds squared; NaN with fewer than two.
        events: events in all.
    """

    items: tuple[Item, ...]
    gap_hours: Int64 | None
    calendar: Int64 | None
    gap_variance: float
    events: int


def user_features(
    state: UserState,
    length: int = 50,
    first_year: int | None = None,
    last_year: int | None = None,
) -> UserFeatures:
    """Return the features of a user's newest `length` events.

    `first_year` and `last_year` are those of the training events; without a first year (a clock that
    is not absolute) there are no calendar features.
    """
    items = state.items[-length:]
    variance = state.gaps.variance()
    if not state.times:
        return UserFeatures(items, None, None, variance, state.events)
    times = np.array(state.times[-length:], dtype=np.int64)
    known = None if first_year is None else calendar(times, first_year, last_year)
    return UserFeatures(items, gap_hours(times), known, variance, state.events)


def user_table(store: SequenceStore, ends: Int64, keep: int = KEEP) -> pl.DataFrame:
    """Return `user` and the columns of `UserState.row` of every user, from the events before `ends`.

    `ends` (int64 [U]) are positions in the store; the newest events stand in the order of their times
    (a store has the events of a basket side by side, also where another basket began in between).
    Memory grows with the store: cut a large one into blocks of users.
    """
    offsets, times = store.offsets, store.timestamps
    starts, counts = recent_starts(offsets, ends, keep), ends - offsets[:-1]
    table = MomentTable(*(np.zeros(store.n_users, dtype=np.int64) for _ in range(4)))
    # Where an event of the rows below stands in the store: by default at its own place.
    place: Int64 | slice = slice(None)
    if times is not None:
        owner = np.repeat(np.arange(store.n_users, dtype=np.int64), np.diff(offsets))
        trains = np.arange(store.n_events) < ends[owner]
        table = gap_moments(owner[trains], times[trains], store.n_users)
        place = _by_time(owner, trains, times)
    items = np.asarray(store.items)[place]
    known = np.zeros(0, dtype=np.int64) if times is None else np.asarray(times)[place]
    no_times = starts if times is None else ends
    return pl.DataFrame(
        {
            "user": np.arange(store.n_users, dtype=np.int32),
            "recent_items": recent_lists("recent_items", items, starts, ends),
            "recent_times": recent_lists("recent_times", known, starts, no_times),
            "events": counts,
            "late": np.zeros(store.n_users, dtype=np.int64),
            **moment_columns(table),
        }
    )


def _by_time(owner: Int64, trains: npt.NDArray[np.bool_], times: Int64) -> Int64 | slice:
    """Return the places of all events by user, those that train first and these by time."""
    later, same = times[1:] >= times[:-1], owner[1:] == owner[:-1]
    if bool(np.all(later | ~same | ~trains[1:])):
        return slice(None)
    others = (~trains).astype(np.int64)
    return stable_order([owner, others, np.where(trains, times, 0)])


def item_table(item: Int32, times: Int64 | None, n_items: int) -> pl.DataFrame:
    """Return `item` (1..n) and the columns of `ItemState.row` of the catalogue, from events [E]."""
    events = np.bincount(item, minlength=n_items + 1)
    table = MomentTable(*(np.zeros(n_items + 1, dtype=np.int64) for _ in range(4)))
    last = np.full(n_items + 1, -1, dtype=np.int64)
    if times is not None:
        in_time = in_order(item, times)
        table = gap_moments(*in_time, n_items + 1)
        last[in_time[0]] = in_time[1]  # of equal items the last one stays
    seen = pl.Series(events > 0) if times is not None else pl.Series([False] * (n_items + 1))
    return pl.DataFrame(
        {
            "item": np.arange(n_items + 1, dtype=np.int32),
            "events": events,
            "late": np.zeros(n_items + 1, dtype=np.int64),
            "last_time": pl.select(pl.when(seen).then(pl.Series(last))).to_series(),
            **moment_columns(table),
        }
    )[1:]


def moment_row(gaps: GapMoments) -> dict[str, int]:
    """Return moments as four integers that int64 holds."""
    high, low = split_squares(gaps.squares)
    sums = {"gap_total": gaps.total, "gap_squares_high": high, "gap_squares_low": low}
    return {"gaps": gaps.count, **sums}


def moments_of_row(row: Mapping[str, Any]) -> GapMoments:
    """Return the moments that `moment_row` wrote."""
    squares = join_squares(int(row["gap_squares_high"]), int(row["gap_squares_low"]))
    return GapMoments(int(row["gaps"]), int(row["gap_total"]), squares)


def moment_columns(table: MomentTable) -> dict[str, Int64]:
    """Return many moments as the columns of `moment_row`."""
    sums = {"gap_total": table.total, "gap_squares_high": table.high, "gap_squares_low": table.low}
    return {"gaps": table.count, **sums}
