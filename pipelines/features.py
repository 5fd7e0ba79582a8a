"""The features stage: packed sequences and item frequencies, from the prepared events.

One task per file of events; files hold whole users, so counts of distinct users add up.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features import frequency, sequences
from pipelines import prepare
from pipelines.ray_session import map_partitions, ray_session, worker_count
from recsys.config import ExperimentConfig
from recsys.data.sequences import Int64
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

STAGE_VERSION = 1
DIRECTORY = "features"


@dataclass(frozen=True)
class EventFile:
    """A file of prepared events and the position of its first event."""

    path: Path
    first: int


@dataclass(frozen=True)
class FileCounts:
    """What one file holds: its first user, events per user from there on, item counts by fold."""

    first_user: int
    lengths: Int64
    frequency: dict[str, tuple[Int64, Int64]]


def build_features(config: ExperimentConfig) -> Path:
    """Return the finished `features/` directory, made anew unless it is current."""
    prepared = config.workspace / prepare.DIRECTORY
    source = read_manifest(prepared)
    key = stable_hash({"prepared": source["key"], "version": STAGE_VERSION})
    directory = config.workspace / DIRECTORY
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        shutil.rmtree(work / "sequences", ignore_errors=True)  # of a killed run
        with ray_session(config.ray):
            rows = _build(prepared, work, source, worker_count(config.ray))
        manifest.update(inputs={"prepared": source["key"]}, rows=rows)
    return directory


def _build(prepared: Path, work: Path, source: dict[str, Any], workers: int) -> dict[str, int]:
    files = event_files(prepared)
    n_users, n_items = source["rows"]["users"], source["rows"]["items"]
    columns = pq.read_schema(files[0].path).names
    sequences.allocate(work / "sequences", columns, source["rows"]["events"])
    folds = sorted(path.name for path in (prepared / "splits").iterdir())
    task = partial(
        pack_file,
        splits=prepared / "splits",
        folds=folds,
        target=work / "sequences",
        n_items=n_items,
    )
    lengths = np.zeros(n_users, dtype=np.int64)
    totals = {fold: np.zeros((2, n_items + 1), dtype=np.int64) for fold in folds}
    for counts in map_partitions(task, files, workers, "sequences"):
        lengths[counts.first_user : counts.first_user + len(counts.lengths)] = counts.lengths
        for fold, found in counts.frequency.items():
            totals[fold] += found
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequences.finish(work / "sequences", columns, offsets, n_items)
    tables = [frequency.frequency_table(fold, *totals[fold]) for fold in folds]
    pl.concat(tables).write_parquet(work / "item_frequency.parquet")
    return {"users": n_users, "items": n_items, "events": int(offsets[-1])}


def event_files(prepared: Path) -> list[EventFile]:
    """Return the files of prepared events, in order."""
    files, first = [], 0
    for path in sorted((prepared / "events").glob("part-*.parquet")):
        files.append(EventFile(path, first))
        first += pq.read_metadata(path).num_rows
    return files


def pack_file(
    file: EventFile, splits: Path, folds: list[str], target: Path, n_items: int
) -> FileCounts:
    """Write one file's events into the packed arrays; return its counts (training events only)."""
    events = pl.read_parquet(file.path)
    sequences.fill(target, events, file.first)
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    position = np.arange(file.first, file.first + len(user))
    counts = {}
    for fold in folds:
        train_end = np.load(splits / fold / "train_end.npy", mmap_mode="r")
        counts[fold] = frequency.count_items(user, item, position < train_end[user], n_items)
    first_user = int(user[0])
    return FileCounts(first_user, np.bincount(user - first_user).astype(np.int64), counts)
