"""The neighbours of every item (`features.neighbours`), a part of the features stage that costs.

It is made only where `features.neighbours` or a configured model asks for it, in a directory of its own, so
that it neither waits for nor invalidates the rest. For each of the statistics: one task per file of
events weighs its users' windows and buckets their events by ranges of items, then one task per range
joins its items' events with their users' windows, a bounded number of pairs at a time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from features.neighbours import (
    ItemEvents,
    Windows,
    count_repeats,
    find_neighbours,
    user_weights,
)
from features.recent import recent_starts
from pipelines import prepare
from pipelines.features import EventFile, event_files
from pipelines.item_ranges import ItemRanges, item_ranges
from pipelines.ray_session import map_partitions, ray_session, worker_count
from pipelines.statistics import (
    FEATURES,
    NEIGHBOURS,
    REFIT,
    STATISTICS,
    neighbours_key,
    training_ends,
)
from recsys.config import ExperimentConfig
from recsys.data.filters import distinct_pairs
from recsys.data.sequences import Int32, Int64, SequenceStore
from recsys.data.statistics import TrainingStatistics
from recsys.manifest import is_current, read_manifest, stage_directory

EVENTS_PER_RANGE = 500_000
"""Events of the items that one task joins; each has up to a window of partners."""


@dataclass(frozen=True)
class Places:
    """Where one run of the stage keeps what its tasks share.

    Attributes:
        sequences: the packed sequences.
        ends: the file of positions at which users' windows end.
        scratch: `starts.npy`, `repeats.npy`, `weights.npy` of the windows (see `Windows`).
    """

    sequences: Path
    ends: Path
    scratch: Path

    def array(self, name: str, mode: Literal["r", "r+"] = "r") -> Any:
        """Return one of the shared arrays, memory-mapped."""
        return np.load(self.scratch / f"{name}.npy", mmap_mode=mode)


@dataclass(frozen=True)
class FileWindows:
    """The windows of a file's users: 1 / ln(1 + |I_u|) of each, and the users of every item."""

    first_user: int
    weights: npt.NDArray[np.float64]
    item_users: Int64


def build_neighbours(config: ExperimentConfig) -> Path:
    """Return the finished `neighbours/` directory, made anew unless it is current."""
    features = config.workspace / FEATURES
    key = neighbours_key(config)
    directory = config.workspace / NEIGHBOURS
    if is_current(directory, key):
        return directory
    prepared = config.workspace / prepare.DIRECTORY
    ends = training_ends(prepared / "splits")
    if not config.refit:
        ends = {name: path for name, path in ends.items() if not name.endswith(REFIT)}
    with stage_directory(directory, key) as (work, manifest), ray_session(config.ray):
        for name, path in ends.items():
            if (work / f"{name}.npy").is_file():
                continue  # of a killed run
            places = Places(features / "sequences", path, work / "scratch")
            statistics = TrainingStatistics.load(features / STATISTICS / name)
            table = _neighbours_of(config, places, statistics, event_files(prepared))
            np.save(work / f".{name}.npy", table)
            (work / f".{name}.npy").replace(work / f"{name}.npy")
            shutil.rmtree(places.scratch)
        settings = config.features.model_dump(mode="json")
        inputs = {"features": read_manifest(features)["key"]}
        manifest.update(inputs=inputs, config=settings, statistics=list(ends))
    return directory


def _neighbours_of(
    config: ExperimentConfig,
    places: Places,
    statistics: TrainingStatistics,
    files: list[EventFile],
) -> Int32:
    """Return int32 [n_items + 1, kept], filled up with the item itself."""
    workers = worker_count(config.ray)
    shutil.rmtree(places.scratch, ignore_errors=True)
    ranges = item_ranges(places.scratch / "items", statistics.item_counts, EVENTS_PER_RANGE)
    item_users = _weigh(config, places, ranges, files, len(statistics.item_counts))
    n_items, kept = len(item_users) - 1, config.features.neighbours_kept
    table = np.repeat(np.arange(n_items + 1, dtype=np.int32)[:, None], kept, axis=1)
    task = partial(
        range_neighbours,
        ranges=ranges,
        places=places,
        item_users=item_users,
        item_variance=statistics.item_gap_variance,
        kept=kept,
    )
    for found in map_partitions(task, range(len(ranges)), workers, "neighbours"):
        for item, best in found.items():
            table[item, : len(best)] = best
    return table


def _weigh(
    config: ExperimentConfig,
    places: Places,
    ranges: ItemRanges,
    files: list[EventFile],
    n_ids: int,
) -> Int64:
    """Write what the windows need and their events by item; return the users of every item."""
    store = SequenceStore.load(places.sequences)
    starts = recent_starts(store.offsets, np.load(places.ends), config.features.neighbour_window)
    np.save(places.scratch / "starts.npy", starts)
    repeats = np.lib.format.open_memmap(
        places.scratch / "repeats.npy", mode="w+", dtype=np.uint16, shape=(store.n_events,)
    )
    repeats.flush()
    weights, item_users = np.zeros(store.n_users), np.zeros(n_ids, dtype=np.int64)
    task = partial(weigh_windows, places=places, ranges=ranges, n_ids=n_ids)
    for found in map_partitions(task, files, worker_count(config.ray), "windows"):
        weights[found.first_user : found.first_user + len(found.weights)] = found.weights
        item_users += found.item_users
    np.save(places.scratch / "weights.npy", weights)
    return item_users


def weigh_windows(file: EventFile, places: Places, ranges: ItemRanges, n_ids: int) -> FileWindows:
    """Write one file's window events by ranges of items, and how often their items repeat."""
    events = pl.read_parquet(file.path, columns=["user", "item"])
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    position = np.arange(file.first, file.first + len(user))
    inside = position >= places.array("starts")[user]
    inside &= position < np.load(places.ends, mmap_mode="r")[user]
    first_user, n_users = int(user[0]), int(user[-1] - user[0]) + 1
    user, item, position = user[inside], item[inside], position[inside]
    places.array("repeats", "r+")[position] = count_repeats(user, item)
    ranges.write(file.path.stem, pl.DataFrame({"item": item, "user": user, "position": position}))
    users_of, items_of = distinct_pairs(user, item)
    distinct = np.bincount(users_of - first_user, minlength=n_users)
    item_users = np.bincount(items_of, minlength=n_ids).astype(np.int64)
    return FileWindows(first_user, user_weights(distinct), item_users)


def range_neighbours(
    r: int,
    ranges: ItemRanges,
    places: Places,
    item_users: Int64,
    item_variance: npt.NDArray[np.float64] | None,
    kept: int,
) -> dict[int, Int32]:
    """Return the neighbours of one range's items (a Ray task)."""
    rows = ranges.read(r).sort("item", "position")
    events = ItemEvents(*(rows[name].to_numpy() for name in ("item", "user", "position")))
    store = SequenceStore.load(places.sequences)
    windows = Windows(
        items=store.items,
        times=store.timestamps,
        starts=places.array("starts"),
        ends=np.load(places.ends, mmap_mode="r"),
        repeats=places.array("repeats"),
        weights=places.array("weights"),
    )
    return find_neighbours(events, windows, item_users, item_variance, kept)
