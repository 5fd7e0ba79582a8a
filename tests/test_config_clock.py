"""What a data set's clock cannot carry is refused, with the setting's place and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.config import (
    SASRecConfig,
    SetModelConfig,
    TiSASRecConfig,
    UniRecConfig,
    VotesConfig,
    check_clock,
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
    assert refused("relative") == ["calendar", "frequency_by"]
    assert refused("relative", calendar=False, frequency_by="count", time_bias=True) == []
    assert refused("relative", calendar=False, item_enhancement=False) == []


def test_without_a_clock_there_are_no_gaps() -> None:
    changes = BARE | {"interval": True, "sequence_enhancement": True, "time_bias": True}
    assert refused("none", **changes) == ["interval", "time_bias", "sequence_enhancement"]
    assert refused("none", **BARE) == []
    assert refused("none", **BARE, votes=VOTES) == ["votes.recency_half_life", "votes.gap_scale"]
    assert refused("relative", **BARE, votes=VOTES) == ["votes.recency_half_life"]
    with pytest.raises(ConfigError, match=r"votes\.recency_half_life.*\n.*votes\.gap_scale"):
        check_clock({"s": SetModelConfig(votes=VOTES)}, "none")
    with pytest.raises(ConfigError, match=r"models\.t\.kind is tisasrec.*use sasrec"):
        check_clock({"t": TiSASRecConfig()}, "none")
    check_clock({"t": TiSASRecConfig()}, "relative")
