"""Calendar features against the oracle and against Python's own calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.calendar import calendar, year_of

ORACLE = {
    978300760: (1, 12, 31, 7, 366, 52, 22),
    1104537600: (6, 1, 1, 6, 1, 53, 0),
    1388534400: (15, 1, 1, 3, 1, 1, 0),
}


def test_the_oracle() -> None:
    found = calendar(np.array(list(ORACLE)), first_year=2000)
    assert [tuple(row) for row in found.tolist()] == list(ORACLE.values())


@given(st.integers(-62_135_596_800, 253_402_300_799))  # the years 1 to 9999
def test_every_moment_is_what_python_says(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    iso = moment.isocalendar()
    expected = [
        *(moment.year, moment.month, moment.day),
        *(iso.weekday, moment.timetuple().tm_yday, iso.week, moment.hour),
    ]
    assert calendar(np.array([seconds]), first_year=1)[0].tolist() == expected
    assert year_of(np.array([seconds])).tolist() == [moment.year]


def test_years_outside_training_are_clamped() -> None:
    times = np.array([0, 1104537600, 1388534400])  # 1970, 2005, 2014
    assert calendar(times, 2000, 2010)[:, 0].tolist() == [1, 6, 11]
    assert calendar(times, 2000)[:, 0].tolist() == [1, 6, 15]


def test_shapes_are_kept() -> None:
    assert calendar(np.zeros((2, 3), dtype=np.int64), 1970).shape == (2, 3, 7)
