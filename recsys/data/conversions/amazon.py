"""Amazon metadata: lines of JSON (2018) or of Python literals (2014), made into item records."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.blocks import open_text
from recsys.data.conversions.tables import ITEMS, RawFiles, write_table
from recsys.data.formats import format_of
from recsys.errors import DataError

LONGEST_LINE = 1 << 20
"""A line of metadata beyond this many bytes is refused before it is parsed."""
_BATCH = 20_000
_SCHEMA: dict[str, Any] = {
    "asin": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "category": pl.List(pl.String),
}


def convert_metadata(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write title, brand and category (nested lists made flat, repeats left out) of every record.

    The review files need no conversion. The literals of 2014 are read by `ast.literal_eval`, which
    builds values and runs nothing.
    """
    if not raw.items:
        return {}
    return {"items": write_table(_frames(_records(raw.items)), out / ITEMS)}


def _frames(records: Iterable[dict[str, Any]]) -> Iterator[pl.DataFrame]:
    remaining = iter(records)
    while batch := list(islice(remaining, _BATCH)):
        yield pl.DataFrame(batch, schema=_SCHEMA)


def _records(paths: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with open_text(path, format_of(path).gzipped) as handle:
            number = 0
            while line := handle.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes")
                if line.strip():
                    yield _record(_parse(line, path, number))


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
        value = json.loads(text) if text.startswith('{"') else ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{path}, line {number}: neither JSON nor a Python literal in UTF-8 "
            f"({type(error).__name__}): {line[:80]!r}"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}: expected a record, found {line[:80]!r}")
    return value


def _record(value: dict[str, Any]) -> dict[str, Any]:
    categories = value.get("categories", value.get("category")) or []
    flat = [
        part for entry in categories for part in (entry if isinstance(entry, list) else [entry])
    ]
    return {
        "asin": _text(value.get("asin")),
        "title": _text(value.get("title")),
        "brand": _text(value.get("brand")),
        "category": list(dict.fromkeys(str(part) for part in flat)),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
