"""What a report shows around its metrics; every part may be missing, and is then left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One target of one user, in texts.

    Attributes:
        title: who and why this one.
        history: the newest items before the target, oldest first.
        held_out: the target's items.
        lists: model -> the first items of its list, each with whether it was held out.
        ranks: model -> the rank of the best held-out item, in words.
    """

    title: str
    history: Sequence[str]
    held_out: Sequence[str]
    lists: Mapping[str, Sequence[tuple[str, bool]]]
    ranks: Mapping[str, str]


@dataclass(frozen=True)
class ItemMap:
    """Items in the plane: columns `x`, `y`, `events`, `text`, and `attribute` where one colours them."""

    places: pl.DataFrame
    attribute: str | None = None


@dataclass(frozen=True)
class Background:
    """The parts, by what they are about.

    Attributes:
        exposure: rows of `exposure_rows`.
        costs: a row for each data set, split and model: seconds, milliseconds, megabytes.
        wins: a row for each compared pair: users better, equal, worse.
        profiles: fold -> its profile.
        histories: learned model -> its epochs.
        retrieval: learned model -> the kinds of index on its vectors.
        maps: learned model -> its items in the plane.
        examples: `(data set, split)` -> users looked at.
        order: what `recsys order-test` found, where it was asked for.
    """

    exposure: Sequence[Row] = ()
    costs: Sequence[Row] = ()
    wins: Sequence[Row] = ()
    profiles: Mapping[str, Row] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    retrieval: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    maps: Mapping[str, ItemMap] = field(default_factory=dict)
    examples: Mapping[tuple[str, str], Sequence[Example]] = field(default_factory=dict)
    order: Row | None = None
