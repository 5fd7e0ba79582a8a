"""Pieces: the parts of the input that are read one at a time, and the row numbers they give.

Parquet files are cut at row groups (a larger row group into slices), text files are one piece each
and are read in bounded batches. The order of pieces, and so of rows, depends on nothing but the
patterns and the file names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys.config import DataConfig
from recsys.data.formats import Format, find_files, format_of
from recsys.errors import ConfigError, DataError

ROW_BITS = 40
"""`row` is `piece.index * 2**ROW_BITS + row in the piece`: the global order of the input."""


@dataclass(frozen=True)
class Piece:
    """A part of one input file.

    Attributes:
        path: the file.
        format: what its suffix says, and the separator of CSV.
        first_row: 0-based row of the file where the piece begins.
        n_rows: rows in the piece, or None for a whole text file (not counted yet).
        index: place in the input order.
    """

    path: str
    format: Format
    first_row: int
    n_rows: int | None
    index: int

    @property
    def first_key(self) -> int:
        """Value of the column `row` at the piece's first row."""
        return self.index << ROW_BITS


def plan_pieces(data: DataConfig, rows_per_piece: int = 2_000_000) -> list[Piece]:
    """Return the pieces of `data.events` in input order; presets must be applied before.

    A piece of a Parquet file has at most `rows_per_piece` rows. Nothing but Parquet footers is
    read.
    """
    if data.preset is not None:
        raise ConfigError(
            f"data.preset {data.preset!r} is not applied yet; call apply_preset first"
        )
    if not data.events:
        raise ConfigError("data.events is empty; name at least one event file or a data.preset")
    if rows_per_piece < 1:
        raise ValueError(f"rows_per_piece must be at least 1, got {rows_per_piece}")
    pieces: list[Piece] = []
    for path in find_files(data.events, "data.events"):
        form = format_of(path, data.separator)
        spans = [(0, None)] if form.is_text else _parquet_spans(path, rows_per_piece)
        for first, n_rows in spans:
            pieces.append(Piece(str(path), form, first, n_rows, len(pieces)))
    return pieces


def row_group_sizes(path: Path) -> list[int]:
    """Return the rows of every row group; `DataError` if the file is not Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _parquet_spans(path: Path, rows_per_piece: int) -> Iterator[tuple[int, int | None]]:
    """Yield (first row, rows): whole row groups together while they fit, large ones in slices."""
    first = gathered = 0
    for size in row_group_sizes(path):
        if gathered and gathered + size > rows_per_piece:
            yield first, gathered
            first, gathered = first + gathered, 0
        gathered += size
        while gathered > rows_per_piece:
            yield first, rows_per_piece
            first, gathered = first + rows_per_piece, gathered - rows_per_piece
    if gathered or not first:  # an empty file is a piece too: its columns count
        yield first, gathered
