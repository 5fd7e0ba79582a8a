"""The models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from recsys.config.playlists import Seq2SeqConfig, SetModelConfig
from recsys.config.recformer import RecformerConfig
from recsys.config.section import Section
from recsys.config.text import ItemVectors, TextItems, TextVotes
from recsys.config.training import SET_OBJECTIVES, TrainingConfig
from recsys.config.votes import NeighbourVotesConfig, VotesConfig


class PopularityConfig(Section):
    """The most popular training items."""

    kind: Literal["pop"] = "pop"
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what an event counts halves; needs an absolute clock."""


class OwnPopularityConfig(Section):
    """What this user (list) repeats most, filled up with popularity."""

    kind: Literal["own_pop"] = "own_pop"


def _one_forgetting(half_life: float | None, recency_half_life: float | None) -> None:
    if half_life is not None and recency_half_life is not None:
        raise ValueError(
            "half_life (in users or lists) and recency_half_life (in days) both forget what is "
            "old; set one of them"
        )


class MarkovConfig(Section):
    """Weighted item-to-next-item transition counts, filled up with popularity."""

    kind: Literal["markov"] = "markov"
    history: int = Field(10, ge=1)
    """How many of the newest events vote, each weighted 1/distance."""
    half_life: float | None = Field(None, gt=0)
    """Transitions lose half their count in this many users/lists (in order of their last event)."""
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what a transition counts halves; needs an absolute clock."""
    reach: int = Field(1, ge=1)
    """Training events up to this far apart count as a transition, each 1/distance."""

    @model_validator(mode="after")
    def _fits_together(self) -> MarkovConfig:
        _one_forgetting(self.half_life, self.recency_half_life)
        return self


class LagMarkovConfig(Section):
    """A table of transitions for every distance, combined as evidence by naive Bayes."""

    kind: Literal["lag_markov"] = "lag_markov"
    history: int = Field(5, ge=1)
    """How many of the newest events are read, each by a table of its own."""
    decay: float = Field(0.6, gt=0, le=1)
    """Weight of the evidence of each step further into the past; 1 is plain naive Bayes."""
    back_off: float = Field(5.0, gt=0)
    """Pseudo-counts with which a table's row is filled up by popularity: more trusts counts less."""
    previous: int = Field(0, ge=0)
    """How many lists before a list are read: what was played last night is rarely played tonight. For
    `kind: lists` of one source, in order of time; needs an absolute clock."""
    previous_weight: float = Field(1.0, gt=0)
    """Weight of the evidence of the lists before."""
    half_life: float | None = Field(None, gt=0)
    """Counts lose half their worth in this many users/lists (in order of their last event)."""
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what an event counts halves; needs an absolute clock."""

    @model_validator(mode="after")
    def _fits_together(self) -> LagMarkovConfig:
        _one_forgetting(self.half_life, self.recency_half_life)
        return self


class ItemKNNConfig(Section):
    """Item-to-item neighbours by common users or by order, weighted by the age of the history event."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    history: int = Field(50, ge=1)
    shrinkage: float = Field(10.0, ge=0)
    asymmetry: float = Field(0.5, ge=0, le=1)
    """Exponent of the frequency of the item that votes; that of the item voted for has the rest to 1.
    One half is the cosine; more quietens frequent voters, less keeps frequent items from winning."""
    locality: float = Field(1.0, gt=0, le=8)
    """Power of a likeness: above 1 a few very like items outvote many that are a little alike."""
    pairs: Literal["users", "following"] = "users"
    """What makes items alike: the same users had them, or the one followed the other."""
    reach: int = Field(50, ge=1)
    """`following`: training events up to this far apart make a pair, each 1 / distance^`fading`."""
    fading: float = Field(0.5, ge=0)
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of each step into the past."""
    text: TextVotes | None = None
    """Items of alike texts are neighbours, too: those without a single event as well."""

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors


class BagOfTokensConfig(Section):
    """Likeness of an item's tokens, weighted by how rare they are, to those of the history."""

    kind: Literal["bag_of_tokens"] = "bag_of_tokens"
    history: int = Field(20, ge=1)
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of each step into the past."""
    needs_sentences: ClassVar[bool] = True


class TextVectorsConfig(Section):
    """Likeness of an item's text vector to the mean of the history's; nothing is learned."""

    kind: Literal["text_vectors"] = "text_vectors"
    vectors: ItemVectors = ItemVectors()
    history: int = Field(20, ge=1)
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of each step into the past."""

    @property
    def item_vectors(self) -> ItemVectors:
        """The text vectors that it reads."""
        return self.vectors

    places_texts: ClassVar[bool] = True


