"""Item frequency: how often, by how many users, and how regularly each item was taken in training."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.uniformity import Float64, gap_moments
from recsys.data.filters import distinct_pairs
from recsys.data.sequences import Int32, Int64


def count_items(user: Int32, item: Int32, trains: np.ndarray, n_items: int) -> tuple[Int64, Int64]:
    """Return int64 [n_items + 1] counts of training events and of their distinct users.

    `trains` (bool [E]) tells training events; counts of parts with different users add up. Index 0 (PAD)
    is zero.
    """
    user, item = user[trains], item[trains]
    events = np.bincount(item, minlength=n_items + 1)
    users = np.bincount(distinct_pairs(user, item)[1], minlength=n_items + 1)
    return events.astype(np.int64), users.astype(np.int64)


def gap_variances(item: Int32, times: Int64, n_items: int) -> Float64:
    """Return the variance of the gaps between consecutive events of an item, float64 [n_items + 1].

    Events (of all users, in any order) are put in order of time; NaN with fewer than two gaps. Low is
    frequent: the published measure of frequency, beside the count.
    """
    return gap_moments(item, times, n_items + 1).variance()


def frequency_table(fold: str, events: Int64, users: Int64) -> pl.DataFrame:
    """Return `fold, item (1..n), events, users`, one row for every item of the catalogue."""
    items = np.arange(1, len(events), dtype=np.int32)
    return pl.DataFrame(
        {"fold": [fold], "item": [items], "events": [events[1:]], "users": [users[1:]]},
        schema={
            "fold": pl.String,
            "item": pl.List(pl.Int32),
            "events": pl.List(pl.Int64),
            "users": pl.List(pl.Int64),
        },
    ).explode("item", "events", "users")
