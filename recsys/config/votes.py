"""Neighbours that score: by themselves, or beside what a model has learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.config.section import Section


class PairVotes(Section):
    """Whose neighbours vote, and what a vote counts (see `recsys.models.neighbour_votes` for the formula)."""

    history: int = Field(10, ge=1)
    """How many of the newest events vote, each weighted 1/distance; a learned model is given at most its
    `max_length`."""
    reach: int = Field(10, ge=1)
    """Training events (with baskets as sets: baskets) up to this far apart are pairs, each 1/distance."""
    backward: float = Field(0.0, ge=0, le=1)
    """What a pair counts the other way round."""
    gap_scale: float | None = Field(None, gt=0)
    """Seconds at which pairs, and votes, begin to count less the further apart they are; needs a clock."""
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what a pair counts halves; needs an absolute clock."""
    shrinkage: float = Field(1.0, ge=0)
    """Pairs that an item must have for half of its say."""
    kept: int = Field(100, ge=1)
    """Neighbours an item has."""


class VotesConfig(PairVotes):
    """What neighbours add to a learned score."""

    weight: float = Field(1.0, gt=0)
    """In units of the training's logits."""
    floor: float = Field(1e-3, gt=0)
    """The share that begins to matter."""


class NeighbourVotesConfig(PairVotes):
    """Neighbours that vote, and nothing that is learned; filled up with popularity."""

    kind: Literal["neighbour_votes"] = "neighbour_votes"
    baskets: Literal["ordered", "set"] = "ordered"
    """`set`: distances count baskets, whose events have no order."""
