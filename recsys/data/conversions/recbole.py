"""RecBole's atomic files: tab-separated text whose header gives every column a type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.data.blocks import read_header
from recsys.data.conversions.tables import EVENTS, ITEMS, RawFiles, read_text, write_table
from recsys.data.formats import Format
from recsys.errors import DataError

_TSV = Format("tsv")
_TYPES = ("token", "token_seq", "float", "float_seq")


def convert_atomic(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write the .inter (and .item) files; columns lose their types' names, `rating` is `weight`.

    `token` stays text, `float` is Float64, `_seq` are lists of what stands between blanks.
    """
    counts = {"events": write_table(_frames(raw.events, {"rating": "weight"}), out / EVENTS)}
    if raw.items:
        counts["items"] = write_table(_frames(raw.items, {}), out / ITEMS)
    return counts


def _frames(paths: tuple[Path, ...], renamed: dict[str, str]) -> Iterator[pl.DataFrame]:
    for path in paths:
        columns = _typed_columns(path)
        for frame in read_text(path, _TSV):
            yield frame.select(columns).rename(renamed, strict=False)


def _typed_columns(path: Path) -> list[pl.Expr]:
    columns = []
    for head in read_header(path, _TSV):
        name, _, kind = head.partition(":")
        if kind not in _TYPES:
            raise DataError(
                f"{path}: the header says {head!r}; an atomic file names every column `name:type` "
                f"with a type of {', '.join(_TYPES)}"
            )
        value = pl.col(head)
        if kind.endswith("_seq"):
            value = (
                value.fill_null("")
                .str.split(" ")
                .list.eval(pl.element().filter(pl.element() != ""))
            )
        if kind == "float":
            value = value.cast(pl.Float64)
        elif kind == "float_seq":
            value = value.cast(pl.List(pl.Float64))
        columns.append(value.alias(name))
    return columns
