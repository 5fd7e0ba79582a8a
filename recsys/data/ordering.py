"""The order of events: by user, time to its last digit, position; ties keep the order of the input.

Baskets stay together, ties may be shuffled with a seed. All sorts are stable, so the result is a
function of the input order alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.sequences import Int32, Int64
from recsys.data.times import FRACTION
from recsys.schema import BASKET, POSITION, TIMESTAMP

_MOMENT = (TIMESTAMP, FRACTION, POSITION)

Bool = npt.NDArray[np.bool_]
UInt64 = npt.NDArray[np.uint64]


def sort_events(frame: pl.DataFrame, shuffle_seed: int | None = None) -> pl.DataFrame:
    """Sort events by `user`, then time (and its fraction), then position, as far as there, stably.

    With `shuffle_seed`, events of one user, time and position come in an order drawn from
    `(seed, user, place)` instead of the input's.
    """
    frame = frame[stable_order(_sort_keys(frame))]
    if shuffle_seed is None:
        return frame
    user = frame["user"].to_numpy()
    run = np.cumsum(run_starts(_sort_keys(frame)))
    return frame[stable_order([run, seeded_hash(shuffle_seed, user, places(user))])]


def earlier_twin(frame: pl.DataFrame) -> Bool:
    """Tell for every event whether an equal one came before it in the input.

    Equal are user, item, time to its last digit, and position where there is one: a song may come
    twice in a show of one date. Without time and position no two events are at the same moment. The
    frame is sorted by `sort_events` and holds all events of its users; column `row` is the input
    order.
    """
    twin = np.zeros(frame.height, dtype=bool)
    keys = _sort_keys(frame)
    if len(keys) == 1:
        return twin
    starts = run_starts(keys)
    alone = starts & np.append(starts[1:], True)
    tied = np.flatnonzero(~alone)  # usually few: only these can have a twin
    run = np.cumsum(starts)[tied]
    item, row = frame["item"].to_numpy()[tied], frame["row"].to_numpy()[tied]
    order = stable_order([run, item, row])
    twin[tied[order]] = ~run_starts([run[order], item[order]])
    return twin


def group_baskets(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring the events of each basket together and number a user's baskets 0, 1, ..., int32.

    A basket takes the place of its first event; inside it the order stays. The frame is sorted by
    `sort_events`; one without baskets comes back as it is.
    """
    if BASKET not in frame.columns:
        return frame
    # The index is a column of its own: made inside `over`, it would begin anew in every group.
    places_of = frame.select("user", BASKET).with_row_index("place")
    first_row = places_of.select(pl.col("place").min().over("user", BASKET)).to_series().to_numpy()
    order = stable_order([first_row])
    user = frame["user"].to_numpy()[order]
    new_basket = run_starts([first_row[order]])
    total = np.cumsum(new_basket) - 1
    before = np.maximum.accumulate(np.where(run_starts([user]), total, 0))
    number = pl.Series(BASKET, (total - before).astype(np.int32))
    return frame[order].with_columns(number)


def stable_order(keys: list[npt.NDArray[Any]]) -> Int64:
    """Return the permutation that sorts rows by the keys, first key first, ties by row.

    Integers are sorted by 16-bit digits, least significant first (NumPy's stable sort of 16-bit keys
    is a counting sort), which is several times faster here than comparing rows.
    """
    order: Int64 = np.arange(len(keys[0]), dtype=np.int64)
    if not len(order):
        return order
    for key in reversed(keys):
        if key.dtype.kind not in "iu":
            order = order[np.argsort(key[order], kind="stable")]
            continue
        # Differences to the smallest value are exact in unsigned arithmetic, whatever the range.
        rest = key.astype(np.int64).astype(np.uint64)
        rest -= np.uint64(int(key.min()) % (1 << 64))
        for _ in range(-(-int(rest.max()).bit_length() // 16)):
            order = order[np.argsort(rest[order].astype(np.uint16), kind="stable")]
            rest >>= np.uint64(16)
    return order


def places(sorted_keys: Int32 | Int64) -> Int64:
    """Return each row's place (0, 1, ...) inside its run of equal keys."""
    rows = np.arange(len(sorted_keys), dtype=np.int64)
    return rows - np.maximum.accumulate(np.where(run_starts([sorted_keys]), rows, 0))


def seeded_hash(seed: int, user: Int32 | Int64, place: Int64 | int = 0) -> Int64:
    """Return a number in 0..2^62 - 1 for each `(seed, user, place)`, spread evenly.

    The finaliser of splitmix64 (Steele, Lea and Flood, 2014), once for each argument.
    """
    mixed = _mix(np.array([seed], dtype=np.uint64))
    mixed = _mix(mixed ^ np.asarray(user).astype(np.uint64))
    mixed = _mix(mixed ^ np.asarray(place).astype(np.uint64))
    return (mixed >> np.uint64(2)).astype(np.int64)


def _mix(value: UInt64) -> UInt64:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _sort_keys(frame: pl.DataFrame) -> list[npt.NDArray[Any]]:
    names = ["user", *(name for name in _MOMENT if name in frame.columns)]
    return [frame[name].to_numpy() for name in names]


def run_starts(keys: list[npt.NDArray[Any]]) -> Bool:
    """Tell which rows begin a run of rows with equal keys."""
    starts = np.ones(len(keys[0]), dtype=bool)
    if len(starts):
        starts[1:] = False
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts
