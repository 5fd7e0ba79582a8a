"""What the data mean, which events stay and how they are split."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recsys.config.section import Section
from recsys.schema import Clock, Kind, TargetKind


def _text_of_date(value: Any) -> Any:
    """Turn the dates and times that YAML makes of unquoted ones back into ISO text."""
    return value.isoformat() if isinstance(value, datetime.date) else value


def _separates(sign: Any) -> Any:
    """Refuse what cannot stand between the fields of CSV."""
    single = isinstance(sign, str) and len(sign) == 1 and sign.isascii()
    if single and (sign == "\t" or (sign.isprintable() and not sign.isalnum() and sign != '"')):
        return sign
    raise ValueError(
        "it is one sign, no letter, digit or quote, in quotes so that YAML takes it as it is: "
        'separator: "|", for a tab separator: "\\t"; as an override \'data.separator="|"\''
    )


Moment = Annotated[str | float | None, BeforeValidator(_text_of_date)]
"""A point in time: ISO text, or a number in the file's own unit."""

OnProblem = Literal["drop", "fail", "keep"]


class ProblemRules(Section):
    """What to do with events that break a rule; every case is counted and the first rows shown."""

    null_ids: Literal["drop", "fail"] = "fail"
    """Events without a user or an item."""
    bad_times: Literal["drop", "fail"] = "fail"
    """Times that are missing, do not parse or lie in the future."""
    duplicates: OnProblem = "keep"
    """Events equal to an earlier one in user, item, time and, where there is one, position."""
    unknown_items: OnProblem = "keep"
    """Events whose item has no record in the item file (only where there is one)."""
    bad_encoding: Literal["drop", "fail"] = "fail"
    """Text lines that are not UTF-8."""
    duplicate_items: Literal["drop", "fail"] = "fail"
    """Item records with the same id as an earlier one (`drop` keeps the first)."""


class FilterConfig(Section):
    """Which events stay. Applied in this order: time window, weight, k-core."""

    start: Moment = None
    """Earliest time kept (ISO date or the file's own unit)."""
    end: Moment = None
    """First time not kept."""
    min_weight: float | None = None
    """Events of smaller weight are dropped."""
    event_types: list[str] | None = None
    """Only these event types are kept."""
    min_user_events: int = Field(1, ge=1)
    """Users (lists) with fewer distinct items are dropped; repeated with the item rule until stable."""
    min_item_events: int = Field(1, ge=1)
    """Items with fewer distinct users are dropped; repeated with the user rule until stable."""


class DataConfig(Section):
    """Where the raw data are and what they mean."""

    preset: str | None = None
    """A known format (`recsys data list`); it fills the fields below, which may still be overridden."""
    events: list[str] = []
    """Event files: paths or globs, Parquet, CSV, TSV or JSON Lines, also .gz."""
    items: list[str] = []
    """Item files; optional."""
    columns: dict[str, str] = {}
    """Our name -> the file's name, for events: user_id, item_id, timestamp, position, basket_id, ..."""
    item_columns: dict[str, str] = {}
    """Our name -> the file's name, for items."""
    attributes: list[str] | None = None
    """Item attributes to keep, in order; all by default."""
    kind: Kind = "users"
    clock: Clock = "absolute"
    target: TargetKind = "next_event"
    separator: Annotated[str, BeforeValidator(_separates)] = ","
    """The one character between the fields of all CSV files, events' and items': `;`, `|`, ... Of files
    that differ, some must be converted; TSV has tabs in any case."""
    time_unit: Literal["s", "ms", "us", "ns", "text"] = "s"
    """Unit of numbers; text such as 2014-06-30 10:00 (ISO 8601) needs none. `text`: never read numbers."""
    time_format: str | None = None
    """strptime pattern of text times that are not ISO 8601."""
    basket_minutes: float | None = Field(None, gt=0)
    """Without a basket_id column: events of a user within this many minutes' slot share a basket."""
    list_minutes: float | None = Field(None, gt=0)
    """With `kind: lists`: what a user (station, room) has within this many minutes' slot is a list of
    its own, named by the user and the slot's beginning."""
    ties: Literal["input", "shuffle"] = "input"
    """Order of events of one user at one time: as in the input, or shuffled with the seed."""
    on_problem: ProblemRules = ProblemRules()
    filters: FilterConfig = FilterConfig()


class _Split(Section):
    """What every split may have."""

    cold_items: float = Field(0.0, ge=0, lt=1)
    """Share of the items (a seeded choice) whose events before the test are dropped, so that no model can
    learn of them: how well are new items found? Not with rolling folds."""


class GlobalTimeSplit(_Split):
    """Cut all users at the same moments; the honest default where the clock is absolute."""

    kind: Literal["global_time"] = "global_time"
    test: float = Field(0.1, gt=0, lt=1)
    """Share of events (of lists, by their first event, where `kind: lists`) after the test cut."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the remaining events after the validation cut."""
    test_from: Moment = None
    """The test cut as a time, instead of a share."""
    validation_from: Moment = None


class LeaveOneOutSplit(_Split):
    """Each user's last target tests, the one before validates. Leaks across users' futures."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class LastNSplit(_Split):
    """Each user's last n targets test, the n before validate."""

    kind: Literal["last_n"] = "last_n"
    n: int = Field(1, ge=1)


class RollingSplit(_Split):
    """Several global-time folds: train before, test the window after, move on."""

    kind: Literal["rolling"] = "rolling"
    folds: int = Field(3, ge=1)
    window: float = Field(0.05, gt=0, lt=1)
    """Share of events in one window; the last fold ends with the data."""


class ContinuationSplit(_Split):
    """Hide a part of some lists; the rest of the list is what must be found."""

    kind: Literal["continuation"] = "continuation"
    test: float = Field(0.1, gt=0, lt=1)
    """Share of lists that test (the newest where there is a clock, else a seeded choice)."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the remaining lists that validate."""
    hide: Literal["last", "random"] = "last"
    hidden: float = Field(0.5, gt=0, lt=1)
    """Share of each such list that is hidden, at least one item, leaving at least one."""
    given: int | None = Field(None, ge=0)
    """Instead of a share: so many items are given (0: none at all); a list with no more is not asked."""


def _kind_by_default(value: Any) -> Any:
    """Let a split that does not say its kind be the default one, so `split.test=0.2` is enough."""
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "global_time", **value}
    return value


SplitConfig = Annotated[
    GlobalTimeSplit | LeaveOneOutSplit | LastNSplit | RollingSplit | ContinuationSplit,
    Field(discriminator="kind"),
    BeforeValidator(_kind_by_default),
]
