"""An axis of a chart: where a value lies between two pixels, and which values get a mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """A scale with its marks.

    Attributes:
        label: what is measured, with its unit.
        low: the value at the first pixel.
        high: the value at the last.
        ticks: `(value, text)` of every mark, inside the two.
        log: equal ratios take equal room.
    """

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False

    def at(self, value: float, first: float, last: float) -> float:
        """Return the pixel of a value, cut to the axis."""
        value = min(max(value, self.low), self.high)
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = 0.5 if high == low else (value - low) / (high - low)
        return first + share * (last - first)


def linear(
    values: Iterable[float],
    label: str = "",
    *,
    zero: bool = False,
    form: Callable[[float], str] | None = None,
) -> Axis:
    """Return an axis over the values with four to seven round marks; `zero` includes 0."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        reach = abs(high) * 0.1 or 1.0
        low, high = low - (0.0 if zero and low == 0 else reach), high + reach
    step = _round_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [step * i for i in range(first, last + 1)]
    show = form or plain(step)
    return Axis(label, marks[0], marks[-1], tuple((mark, show(mark)) for mark in marks))


def logarithmic(values: Iterable[float], label: str = "") -> Axis:
    """Return a logarithmic axis over the positive values; marks at powers of ten, or 1-2-5 of few."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0, 10.0]
    low, high = min(known), max(known)
    if high <= low * 1.05:
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    factors = (1,) if high / low > 2000 else (1, 2, 5)
    marks = [f * 10.0**p for p in powers for f in factors]
    inside = [mark for mark in marks if low <= mark <= high]
    if len(inside) < 3:  # a mark on each side, so that the scale can be read
        low = max([mark for mark in marks if mark <= low] or [low])
        high = min([mark for mark in marks if mark >= high] or [high])
        inside = [mark for mark in marks if low <= mark <= high]
    every = max(1, math.ceil(len(inside) / 8))
    ticks = tuple((mark, short(mark)) for mark in inside[::every])
    return Axis(label, low, high, ticks, log=True)


def dates(values: Iterable[float], label: str = "") -> Axis:
    """Return an axis over seconds since 1970, marked by date."""
    known = list(values) or [0.0, 86_400.0]
    low, high = min(known), max(known)
    high = max(high, low + 1)
    form = (
        "%Y" if high - low > 6 * 365 * 86_400 else "%Y-%m" if high - low > 90 * 86_400 else "%d %b"
    )
    if high - low < 3 * 86_400:
        form = "%d %b %H:%M"
    marks = [low + (high - low) * i / 5 for i in range(6)]
    ticks = tuple((mark, datetime.fromtimestamp(mark, UTC).strftime(form)) for mark in marks)
    return Axis(label, low, high, ticks)


def plain(step: float) -> Callable[[float], str]:
    """Return how to write marks that are a step apart: no more decimals than tell them apart."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if step >= 1000:
        return short
    return lambda value: f"{value:.{decimals}f}"


def short(value: float) -> str:
    """Return a number in few letters: 1.5k, 20M, 0.002.

    >>> [short(x) for x in (1500, 2e7, 0.002, 40)]
    ['1.5k', '20M', '0.002', '40']
    """
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """Return a duration in the unit that suits it.

    >>> [seconds(x) for x in (30, 7200, 864000)]
    ['30 s', '2 h', '10 d']
    """
    units = ((31_557_600, "y"), (86_400, "d"), (3600, "h"), (60, "min"))
    for size, letter in units:
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} s"


def durations(values: Iterable[float], label: str = "") -> Axis:
    """Return a logarithmic axis over seconds, marked at a second, a minute, an hour, ..."""
    axis = logarithmic(values, label)
    named = (1, 60, 3600, 86_400, 7 * 86_400, 30 * 86_400, 365.25 * 86_400)
    ticks = tuple((mark, seconds(mark)) for mark in named if axis.low <= mark <= axis.high)
    if len(ticks) < 2:
        ticks = tuple((mark, seconds(mark)) for mark, _ in axis.ticks)
    return Axis(label, axis.low, axis.high, ticks, log=True)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((f * power for f in (1, 2, 2.5, 5) if f * power >= rough), 10 * power)
