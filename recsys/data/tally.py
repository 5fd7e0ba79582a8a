"""Tally: what can be said of a column after seeing it in bounded pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.times import PER_SECOND, guess_unit, to_seconds

KEPT_HASHES: Final = 1 << 16
"""Distinct values are exact below this many, estimated to about half a per cent above."""

_SPACE = float(2**64)
_SAMPLE = 1000


@dataclass(frozen=True)
class ColumnSummary:
    """One column of a file.

    Attributes: name, dtype: as the file has them; text formats have String only (JSON has its own
        types). looks: what the values look like: whole numbers, numbers, dates, text or nested.
        nulls: missing (in text formats: empty) values. distinct: different values, None for nested
        columns; `exact` tells whether counted or estimated. minimum, maximum: by number, by date or
        by the order of text, as `looks` says. padded: text values that begin or end with a blank.
        seconds: first and last moment, if the values look like times; `unit` of numeric ones. role:
        our name of the column, if its name suggests one. unparsed: of text most of which are numbers or
        dates, the values that are none (`seconds` and `unit` are those of the others).
    """

    name: str
    dtype: str
    looks: str
    nulls: int
    distinct: int | None
    exact: bool
    minimum: Any
    maximum: Any
    padded: int
    unit: str | None
    seconds: tuple[int, int] | None
    role: str | None = None
    unparsed: int = 0


class Distinct:
    """Counts different values from the smallest of their hashes (KMV sketch).

    With k hashes kept and h the largest of them, as a share of the range, the estimate is (k - 1) /
    h. Source: Bar-Yossef et al., Counting distinct elements in a data stream, 2002.
    """

    def __init__(self) -> None:
        self.hashes: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)

    def add(self, values: pl.Series) -> None:
        """Count the values of one piece, nulls left out."""
        new = values.drop_nulls().unique().hash(seed=0).to_numpy()
        self.hashes = np.unique(np.concatenate([self.hashes, new]))[:KEPT_HASHES]

    @property
    def exact(self) -> bool:
        """Tell whether every hash seen is still kept."""
        return len(self.hashes) < KEPT_HASHES

    def count(self) -> int:
        """Return the number of different values."""
        if self.exact:
            return len(self.hashes)
        return round((KEPT_HASHES - 1) / (float(self.hashes[-1]) / _SPACE))


class ColumnTally:
    """Adds up a column piece by piece; `summary` tells the result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nulls = self.rows = self.padded = 0
        self.dtypes: dict[str, None] = {}
        self.different: Distinct | None = Distinct()
        self.could_be = ["whole numbers", "numbers", "dates", "text"]
        self.ranges: dict[str, tuple[Any, Any]] = {}
        self.mostly = {"numbers": 0, "dates": 0}
        """Values that can be read so, while that is at least half of those seen."""

    def add(self, values: pl.Series) -> None:
        """Take in the column's values of one piece."""
        self.rows += len(values)
        self.nulls += values.null_count()
        present = values.drop_nulls()
        if present.dtype != pl.Null:
            self.dtypes[str(values.dtype)] = None
        if present.dtype.is_nested():
            self.different, self.could_be = None, []
        if self.different is None or not len(present):
            return
        self.different.add(present)
        if present.dtype == pl.String:
            self.padded += int((present.str.strip_chars() != present).sum())
        for look in dict.fromkeys((*self.could_be, *self.mostly)):
            read = _read_as(present, look)
            if look in self.could_be and (read is None or read.null_count()):
                self.could_be.remove(look)
            if look in self.mostly:
                self.mostly[look] += 0 if read is None else len(read) - read.null_count()
                if 2 * self.mostly[look] < self.rows - self.nulls:
                    del self.mostly[look]
            if read is not None and (look in self.could_be or look in self.mostly):
                self._widen(look, read)

    def _widen(self, look: str, values: pl.Series) -> None:
        if values.null_count() == len(values):
            return
        low, high = values.min(), values.max()
        if look in self.ranges:
            low, high = min(low, self.ranges[look][0]), max(high, self.ranges[look][1])
        self.ranges[look] = (low, high)

    def summary(self) -> ColumnSummary:
        """Return what was found."""
        looks = next((look for look in self.could_be if look in self.ranges), "")
        unparsed = 0
        nested = self.different is None
        low, high = self.ranges.get(looks, (None, None))
        unit, seconds = _as_time(looks, low, high, "String" in self.dtypes)
        for look, count in self.mostly.items() if looks == "text" else ():
            if seconds is None and look in self.ranges:
                unit, seconds = _as_time(look, *self.ranges[look], text=True)
                unparsed = self.rows - self.nulls - count
        return ColumnSummary(
            name=self.name,
            dtype=" | ".join(self.dtypes) or "Null",
            looks="nested" if nested else looks or "nothing",
            nulls=self.nulls,
            distinct=None if self.different is None else self.different.count(),
            exact=self.different is not None and self.different.exact,
            minimum=low,
            maximum=high,
            padded=self.padded,
            unit=unit,
            seconds=seconds,
            unparsed=unparsed,
        )


def _read_as(values: pl.Series, look: str) -> pl.Series | None:
    """Return the values read as numbers, seconds or text, null where they cannot be; None if never."""
    text = values.dtype == pl.String
    if look == "whole numbers":
        return values.cast(pl.Int64, strict=False) if text or values.dtype.is_integer() else None
    if look == "numbers":
        if text:
            read = values.cast(pl.Float64, strict=False)
            return read.set(~read.is_finite().fill_null(True), None)
        return values.cast(pl.Float64) if values.dtype.is_numeric() else None
    if look == "dates":
        if values.dtype.is_temporal() and values.dtype not in (pl.Time, pl.Duration):
            return to_seconds(values, "s")
        if not text:
            return None
        # A look at the first values spares parsing whole columns of titles.
        years = values.head(_SAMPLE).str.contains(r"^\d{4}").sum()
        return to_seconds(values, "text") if 2 * years >= min(len(values), _SAMPLE) else None
    return values.cast(pl.String, strict=False)


def _as_time(
    looks: str, low: Any, high: Any, text: bool
) -> tuple[str | None, tuple[int, int] | None]:
    """Return the unit and the span in seconds of values that may be moments."""
    if looks == "dates":  # `text` says that text has to be parsed; typed dates have no unit
        return "text" if text else None, (int(low), int(high))
    if looks in ("whole numbers", "numbers"):
        unit = guess_unit(low, high)
        if unit is not None:
            return unit, (int(low // PER_SECOND[unit]), int(high // PER_SECOND[unit]))
    return None, None
