"""Checks: one batch of raw events in, events that keep every rule out, and what was broken.

Ids, times, positions and weights get their types here; the filters that look at one row at a time
(time window, smallest weight, event types) and the lists and baskets made of minutes come last.
"""

from __future__ import annotations

import time

import polars as pl

from recsys.config import DataConfig
from recsys.data import times
from recsys.data.columns import normalise_id
from recsys.data.problems import BadRow, Finding, ProblemReport, bad_rows
from recsys.data.records import ROW
from recsys.errors import ConfigError, DataError
from recsys.schema import BASKET, EVENT_COLUMNS, EVENT_TYPE, ITEM, POSITION, TIMESTAMP, USER, WEIGHT


def check_config(data: DataConfig) -> None:
    """Raise `ConfigError` where settings contradict each other, before any file is read."""
    filters = data.filters
    if data.clock == "none":
        for key, value in (
            ("data.basket_minutes", data.basket_minutes),
            ("data.list_minutes", data.list_minutes),
            ("data.filters.start", filters.start),
            ("data.filters.end", filters.end),
        ):
            if value is not None:
                raise ConfigError(
                    f"{key}={value!r} needs times, but data.clock is none; remove one"
                )
    if data.list_minutes is not None and data.kind != "lists":
        raise ConfigError(
            f"data.list_minutes={data.list_minutes!r} cuts events into lists, but data.kind is "
            f"{data.kind}; set data.kind: lists, or data.basket_minutes to make baskets of users"
        )
    if data.clock == "relative" and (
        isinstance(filters.start, str) or isinstance(filters.end, str)
    ):
        raise ConfigError(
            "data.filters.start and end must be numbers where data.clock is relative: "
            "times are offsets, not dates"
        )


def clean_events(
    raw: pl.DataFrame, data: DataConfig, file: str, now: float | None = None
) -> tuple[pl.DataFrame, ProblemReport]:
    """Return the events that keep the rules, typed, with our columns, and the report.

    Where a time of the batch lies between two seconds, column `fraction` (see `times`) comes last.

    `raw` has our column names, the file's values, and `row`, the 0-based row of the file, which
    stays. Rows with problems are left out whether the rule says `drop` or `fail`: the caller adds
    the reports of all pieces up and calls `raise_if_failed`. `now` (seconds, default the clock)
    bounds the future.
    """
    ids = [name for name in (USER, ITEM, BASKET) if name in raw.columns]
    typed = raw.with_columns([normalise_id(raw[name], name, file).alias(name) for name in ids])
    null = typed.select(pl.any_horizontal(pl.col(ids).is_null())).to_series()
    findings = {}
    if bool(null.any()):
        findings["null_ids"] = Finding(
            int(null.sum()), data.on_problem.null_ids, bad_rows(raw, null, file)
        )
    bad = pl.repeat(False, raw.height, eager=True)
    limit = (time.time() if now is None else now) + times.FUTURE_SLACK
    if TIMESTAMP in raw.columns:
        seconds, fraction = times.split_seconds(raw[TIMESTAMP], data.time_unit, data.time_format)
        typed = typed.with_columns(seconds.alias(TIMESTAMP))
        if fraction is not None:
            typed = typed.with_columns(fraction.alias(times.FRACTION))
        bad = bad | seconds.is_null()
        if data.clock == "absolute":
            _check_unit(raw[TIMESTAMP], seconds, data, file)
            bad = bad | (seconds > limit).fill_null(False)
    if POSITION in raw.columns:
        typed = typed.with_columns(_integers(raw[POSITION]).alias(POSITION))
        bad = bad | typed[POSITION].is_null()
    bad = bad & ~null
    if bool(bad.any()):
        findings["bad_times"] = _bad_times(raw, bad, data, file)
    typed = typed.filter(~(null | bad))
    if WEIGHT in typed.columns:
        typed = typed.with_columns(_weights(typed, file))
    kept, filtered = select_rows(typed, data)
    kept = _add_baskets(_cut_lists(kept, data), data)
    order = [name for name in (*EVENT_COLUMNS, ROW, times.FRACTION) if name in kept.columns]
    return kept.select(order), ProblemReport(raw.height, kept.height, findings, filtered)


