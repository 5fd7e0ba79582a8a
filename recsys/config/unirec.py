"""UniRec: its parts, each a switch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from recsys.config.attention import Baskets, check_baskets, check_heads
from recsys.config.text import ItemsWithTexts
from recsys.config.training import SET_OBJECTIVES, TrainingConfig
from recsys.config.votes import VotesConfig

CalendarFeature = Literal["year", "month", "day", "weekday", "day_of_year", "week", "hour"]


class UniRecConfig(ItemsWithTexts):
    """Calendar and interval branches, uniformity and item frequency; each part is a switch.

    The defaults are the published mechanism with its defects mended. Weights, shares and schedules
    are those of the paper's code.
    """

    kind: Literal["unirec"] = "unirec"
    mode: Literal["corrected", "reference"] = "corrected"
    """`reference` keeps harmless quirks of the published code: the first gap of a history is a year (there
    not of a full window), the most irregular users count as regular, rarity follows the size of the gap
    variance, the sequence enhancement begins at once and is doubled later. Left out are its neighbours
    without their dead term, its windows that repeat and its errors by padded places; leakage always."""
    width: int = Field(64, ge=1)
    """Item-vector size (D); a mixture block works on 2 D, half item and half time."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["mixture", "prenorm", "ligr"] = "mixture"
    """`mixture`: the published attention over items and times; the others are those of `sasrec`, on
    the sum of item, position and time vectors."""
    fusion: Literal["branches", "sum"] = "branches"
    """`sum`: calendar and interval in one encoder, which costs half; not with `block: mixture`."""
    ffn: float = Field(1.0, gt=0)
    """Feed-forward width as a multiple of what it reads."""
    dropout: float = Field(0.2, ge=0, lt=1)
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Baskets = "ordered"
    """As in `sasrec`."""
    calendar: bool = True
    """The calendar branch; needs an absolute clock."""
    calendar_features: list[CalendarFeature] = Field(
        default=["year", "month", "day", "weekday", "day_of_year", "week", "hour"], min_length=1
    )
    interval: bool = True
    """The interval branch; needs a clock."""
    gaps: Literal["hours", "log"] = "hours"
    """A vector for every hour of a gap up to a year, or for every half power of two of its seconds."""
    interval_context: Literal["calendar", "own"] = "calendar"
    """What the first mixture block of the interval branch attends by beside the items."""
    separate_interval: bool = False
    """The interval branch has weights of its own."""
    time_bias: bool = False
    """Attention prefers or avoids events by how long ago they were, per head; needs a clock."""
    uniformity: bool = False
    """Every event also has a vector for how regular the gaps up to it were; needs a clock."""
    attention_noise: float = Field(0.1, ge=0)
    """Noise on a mixture block's scores while training has the square of this as its deviation, at first."""
    global_term: bool = True
    """The global branch: likeness of an item to the whole history, re-scored on the shortlist."""
    global_items: int = Field(20, ge=1)
    """Distinct newest items of the history that the global branch compares by."""
    global_weight: float = Field(0.1, gt=0)
    sequence_enhancement: bool = True
    """Users of regular habits also learn from an irregular part of their history; needs a clock. Regular
    is meant of events: gaps inside a basket, which are 0, count."""
    sequence_teacher: Literal["encoding", "target"] = "encoding"
    """What the irregular part must come to: the whole's encoding (published), or its next item."""
    sequence_weight: float = Field(0.2, gt=0)
    uniform_share: float = Field(0.4, gt=0, lt=1)
    item_enhancement: bool = True
    """Items learn to be made of the items consumed together with them; rare ones later."""
    item_teacher: Literal["own_and_neighbours", "neighbours"] = Field(
        "own_and_neighbours", exclude_if=lambda value: value == "own_and_neighbours"
    )
    """What an item must come to: a map of its own vector and its neighbours' (published; the map that
    returns the item has no error and teaches nothing), or of theirs alone, by direction (try the weights
    3 and 1). The published one is left out of a dump: earlier runs keep their names."""
    frequent_weight: float = Field(0.3, ge=0)
    rare_weight: float = Field(0.1, ge=0)
    frequent_share: float = Field(0.3, gt=0, lt=1)
    frequency_by: Literal["gap_variance", "count"] = "gap_variance"
    """Which items are frequent; `gap_variance` needs an absolute clock."""
    drawn_neighbours: int = Field(3, ge=1)
    """Neighbours drawn for an item each time it is learned from."""
    kept_neighbours: int = Field(10, ge=1)
    """Neighbours an item has; `inject_tail` carries them in the model."""
    inject_tail: Literal["off", "inputs", "both"] = "off"
    """Rare items are read (`both`: and scored) as made of their neighbours, more and more in training."""
    item_bias: bool = False
    """Every item has a score of its own beside the likeness."""
    votes: VotesConfig | None = None
    """Neighbours score, too, re-scored on the shortlist; not in the paper."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> UniRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        check_heads(self.width * (2 if self.block == "mixture" else 1), self.heads)
        check_baskets(self.baskets, self.training)
        if self.training.objective in SET_OBJECTIVES:
            raise ValueError(
                f"training.objective {self.training.objective} is not for unirec, whose parts each "
                "predict one item; use next_event, or next_basket, which draws one of the basket"
            )
        if self.block == "mixture" and self.fusion == "sum":
            raise ValueError(
                "fusion: sum adds the times to the items, which block: mixture keeps apart; use "
                "fusion: branches, or block: ligr or prenorm"
            )
        if self.block == "mixture" and not (self.calendar or self.interval):
            raise ValueError(
                "block: mixture mixes items with times, so calendar or interval must be on; use "
                "block: ligr or prenorm to be without both"
            )
        return self

    def without_effect(self) -> Iterator[str]:
        """Yield what is set and changes nothing, or contradicts what else is set, with what to do.

        An experiment refuses it; a bundle that was published before can be read all the same.
        """
        apart = self.calendar and self.interval and self.fusion == "branches"
        if self.separate_interval and not apart:
            yield (
                "separate_interval: gives the interval branch weights of its own beside the calendar's, "
                "and there is one branch alone; leave it out"
            )
        if self.interval_context == "own" and not (apart and self.block == "mixture"):
            yield (
                "interval_context: own is of a mixture block's interval branch beside a calendar branch, "
                "and there is none; leave it out"
            )
        if self.mode == "reference" and self.interval and self.gaps == "log":
            yield "gaps: mode reference has the published ones; use hours, or mode: corrected"
        names = self.calendar_features
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            yield f"calendar_features: {', '.join(repeated)} twice; once is enough"
        if self.item_enhancement and self.drawn_neighbours > self.kept_neighbours:
            yield (
                f"drawn_neighbours: {self.drawn_neighbours} of the {self.kept_neighbours} that "
                "kept_neighbours keeps; draw fewer, or keep more"
            )

    @property
    def needs_statistics(self) -> bool:
        """Whether training needs the statistics of the training events."""
        return self.sequence_enhancement or self.needs_neighbours

    @property
    def needs_neighbours(self) -> bool:
        """Whether training needs the neighbours of the items."""
        return self.item_enhancement or self.inject_tail != "off"
