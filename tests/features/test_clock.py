"""What a clock can carry: by kind, and by what its training events show."""

from __future__ import annotations

import numpy as np
import pytest

from features.clock import CALENDAR, DAY, HOUR, ITEM_GAPS, USER_GAPS, ClockFacts, judge, observe
from recsys.schema import Clock

USER = np.array([0, 0, 0, 1, 1])
SECONDS = np.array([10, 20, 40, 1_600_000_000, 1_600_000_050])


def test_facts_of_parts_add_up() -> None:
    whole = observe(USER, SECONDS)
    assert whole == observe(USER[:3], SECONDS[:3]) + observe(USER[3:], SECONDS[3:])
    assert whole == ClockFacts(5, 10, 1_600_000_050, gaps=3, positive=3, whole_days=0, backwards=0)
    assert whole + ClockFacts() == whole == ClockFacts() + whole
    assert observe(USER[:0], SECONDS[:0]) == ClockFacts()


def test_an_absolute_clock_carries_everything() -> None:
    report = judge("absolute", observe(USER, SECONDS))
    assert report.off == {} and report.lines() == [] and report.resolution == "second"
    told = report.to_dict()
    assert (told["first_year"], told["last_year"]) == (1970, 2020)
    assert all(feature == {"on": True, "why": None} for feature in told["features"].values())


@pytest.mark.parametrize(
    ("clock", "off"),
    [("none", {USER_GAPS, ITEM_GAPS, CALENDAR, HOUR}), ("relative", {ITEM_GAPS, CALENDAR, HOUR})],
)
def test_the_kind_of_clock_switches_off_what_would_be_noise(clock: Clock, off: set[str]) -> None:
    report = judge(clock, observe(USER, SECONDS))
    assert set(report.off) == off
    assert clock in report.lines()[0]
    assert report.to_dict()["first_year"] is None


def test_without_times_nothing_is_on() -> None:
    report = judge("absolute", ClockFacts())
    assert set(report.off) == {USER_GAPS, ITEM_GAPS, CALENDAR, HOUR}
    assert "have no times" in report.lines()[0]
    assert report.to_dict()["first_time"] is None


def test_days_are_told_and_have_no_hour() -> None:
    days = observe(USER, np.array([0, 0, 3, 1, 5]) * DAY)
    report = judge("absolute", days)
    assert report.resolution == "day" and set(report.off) == {HOUR}
    assert report.lines()[0].startswith("hour of the day: off, ")
    assert "say nothing below a day" in report.lines()[1]
    assert "relative" in judge("relative", days).off[HOUR]
    almost = observe(USER, np.array([0, 0, 3, 1, 5]) * DAY + np.array([0, 0, 0, 0, 1]))
    assert judge("absolute", almost).resolution == "second"


def test_constant_times_say_nothing() -> None:
    report = judge("absolute", observe(USER, np.full(5, 77)))
    assert set(report.off) == {USER_GAPS, ITEM_GAPS, CALENDAR, HOUR} and report.resolution == "none"
    assert "one and the same time" in report.lines()[0]


def test_users_whose_events_share_a_time_have_no_gaps() -> None:
    report = judge("absolute", observe(USER, np.array([1, 1, 1, 9, 9])))
    assert set(report.off) == {USER_GAPS}
    assert "no user has events at two different times" in report.lines()[0]


def test_steps_back_are_counted_and_told() -> None:
    report = judge("absolute", observe(USER, np.array([5, 3, 9, 4, 2])))
    assert report.facts.backwards == 2
    assert report.lines()[0].startswith("2 events are older")
