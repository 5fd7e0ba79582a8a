from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.times import FRACTION, join_frames, split_seconds

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("values", "unit", "seconds", "fraction"),
    [
        ([1_500, -1_500, None], "ms", [1, -2, None], [500 * MILLION, 500 * MILLION, None]),
        ([1_000_000_001, 7], "ns", [1, 0], [1, 7]),
        (["1000001", "x", "5"], "us", [1, None, 0], [1_000, None, 5_000]),
        (["1.25", "3"], "s", [1, 3], [250 * MILLION, 0]),
        ([1.25, -0.25, float("nan")], "s", [1, -1, None], [250 * MILLION, 750 * MILLION, None]),
        (
            ["1970-01-01T00:00:01.9", "1970-01-02", "1970-01-01 01:00:00.000001+01:00"],
            "text",
            [1, 86_400, 0],
            [900 * MILLION, 0, 1_000],
        ),
        ([datetime(1970, 1, 1, 0, 0, 1, 5)], "s", [1], [5_000]),
    ],
)
def test_what_lies_between_seconds_is_kept_beside_them(
    values: list[Any], unit: str, seconds: list[int | None], fraction: list[int | None]
) -> None:
    whole, rest = split_seconds(pl.Series("t", values, strict=False), unit)
    assert whole.to_list() == seconds
    assert rest is not None and rest.to_list() == fraction
    assert (whole.dtype, rest.dtype) == (pl.Int64, pl.Int32)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1_000, 2_000, None], "ms"),
        ([5], "s"),
        ([5.0], "s"),
        (["5", "1.2e3"], "s"),
        (["2020-07-01", "2020-07-01 10:00:00"], "text"),
        ([datetime(2020, 7, 1)], "s"),
        ([None], "s"),
    ],
)
def test_whole_seconds_have_no_second_column(values: list[Any], unit: str) -> None:
    assert split_seconds(pl.Series("t", values), unit)[1] is None


@given(ticks=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_nothing_of_a_nanosecond_is_lost(ticks: list[int]) -> None:
    whole, rest = split_seconds(pl.Series(ticks, dtype=pl.Int64), "ns")
    fraction = [0] * len(ticks) if rest is None else rest.to_list()
    joined = [s * 10**9 + f for s, f in zip(whole.to_list(), fraction, strict=True)]
    assert joined == ticks
    assert all(0 <= f < 10**9 for f in fraction)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_iso_text_is_read_in_any_unit_and_numbers_beside_it_in_theirs(unit: str) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = pl.Series(["1970-01-02", str(5 * factor), "1970-01-01 00:01", "soon", None])
    assert split_seconds(values, unit)[0].to_list() == [86_400, 5, 60, None, None]


def test_a_pattern_is_for_text_in_any_unit() -> None:
    values = pl.Series(["02.01.1970", "19700102"])
    assert split_seconds(values, "s", "%d.%m.%Y")[0].to_list() == [86_400, None]
    assert split_seconds(values, "s", "%Y%m%d")[0].to_list() == [None, 86_400]


def test_frames_are_joined_with_and_without_fractions() -> None:
    whole, split = pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2], FRACTION: [7]})
    split = split.with_columns(pl.col(FRACTION).cast(pl.Int32))
    assert join_frames([whole, split]).rows() == [(1, 0), (2, 7)]
    assert join_frames([whole, whole]).columns == ["a"]
