"""Events by item: ranges of items that one task can hold, and the shards they are gathered from.

Statistics of an item run across all users, so its events must come together. Every file of events
writes one shard, cut by ranges of items that have about equally many events; a task then reads its range
from all shards. Memory is that of one range: about `EVENTS_PER_RANGE` events, or those of the most
frequent item, if that has more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.frequency import gap_variances
from recsys.data import partitions
from recsys.data.sequences import Int64
from recsys.schema import TIMESTAMP

EVENTS_PER_RANGE: Final = 2_000_000
TRAINS: Final = "trains"
"""Column of the shards: bit k is set where the event belongs to the k-th of the statistics."""


@dataclass(frozen=True)
class ItemRanges:
    """Range r holds the items `bounds[r]:bounds[r + 1]`; its events lie in the shards."""

    directory: Path
    bounds: Int64

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def write(self, shard: str, frame: pl.DataFrame) -> None:
        """Write the events of one file (with column `item`), cut by range."""
        path = self.directory / f"{shard}.arrow"
        partitions.write_shard(frame, self.bounds, path, by="item")

    def read(self, r: int) -> pl.DataFrame:
        """Return the events of one range from all shards, in the order of the files."""
        return partitions.read_partition(sorted(self.directory.glob("*.arrow")), r)


def item_ranges(directory: Path, counts: Int64, events_per_range: int) -> ItemRanges:
    """Return ranges of about `events_per_range` events of all items, from their counts [n_items + 1]."""
    directory.mkdir(parents=True)
    wanted = -(-int(counts.sum()) // events_per_range)
    return ItemRanges(directory, partitions.user_bounds(counts, wanted))


def write_timed_events(path: Path, ranges: ItemRanges, ends: Mapping[str, Path], first: int) -> int:
    """Write the timed training events of one file of events, which begins at position `first`.

    Returns how many belong to any of the statistics; `ends` are the files that `training_ends` names.
    """
    events = pl.read_parquet(path, columns=["user", "item", TIMESTAMP])
    user = events["user"].to_numpy()
    position = np.arange(first, first + len(user))
    trains = np.zeros(len(user), dtype=np.min_scalar_type((1 << len(ends)) - 1))
    for bit, file in enumerate(ends.values()):
        inside = position < np.load(file, mmap_mode="r")[user]
        trains |= inside.astype(trains.dtype) << trains.dtype.type(bit)
    frame = events.select("item", TIMESTAMP).with_columns(pl.Series(TRAINS, trains))
    frame = frame.filter(pl.col(TRAINS) > 0)
    ranges.write(path.stem, frame)
    return frame.height


def range_variances(
    r: int, ranges: ItemRanges, names: list[str]
) -> tuple[int, dict[str, npt.NDArray[np.float64]]]:
    """Return the first item of a range and, for all statistics, its items' gap variances."""
    first, end = ranges.bounds[r : r + 2].tolist()
    events = ranges.read(r).sort("item", TIMESTAMP)
    item = events["item"].to_numpy() - np.int32(first)
    times, trains = events[TIMESTAMP].to_numpy(), events[TRAINS].to_numpy()
    variances = {}
    for bit, name in enumerate(names):
        chosen = (trains >> trains.dtype.type(bit)) & trains.dtype.type(1) > 0
        variances[name] = gap_variances(item[chosen], times[chosen], end - first - 1)
    return first, variances
