"""What the workers of `prepare` do: one chunk, or one partition of users, from files to files.

Every function may run again after its worker was killed: it reads files of the step before and writes
its own aside before naming them. What returns is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import DataConfig, OnProblem, SplitConfig
from recsys.data import chunks, cold, filters, leakage, ordering, partitions, quantile, splits
from recsys.data.pieces import Piece
from recsys.data.problems import SHOWN, Finding, ProblemReport, locate_rows
from recsys.data.readers import iter_piece
from recsys.data.sequences import Int32, Int64, Split
from recsys.data.splits import Fold, Runs
from recsys.data.times import with_fraction
from recsys.manifest import written_aside
from recsys.schema import BASKET, TIMESTAMP, WEIGHT

CHUNK_ROWS = 2_000_000
"""Rows a worker reads at once."""
_STORED = ("user", "item", TIMESTAMP, BASKET, WEIGHT)


@dataclass(frozen=True)
class Scratch:
    """Where the intermediate files lie."""

    root: Path

    def path(self, kind: str, name: str | int) -> Path:
        """Return the path of one intermediate file or directory; its parent exists."""
        directory = self.root / kind
        directory.mkdir(parents=True, exist_ok=True)
        return directory / (name if isinstance(name, str) else f"{name:05d}")

    def clear(self, kind: str) -> None:
        """Delete the files of a step that no later one reads."""
        for path in sorted((self.root / kind).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class ChunkInfo:
    """A written chunk: its directory's name and its columns' types."""

    name: str
    schema: dict[str, str]


def read_chunks(
    piece: Piece, data: DataConfig, scratch: Scratch
) -> tuple[list[ChunkInfo], ProblemReport]:
    """Validate one piece of the input and write its chunks."""
    total, infos = ProblemReport(), []
    for n, (events, report) in enumerate(
        chunks.gather_batches(iter_piece(piece, data), CHUNK_ROWS)
    ):
        name = f"{piece.index:06d}-{n:06d}"
        chunks.write_chunk(events, scratch.path("chunks", name))
        schema = {column: str(dtype) for column, dtype in events.schema.items()}
        infos.append(ChunkInfo(name, schema))
        total += report
    return infos, total


def write_shard(
    name: str,
    scratch: Scratch,
    bounds: Int64,
    fractions: bool,
    unknown: OnProblem | None,
    pieces: Sequence[Piece],
) -> ProblemReport:
    """Make one chunk dense and bucket it by partition; report its events of unknown items.

    With `fractions` some chunk has times between seconds, so that all shards need the column.
    """
    users = partitions.read_arrow(scratch.path("vocabulary", "users"))
    items = partitions.read_arrow(scratch.path("vocabulary", "items"))
    directory = scratch.path("chunks", name)
    events = chunks.dense_chunk(directory, users, items)
    events = with_fraction(events) if fractions else events
    partitions.write_shard(events, bounds, scratch.path("shards", name))
    if unknown is None:
        return ProblemReport()
    return chunks.unknown_items(directory, items, unknown, pieces)


@dataclass(frozen=True)
class Sorter:
    """How the events of a partition are put in order and what is kept of duplicates."""

    shards: list[str]
    bounds: Int64
    n_items: int
    min_items: int
    keep_pairs: bool
    shuffle_seed: int | None
    duplicates: OnProblem
    pieces: Sequence[Piece]


def sort_partition(
    p: int, scratch: Scratch, how: Sorter
) -> tuple[filters.CoreRound, ProblemReport]:
    """Gather, sort and clean one partition; return the first round of the core over its events."""
    shards = [scratch.path("shards", name) for name in how.shards]
    frame = ordering.sort_events(partitions.read_partition(shards, p), how.shuffle_seed)
    twins = pl.Series(ordering.earlier_twin(frame))
    report = ProblemReport()
    if twins.any():
        shown = _named(frame.filter(twins).sort("user", "row").head(SHOWN), scratch)
        first = locate_rows(shown, pl.repeat(True, shown.height, eager=True), how.pieces)
        found = Finding(int(twins.sum()), how.duplicates, first)
        report = ProblemReport(findings={"duplicates": found})
        frame = frame if how.duplicates == "keep" else frame.filter(~twins)
    frame = ordering.group_baskets(frame)
    if WEIGHT in frame.columns:
        frame = frame.with_columns(pl.col(WEIGHT).cast(pl.Float32))
    _write(frame.select(name for name in _STORED if name in frame.columns), scratch, "sorted", p)
    first_user, end_user = how.bounds[p], how.bounds[p + 1]
    user = frame["user"].to_numpy() - np.int32(first_user)
    item = frame["item"].to_numpy()
    if how.keep_pairs:
        user, item = filters.distinct_pairs(user, item)
        _write(pl.DataFrame({"user": user, "item": item}), scratch, "pairs", p)
    alive = np.ones(how.n_items + 1, dtype=bool)
    n_users = int(end_user - first_user)
    return filters.core_round(user, item, n_users, alive, how.min_items), report


def core_round(
    p: int, scratch: Scratch, bounds: Int64, items_alive: Path, min_items: int
) -> filters.CoreRound:
    """Return one partition's further round of the core."""
    pairs = partitions.read_arrow(scratch.path("pairs", p))
    user, item = pairs["user"].to_numpy(), pairs["item"].to_numpy()
    n_users = int(bounds[p + 1] - bounds[p])
    return filters.core_round(user, item, n_users, np.load(items_alive), min_items)


