"""Readers: raw files, Parquet, CSV, TSV or JSON Lines, as validated frames of bounded size.

Events come out with the names of `schema.py`: `user_id`, `item_id` and, where mapped, `position`,
`basket_id`, `weight`, `event_type`; `timestamp` is int64 seconds (not there when the clock is
`none`), `row` the place in the whole input, and `fraction` the nanoseconds after the second (not
there where all times are whole). From text formats ids are always String (Amazon's
ids begin with zeros) and kept byte for byte, blanks included; a JSON number becomes its text. Only
an empty field is null: `NA` is an id. From Parquet, ids are Int64 or String, as the file has them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.config import DataConfig
from recsys.data.blocks import BLOCK_BYTES, read_blocks
from recsys.data.checks import check_config, clean_events
from recsys.data.columns import event_columns
from recsys.data.formats import Format
from recsys.data.items import read_items
from recsys.data.pieces import ROW_BITS, Piece, plan_pieces
from recsys.data.problems import ProblemReport
from recsys.data.records import ROW, parse_block, text_columns, unreadable
from recsys.data.times import FRACTION, join_frames, with_fraction
from recsys.errors import DataError

__all__ = [
    "ROW_BITS",
    "Piece",
    "iter_piece",
    "plan_pieces",
    "read_events",
    "read_items",
    "read_piece",
]

logger = logging.getLogger(__name__)


def read_events(data: DataConfig) -> tuple[pl.DataFrame, ProblemReport]:
    """Return all events in memory, for small data; raises if a rule set to `fail` is broken."""
    parts = [read_piece(piece, data) for piece in plan_pieces(data)]
    report = sum((part for _, part in parts), ProblemReport())
    report.raise_if_failed()
    for line in report.lines():
        logger.warning(line)
    frames = [frame for frame, _ in parts]
    if any(FRACTION in frame.columns for frame in frames):
        frames = [with_fraction(frame) for frame in frames]
    return pl.concat(frames, how="diagonal_relaxed"), report


def read_piece(piece: Piece, data: DataConfig) -> tuple[pl.DataFrame, ProblemReport]:
    """Return the events of one piece that keep the rules, and the report.

    Nothing is raised for a rule set to `fail`: add up the reports of all pieces, then call
    `raise_if_failed`. Missing columns, malformed records and weights that are no numbers raise at
    once.
    """
    parts = list(iter_piece(piece, data))
    report = sum((part for _, part in parts), ProblemReport())
    return join_frames([frame for frame, _ in parts]), report


def iter_piece(
    piece: Piece, data: DataConfig, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[pl.DataFrame, ProblemReport]]:
    """Yield a piece in batches of bounded memory: a Parquet piece whole, text by `block_bytes`.

    At least one batch is yielded, so that the columns of an empty file are known.
    """
    check_config(data)
    path, form = Path(piece.path), piece.format
    raw = _text_events(path, form, data, block_bytes) if form.is_text else _parquet(piece, data)
    for frame, undecoded in raw:
        events, report = clean_events(frame, data, piece.path)
        # Rows of the file become rows of the whole input.
        key = pl.col(ROW) - piece.first_row + piece.first_key
        yield events.with_columns(key.alias(ROW)), report + undecoded


def _parquet(piece: Piece, data: DataConfig) -> Iterator[tuple[pl.DataFrame, ProblemReport]]:
    try:
        lazy = pl.scan_parquet(piece.path, glob=False)
        columns = event_columns(data, lazy.collect_schema().names(), piece.path)
        part = lazy.slice(piece.first_row, piece.n_rows)
        frame = part.select(
            [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]
        ).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{piece.path} is not a readable Parquet file: {error}") from error
    if piece.n_rows is not None and frame.height != piece.n_rows:
        raise DataError(
            f"{piece.path}: {piece.n_rows} rows from row {piece.first_row + 1} were planned, "
            f"{frame.height} are there; the file changed meanwhile, run the command again"
        )
    rows = pl.int_range(piece.first_row, piece.first_row + frame.height, dtype=pl.Int64, eager=True)
    yield frame.with_columns(rows.alias(ROW)), ProblemReport()


def _text_events(
    path: Path, form: Format, data: DataConfig, block_bytes: int
) -> Iterator[tuple[pl.DataFrame, ProblemReport]]:
    columns = event_columns(data, text_columns(path, form), str(path))
    theirs = list(dict.fromkeys(columns.values()))
    empty = True
    for block in read_blocks(path, form, block_bytes):
        frame = parse_block(block, path, form, theirs)
        yield frame.select(_named(columns)), unreadable(block, data)
        empty = False
    if empty:
        schema = dict.fromkeys(columns, pl.String) | {ROW: pl.Int64}
        yield pl.DataFrame(schema=schema), ProblemReport()


def _named(columns: dict[str, str]) -> list[pl.Expr]:
    return [*(pl.col(theirs).alias(ours) for ours, theirs in columns.items()), pl.col(ROW)]
