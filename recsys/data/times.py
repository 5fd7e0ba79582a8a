"""Times: any column of moments as int64 seconds since 1970 (UTC), null where it is none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import polars as pl

from recsys.errors import ConfigError

PER_SECOND: Final[dict[str, int]] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

FUTURE_SLACK: Final = 86_400
"""A time counts as future when it is more than a day ahead: clocks and zones differ."""

_ISO_FORMATS: Final = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M%#z",
)


def to_seconds(values: pl.Series, unit: str, time_format: str | None = None) -> pl.Series:
    """Return whole seconds as Int64, rounded down; null where a value is missing or does not parse.

    Parquet dates and datetimes are taken as they are (naive ones as UTC), whatever `unit` says.
    Numbers, also as text, are in `unit`. With `unit='text'`, text is read by the strptime pattern
    `time_format`, or as ISO 8601 (date, or date and time with `T` or a blank, fractions and an
    offset optional; naive means UTC).
    """
    dtype = values.dtype
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return values.cast(pl.Datetime("us", getattr(dtype, "time_zone", None))).dt.epoch("s")
    if dtype == pl.String:
        return _parse_text(values, time_format) if unit == "text" else _parse_number(values, unit)
    if not dtype.is_numeric():
        return pl.Series(values.name, [None], dtype=pl.Int64).new_from_index(0, len(values))
    if unit == "text":
        raise ConfigError(
            f"data.time_unit is text, but the times are numbers ({dtype}); "
            f"set data.time_unit to one of {', '.join(PER_SECOND)}"
        )
    if dtype.is_integer():
        return values.cast(pl.Int64, strict=False) // PER_SECOND[unit]
    return _floor(values, unit)


def _floor(values: pl.Series, unit: str) -> pl.Series:
    finite = values.is_finite()
    seconds = (values.cast(pl.Float64) / PER_SECOND[unit]).floor()
    return (
        seconds.to_frame()
        .select(pl.when(finite).then(pl.col(values.name)))
        .to_series()
        .cast(pl.Int64, strict=False)
    )


def _parse_number(values: pl.Series, unit: str) -> pl.Series:
    whole = values.cast(pl.Int64, strict=False)
    exact = whole // PER_SECOND[unit]
    if whole.null_count() == values.null_count():
        return exact
    # Decimals and exponents ("1260759144.0"): through floats, but only where the exact road fails.
    return exact.zip_with(whole.is_not_null(), _floor(values.cast(pl.Float64, strict=False), unit))


def _parse_text(values: pl.Series, time_format: str | None) -> pl.Series:
    if time_format is not None:
        return _strptime(values, time_format)
    text = values.str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T")
    out = pl.Series(values.name, [None], dtype=pl.Int64).new_from_index(0, len(values))
    for pattern in _ISO_FORMATS:
        if out.null_count() == values.null_count():
            break
        out = out.zip_with(out.is_not_null(), _strptime(text, pattern))
    return out


def _strptime(text: pl.Series, pattern: str) -> pl.Series:
    zone = "UTC" if "z" in pattern else None
    try:
        moments = text.str.to_datetime(pattern, time_unit="us", time_zone=zone, strict=False)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"data.time_format {pattern!r} cannot be used: {error}") from error
    return moments.dt.epoch("s")


def moment(value: str | float, unit: str, key: str) -> int:
    """Return the seconds of a configured moment: an ISO date, or a number in the file's unit."""
    if isinstance(value, str):
        seconds = _parse_text(pl.Series([value]), None)[0]
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
    first, last = 315_532_800, 4_102_444_800
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
