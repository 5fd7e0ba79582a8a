"""Packed sequences: the columns of the prepared events as flat arrays, one file each.

The arrays have their final size from the start, and every file of events fills its own stretch, so that
workers write side by side and in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.data.sequences import Int64, write_description
from recsys.schema import BASKET, TIMESTAMP, WEIGHT

ARRAYS: Final[dict[str, tuple[str, type[Any]]]] = {
    "item": ("items", np.int32),
    TIMESTAMP: ("timestamps", np.int64),
    BASKET: ("baskets", np.int32),
    WEIGHT: ("weights", np.float32),
}
"""Column of the events -> name and type of the store's array."""


def allocate(directory: Path, columns: list[str], n_events: int) -> None:
    """Create the arrays of these event columns with their final size."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, dtype in (ARRAYS[column] for column in ARRAYS if column in columns):
        path = directory / f"{name}.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n_events,)).flush()


def fill(directory: Path, events: pl.DataFrame, first: int) -> None:
    """Write events into the arrays from position `first` on."""
    for column, (name, _) in ARRAYS.items():
        if column in events.columns:
            array = np.load(directory / f"{name}.npy", mmap_mode="r+")
            array[first : first + events.height] = events[column].to_numpy()


def finish(directory: Path, columns: list[str], offsets: Int64, n_items: int) -> None:
    """Write the offsets and the description that `SequenceStore.load` reads."""
    np.save(directory / "offsets.npy", offsets)
    names = [ARRAYS[column][0] for column in ARRAYS if column in columns]
    write_description(directory, n_items, [*names, "offsets"])
