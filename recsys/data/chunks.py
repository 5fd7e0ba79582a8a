"""Chunks: a bounded part of the input with its ids replaced by codes of its own.

The input is read and its ids are looked at once; the driver then merges the few distinct ids of all
chunks into the vocabularies, and a chunk is made dense by one table look-up per row. A chunk is a
directory of `events.arrow` (`user`, `item` int32 codes, and the other columns as read), and
`users.parquet` and `items.parquet` (`id` as text, `events`), whose row is the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import OnProblem
from recsys.data.partitions import read_arrow, write_arrow
from recsys.data.pieces import Piece
from recsys.data.problems import SHOWN, Finding, ProblemReport, locate_rows
from recsys.data.sequences import Int32
from recsys.data.times import join_frames
from recsys.manifest import written_aside
from recsys.schema import EVENT_TYPE, ITEM, USER

EVENTS = "events.arrow"
USERS = "users.parquet"
ITEMS = "items.parquet"

DENSE_RANGE = 8
"""Integer ids are coded by a table when their range is at most this many times the rows."""


def gather_batches(
    batches: Iterable[tuple[pl.DataFrame, ProblemReport]], rows: int
) -> Iterator[tuple[pl.DataFrame, ProblemReport]]:
    """Join small batches into some of about `rows` rows, at least one."""
    held: list[pl.DataFrame] = []
    report, size = ProblemReport(), 0
    for frame, part in batches:
        held.append(frame)
        report, size = report + part, size + frame.height
        if size >= rows:
            yield join_frames(held), report
            held, report, size = [], ProblemReport(), 0
    if held:
        yield join_frames(held), report


def write_chunk(events: pl.DataFrame, directory: Path) -> None:
    """Write validated events (`user_id`, `item_id`, ...) as a chunk."""
    directory.mkdir(parents=True, exist_ok=True)
    columns = {}
    for ours, dense, file in ((USER, "user", USERS), (ITEM, "item", ITEMS)):
        ids, codes = code_ids(events[ours])
        columns[dense] = pl.Series(dense, codes)
        counts = np.bincount(codes, minlength=len(ids)).astype(np.int64)
        frame = pl.DataFrame({"id": ids.cast(pl.String), "events": counts})
        with written_aside(directory / file) as aside:
            frame.write_parquet(aside, compression="uncompressed")
    rest = events.drop(USER, ITEM, EVENT_TYPE, strict=False)
    write_arrow(pl.DataFrame(columns).hstack(rest), directory / EVENTS)


def code_ids(ids: pl.Series) -> tuple[pl.Series, Int32]:
    """Return `(distinct ids in ascending order, code of each row)`: `ids == distinct[codes]`."""
    if ids.dtype == pl.Int64 and len(ids):
        values = ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < DENSE_RANGE * len(values):
            place = values - low
            table = np.zeros(high - low + 1, dtype=np.int32)
            table[place] = 1
            present = np.flatnonzero(table)
            table[present] = np.arange(len(present), dtype=np.int32)
            return pl.Series(ids.name, present + low, dtype=pl.Int64), table[place]
    distinct = ids.unique().sort()
    known = pl.DataFrame({"id": distinct}).with_row_index("code")
    coded = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
    return distinct, coded["code"].cast(pl.Int32).to_numpy()


def merge_counts(files: Sequence[Path]) -> pl.DataFrame:
    """Return `id` (text, ascending) and `events` over the chunks' files of users or items."""
    merged = pl.scan_parquet(list(files), glob=False).group_by("id").agg(pl.col("events").sum())
    return merged.collect(engine="streaming").sort("id")


def merge_catalogue(
    events: pl.DataFrame, records: pl.DataFrame | None, keep_unknown: bool
) -> pl.DataFrame:
    """Return the catalogue `id` (ascending), `events`, `known` (has a record, or there are none).

    Items of the item file without any event are part of it, with `events` 0; items without a record
    are only if `keep_unknown`.
    """
    if records is None:
        return events.with_columns(known=pl.lit(True))
    recorded = records.select(id=pl.col(ITEM), known=pl.lit(True))
    catalogue = events.join(recorded, on="id", how="full", coalesce=True).with_columns(
        pl.col("events").fill_null(0), pl.col("known").fill_null(False)
    )
    return catalogue.filter(pl.col("known") | keep_unknown).sort("id")


def dense_chunk(directory: Path, users: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return a chunk's events with dense `user` and `item`, int32, in input order.

    `users` and `items` are the vocabularies, `id` and `index`; events of an item that is not there are
    left out.
    """
    events = read_arrow(directory / EVENTS)
    for name, file, vocabulary in (("user", USERS, users), ("item", ITEMS, items)):
        index = _look_up(directory / file, vocabulary, "index").fill_null(-1).cast(pl.Int32)
        events = events.with_columns(pl.Series(name, index.to_numpy()[events[name].to_numpy()]))
    return events.filter(pl.col("item") >= 0) if events["item"].min() == -1 else events


def unknown_items(
    directory: Path, catalogue: pl.DataFrame, choice: OnProblem, pieces: Sequence[Piece]
) -> ProblemReport:
    """Return the report of a chunk's events whose item is not `known` in the catalogue."""
    known = _look_up(directory / ITEMS, catalogue, "known").fill_null(False)
    events = read_arrow(directory / EVENTS, columns=["user", "item", "row"])
    unknown = ~known.to_numpy()[events["item"].to_numpy()]
    if not unknown.any():
        return ProblemReport()
    shown = name_ids(
        events.filter(pl.Series(unknown)).head(SHOWN),
        pl.read_parquet(directory / USERS)["id"],
        pl.read_parquet(directory / ITEMS)["id"],
    )
    first = locate_rows(shown, pl.repeat(True, shown.height, eager=True), pieces)
    return ProblemReport(findings={"unknown_items": Finding(int(unknown.sum()), choice, first)})


def name_ids(events: pl.DataFrame, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Return events with `user_id` and `item_id` in place of the rows `user` and `item` of two series."""
    named = [users.gather(events["user"]).alias(USER), items.gather(events["item"]).alias(ITEM)]
    return pl.DataFrame(named).hstack(events.drop("user", "item"))


def _look_up(file: Path, table: pl.DataFrame, column: str) -> pl.Series:
    ids = pl.read_parquet(file, columns=["id"])
    return ids.join(table.select("id", column), on="id", how="left", maintain_order="left")[column]