def keep_survivors(p: int, scratch: Scratch, users: Path, items: Path) -> int:
    """Write the events of users and items that stay, renumbered; return how many go (new index -1)."""
    frame = partitions.read_arrow(scratch.path("sorted", p))
    new_user, new_item = np.load(users, "r"), np.load(items, "r")
    renamed = frame.with_columns(
        pl.Series("user", new_user[frame["user"].to_numpy()]),
        pl.Series("item", new_item[frame["item"].to_numpy()]),
    )
    kept = renamed.filter((pl.col("user") >= 0) & (pl.col("item") >= 0))
    _write(kept, scratch, "kept", p)
    return frame.height - kept.height


@dataclass(frozen=True)
class Partition:
    """One partition's final events: a file, and the users `first_user:end_user` they belong to."""

    path: Path
    first_user: int
    end_user: int

    def runs(self) -> Runs:
        """Return the partition's runs, without the items."""
        names = partitions.arrow_columns(self.path)
        columns: list[str] = [n for n in ("user", TIMESTAMP, BASKET) if n in names]
        frame = partitions.read_arrow(self.path, columns=columns)
        local = frame["user"].to_numpy() - np.int32(self.first_user)
        lengths = np.bincount(local, minlength=self.end_user - self.first_user)
        return Runs(
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            first_user=self.first_user,
            timestamps=frame[TIMESTAMP].to_numpy() if TIMESTAMP in names else None,
            baskets=frame[BASKET].to_numpy() if BASKET in names else None,
        )

    def items(self) -> Int32:
        """Return the items, int32 [E]."""
        item: Int32 = partitions.read_arrow(self.path, columns=["item"])["item"].to_numpy()
        return item


Keys = Callable[[Runs], Int64]


def key_bounds(partition: Partition, keys: Keys) -> tuple[int, int, int]:
    """Return (smallest, largest, number) of the partition's cut keys."""
    values = keys(partition.runs())
    return int(values.min()), int(values.max()), len(values)


def key_histogram(partition: Partition, keys: Keys, first: int, width: int) -> Int64:
    """Return the histogram of the partition's cut keys."""
    return quantile.histogram(keys(partition.runs()), first, width)


@dataclass(frozen=True)
class Splitter:
    """How a partition is split."""

    data: DataConfig
    split: SplitConfig
    by: str | None
    folds: list[Fold]
    n_items: int
    seed: int


