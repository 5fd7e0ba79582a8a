"""A history's baskets are those that the prepare stage would have made of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import DataConfig
from recsys.data.baskets import baskets_of_times, number_labels
from recsys.data.checks import _add_baskets
from recsys.data.ordering import group_baskets


def test_times_within_one_slot_are_one_basket() -> None:
    times = np.array([0, 59, 60, 119, 120, -1], dtype=np.int64)
    assert baskets_of_times(times, 1).tolist() == [0, 0, 1, 1, 2, -1]
    assert baskets_of_times(times, 2).tolist() == [0, 0, 0, 0, 1, -1]
    assert baskets_of_times(times, 0.0125).tolist() == [0, 78, 80, 158, 160, -2]
    assert baskets_of_times(times, None).tolist() == times.tolist()


@pytest.mark.parametrize("minutes", [1, 0.7, 30, 1440])
@given(times=st.lists(st.integers(-(2**53), 2**53), max_size=20))
def test_they_are_the_slots_of_the_prepare_stage(minutes: float, times: list[int]) -> None:
    frame = pl.DataFrame({"timestamp": times}, schema={"timestamp": pl.Int64})
    data = DataConfig(events=["unused"], basket_minutes=minutes)
    expected = _add_baskets(frame, data)["basket_id"].to_list()
    assert baskets_of_times(np.array(times, dtype=np.int64), minutes).tolist() == expected


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12))
def test_labels_are_numbered_as_the_prepare_stage_groups_them(labels: list[str]) -> None:
    places = list(range(len(labels)))
    frame = pl.DataFrame({"user": [0] * len(labels), "basket_id": labels, "place": places})
    grouped = group_baskets(frame)
    numbers = number_labels(labels)
    order = np.argsort(numbers, kind="stable")
    assert order.tolist() == grouped["place"].to_list()
    assert numbers[order].tolist() == grouped["basket_id"].to_list()


def test_labels_may_be_of_any_kind() -> None:
    assert number_labels(["x", 7, "x", "7", 7]).tolist() == [0, 1, 0, 2, 1]
    assert number_labels([]).tolist() == []
