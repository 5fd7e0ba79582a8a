"""What the feature store keeps of a user: the state of `features.online` under external ids.

A row is the state and the number of the newest live event in it, so that an event which is applied twice
counts once. A row as published (`applied` = 0) may hold events that were live once and have come back
with the data: those are known by their item and time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np
import polars as pl

from features.intervals import gap_hours
from features.online import UserState, user_table
from recsys.data.sequences import SequenceStore
from recsys.schema import USER

APPLIED: Final = "applied"


@dataclass(frozen=True)
class LiveEvent:
    """One event that happened after the data were prepared.

    Attributes:
        item: external item id.
        time: seconds since 1970.
        number: place in the log of live events, ascending; from 1.
    """

    item: str
    time: int
    number: int


@dataclass(frozen=True)
class UserRow:
    """A user's state, its items external ids, and the newest live event (0 for none) that is in it."""

    state: UserState = field(default_factory=UserState)
    applied: int = 0

    def after(self, events: Iterable[LiveEvent], keep: int) -> UserRow:
        """Return the row with those of the live events that it does not have yet.

        A state whose events have no times takes new ones in the order of their numbers.
        """
        new = sorted((e for e in events if e.number > self.applied), key=lambda e: e.number)
        if not new:
            return self
        state, held = self.state, Counter[tuple[int | str, int]]()
        timed = bool(state.times) or not state.items
        if self.applied == 0 and state.times:
            held.update(zip(state.items, state.times, strict=True))
        for event in new:
            if held[event.item, event.time] > 0:
                held[event.item, event.time] -= 1
            else:
                state = state.after(event.item, event.time if timed else None, keep)
        return UserRow(state, new[-1].number)

    def values(self) -> dict[str, Any]:
        """Return the row as integers and lists, and the features of views that follow from them."""
        return self.state.row() | {APPLIED: self.applied} | derived(self.state)

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> UserRow:
        """Return the row that `values` wrote, whatever else is there."""
        return cls(UserState.from_row(values), int(values[APPLIED]))


def derived(state: UserState) -> dict[str, Any]:
    """Return what views hold beside the state itself.

    `gap_hours`: gap ids of the kept events. `gap_median`: seconds, of the gaps between the kept events;
    NaN without any. `gap_variance`: of all gaps, seconds squared; NaN with fewer than two.
    """
    times = np.array(state.times, dtype=np.int64)
    between = np.diff(times).tolist()
    return {
        "gap_hours": gap_hours(times).tolist(),
        "gap_median": float(median(between)) if between else math.nan,
        "gap_variance": state.gaps.variance(),
    }


def published_rows(
    store: SequenceStore, users: pl.Series, items: pl.Series, keep: int
) -> pl.DataFrame:
    """Return `user_id` and `UserRow.values` of every user of a store, from all of its events.

    Args:
        store: events of all users, oldest first.
        users: external user ids, row = dense index.
        items: external item ids, row = dense index - 1.
        keep: newest events kept of a user.
    """
    dense = user_table(store, store.offsets[1:], keep)
    names = pl.element().replace_strict(
        np.arange(1, len(items) + 1, dtype=np.int32), items.cast(pl.String), return_dtype=pl.String
    )
    table = dense.with_columns(
        users.cast(pl.String).alias(USER),
        pl.col("recent_items").list.eval(names),
        pl.lit(0, pl.Int64).alias(APPLIED),
    ).drop("user")
    rows = [derived(UserState.from_row(row)) for row in table.iter_rows(named=True)]
    schema: dict[str, Any] = {
        "gap_hours": pl.List(pl.Int64),
        "gap_median": pl.Float64,
        "gap_variance": pl.Float64,
    }
    return table.hstack(pl.DataFrame(rows, schema=schema))
