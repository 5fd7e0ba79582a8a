"""What a data set's clock cannot carry is refused, with the setting's place and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.config import (
    NeighbourVotesConfig,
    SASRecConfig,
    SetModelConfig,
    TiSASRecConfig,
    UniRecConfig,
    VotesConfig,
    check_clock,
    check_times,
)
from recsys.errors import ConfigError
from recsys.schema import Clock

BARE: dict[str, Any] = {
    "block": "ligr",
    "calendar": False,
    "interval": False,
    "sequence_enhancement": False,
    "frequency_by": "count",
}
VOTES = VotesConfig(recency_half_life=7, gap_scale=3600)


def refused(clock: Clock, **changes: Any) -> list[str]:
    models = {"sasrec": SASRecConfig(), "mine": UniRecConfig(**changes)}
    try:
        check_clock(models, clock)
    except ConfigError as error:
        first, *lines = str(error).splitlines()
        assert f"data.clock is {clock}" in first
        assert all(line.startswith("  models.mine.") and "; " in line for line in lines)
        return [line.removeprefix("  models.mine.").split(" ")[0] for line in lines]
    return []


def test_an_absolute_clock_carries_everything() -> None:
    assert refused("absolute", time_bias=True, inject_tail="both") == []


def test_a_relative_clock_has_gaps_but_no_calendar() -> None:
    assert refused("relative") == ["frequency_by", "calendar"]
    assert refused("relative", calendar=False, frequency_by="count", time_bias=True) == []
    assert refused("relative", calendar=False, item_enhancement=False) == ["frequency_by"]
    lean = {"item_enhancement": False, "sequence_enhancement": False}
    assert refused("relative", calendar=False, **lean) == []


def test_without_a_clock_there_are_no_gaps() -> None:
    changes = BARE | {"interval": True, "sequence_enhancement": True, "time_bias": True}
    assert refused("none", **changes) == ["interval", "time_bias", "sequence_enhancement"]
    assert refused("none", **BARE) == []
    assert refused("none", **BARE, votes=VOTES) == ["votes.gap_scale", "votes.recency_half_life"]
    assert refused("relative", **BARE, votes=VOTES) == ["votes.recency_half_life"]
    with pytest.raises(ConfigError, match=r"votes\.gap_scale.*\n.*votes\.recency_half_life"):
        check_clock({"s": SetModelConfig(votes=VOTES)}, "none")
    alone = {"v": NeighbourVotesConfig(gap_scale=60, recency_half_life=7)}
    with pytest.raises(ConfigError, match=r"v\.gap_scale is set(.|\n)*v\.recency_half_life is 7"):
        check_clock(alone, "none")
    check_clock(alone, "absolute")
    with pytest.raises(ConfigError, match=r"models\.t\.kind is tisasrec.*use sasrec"):
        check_clock({"t": TiSASRecConfig()}, "none")
    check_clock({"t": TiSASRecConfig()}, "relative")


def test_what_the_times_do_not_say_is_refused_with_the_reason() -> None:
    models = {"mine": UniRecConfig(**BARE | {"calendar": True, "interval": True}, votes=VOTES)}
    check_times(models, {})
    off = {"calendar": "all are equal", "user_gaps": "nobody came twice"}
    with pytest.raises(
        ConfigError, match=r"^all are equal, which cannot carry:\n.*calendar is true"
    ):
        check_times(models, off)
    with pytest.raises(ConfigError) as caught:
        check_times(models, {"user_gaps": "nobody came twice"})
    named = [line.split()[0] for line in str(caught.value).splitlines()[1:]]
    assert named == ["models.mine.votes.gap_scale", "models.mine.interval"]
    hours = {"hour": "events lie whole days apart"}
    with pytest.raises(
        ConfigError,
        match=r"whole days apart, which .*\n.*calendar_features has hour.*\[year, month",
    ):
        check_times(models, hours)
    check_times({"mine": UniRecConfig(calendar_features=["weekday"])}, hours)
    check_times({"mine": UniRecConfig(**BARE)}, hours)
    together = dict.fromkeys(("calendar", "user_gaps", "item_gaps"), "all are equal")
    with pytest.raises(ConfigError) as caught:
        check_times(models, together)
    assert len(str(caught.value).splitlines()) == 5
