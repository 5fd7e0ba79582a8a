"""Times: any column of moments as int64 seconds since 1970 (UTC), null where it is none.

What lies between seconds is a column of its own, so that no width of time is lost or overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeAlias

import polars as pl

from recsys.errors import ConfigError

PER_SECOND: Final[dict[str, int]] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

FUTURE_SLACK: Final = 86_400
"""A time counts as future when it is more than a day ahead: clocks and zones differ."""

OLDEST: Final = 315_532_800
"""1980: what a log of events is hardly older than."""

FRACTION: Final = "fraction"
"""Column of the nanoseconds after the whole second, Int32; not there where all times are whole.

It orders events and tells duplicates apart, and is then left behind: what is stored are seconds.
"""

Moments: TypeAlias = tuple[pl.Series, pl.Series | None]
"""Whole seconds, and the nanoseconds after them or None."""

_NANO: Final = 10**9

_ISO_FORMATS: Final = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M%#z",
)


def to_seconds(values: pl.Series, unit: str, time_format: str | None = None) -> pl.Series:
    """Return whole seconds as Int64, rounded down: the first part of `split_seconds`."""
    return split_seconds(values, unit, time_format)[0]


def split_seconds(values: pl.Series, unit: str, time_format: str | None = None) -> Moments:
    """Return (whole seconds as Int64, rounded down; nanoseconds after them as Int32, or None).

    Both are null where a value is missing or does not parse; the second is None where every moment
    is a whole second, which most files are. Fractions of text are read to the microsecond.

    Parquet dates and datetimes are taken as they are (naive ones as UTC), whatever `unit` says.
    Numbers, also as text, are in `unit`. Other text is read by the strptime pattern `time_format`,
    or without one as ISO 8601 (date, or date and time with `T` or a blank, fractions and an offset
    optional; naive means UTC). With a pattern, or with `unit='text'`, text is never read as numbers.
    """
    seconds, fraction = _read(values, unit, time_format)
    return seconds, fraction if fraction is not None and fraction.max() else None


def _read(values: pl.Series, unit: str, time_format: str | None) -> Moments:
    dtype = values.dtype
    if dtype == pl.Date:
        return values.cast(pl.Datetime("us")).dt.epoch("s"), None
    if isinstance(dtype, pl.Datetime):
        return _split(values.to_physical(), PER_SECOND[dtype.time_unit])
    if dtype == pl.String:
        return _read_text(values, unit, time_format)
    if not dtype.is_numeric():
        return _nothing(values), None
    if unit == "text":
        raise ConfigError(
            f"data.time_unit is text, but the times are numbers ({dtype}); "
            f"set data.time_unit to one of {', '.join(PER_SECOND)}"
        )
    if dtype.is_integer():
        return _split(values.cast(pl.Int64, strict=False), PER_SECOND[unit])
    return _split_floats(values.cast(pl.Float64), PER_SECOND[unit])


def _split(ticks: pl.Series, per_second: int) -> Moments:
    if per_second == 1:
        return ticks, None
    seconds = ticks // per_second
    rest = (ticks - seconds * per_second) * (_NANO // per_second)
    return seconds, rest.cast(pl.Int32)


def _split_floats(values: pl.Series, per_second: int) -> Moments:
    value = pl.when(pl.first().is_finite()).then(pl.first())
    seconds = (value / per_second).floor()
    rest = ((value - seconds * per_second) * (_NANO // per_second)).clip(0, _NANO - 1)
    frame = values.to_frame().select(
        seconds.cast(pl.Int64, strict=False).alias("seconds"), rest.cast(pl.Int32).alias("rest")
    )
    return frame["seconds"].alias(values.name), frame["rest"]


def _read_text(values: pl.Series, unit: str, time_format: str | None) -> Moments:
    if time_format is not None:
        return _strptime(values, time_format)
    read: Moments = (_nothing(values), None)
    if unit != "text":
        per_second = PER_SECOND[unit]
        read = _split(values.cast(pl.Int64, strict=False), per_second)
        # Decimals and exponents ("1260759144.0"): through floats, but only where the exact road fails.
        read = _fill(
            read, values, lambda v: _split_floats(v.cast(pl.Float64, strict=False), per_second)
        )
    for pattern in _ISO_FORMATS:
        read = _fill(read, values, partial(_strptime_iso, pattern=pattern))
    return read


def _fill(read: Moments, values: pl.Series, reader: Callable[[pl.Series], Moments]) -> Moments:
    """Return `read` with what another reader makes of the values that are null in it."""
    seconds, fraction = read
    if seconds.null_count() == values.null_count():
        return read
    left = (seconds.is_null() & values.is_not_null()).arg_true()
    more, more_fraction = reader(values.gather(left))
    if more.null_count() == len(more):
        return read
    if fraction is not None or more_fraction is not None:
        fraction = _zeros(len(values)) if fraction is None else fraction
        found = _zeros(len(left)) if more_fraction is None else more_fraction
        fraction = fraction.scatter(left, found)
    return seconds.scatter(left, more), fraction


def _strptime_iso(text: pl.Series, pattern: str) -> Moments:
    return _strptime(text.str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T"), pattern)


def _strptime(text: pl.Series, pattern: str) -> Moments:
    zone = "UTC" if "z" in pattern else None
    try:
        moments = text.str.to_datetime(pattern, time_unit="us", time_zone=zone, strict=False)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"data.time_format {pattern!r} cannot be used: {error}") from error
    return _split(moments.to_physical(), PER_SECOND["us"])


def _nothing(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [None], dtype=pl.Int64).new_from_index(0, len(values))


def _zeros(rows: int) -> pl.Series:
    return pl.repeat(0, rows, dtype=pl.Int32, eager=True)


def join_frames(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return events one below the other; where only some frames have fractions, all get them."""
    if any(FRACTION in frame.columns for frame in frames):
        frames = [with_fraction(frame) for frame in frames]
    return pl.concat(frames)


def with_fraction(events: pl.DataFrame) -> pl.DataFrame:
    """Return events with the column `fraction`: zeros last, unless it is there."""
    if FRACTION in events.columns:
        return events
    return events.with_columns(_zeros(events.height).alias(FRACTION))


def moment(value: str | float, unit: str, key: str) -> int:
    """Return the seconds of a configured moment: an ISO date, or a number in the file's unit."""
    if isinstance(value, str):
        seconds = to_seconds(pl.Series([value]), "text")[0]
        if seconds is None:
            raise ConfigError(
                f"{key}: {value!r} is not an ISO date such as 2014-06-30 or 2014-06-30T12:00"
            )
        return int(seconds)
    if unit == "text":
        raise ConfigError(
            f"{key}: {value!r} is a number, but data.time_unit is text; give an ISO date"
        )
    return int(value // PER_SECOND[unit])


def guess_unit(low: float, high: float) -> str | None:
    """Return the unit in which a range of numbers lies between 1980 and 2100, or None."""
    first, last = OLDEST, 4_102_444_800
    for unit, factor in PER_SECOND.items():
        if first * factor <= low and high <= last * factor:
            return unit
    return None


def show(seconds: int) -> str:
    """Return a moment as text, such as `2014-06-30 12:00:00`."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"