def select_rows(events: pl.DataFrame, data: DataConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the events inside the row-wise filters, and how many each filter left out."""
    filters = data.filters
    filtered: dict[str, int] = {}
    for name, keep in (
        ("time_window", _window(data)),
        ("min_weight", _at_least(filters.min_weight, events)),
        ("event_types", _of_types(filters.event_types, events)),
    ):
        if keep is not None:
            before = events.height
            events = events.filter(keep)
            filtered[name] = before - events.height
    return events, filtered


def _window(data: DataConfig) -> pl.Expr | None:
    keep: pl.Expr | None = None
    for name, value in (("start", data.filters.start), ("end", data.filters.end)):
        if value is not None:
            cut = times.moment(value, data.time_unit, f"data.filters.{name}")
            inside = pl.col(TIMESTAMP) >= cut if name == "start" else pl.col(TIMESTAMP) < cut
            keep = inside if keep is None else keep & inside
    return keep


def _at_least(smallest: float | None, events: pl.DataFrame) -> pl.Expr | None:
    if smallest is None:
        return None
    if WEIGHT not in events.columns:
        raise ConfigError(
            f"data.filters.min_weight={smallest} needs a weight; map it with data.columns.weight"
        )
    return pl.col(WEIGHT) >= smallest


def _of_types(kinds: list[str] | None, events: pl.DataFrame) -> pl.Expr | None:
    if kinds is None:
        return None
    if EVENT_TYPE not in events.columns:
        raise ConfigError(
            "data.filters.event_types needs a type of event; map it with data.columns.event_type"
        )
    return pl.col(EVENT_TYPE).cast(pl.String).is_in(kinds)


def _integers(values: pl.Series) -> pl.Series:
    return (
        times.to_seconds(values, "s")
        if values.dtype.is_float()
        else values.cast(pl.Int64, strict=False)
    )


def _weights(events: pl.DataFrame, file: str) -> pl.Series:
    """Return weights as Float64; a missing one is an error, no number is a fair stand-in."""
    weights = events[WEIGHT].cast(pl.Float64, strict=False)
    bad = ~weights.is_finite().fill_null(False)
    if bool(bad.any()):
        rows = "\n".join(f"  {row}" for row in bad_rows(events, bad, file))
        raise DataError(
            f"{file}: {int(bad.sum()):,} weights are missing or no finite number\n{rows}\n"
            "  Mend the file, or leave weights out with data.columns.weight=''"
        )
    return weights.alias(WEIGHT)


def _add_baskets(events: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """Number the baskets `floor(timestamp / (60 * basket_minutes))` unless the file has its own."""
    if data.basket_minutes is None or BASKET in events.columns:
        return events
    return events.with_columns(_slot(60 * data.basket_minutes).alias(BASKET))


def _cut_lists(events: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """Give every user's slots of `list_minutes` a name of their own: the user, then the slot's begin.

    The begin is a UTC time where the clock is absolute, else the seconds.
    """
    if data.list_minutes is None:
        return events
    length = 60 * data.list_minutes
    begin = (_slot(length) * length).floor().cast(pl.Int64)
    name = begin.cast(pl.String)
    if data.clock == "absolute":
        name = pl.from_epoch(begin).dt.strftime("%Y-%m-%dT%H:%M:%S")
    user = pl.concat_str(pl.col(USER).cast(pl.String), name, separator=" ")
    return events.with_columns(user.alias(USER))


def _slot(length: float) -> pl.Expr:
    """Return which slot of `length` seconds the time lies in, int64."""
    if float(length).is_integer():
        return pl.col(TIMESTAMP) // int(length)  # exact, also for times beyond 2**53
    return (pl.col(TIMESTAMP) / length).floor().cast(pl.Int64)


def _bad_times(raw: pl.DataFrame, bad: pl.Series, data: DataConfig, file: str) -> Finding:
    """Return the finding, with a word on what the bad times look like."""
    rows = bad_rows(raw, bad, file)
    return Finding(int(bad.sum()), data.on_problem.bad_times, rows, _time_hint(rows, data))


def _check_unit(raw: pl.Series, seconds: pl.Series, data: DataConfig, file: str) -> None:
    """Refuse times that all lie long ago where they make sense in another unit.

    Too large a unit gives times of 1970, which no rule of single rows can tell from true ones.
    """
    newest = seconds.max()
    if not isinstance(newest, int) or newest >= times.OLDEST or data.time_format is not None:
        return
    number = raw.cast(pl.Float64, strict=False).drop_nulls()
    low, high = number.min(), number.max()
    if not isinstance(low, float) or not isinstance(high, float):
        return
    unit = times.guess_unit(low, high)
    if unit is not None and unit != data.time_unit:
        factor = times.PER_SECOND[unit]
        raise DataError(
            f"{file}: read in data.time_unit={data.time_unit}, all its times lie before 1980, the newest "
            f"on {times.show(newest)}; in {unit} they go from {times.show(int(low // factor))} to "
            f"{times.show(int(high // factor))}. Set data.time_unit={unit}, or data.clock=relative if "
            "they are no moments"
        )


def _time_hint(rows: tuple[BadRow, ...], data: DataConfig) -> str:
    shown = [str(row.values[TIMESTAMP]) for row in rows if row.values.get(TIMESTAMP) is not None]
    if not shown:
        return ""
    text = pl.Series(shown)
    number = text.cast(pl.Float64, strict=False)
    if number.null_count() == 0:
        unit = times.guess_unit(float(number.min()), float(number.max()))  # type: ignore[arg-type]
        if unit is not None and unit != data.time_unit:
            return f"These look like {unit}; if so, set data.time_unit={unit}"
    elif data.time_format is None:
        return "Not ISO 8601; give the strptime pattern as data.time_format, say '%d/%m/%Y %H:%M'"
    return ""
