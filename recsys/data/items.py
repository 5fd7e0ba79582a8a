"""Items: the catalogue's records, `item_id` as text and the attributes that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.config import DataConfig
from recsys.data.blocks import read_blocks
from recsys.data.columns import item_columns, normalise_id
from recsys.data.formats import find_files, format_of
from recsys.data.problems import SHOWN, BadRow, Finding, ProblemReport, bad_rows
from recsys.data.records import ROW, parse_block, text_columns, unreadable
from recsys.errors import DataError
from recsys.schema import ITEM

_FILE = "file"


def read_items(data: DataConfig) -> tuple[pl.DataFrame | None, ProblemReport]:
    """Return `(items, report)`: `item_id` and the attributes, in file order; None without files.

    `item_id` is String. Attributes from Parquet and JSON keep their types (lists stay lists), from
    CSV and TSV they are text. Of records with one id the first stays. As with `read_piece`, rules
    set to `fail` are raised by the report's `raise_if_failed`. All records are held in memory at
    once.
    """
    if not data.items:
        return None, ProblemReport()
    frames: list[pl.DataFrame] = []
    report = ProblemReport()
    for path in find_files(data.items, "data.items"):
        for frame, found in _read_file(path, data):
            frames.append(frame.with_columns(pl.lit(str(path)).cast(pl.Categorical).alias(_FILE)))
            report += found
    if not frames:
        return pl.DataFrame(schema={ITEM: pl.String}), report
    try:
        items = pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"data.items: an attribute's type differs between records or files ({error}); "
            "leave it out with data.attributes, or write one type"
        ) from error
    items, duplicates = _drop_repeated(items, data)
    return items.drop(ROW, _FILE), report + duplicates


def _read_file(path: Path, data: DataConfig) -> Iterator[tuple[pl.DataFrame, ProblemReport]]:
    """Yield `(items with row, report)` of a file: Parquet whole, text block by block."""
    form = format_of(path, data.separator)
    if not form.is_text:
        frame = _read_parquet(path)
        yield _clean(frame.with_row_index(ROW), frame.columns, path, data)
        return
    known = text_columns(path, form)
    item_columns(
        data, known, str(path)
    )  # complain about missing columns even if there is no record
    theirs = data.item_columns.get(ITEM, ITEM)
    for block in read_blocks(path, form):
        wanted = [theirs] if form.kind == "jsonl" else None
        frame = parse_block(block, path, form, wanted, text=form.kind != "jsonl")
        available = list(dict.fromkeys([*known, *frame.drop(ROW).columns]))
        items, report = _clean(frame, available, path, data)
        yield items, report + unreadable(block, data)


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def _clean(
    frame: pl.DataFrame, available: list[str], path: Path, data: DataConfig
) -> tuple[pl.DataFrame, ProblemReport]:
    """Return the records with an id, our names, `row`; a key no record has is null."""
    columns = item_columns(data, available, str(path))
    items = frame.select(
        [
            (pl.col(theirs) if theirs in frame.columns else pl.lit(None)).alias(ours)
            for ours, theirs in columns.items()
        ]
        + [pl.col(ROW).cast(pl.Int64)]
    )
    ids = normalise_id(items[ITEM], ITEM, str(path)).cast(pl.String)
    items = items.with_columns(ids.alias(ITEM))
    null = ids.is_null()
    if not bool(null.any()):
        return items, ProblemReport(items.height, items.height)
    choice = data.on_problem.null_ids
    found = Finding(int(null.sum()), choice, bad_rows(items, null, str(path)))
    kept = items.filter(~null)
    return kept, ProblemReport(items.height, kept.height, {"null_ids": found})


def _drop_repeated(items: pl.DataFrame, data: DataConfig) -> tuple[pl.DataFrame, ProblemReport]:
    """Return the first record of every id, and the report of the others."""
    repeated = ~items[ITEM].is_first_distinct()
    if not bool(repeated.any()):
        return items, ProblemReport()
    shown = items.filter(repeated).head(SHOWN).to_dicts()
    first = tuple(BadRow(row.pop(_FILE), row.pop(ROW) + 1, row) for row in shown)
    count = int(repeated.sum())
    found = Finding(count, data.on_problem.duplicate_items, first)
    return items.filter(~repeated), ProblemReport(kept=-count, findings={"duplicate_items": found})
