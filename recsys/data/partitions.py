"""User partitions that one worker can hold, and the shards they are gathered from.

A shard is an Arrow file of one chunk's events whose record batch `p` holds the rows of partition `p`, so
that a partition is read from all shards without touching the others. Rows keep the order of the input
inside a batch, and shards are read in that order, so stable sorts break ties by input order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.data.sequences import Int64
from recsys.manifest import written_aside

MOST_PARTITIONS = 1 << 16


def write_arrow(frame: pl.DataFrame, path: Path) -> Path:
    """Write a frame as one uncompressed Arrow file that `read_arrow` maps into memory."""
    table = frame.rechunk().to_arrow()
    with written_aside(path) as aside, pa.ipc.new_file(aside, table.schema) as writer:
        writer.write_table(table)
    return path


def read_arrow(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the frame of an Arrow file, or some of its columns, without copying its bytes."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return _frame(table if columns is None else table.select(list(columns)))


def arrow_columns(path: Path) -> list[str]:
    """Return the names of an Arrow file's columns."""
    with pa.memory_map(str(path)) as source:
        names: list[str] = pa.ipc.open_file(source).schema.names
    return names


def user_bounds(events: Int64, partitions: int) -> Int64:
    """Cut users `0..len(events) - 1` into contiguous ranges of about equally many events.

    Returns int64 [P + 1], P at most `partitions` and at most the number of users (but at least 1):
    partition p holds the users `bounds[p]:bounds[p + 1]`, never none unless there are no users.
    """
    users = len(events)
    parts = max(1, min(partitions, users, MOST_PARTITIONS))
    total = np.concatenate([[0], np.cumsum(events)])
    inner = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    bounds = np.concatenate([[0], inner, [users]]).astype(np.int64)
    # One user with very many events must not leave empty ranges beside it.
    return np.unique(bounds) if users else bounds


def write_shard(frame: pl.DataFrame, bounds: Int64, path: Path, by: str = "user") -> None:
    """Write rows as one record batch per partition of a dense column, input order kept."""
    partition_of = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)).astype(np.uint16)
    partition = partition_of[frame[by].to_numpy()]
    order = np.argsort(partition, kind="stable")  # a radix sort: 16 bits
    ends = np.cumsum(np.bincount(partition, minlength=len(bounds) - 1))
    table = frame[order].rechunk().to_arrow()
    with written_aside(path) as aside, pa.ipc.new_file(aside, table.schema) as writer:
        for first, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            batches = table.slice(first, end - first).combine_chunks().to_batches()
            writer.write_batch(batches[0] if batches else _empty_batch(table.schema))


def read_partition(shards: Sequence[Path], partition: int) -> pl.DataFrame:
    """Return the rows of one partition from all shards, in the order of the input."""
    batches = []
    for shard in shards:
        with pa.memory_map(str(shard)) as source:
            batches.append(pa.ipc.open_file(source).get_batch(partition))
    return _frame(pa.Table.from_batches(batches))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("a table is a frame")
    return frame


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=t) for t in schema.types], schema=schema)
