"""The features stage: packed sequences and statistics of the training events, from the prepared events.

1. One task per file of events packs it and counts; files hold whole users, so users' gaps and counts of
   distinct users are finished there.
2. Items' gaps run across all users: their events are bucketed by ranges of items (`item_ranges`) and
   each range is finished by one task.

Every sum is of integers, so the result does not depend on how events are cut into files, ranges or
workers. For each fold there are statistics of what trains and of what a refit learns from
(`pipelines.statistics`), and `clock` in the manifest tells which features of time the data carry.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from features import clock, frequency, sequences
from features.uniformity import gap_moments
from pipelines import prepare
from pipelines.item_ranges import (
    EVENTS_PER_RANGE,
    item_ranges,
    range_variances,
    write_timed_events,
)
from pipelines.ray_session import map_partitions, ray_session, worker_count
from pipelines.statistics import FEATURES, REFIT, STATISTICS, training_ends
from recsys.config import ExperimentConfig
from recsys.data.sequences import Int64
from recsys.data.statistics import TrainingStatistics
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory
from recsys.schema import TIMESTAMP

logger = logging.getLogger(__name__)

STAGE_VERSION = 2
DIRECTORY = FEATURES

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EventFile:
    """A file of prepared events and the position of its first event."""

    path: Path
    first: int


@dataclass(frozen=True)
class FileCounts:
    """What one file holds, by name of the statistics where it depends on what trains.

    Attributes:
        first_user: its first user.
        lengths: int64 [U], events per user from there on.
        events: int64 [n_items + 1] training events of each item.
        users: int64 [n_items + 1] their distinct users; not for refits.
        variance: float64 [U] of the users' gaps; empty without times.
        facts: what its times show.
    """

    first_user: int
    lengths: Int64
    events: dict[str, Int64]
    users: dict[str, Int64]
    variance: dict[str, Float64]
    facts: dict[str, clock.ClockFacts]


def build_features(config: ExperimentConfig) -> Path:
    """Return the finished `features/` directory, made anew unless it is current."""
    prepared = config.workspace / prepare.DIRECTORY
    source = read_manifest(prepared)
    key, directory = features_key(config), config.workspace / DIRECTORY
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        for left in ("sequences", STATISTICS, "scratch"):  # of a killed run
            shutil.rmtree(work / left, ignore_errors=True)
        with ray_session(config.ray):
            build = _Building(prepared, work, source, worker_count(config.ray))
            rows = build.pack()
            reports = build.statistics()
        shutil.rmtree(work / "scratch", ignore_errors=True)
        told = {name: report.to_dict() for name, report in reports.items()}
        manifest.update(inputs={"prepared": source["key"]}, rows=rows, clock=told)
    return directory


def features_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes the features; needs the stage before."""
    source = read_manifest(config.workspace / prepare.DIRECTORY)
    return stable_hash({"prepared": source["key"], "version": STAGE_VERSION})