@dataclass(frozen=True)
class SplitResult:
    """A split partition: its file (rewritten where events were hidden), run lengths, leakage counts."""

    partition: Partition
    lengths: Int64
    leakage: list[leakage.LeakageCounts]


def split_partition(partition: Partition, scratch: Scratch, how: Splitter) -> SplitResult:
    """Write one partition's part of every fold, positions local."""
    runs, items = partition.runs(), partition.items()
    counts = []
    for fold in how.folds:
        chosen = splits.windows(
            runs, fold, how.split, how.data.kind, how.data.target, how.by, how.seed
        )
        if how.split.kind == "continuation" and how.split.hide == "random":
            hidden = sum(end - begin for begin, end in (chosen.validation, chosen.test))
            order = splits.visible_first(runs, np.asarray(hidden), how.seed)
            partition = _reorder(partition, order, scratch)
            runs, items = partition.runs(), partition.items()
        if how.split.cold_items:
            chosen_cold = cold.choose_cold(how.n_items, how.split.cold_items, how.seed)
            kept = cold.events_kept(runs, items, chosen_cold, chosen.test[0])
            partition = _reorder(partition, np.flatnonzero(kept), scratch, "without_cold")
            runs, chosen = cold.without(runs, chosen, kept)
            items = items[kept]
        split = splits.make_split(runs, chosen, how.data.target)
        split.save(_split_directory(partition, fold, scratch))
        counts.append(leakage.count_leakage(runs, items, how.n_items, split))
    return SplitResult(partition, np.diff(runs.offsets), counts)


def load_split(partition: Partition, fold: Fold, scratch: Scratch) -> Split:
    """Return one partition's part of a fold, positions local."""
    return Split.load(_split_directory(partition, fold, scratch))


def count_older(
    partition: Partition, scratch: Scratch, folds: Sequence[Fold], newest: Sequence[int | None]
) -> list[dict[str, int]]:
    """Return, for every fold, its held-out events older than its newest training event."""
    timestamps = partition.runs().timestamps
    if timestamps is None:
        raise ValueError("the events have no times")
    counts = []
    for fold, limit in zip(folds, newest, strict=True):
        split = load_split(partition, fold, scratch)
        parts = {"validation": split.validation, "test": split.test}
        bound = np.iinfo(np.int64).min if limit is None else limit
        counts.append({k: leakage.count_older(timestamps, t, bound) for k, t in parts.items()})
    return counts


@dataclass(frozen=True)
class Part:
    """One file of the final events: slices (path, first row, rows) of partitions, in order."""

    path: Path
    slices: list[tuple[Path, int, int]]


def write_part(part: Part) -> int:
    """Write one file of the final events; its bytes do not depend on how the slices are cut."""
    frames = [partitions.read_arrow(path).slice(first, rows) for path, first, rows in part.slices]
    frame = pl.concat(frames, rechunk=True)
    with written_aside(part.path) as aside:
        frame.write_parquet(aside, compression="lz4", row_group_size=1 << 19, statistics=False)
    return frame.height


def _split_directory(partition: Partition, fold: Fold, scratch: Scratch) -> Path:
    return scratch.path("splits", f"{fold.name}-{partition.first_user:012d}")


def _reorder(
    partition: Partition, order: Int64, scratch: Scratch, kind: str = "reordered"
) -> Partition:
    frame = partitions.read_arrow(partition.path)[order]
    path = _write(frame, scratch, kind, int(partition.path.name))
    return Partition(path, partition.first_user, partition.end_user)


def _named(events: pl.DataFrame, scratch: Scratch) -> pl.DataFrame:
    users = partitions.read_arrow(scratch.path("vocabulary", "users"), columns=["id"])["id"]
    items = partitions.read_arrow(scratch.path("vocabulary", "items"), columns=["id"])["id"]
    shown = events.with_columns(pl.col("item") - 1)  # items are counted from 1
    return chunks.name_ids(shown, users, items)


def _write(frame: pl.DataFrame, scratch: Scratch, kind: str, p: int) -> Path:
    return partitions.write_arrow(frame, scratch.path(kind, p))
