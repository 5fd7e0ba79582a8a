"""Tables: what every conversion reads and writes, streamed so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.data.blocks import read_blocks
from recsys.data.formats import Format
from recsys.data.records import ROW, parse_block
from recsys.errors import DataError

EVENTS = "events.parquet"
ITEMS = "items.parquet"
LISTS = "lists.parquet"
"""What is known of whole lists: `user_id` and any columns. No model reads it; probes ask for it."""


@dataclass(frozen=True)
class RawFiles:
    """The raw files of a preset: events, and items where there are any."""

    events: tuple[Path, ...]
    items: tuple[Path, ...] = ()

    def all(self) -> tuple[Path, ...]:
        """Return every file once, events first."""
        return tuple(dict.fromkeys([*self.events, *self.items]))


def read_text(path: Path, form: Format) -> Iterator[pl.DataFrame]:
    """Yield a CSV or TSV file in bounded frames of String columns; not UTF-8 is an error."""
    for block in read_blocks(path, form):
        if block.bad:
            raise DataError(f"{block.bad[0]}; a conversion takes UTF-8 only")
        yield parse_block(block, path, form, None).drop(ROW)


def write_table(frames: Iterable[pl.DataFrame], path: Path) -> int:
    """Write frames of one schema as one Parquet file, a frame at a time; return the rows."""
    import pyarrow.parquet as pq

    rows = 0
    writer = None
    try:
        for frame in frames:
            table = frame.to_arrow()
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
            rows += frame.height
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise DataError(f"nothing to write to {path.name}: the raw files hold no record")
    return rows