class _Building:
    """One run of the stage: the driver's side, which holds users and items, never events."""

    def __init__(self, prepared: Path, work: Path, source: dict[str, Any], workers: int) -> None:
        self.work, self.source, self.workers = work, source, workers
        self.files = event_files(prepared)
        self.ends = training_ends(prepared / "splits")
        self.n_users, self.n_items = source["rows"]["users"], source["rows"]["items"]
        self.columns = pq.read_schema(self.files[0].path).names
        self.events = {name: np.zeros(self.n_items + 1, dtype=np.int64) for name in self.ends}
        self.users = {name: np.zeros(self.n_items + 1, dtype=np.int64) for name in self.ends}
        self.variance = {name: np.full(self.n_users, np.nan) for name in self.ends}
        self.facts = {name: clock.ClockFacts() for name in self.ends}

    def pack(self) -> dict[str, int]:
        """Write the sequences and the table of frequencies; return how many rows there are."""
        target = self.work / "sequences"
        sequences.allocate(target, self.columns, self.source["rows"]["events"])
        task = partial(pack_file, ends=self.ends, target=target, n_items=self.n_items)
        lengths = np.zeros(self.n_users, dtype=np.int64)
        for counts in map_partitions(task, self.files, self.workers, "sequences"):
            mine = slice(counts.first_user, counts.first_user + len(counts.lengths))
            lengths[mine] = counts.lengths
            for name in self.ends:
                self.events[name] += counts.events[name]
                self.facts[name] += counts.facts[name]
                if name in counts.users:
                    self.users[name] += counts.users[name]
                if name in counts.variance:
                    self.variance[name][mine] = counts.variance[name]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        sequences.finish(target, self.columns, offsets, self.n_items)
        tables = [
            frequency.frequency_table(name, self.events[name], self.users[name])
            for name in self.ends
            if not name.endswith(REFIT)
        ]
        pl.concat(tables).write_parquet(self.work / "item_frequency.parquet")
        return {"users": self.n_users, "items": self.n_items, "events": int(offsets[-1])}

    def statistics(self) -> dict[str, clock.ClockReport]:
        """Write the statistics by name; return what the clock of each carries, and say it once."""
        kind = self.source["clock"]
        reports = {name: clock.judge(kind, facts) for name, facts in self.facts.items()}
        timed = {n: self.ends[n] for n, r in reports.items() if r.is_on(clock.ITEM_GAPS)}
        of_items = self._item_variances(timed) if timed else {}
        for name, report in reports.items():
            known = report.is_on(clock.USER_GAPS)
            TrainingStatistics(
                user_gap_variance=self.variance[name] if known else None,
                item_gap_variance=of_items.get(name),
                item_counts=self.events[name],
            ).save(self.work / STATISTICS / name)
        lines = (line for report in reports.values() for line in report.lines())
        for line in dict.fromkeys(lines):
            logger.warning("features of time: %s", line)
        return reports

    def _item_variances(self, ends: Mapping[str, Path]) -> dict[str, Float64]:
        most = np.maximum.reduce(list(self.events.values()))
        ranges = item_ranges(self.work / "scratch" / "items", most, EVENTS_PER_RANGE)
        write = partial(write_file, ranges=ranges, ends=ends)
        list(map_partitions(write, self.files, self.workers, "events by item"))
        variances = {name: np.full(self.n_items + 1, np.nan) for name in ends}
        task = partial(range_variances, ranges=ranges, names=list(ends))
        for first, found in map_partitions(task, range(len(ranges)), self.workers, "item gaps"):
            for name, some in found.items():
                variances[name][first : first + len(some)] = some
        return variances


def event_files(prepared: Path) -> list[EventFile]:
    """Return the files of prepared events, in order."""
    files, first = [], 0
    for path in sorted((prepared / "events").glob("part-*.parquet")):
        files.append(EventFile(path, first))
        first += pq.read_metadata(path).num_rows
    return files


def write_file(file: EventFile, **settings: Any) -> int:
    """Write the timed training events of a file by ranges of items (a Ray task)."""
    return write_timed_events(file.path, first=file.first, **settings)


def pack_file(file: EventFile, ends: Mapping[str, Path], target: Path, n_items: int) -> FileCounts:
    """Write one file's events into the packed arrays; return what its training events say."""
    frame = pl.read_parquet(file.path)
    sequences.fill(target, frame, file.first)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    times = frame[TIMESTAMP].to_numpy() if TIMESTAMP in frame.columns else None
    position = np.arange(file.first, file.first + len(user))
    first_user, n_users = int(user[0]), int(user[-1] - user[0]) + 1
    counts = FileCounts(first_user, np.bincount(user - first_user).astype(np.int64), {}, {}, {}, {})
    for name, path in ends.items():
        trains = position < np.load(path, mmap_mode="r")[user]
        if name.endswith(REFIT):
            events = np.bincount(item[trains], minlength=n_items + 1)
        else:
            events, counts.users[name] = frequency.count_items(user, item, trains, n_items)
        counts.events[name] = events.astype(np.int64)
        counts.facts[name] = clock.ClockFacts()
        if times is not None:
            mine, when = user[trains] - first_user, times[trains]
            counts.facts[name] = clock.observe(mine, when)
            counts.variance[name] = gap_moments(mine, when, n_users).variance()
    return counts
