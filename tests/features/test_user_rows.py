"""Live events count once, however often and in whatever portions they come."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online import UserState
from features.user_rows import LiveEvent, UserRow, published_rows
from recsys.data.sequences import SequenceStore

EVENTS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=25)
KEEP = st.integers(1, 8)


def live(events: list[tuple[str, int]], first: int = 1) -> list[LiveEvent]:
    return [LiveEvent(item, time, number) for number, (item, time) in enumerate(events, first)]


def published(events: list[tuple[str, int]], keep: int) -> UserRow:
    """Return the row of a store with one user, who has these events."""
    store = SequenceStore(
        np.array([ord(item) - ord("a") + 1 for item, _ in events], dtype=np.int32),
        np.array([0, len(events)], dtype=np.int64),
        6,
        timestamps=np.array([time for _, time in events], dtype=np.int64),
    )
    [values] = published_rows(store, pl.Series(["u"]), pl.Series(list("abcdef")), keep).to_dicts()
    row = UserRow.of_values(values)
    written = row.values()
    for name, value in written.items():
        assert value == values[name] or (value != value and values[name] != values[name])
    return row


@given(EVENTS, KEEP, st.integers(0, 25))
def test_live_events_end_where_data_with_them_begin(
    events: list[tuple[str, int]], keep: int, at: int
) -> None:
    ordered = [(item, place) for place, (item, _) in enumerate(events)]
    row = published(ordered[:at], keep).after(live(ordered[at:]), keep)
    assert row.state == published(ordered, keep).state


@given(EVENTS, KEEP, st.data())
def test_portions_and_repeats_change_nothing(
    events: list[tuple[str, int]], keep: int, data: st.DataObject
) -> None:
    numbered = live(events)
    together = UserRow().after(numbered, keep)
    row, at = UserRow(), 0
    while at < len(numbered):
        at += data.draw(st.integers(1, 5))
        row = row.after(numbered[:at], keep)
    assert row == together
    assert together.after(numbered, keep) is together


@pytest.mark.parametrize("time", [12, 45, 60])
def test_a_live_event_finds_its_place_among_baskets_that_overlap(time: int) -> None:
    stored = [("a", 10), ("c", 50), ("b", 20)]  # a and c are one basket, b came in between
    row = published(stored, 10).after(live([("e", time)]), 10)
    assert row.state == published(sorted([*stored, ("e", time)], key=lambda e: e[1]), 10).state
    assert row.state.gaps.variance() > 0


def test_live_events_that_came_back_with_the_data_are_known() -> None:
    row = UserRow(UserState.of_history(["a", "b", "b"], np.array([1, 5, 5])))
    events = live([("b", 5), ("b", 5), ("b", 5), ("c", 7)])
    after = row.after(events, 10)
    assert after.state.items == ("a", "b", "b", "b", "c")
    assert after.state.times == (1, 5, 5, 5, 7)
    assert after.applied == 4
    assert after.after(live([("c", 7)], first=5), 10).state.items[-2:] == ("c", "c")


def test_a_history_without_times_takes_events_in_their_order() -> None:
    row = UserRow(UserState.of_history(["a", "b"])).after(live([("c", 9), ("d", 3)]), 3)
    assert row == UserRow(UserState(("b", "c", "d"), (), 4), 2)


def test_what_follows_from_a_row() -> None:
    row = UserRow(UserState.of_history(["a", "b", "c"], np.array([0, 7200, 9000])), 9)
    values = row.values()
    assert UserRow.of_values(values) == row
    assert values["gap_hours"] == [0, 2, 0]
    assert values["gap_median"] == 4500
    assert values["gap_variance"] == 14_580_000


def test_users_without_events_and_data_without_times_have_rows() -> None:
    items = np.array([1, 2, 2], dtype=np.int32)
    store = SequenceStore(items, np.array([0, 0, 3, 3], dtype=np.int64), 2)
    table = published_rows(store, pl.Series(["a", "b", "c"]), pl.Series(["x", "y"]), 2)
    assert table["user_id"].to_list() == ["a", "b", "c"]
    assert table["recent_items"].to_list() == [[], ["y", "y"], []]
    assert table["recent_times"].to_list() == [[], [], []]
    assert table["gap_median"].to_list() == pytest.approx([np.nan] * 3, nan_ok=True)
