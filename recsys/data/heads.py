"""Heads: the first rows of every input file, where a wrong name, unit or setting shows at once.

The whole input is checked while it is read; this look takes milliseconds a file and spares the start
of the workers where the answer is known before.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.config import DataConfig
from recsys.data.columns import item_columns
from recsys.data.formats import find_files, format_of
from recsys.data.pieces import Piece, plan_pieces
from recsys.data.problems import ProblemReport, explain
from recsys.data.readers import iter_piece
from recsys.data.records import text_columns
from recsys.errors import DataError

HEAD_ROWS = 1000
"""Rows of a Parquet file that are looked at."""
HEAD_BYTES = 1 << 16
"""Bytes of a text file that are looked at, at least a line."""


def check_heads(data: DataConfig) -> list[str]:
    """Return our names of the columns that the events will have; presets must be applied before.

    Raises:
        ConfigError: settings contradict each other or the types of the columns.
        DataError: a file cannot be read or lacks a column, its first rows all break one rule that
            is set to `fail`, or no event file has a row.
    """
    columns: list[str] = []
    firsts = [piece for piece in plan_pieces(data) if piece.first_row == 0]
    empty = 0
    for piece in firsts:
        events, report = _first_rows(piece, data)
        columns = columns or events.columns
        empty += report.rows == 0
        _refuse_if_all_break(report)
    if empty == len(firsts):
        raise DataError(
            f"no events were read: {', '.join(piece.path for piece in firsts)} "
            f"{'has' if empty == 1 else 'have'} no rows"
        )
    for path in find_files(data.items, "data.items") if data.items else []:
        item_columns(data, _names(path, data.separator), str(path))
    return columns


def _first_rows(piece: Piece, data: DataConfig) -> tuple[pl.DataFrame, ProblemReport]:
    """Return the first batch that has rows; the only one of an empty file."""
    if piece.n_rows is not None:
        piece = replace(piece, n_rows=min(piece.n_rows, HEAD_ROWS))
    batches = iter_piece(piece, data, block_bytes=HEAD_BYTES)
    first = next(batches)  # there always is one
    while not first[1].rows and (more := next(batches, None)) is not None:
        first = more
    return first


def _refuse_if_all_break(report: ProblemReport) -> None:
    for rule, found in report.findings.items():
        if found.choice == "fail" and found.count == report.rows:
            raise DataError(
                f"{explain(rule, found)}\n  These are all of the first {report.rows:,} rows; "
                "the others were not looked at yet."
            )


def _names(path: Path, separator: str) -> list[str]:
    form = format_of(path, separator)
    if form.is_text:
        return text_columns(path, form)
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
