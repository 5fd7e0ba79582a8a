"""Models that learn nothing by gradients: they count, or compare texts as they are."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.config.text import ItemVectors, TextVotes


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
