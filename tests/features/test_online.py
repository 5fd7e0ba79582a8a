"""A stream replayed one event at a time ends at the rows of the batch, to the last bit."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.calendar import calendar
from features.online import (
    ItemState,
    UserState,
    item_table,
    user_features,
    user_table,
)
from recsys.data.sequences import SequenceStore
from recsys.errors import DataError

HOUR = 3600
Events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 1 << 34)), max_size=40
)
"""(user, item, seconds); the order is that in which they happened, but for the sort by time."""


def store_of(events: list[tuple[int, int, int]]) -> SequenceStore:
    ordered = sorted(events, key=lambda event: event[0])
    counts = np.bincount([event[0] for event in events], minlength=4)
    return SequenceStore(
        items=np.array([event[1] for event in ordered], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        n_items=5,
        timestamps=np.array([event[2] for event in ordered], dtype=np.int64),
    )


@given(Events, st.integers(1, 6))
def test_users_replayed_are_users_of_the_batch(
    events: list[tuple[int, int, int]], keep: int
) -> None:
    events = sorted(events, key=lambda event: event[2])
    states = [UserState() for _ in range(4)]
    for user, item, time in events:
        states[user] = UserState.from_row(states[user].row()).after(item, time, keep)
    store = store_of(events)
    batch = user_table(store, store.offsets[1:], keep).drop("user").to_dicts()
    assert [state.row() for state in states] == batch


@given(Events, st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_store_whose_baskets_overlap_in_time_gives_the_same_rows(
    events: list[tuple[int, int, int]], keep: int, shuffler: random.Random
) -> None:
    """A basket's events stand side by side in a store, so times need not ascend."""
    in_time = sorted({event[2]: event for event in events}.values(), key=lambda event: event[2])
    stored = in_time.copy()
    shuffler.shuffle(stored)
    store = store_of(stored)
    ends = store.offsets[:-1] + np.array(
        [shuffler.randint(0, int(n)) for n in np.diff(store.offsets)]
    )
    first = {
        (user, item, time)
        for user in range(4)
        for _, item, time in [e for e in stored if e[0] == user][: ends[user] - store.offsets[user]]
    }
    for limit, known in ((store.offsets[1:], set(in_time)), (ends, first)):
        states = [UserState() for _ in range(4)]
        for user, item, time in in_time:
            if (user, item, time) in known:
                states[user] = states[user].after(item, time, keep)
        batch = user_table(store, limit, keep).drop("user").to_dicts()
        assert [state.row() for state in states] == batch
    mine = [event for event in stored if event[0] == 0]
    times = np.array([time for *_, time in mine], dtype=np.int64)
    whole = UserState.of_history([item for _, item, _ in mine], times, keep)
    assert whole.row() == user_table(store, store.offsets[1:], keep).drop("user").to_dicts()[0]


@given(Events)
def test_items_replayed_are_items_of_the_batch(events: list[tuple[int, int, int]]) -> None:
    events = sorted(events, key=lambda event: event[2])
    states = [ItemState() for _ in range(6)]
    for _, item, time in events:
        states[item] = ItemState.from_row(states[item].row()).after(time)
    item = np.array([event[1] for event in events], dtype=np.int32)
    times = np.array([event[2] for event in events], dtype=np.int64)
    batch = item_table(item, times, 5)
    assert batch["item"].to_list() == [1, 2, 3, 4, 5]
    assert [state.row() for state in states[1:]] == batch.drop("item").to_dicts()


@given(Events, st.randoms(use_true_random=False))
def test_events_that_come_late_take_their_place(
    events: list[tuple[int, int, int]], shuffler: random.Random
) -> None:
    in_time = sorted({time: item for _, item, time in events}.items())
    came = in_time.copy()
    shuffler.shuffle(came)
    state = UserState()
    for time, item in came:
        state = state.after(item, time)
    times = np.array([time for time, _ in in_time], dtype=np.int64)
    assert state == UserState.of_history([item for _, item in in_time], times)


def test_one_older_than_all_that_is_kept_is_only_counted() -> None:
    state = UserState.of_history([1, 2, 3], np.array([10, 20, 40]), keep=2)
    late = state.after(9, 5, keep=2)
    assert (late.items, late.times, late.gaps) == (state.items, state.times, state.gaps)
    assert (late.events, late.late) == (4, 1)
    placed = state.after(9, 30, keep=2)
    assert (placed.items, placed.times) == ((9, 3), (30, 40))
    assert placed.gaps == UserState.of_history([1, 2, 9, 3], np.array([10, 20, 30, 40])).gaps


def test_a_state_has_times_of_all_events_or_of_none() -> None:
    timed, timeless = UserState().after(1, 5), UserState().after(1)
    with pytest.raises(DataError, match="item 2 has no time, unlike those before it"):
        timed.after(2)
    with pytest.raises(DataError, match="item 2 has a time, unlike those before it"):
        timeless.after(2, 7)


def test_a_late_event_of_an_item_is_in_no_gap() -> None:
    state = ItemState().after(100).after(200).after(150)
    assert (state.events, state.late, state.last_time, state.gaps.count) == (3, 1, 200, 1)


def test_without_times_there_is_only_the_order() -> None:
    state = UserState().after("a").after("b").after("c", keep=2)
    assert state == UserState.of_history(["a", "b", "c"], keep=2)
    assert state.row() == {
        **{"recent_items": ["b", "c"], "recent_times": [], "events": 3, "late": 0},
        **{"gaps": 0, "gap_total": 0, "gap_squares_high": 0, "gap_squares_low": 0},
    }
    features = user_features(state)
    assert features.gap_hours is None and features.calendar is None
    assert math.isnan(features.gap_variance)
    assert ItemState().after().after().row()["last_time"] is None
    bare = SequenceStore(np.array([1, 2], dtype=np.int32), np.array([0, 2]), n_items=3)
    assert user_table(bare, bare.offsets[1:]).drop("user").to_dicts() == [
        UserState.of_history([1, 2]).row()
    ]
    assert item_table(bare.items, None, 3)["last_time"].null_count() == 3


def test_only_events_before_the_ends_count() -> None:
    store = store_of([(0, 1, 10), (0, 2, 30), (0, 3, 90), (1, 4, 5)])
    ends = store.offsets[1:] - np.array([1, 1, 0, 0])
    rows = user_table(store, ends).to_dicts()
    assert rows[0]["recent_items"] == [1, 2] and rows[0]["gap_total"] == 20
    assert rows[1]["recent_items"] == [] and rows[1]["events"] == 0


def test_features_are_of_the_newest_events_and_the_variance_of_all() -> None:
    times = np.array([0, 1, 3, 4]) * HOUR
    features = user_features(UserState.of_history([7, 8, 9, 6], times), length=2, first_year=1970)
    assert features.items == (9, 6)
    assert features.gap_hours is not None and features.gap_hours.tolist() == [0, 1]
    assert features.calendar is not None
    assert features.calendar.tolist() == calendar(times[2:], 1970).tolist()
    assert features.gap_variance == pytest.approx(4_320_000.0, abs=0)
    assert features.events == 4
