from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.ordering import (
    earlier_twin,
    group_baskets,
    places,
    seeded_hash,
    sort_events,
    stable_order,
)

EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(-2, 2), st.integers(0, 2)),
    min_size=1,
    max_size=30,
)


def frame_of(events: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    user, item, time, basket = (list(column) for column in zip(*events, strict=True))
    return pl.DataFrame(
        {
            "user": user,
            "item": item,
            "timestamp": time,
            "basket_id": basket,
            "row": range(len(user)),
        },
        schema_overrides={"user": pl.Int32, "item": pl.Int32, "row": pl.Int64},
    )


@given(
    keys=st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 3)), min_size=0, max_size=30
    )
)
def test_stable_order_sorts_as_python_does(keys: list[tuple[int, int]]) -> None:
    columns = [np.array([key[i] for key in keys], dtype=np.int64) for i in (1, 0)]
    expected = sorted(range(len(keys)), key=lambda row: (keys[row][1], keys[row][0]))
    assert stable_order(columns).tolist() == expected


def test_stable_order_sorts_floats_too() -> None:
    assert stable_order([np.array([0.5, -1.0, 0.5, 0.1])]).tolist() == [1, 3, 0, 2]


@given(events=EVENTS)
def test_ties_keep_the_order_of_the_input(events: list[tuple[int, int, int, int]]) -> None:
    frame = frame_of(events)
    expected = sorted(range(len(events)), key=lambda row: (events[row][0], events[row][2]))
    assert sort_events(frame)["row"].to_list() == expected


def test_position_orders_what_has_the_same_time() -> None:
    frame = pl.DataFrame({"user": [0, 0, 0], "timestamp": [5, 5, 4], "position": [2, 1, 9]})
    assert sort_events(frame)["position"].to_list() == [9, 1, 2]


def test_without_times_the_order_of_the_input_counts() -> None:
    frame = pl.DataFrame({"user": [1, 0, 1, 0], "item": [1, 2, 3, 4]})
    assert sort_events(frame)["item"].to_list() == [2, 4, 1, 3]


@given(events=EVENTS, seed=st.integers(0, 3))
def test_shuffled_ties_stay_inside_their_tie(
    events: list[tuple[int, int, int, int]], seed: int
) -> None:
    plain, shuffled = sort_events(frame_of(events)), sort_events(frame_of(events), seed)
    assert shuffled.select("user", "timestamp").equals(plain.select("user", "timestamp"))
    assert sorted(shuffled["row"].to_list()) == list(range(len(events)))
    assert shuffled.equals(sort_events(frame_of(events), seed))


def test_the_seed_decides_the_shuffle_and_users_differ() -> None:
    frame = frame_of([(user, 0, 7, 0) for user in range(2) for _ in range(50)])
    orders = [sort_events(frame, seed)["row"].to_numpy() for seed in (0, 1)]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0][:50], np.arange(50))
    assert not np.array_equal(orders[0][:50], orders[0][50:] - 50)


@given(events=EVENTS)
def test_an_event_is_a_twin_if_an_earlier_row_equals_it(
    events: list[tuple[int, int, int, int]],
) -> None:
    frame = sort_events(frame_of(events))
    twins = set(frame.filter(pl.Series(earlier_twin(frame)))["row"].to_list())
    expected = {
        row for row, event in enumerate(events) if event[:3] in {e[:3] for e in events[:row]}
    }
    assert twins == expected


def test_positions_tell_repeats_of_one_time_apart() -> None:
    frame = pl.DataFrame(
        {
            "user": [0, 0, 0],
            "item": [3, 3, 3],
            "timestamp": [1, 1, 1],
            "position": [2, 1, 2],
            "row": [0, 1, 2],
        }
    )
    ordered = sort_events(frame)
    assert ordered["row"].to_list() == [1, 0, 2]
    assert earlier_twin(ordered).tolist() == [False, False, True]


def test_fractions_of_a_second_order_events_and_tell_them_apart() -> None:
    frame = pl.DataFrame(
        {
            "user": [0, 0, 0, 0],
            "item": [3, 3, 3, 3],
            "timestamp": [1, 1, 0, 1],
            "fraction": [9, 2, 999, 2],
            "position": [0, 5, 0, 5],
            "row": [0, 1, 2, 3],
        }
    )
    ordered = sort_events(frame)
    assert ordered["row"].to_list() == [2, 1, 3, 0]
    assert sort_events(frame, 1).sort("fraction")["fraction"].to_list() == [2, 2, 9, 999]
    assert sort_events(frame, 1)["fraction"].to_list() == [999, 2, 2, 9]
    assert earlier_twin(ordered).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("columns", "twins"), [(["position"], [False, True]), ([], [False, False])]
)
def test_without_times_positions_tell_twins_and_without_both_there_are_none(
    columns: list[str], twins: list[bool]
) -> None:
    full = pl.DataFrame({"user": [0, 0], "item": [3, 3], "position": [4, 4], "row": [0, 1]})
    frame = full.select("user", "item", "row", *columns)
    assert earlier_twin(sort_events(frame)).tolist() == twins


@given(events=EVENTS)
def test_baskets_are_contiguous_and_come_by_their_first_event(
    events: list[tuple[int, int, int, int]],
) -> None:
    ordered = sort_events(frame_of(events))
    grouped = group_baskets(ordered)
    expected, numbers = [], []
    for user in range(3):
        rows = [row for row in ordered.to_dicts() if row["user"] == user]
        baskets = list(dict.fromkeys(row["basket_id"] for row in rows))
        for number, basket in enumerate(baskets):
            inside = [row["row"] for row in rows if row["basket_id"] == basket]
            expected += inside
            numbers += [number] * len(inside)
    assert grouped["row"].to_list() == expected
    assert grouped["basket_id"].to_list() == numbers
    assert grouped["basket_id"].dtype == pl.Int32


def test_events_without_baskets_come_back_as_they_are() -> None:
    frame = pl.DataFrame({"user": [0], "item": [1]})
    assert group_baskets(frame).equals(frame)


def test_places_count_inside_runs() -> None:
    assert places(np.array([3, 3, 5, 3, 3, 3])).tolist() == [0, 1, 0, 0, 1, 2]
    assert places(np.array([], dtype=np.int64)).tolist() == []


def test_the_seeded_hash_is_fixed_even_and_different_for_each_argument() -> None:
    users = np.arange(20_000)
    draws = seeded_hash(7, users)
    assert np.array_equal(draws, seeded_hash(7, users))
    assert (
        len(np.unique(np.concatenate([draws, seeded_hash(8, users), seeded_hash(7, users, 1)])))
        == 60_000
    )
    counts = np.bincount(draws >> 58, minlength=16)  # sixteen equal ranges of 0..2^62
    assert len(counts) == 16
    expected = 20_000 / 16
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 45  # chi-square, 15 degrees: p < 1e-4 beyond