Baskets = Literal["ordered", "set"]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")


def _check_baskets(baskets: Baskets, training: TrainingConfig) -> None:
    if baskets == "set" and training.objective in ("next_event", "rest_set"):
        raise ValueError(
            "baskets: set lets an event see its whole basket, so training.objective must be "
            f"next_basket or next_basket_set (it is {training.objective})"
        )


class SASRecConfig(Section):
    """Causal self-attention over the event sequence with a tied item table."""

    kind: Literal["sasrec"] = "sasrec"
    width: int = Field(64, ge=1)
    """Model width and item-vector size (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["prenorm", "ligr"] = "ligr"
    ffn: float = Field(4.0, gt=0)
    """Feed-forward width as a multiple of `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    positions: Literal["learned", "none"] = "learned"
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Baskets = "ordered"
    """`set`: events of one basket share a position and see one another; needs objective next_basket or
    next_basket_set."""
    text: TextItems | None = None
    """Items have what is written about them, beside or instead of a vector of their own."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SASRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        _check_heads(self.width, self.heads)
        _check_baskets(self.baskets, self.training)
        return self

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors

    @property
    def places_texts(self) -> bool:
        """Whether it has a vector for an item of which only a text is known."""
        return self.text is not None and self.text.mode != "initialise"


class TiSASRecConfig(Section):
    """Self-attention that also sees how much time lies between any two events of a history."""

    kind: Literal["tisasrec"] = "tisasrec"
    width: int = Field(64, ge=1)
    """Model width and item-vector size (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["prenorm", "ligr"] = "ligr"
    ffn: float = Field(4.0, gt=0)
    """Feed-forward width as a multiple of `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    intervals: int = Field(256, ge=1)
    """Largest interval told apart, in units of the history's shortest one."""
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Baskets = "ordered"
    """As in `sasrec`."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> TiSASRecConfig:
        _check_heads(self.width, self.heads)
        _check_baskets(self.baskets, self.training)
        return self


CalendarFeature = Literal["year", "month", "day", "weekday", "day_of_year", "week", "hour"]


class UniRecConfig(Section):
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
    """Users of regular habits also learn from an irregular part of their history; needs a clock."""
    sequence_teacher: Literal["encoding", "target"] = "encoding"
    """What the irregular part must come to: the whole's encoding (published), or its next item."""
    sequence_weight: float = Field(0.2, gt=0)
    uniform_share: float = Field(0.4, gt=0, lt=1)
    item_enhancement: bool = True
    """Items learn to be made of the items consumed together with them; rare ones later."""
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
    text: TextItems | None = None
    """As in `sasrec`."""
    votes: VotesConfig | None = None
    """Neighbours score, too, re-scored on the shortlist; not in the paper."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> UniRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        _check_heads(self.width * (2 if self.block == "mixture" else 1), self.heads)
        _check_baskets(self.baskets, self.training)
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

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors


ModelConfig = Annotated[
    PopularityConfig
    | OwnPopularityConfig
    | MarkovConfig
    | LagMarkovConfig
    | ItemKNNConfig
    | NeighbourVotesConfig
    | BagOfTokensConfig
    | TextVectorsConfig
    | SASRecConfig
    | TiSASRecConfig
    | UniRecConfig
    | Seq2SeqConfig
    | SetModelConfig
    | RecformerConfig,
    Field(discriminator="kind"),
]
