"""Times as vectors: calendar and gaps by hand, on holes and neighbours in the row, and by formula."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.calendar import calendar
from features.intervals import gap_hours
from recsys.models.time_encoding import (
    LOG_BUCKETS,
    CalendarEncoding,
    GapEncoding,
    TimeBias,
    UniformityEncoding,
    calendar_of,
    log_bucket,
    previous_times,
)

FEATURES = ("year", "month", "day", "weekday", "day_of_year", "week", "hour")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (978300760, (2000, 12, 31, 7, 366, 52, 22)),
        (1104537600, (2005, 1, 1, 6, 1, 53, 0)),
        (1388534400, (2014, 1, 1, 3, 1, 1, 0)),
    ],
)
def test_calendar_by_hand(seconds: int, expected: tuple[int, ...]) -> None:
    found = calendar_of(torch.tensor([[seconds]]))
    assert tuple(found[name].item() for name in FEATURES) == expected


@given(st.lists(st.integers(-(10**9), 7 * 10**9), min_size=1, max_size=40))
def test_calendar_is_that_of_the_standard_library(seconds: list[int]) -> None:
    found = calendar_of(torch.tensor(seconds))
    for place, value in enumerate(seconds):
        at = datetime.fromtimestamp(value, UTC)
        expected = (
            *(at.year, at.month, at.day, at.isoweekday()),
            *(at.timetuple().tm_yday, at.isocalendar().week, at.hour),
        )
        assert tuple(found[name][place].item() for name in FEATURES) == expected


def test_mercer_by_hand() -> None:
    encoding = CalendarEncoding(["hour"], 4)
    with torch.no_grad():
        for parameter in (encoding.exponents, encoding.sines, encoding.cosines):
            parameter.zero_()
        encoding.sines[0, 0, 0] = 1.0
        encoding.cosines[0, 0, 1] = 1.0
        encoding.offsets[0, 0] = 0.5
        got = encoding.encode(torch.tensor([3.0]), 0)[0, 0]
    assert got.item() == pytest.approx(1.60129, abs=1e-5)  # sin 3 + cos 6 + 0.5


@torch.no_grad()
def test_looking_up_encoded_values_is_encoding_every_place() -> None:
    torch.manual_seed(0)
    encoding = CalendarEncoding(FEATURES, 5)
    encoding.set_years(946684800, 1388534400)  # 2000 to 2014
    times = torch.randint(978300760, 1388534400, (3, 4))
    found = calendar_of(times)
    found["year"] = found["year"] - 1999
    parts = [
        encoding.encode(found[name].flatten().float(), place) for place, name in enumerate(FEATURES)
    ]
    expected = encoding.out(torch.cat(parts, 1)).view(3, 4, 5)
    torch.testing.assert_close(encoding(times), expected, rtol=1e-4, atol=1e-5)


def test_years_after_the_last_trained_one_are_taken_for_it() -> None:
    encoding = CalendarEncoding(["year"], 3)
    encoding.set_years(1356998400, 1388534400)  # 2013 and 2014
    times = torch.tensor([[1325376000, 1356998400, 1388534400, 1420070400]])  # 2012 to 2015
    value = encoding._value("year", calendar_of(times))
    assert value.tolist() == [[1, 1, 2, 2]]


TIMES = torch.tensor([[1388534400, 1388538000, 1420070400, 77, 99, 0, 0]])
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0, 0]])


def test_gaps_in_hours_by_hand() -> None:
    assert GapEncoding("hours", 2).rows(TIMES, SEGMENTS).tolist() == [[0, 1, 8759, 0, 0, 0, 0]]
    published = GapEncoding("hours", 2, reference=True).rows(TIMES, SEGMENTS)[0, :5]
    assert published.tolist() == [8760, 1, 8759, 8760, 0]


def test_gaps_step_over_places_that_are_left_out() -> None:
    before, there = previous_times(
        torch.tensor([[10, 20, 40, 70, 5]]), torch.tensor([[1, 0, 1, 1, 2]])
    )
    assert before.tolist() == [[10, 20, 10, 40, 5]]
    assert there.tolist() == [[False, False, True, True, False]]


def test_logarithmic_gaps_by_hand() -> None:
    seconds = torch.tensor([-5, 0, 1, 2, 3, 7, 3600, 2**40])
    assert log_bucket(seconds).tolist() == [0, 0, 2, 3, 4, 6, 23, LOG_BUCKETS - 1]
    rows = GapEncoding("log", 2).rows(torch.tensor([[5, 5, 6, 9]]), torch.tensor([[1, 1, 1, 2]]))
    assert rows.tolist() == [[0, 1, 3, 0]]  # the first event has a row of its own


@torch.no_grad()
def test_time_bias_looks_up_distances_and_forbids() -> None:
    bias = TimeBias(2)
    bias.table.weight.copy_(torch.arange(2.0 * LOG_BUCKETS).view(-1, 2))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    got = bias(torch.tensor([[0, 1, 8]]), mask)
    assert got.shape == (1, 2, 3, 3)
    assert got[0, 1, 2].tolist() == [2 * 6 + 1, 2 * 6 + 1, 1]  # 8 and 7 seconds ago: bucket 6
    assert got[0, 0, 0].tolist() == [0, -torch.inf, -torch.inf]


def test_events_of_a_basket_as_a_set_have_the_gap_since_the_basket_before() -> None:
    times = torch.tensor([[0, 0, 3600, 3600, 9000, 5, 5]])
    segments = torch.tensor([[1, 1, 1, 1, 1, 2, 2]])
    baskets = torch.tensor([[0, 0, 1, 1, 2, 0, 0]])
    encoding = GapEncoding("log", 1)
    with torch.no_grad():
        encoding.table.weight.copy_(torch.arange(LOG_BUCKETS + 1.0)[:, None])
    got = encoding(times, segments, baskets)[0, :, 0].tolist()
    assert got == [0, 0, 24, 24, 25, 0, 0]


@given(st.lists(st.integers(-(10**9), 7 * 10**9), min_size=1, max_size=20))
def test_the_model_and_the_features_have_the_same_gaps(seconds: list[int]) -> None:
    """Whatever else is in the row, and in whichever order the times are."""
    times = torch.tensor([[5, *seconds, 0, *seconds, 9]])
    length = len(seconds)
    segments = torch.tensor([[1, *[2] * length, 0, *[3] * length, 4]])
    rows = GapEncoding("hours", 2).rows(times, segments)[0]
    expected = gap_hours(np.array(seconds, dtype=np.int64)).tolist()
    assert rows[1 : length + 1].tolist() == rows[length + 2 : -1].tolist() == expected


def test_the_model_and_the_features_have_one_calendar() -> None:
    times = np.random.default_rng(0).integers(0, 2 * 10**9, 500)
    found = calendar_of(torch.from_numpy(times))
    mine = torch.stack([found[name] for name in FEATURES], 1)
    mine[:, 0] -= 1969
    assert np.array_equal(calendar(times, 1970, 2040), mine.numpy())


def test_uniformity_is_the_spread_of_the_gaps_so_far() -> None:
    hours = torch.tensor([[0, 3600, 7200, 10800, 0, 60, 7200, 0, 9]])
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0, 3]])
    rows = UniformityEncoding(2).rows(hours, segments)[0].tolist()
    spread = abs(np.log2(61) - np.log2(7141)) / 2  # of two gaps
    assert rows == [0, 0, 1, 1, 0, 0, 1 + int(4 * (spread**2 - 1e-3) ** 0.5), 0, 0]
    slower = UniformityEncoding(2).rows(24 * hours + 10**9, segments)[0].tolist()
    assert slower[2:4] == [1, 1]  # whatever the scale


@pytest.mark.parametrize("size", [1, 2, 5])
def test_uniformity_of_baskets_that_are_sets_is_that_of_their_gaps(size: int) -> None:
    """However many events they have: weekly is weekly."""
    moments = torch.tensor([0, 10, 11, 400, 2000]).cumsum(0) * 3600
    alone = UniformityEncoding(2).rows(moments[None], torch.ones(1, 5, dtype=torch.int64))[0]
    assert alone.max() > 1
    times, baskets = (x.repeat_interleave(size)[None] for x in (moments, torch.arange(5)))
    rows = UniformityEncoding(2).rows(times, torch.ones_like(times), baskets)[0]
    assert torch.equal(rows, alone.repeat_interleave(size))
    weekly = (torch.arange(5) * 604_800).repeat_interleave(size)[None]
    found = UniformityEncoding(2).rows(weekly, torch.ones_like(weekly), baskets)[0]
    assert found.tolist() == [0] * 2 * size + [1] * 3 * size


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=12))
def test_uniformity_does_not_depend_on_what_else_is_in_the_row(gaps: list[int]) -> None:
    times = torch.tensor(gaps).cumsum(0)
    alone = UniformityEncoding(2).rows(times[None], torch.ones(1, len(gaps), dtype=torch.int64))
    beside = torch.cat([times * 3 + 5, times])[None]
    segments = torch.repeat_interleave(torch.tensor([1, 2]), len(gaps))[None]
    rows = UniformityEncoding(2).rows(beside, segments)[0, len(gaps) :]
    assert torch.equal(rows, alone[0])
