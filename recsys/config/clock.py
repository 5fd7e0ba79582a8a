"""What a model asks of the data's clock: refused where the clock cannot carry it, with what to set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recsys.config.models import LagMarkovConfig, ModelConfig, TiSASRecConfig, UniRecConfig
from recsys.errors import ConfigError
from recsys.schema import Clock


def check_clock(models: Mapping[str, ModelConfig], clock: Clock) -> None:
    """Raise `ConfigError` naming every setting that this clock would turn into noise.

    An absolute clock carries everything. A relative one has gaps inside a history, but no calendar, and
    no gaps between users, by which items would be frequent or rare. Without a clock there are no gaps.
    """
    problems = [
        f"  models.{name}.{setting}"
        for name, config in models.items()
        for setting in _unfit(config, clock)
    ]
    if problems:
        raise ConfigError("\n".join([f"data.clock is {clock}, which cannot carry:", *problems]))


def _unfit(config: ModelConfig, clock: Clock) -> Iterator[str]:
    """Yield the settings of a model that the clock cannot carry, each with what to do instead."""
    if clock == "absolute":
        return
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
    if isinstance(config, TiSASRecConfig) and clock == "none":
        yield "kind is tisasrec, which attends by times; use sasrec"
    votes = getattr(config, "votes", None)
    if votes is not None and votes.recency_half_life is not None:
        yield "votes.recency_half_life is set, but times of different users say nothing; leave it out"
    if votes is not None and votes.gap_scale is not None and clock == "none":
        yield "votes.gap_scale is set; leave it out"
    if not isinstance(config, UniRecConfig):
        return
    if config.calendar:
        yield "calendar is true; set it to false"
    if config.needs_neighbours and config.frequency_by == "gap_variance":
        yield "frequency_by is gap_variance; set it to count"
    if clock == "none":
        for name in ("interval", "time_bias", "uniformity", "sequence_enhancement"):
            if getattr(config, name):
                yield f"{name} is true; set it to false"
