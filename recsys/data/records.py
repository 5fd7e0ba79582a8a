"""Records: a block of text as a frame, malformed records named by file and line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import DataConfig
from recsys.data.blocks import Block, read_blocks, read_header
from recsys.data.formats import Format
from recsys.data.problems import Finding, ProblemReport
from recsys.errors import DataError

ROW = "row"
"""Name of the column that holds the 0-based row of the file (later: of the whole input)."""

MOST, SHOWN = 3, 80
"""Malformed records named, and characters of each shown."""
_JSON_SAMPLE = 1000
"""Lines of a JSON Lines file that tell which keys it has."""


def text_columns(path: Path, form: Format) -> list[str]:
    """Return the column names: the header, or the keys of the first thousand JSON lines."""
    if form.kind != "jsonl":
        return read_header(path, form)
    names: dict[str, None] = {}
    block = next(read_blocks(path, form, 1 << 20), None)
    for i, line in enumerate(block.data.splitlines()[:_JSON_SAMPLE] if block else []):
        names.update(dict.fromkeys(_json_object(line, path, i + 1)))
    return list(names)


def parse_block(
    block: Block, path: Path, form: Format, columns: list[str] | None, text: bool = True
) -> pl.DataFrame:
    """Return the wanted columns of a block's records and `row`, the 0-based row of the file.

    Fields that a short record lacks are null. All columns are String, or with `text=False` JSON
    values keep their types but for `columns`.
    """
    try:
        frame = _parse(block.data, path, form, columns, text)
    except pl.exceptions.PolarsError as error:
        raise DataError(_malformed(block, path, form, error)) from error
    rows = np.arange(block.first_row, block.first_row + block.n_rows, dtype=np.int64)
    rows = np.delete(rows, block.bad_at)
    if len(rows) != frame.height:
        raise DataError(
            _malformed(block, path, form, f"{len(rows)} records, {frame.height} parsed")
        )
    return frame.with_columns(pl.Series(ROW, rows))


def _parse(
    data: bytes, path: Path, form: Format, columns: list[str] | None, text: bool
) -> pl.DataFrame:
    if form.kind == "jsonl":
        if text and columns is not None:
            return pl.read_ndjson(io.BytesIO(data), schema=dict.fromkeys(columns, pl.String))
        overrides = dict.fromkeys(columns or [], pl.String)
        return pl.read_ndjson(
            io.BytesIO(data), schema_overrides=overrides, infer_schema_length=None
        )
    names = read_header(path, form)
    # Plain names stand in for the header, so that a short first record is read like any other.
    places = {name: f"c{i}" for i, name in enumerate(names)}
    frame = pl.read_csv(
        io.BytesIO(form.delimiter.join(places.values()).encode() + b"\n" + data),
        separator=form.delimiter,
        quote_char='"' if form.kind == "csv" else None,
        infer_schema=False,
    )
    wanted = names if columns is None else columns
    return frame.select([pl.col(places[name]).alias(name) for name in wanted])


def unreadable(block: Block, data: DataConfig) -> ProblemReport:
    """Return the report of the records of a block that are not UTF-8."""
    if not block.bad_at:
        return ProblemReport()
    found = Finding(len(block.bad_at), data.on_problem.bad_encoding, block.bad)
    return ProblemReport(rows=len(block.bad_at), findings={"bad_encoding": found})


def _malformed(block: Block, path: Path, form: Format, error: object) -> str:
    """Return what is wrong with a block, with the line where that can be told."""
    if form.kind == "jsonl":
        good = (n for n in range(block.n_rows) if n not in block.bad_at)
        for n, line in zip(good, block.data.splitlines(), strict=False):
            _json_object(line, path, block.first_row + n + 1)
    last = block.first_line + block.data.count(b"\n") - 1
    reason = str(error).splitlines()[0]
    found = _bad_records(block, path, form)
    if found:
        reason = "".join(f"\n  {line}" for line in found) + "\n "
    return (
        f"{path}: lines {block.first_line} to {last} are not well-formed {form.kind}: {reason}. "
        "No record may have more fields than the header; in CSV a field with a separator, a quote or "
        'a line end is put in quotes and its own quotes are doubled ("")'
    )


def _bad_records(block: Block, path: Path, form: Format) -> list[str]:
    """Return where the first records of a block are that no header of this file fits, in words."""
    if form.kind == "jsonl":
        return []
    width = len(read_header(path, form))
    text = io.StringIO(block.data.decode("utf-8", "replace"), newline="")
    if form.kind == "csv":
        reader = csv.reader(text, delimiter=form.delimiter, strict=True)
    else:
        reader = csv.reader(text, delimiter=form.delimiter, quoting=csv.QUOTE_NONE)
    found: list[str] = []
    begin = 0
    try:
        for record in reader:
            line, begin = block.first_line + begin, reader.line_num
            if len(record) > width:
                shown = form.delimiter.join(record)[:SHOWN]
                found.append(f"line {line}: {len(record)} fields instead of {width}: {shown!r}")
            if len(found) == MOST:
                break
    except csv.Error as error:
        begin_line = block.first_line + begin
        found.append(f"the record that begins in line {begin_line}: {error}")
    return found


def _json_object(line: bytes, path: Path, row: int) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{path}, row {row}: not JSON ({error}): {line[:80]!r}; every line must be one object such as "
            '{"user_id": "u1", "item_id": "a"}: mend the line or take it out'
        ) from error
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "no object"
        raise DataError(
            f"{path}, row {row}: {kind}, expected one JSON object a line: {line[:80]!r}"
        )
    return value
