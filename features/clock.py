"""What the clock of a data set can carry: which features of time are on, which are off, and why.

It is judged by what the configuration says (`data.clock`) and by what the training events show: times
that are all equal say nothing, times that are whole days say nothing of hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from features.calendar import year_of
from recsys.data.sequences import Int32, Int64
from recsys.schema import Clock

DAY: Final = 86_400

USER_GAPS: Final = "user_gaps"
ITEM_GAPS: Final = "item_gaps"
CALENDAR: Final = "calendar"
HOUR: Final = "hour"
NAMES: Final = {
    USER_GAPS: "gaps of users and their variance",
    ITEM_GAPS: "gap variance of items",
    CALENDAR: "calendar",
    HOUR: "hour of the day",
}


@dataclass(frozen=True)
class ClockFacts:
    """What the times of some training events show; the facts of parts with different users add up.

    Attributes:
        events: events that have a time.
        first, last: the smallest and the largest time, None without events.
        gaps: pairs of a user's events that follow each other.
        positive: gaps above zero.
        whole_days: positive gaps that are multiples of a day.
        backwards: places where a user's event is older than the one before it.
    """

    events: int = 0
    first: int | None = None
    last: int | None = None
    gaps: int = 0
    positive: int = 0
    whole_days: int = 0
    backwards: int = 0

    def __add__(self, other: ClockFacts) -> ClockFacts:
        """Return the facts of both."""
        firsts = [facts.first for facts in (self, other) if facts.first is not None]
        lasts = [facts.last for facts in (self, other) if facts.last is not None]
        return ClockFacts(
            self.events + other.events,
            min(firsts, default=None),
            max(lasts, default=None),
            self.gaps + other.gaps,
            self.positive + other.positive,
            self.whole_days + other.whole_days,
            self.backwards + other.backwards,
        )


def observe(user: Int32 | Int64, times: Int64) -> ClockFacts:
    """Return the facts of events that are user-major and in order."""
    if not len(times):
        return ClockFacts()
    steps = np.diff(times)[user[1:] == user[:-1]]
    positive = steps[steps > 0]
    return ClockFacts(
        events=len(times),
        first=int(times.min()),
        last=int(times.max()),
        gaps=len(steps),
        positive=len(positive),
        whole_days=int((positive % DAY == 0).sum()),
        backwards=int((steps < 0).sum()),
    )


@dataclass(frozen=True)
class ClockReport:
    """What is off and why (`off`), and what is on but must be read with care (`notes`).

    `off` goes from a feature's name (`user_gaps`, `item_gaps`, `calendar`, `hour`) to the reason.
    `resolution` is `second`, `day`, or `none` where times say nothing.
    """

    clock: Clock
    facts: ClockFacts
    resolution: str
    off: dict[str, str]
    notes: list[str]

    def is_on(self, name: str) -> bool:
        """Tell whether a feature is computed."""
        return name not in self.off

    def lines(self) -> list[str]:
        """Return a sentence for everything that is off or marked."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.off.items():
            by_reason.setdefault(reason, []).append(NAMES[name])
        return [
            *(f"{', '.join(names)}: off, {why}" for why, names in by_reason.items()),
            *self.notes,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for a manifest."""
        facts = self.facts
        edges = [time for time in (facts.first, facts.last) if time is not None]
        years = year_of(np.array(edges)).tolist() if self.is_on(CALENDAR) else [None, None]
        features = {name: {"on": name not in self.off, "why": self.off.get(name)} for name in NAMES}
        return {
            "clock": self.clock,
            "resolution": self.resolution,
            "features": features,
            "notes": self.notes,
            "events": facts.events,
            "first_time": facts.first,
            "last_time": facts.last,
            "first_year": years[0],
            "last_year": years[-1],
            "zero_gap_share": 1 - facts.positive / facts.gaps if facts.gaps else None,
            "steps_back": facts.backwards,
        }


def judge(clock: Clock, facts: ClockFacts) -> ClockReport:
    """Return what a clock of this kind, with these training events, can carry."""
    if clock == "none" or not facts.events:
        why = "data.clock is none" if clock == "none" else "the events have no times"
        return ClockReport(clock, facts, "none", dict.fromkeys(NAMES, why), [])
    off: dict[str, str] = {}
    if facts.first == facts.last:
        off = dict.fromkeys(NAMES, "all training events have one and the same time")
    else:
        if clock == "relative":
            reason = "data.clock is relative: times of different users cannot be compared"
            off |= {ITEM_GAPS: reason, CALENDAR: reason, HOUR: reason}
        if not facts.positive:
            off[USER_GAPS] = "no user has events at two different times"
    days = bool(facts.positive) and facts.whole_days == facts.positive
    if days:
        off.setdefault(HOUR, "a user's events lie whole days apart, so it never changes")
    resolution = "none" if len(off) == len(NAMES) else "day" if days else "second"
    return ClockReport(clock, facts, resolution, off, _notes(facts, days, off))


def _notes(facts: ClockFacts, days: bool, off: dict[str, str]) -> list[str]:
    notes = []
    if days and USER_GAPS not in off:
        notes.append(
            "all gaps are whole days: gaps and their variance are computed, but say nothing below a day"
        )
    if facts.backwards:
        notes.append(
            f"{facts.backwards:,} events are older than the one before them (their baskets overlap): "
            "variances take the order of time, gaps between such events are 0"
        )
    return notes
