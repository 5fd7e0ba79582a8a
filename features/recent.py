"""The newest events of every user: where they begin in the store, and as a column of lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from recsys.data.sequences import Int64


def recent_starts(offsets: Int64, ends: Int64, n: int) -> Int64:
    """Return where the newest `n` events before `ends` begin, int64 [U], absolute.

    `offsets` (int64 [U + 1]) are the store's; user u's newest events are `result[u]:ends[u]`.
    """
    starts: Int64 = np.maximum(offsets[:-1], ends - n)
    return starts


def recent_lists(
    name: str, values: npt.NDArray[np.int32] | Int64, starts: Int64, ends: Int64
) -> pl.Series:
    """Return a column with the values `starts[u]:ends[u]` of every user as one list, oldest first."""
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    where = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    lists = pa.LargeListArray.from_arrays(offsets, pa.array(values[where]))
    column = pl.from_arrow(lists)
    if not isinstance(column, pl.Series):
        raise TypeError("a list array is a column")
    return column.alias(name)
