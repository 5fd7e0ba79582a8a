"""What a model asks of the data's times: refused where they cannot carry it, with what to set.

What a clock carries is told by the names of what is off: `user_gaps` (inside a history), `item_gaps`
(between events of different users), `calendar`, and of it the `hour`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from recsys.config.attention import TiSASRecConfig
from recsys.config.counts import LagMarkovConfig
from recsys.config.models import ModelConfig
from recsys.config.unirec import UniRecConfig
from recsys.config.votes import NeighbourVotesConfig
from recsys.errors import ConfigError
from recsys.schema import Clock

_OFF: Final[Mapping[Clock, frozenset[str]]] = {
    "absolute": frozenset(),
    "relative": frozenset({"item_gaps", "calendar"}),
    "none": frozenset({"user_gaps", "item_gaps", "calendar"}),
}


def check_clock(models: Mapping[str, ModelConfig], clock: Clock) -> None:
    """Raise `ConfigError` naming every setting that this clock would turn into noise.

    An absolute clock carries everything. A relative one has gaps inside a history, but no calendar, and
    no gaps between users, by which items would be frequent or rare. Without a clock there are no gaps.
    """
    _refuse(models, _OFF[clock], f"data.clock is {clock}")


def check_times(models: Mapping[str, ModelConfig], off: Mapping[str, str]) -> None:
    """Raise `ConfigError` naming every setting that reads what training events' times do not say.

    Args:
        models: by name.
        off: what the times do not say, and why (`features.clock.ClockReport.off`).
    """
    for reason in dict.fromkeys(off.values()):
        _refuse(models, {name for name, why in off.items() if why == reason}, reason)


def _refuse(models: Mapping[str, ModelConfig], off: Collection[str], reason: str) -> None:
    problems = [
        f"  models.{name}.{setting}"
        for name, config in models.items()
        for setting in _unfit(config, off)
    ]
    if problems:
        raise ConfigError("\n".join([f"{reason}, which cannot carry:", *problems]))


def _unfit(config: ModelConfig, off: Collection[str]) -> Iterator[str]:
    """Yield the settings of a model that read what is off, each with what to do instead."""
    if "user_gaps" in off:
        yield from _reads_gaps(config)
    if "item_gaps" in off:
        yield from _compares_users(config)
    if isinstance(config, UniRecConfig) and config.calendar:
        if "calendar" in off:
            yield "calendar is true; set it to false"
        elif "hour" in off and "hour" in config.calendar_features:
            rest = ", ".join(name for name in config.calendar_features if name != "hour")
            what = f"leave it out: [{rest}]" if rest else "set calendar to false"
            yield f"calendar_features has hour; {what}"


def _compares_users(config: ModelConfig) -> Iterator[str]:
    place = "training." if hasattr(config, "training") else ""
    half_life = getattr(getattr(config, "training", config), "recency_half_life", None)
    if half_life is not None:
        yield (
            f"{place}recency_half_life is {half_life:g} days, but times of different users say nothing "
            "of which is newer; leave it out"
        )
    if isinstance(config, LagMarkovConfig) and config.previous:
        yield (
            f"previous is {config.previous}, but times of different lists say nothing of which came "
            "before; leave it out"
        )
    votes = getattr(config, "votes", None)
    if votes is not None and votes.recency_half_life is not None:
        yield "votes.recency_half_life is set, but times of different users say nothing; leave it out"
    if not isinstance(config, UniRecConfig):
        return
    if config.needs_statistics and config.frequency_by == "gap_variance":
        yield "frequency_by is gap_variance; set it to count"


def _reads_gaps(config: ModelConfig) -> Iterator[str]:
    if isinstance(config, TiSASRecConfig):
        yield "kind is tisasrec, which attends by times; use sasrec"
    if isinstance(config, NeighbourVotesConfig) and config.gap_scale is not None:
        yield "gap_scale is set; leave it out"
    votes = getattr(config, "votes", None)
    if votes is not None and votes.gap_scale is not None:
        yield "votes.gap_scale is set; leave it out"
    if isinstance(config, UniRecConfig):
        for name in ("interval", "time_bias", "uniformity", "sequence_enhancement"):
            if getattr(config, name):
                yield f"{name} is true; set it to false"
