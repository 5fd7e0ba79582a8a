"""Calendar features of a moment in UTC: year, month, day, weekday, day of year, ISO week, hour.

    y = year - first_year + 1, month 1-12, day 1-31, weekday Monday = 1 ... 7, day of year 1-366,
    ISO week 1-53, hour 0-23

The first (and last) year is that of the training events; a moment outside of them is clamped to them.
Source: UniRec's data preparation, which took the first year from all splits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.data.sequences import Int64

NAMES: Final = ("year", "month", "day", "weekday", "day_of_year", "week", "hour")


def year_of(times: Int64) -> Int64:
    """Return the year (UTC) of moments in seconds since 1970, int64, any shape."""
    seconds = np.asarray(times, dtype="datetime64[s]")
    years: Int64 = seconds.astype("datetime64[Y]").astype(np.int64) + 1970
    return years


def calendar(times: Int64, first_year: int, last_year: int | None = None) -> Int64:
    """Return the seven features of moments, int64 [..., 7].

    Args:
        times: int64 [...] seconds since 1970, UTC.
        first_year: the earliest year of the training events; earlier moments get y = 1.
        last_year: the latest one; later moments get its y. No upper bound by default.
    """
    seconds = np.asarray(times, dtype="datetime64[s]")
    days = seconds.astype("datetime64[D]")
    months = seconds.astype("datetime64[M]")
    years = seconds.astype("datetime64[Y]")
    number = days.astype(np.int64)  # days since Thursday, 1 January 1970
    weekday = (number + 3) % 7 + 1
    # An ISO week belongs to the year in which its Thursday lies, and is counted by it.
    thursday = (number - weekday + 4).astype("datetime64[D]")
    week = (thursday - thursday.astype("datetime64[Y]")).astype(np.int64) // 7 + 1
    y = np.clip(years.astype(np.int64) + 1970, first_year, last_year) - first_year + 1
    features = [
        y,
        months.astype(np.int64) % 12 + 1,
        (days - months).astype(np.int64) + 1,
        weekday,
        (days - years).astype(np.int64) + 1,
        week,
        (seconds - days).astype(np.int64) // 3600,
    ]
    return np.stack(features, axis=-1)
