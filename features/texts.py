"""Item texts: the values of any attributes as plain text, the same offline and online.

| value | text |
|---|---|
| text | itself, runs of white space as one blank |
| missing, empty, NaN, infinite | empty |
| number | as it is written; a whole one without decimals (`4.0` is `4`) |
| true, false; date, time | `true`, `false`; ISO 8601 |
| list, record | the texts of its elements that are not empty, with a blank between |

Of a text no more is read than `CHARACTERS_PER_TOKEN` for every token that it may have, so that a
description of 100 kB costs what one of 2 kB does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from recsys.config.text import TextConfig
from recsys.data.vocabulary import DENSE_ITEM
from recsys.errors import ConfigError, DataError
from recsys.schema import ITEM

PREFERRED: Final = ("title", "brand", "category")
CHARACTERS_PER_TOKEN: Final = 64
LARGEST_WHOLE: Final = 1e15
"""Whole numbers up to here are exact as floats, and written without decimals."""


def choose_attributes(items: pl.DataFrame, config: TextConfig) -> list[str]:
    """Return the attributes that make the sentences of a catalogue, in order.

    Raises:
        ConfigError: the catalogue lacks one that the configuration names, or has no text at all.
    """
    there = [name for name in items.columns if name not in (ITEM, DENSE_ITEM)]
    if config.attributes is not None:
        missing = [name for name in config.attributes if name not in there]
        if missing:
            raise ConfigError(
                f"text.attributes: the catalogue has no {', '.join(missing)}; it has "
                f"{', '.join(there) or 'no attributes'} (data.attributes says which are kept)"
            )
        return config.attributes
    preferred: list[str] = [name for name in PREFERRED if name in there]
    chosen = preferred or [name for name in there if _is_text(items.schema[name])]
    if not chosen:
        raise ConfigError(
            "the catalogue has no column of text, which a model of the configuration reads; give item "
            "records in data.items, or name columns in text.attributes"
        )
    return chosen


def attribute_texts(
    items: pl.DataFrame, attributes: Sequence[str], characters: Mapping[str, int]
) -> pl.DataFrame:
    """Return the text of every attribute of every item, String without nulls.

    An attribute that is no column is empty everywhere. `characters` are the most of each attribute.

    Raises:
        DataError: a column holds what is no text, such as bytes.
    """
    columns = []
    for name in attributes:
        if name in items.columns:
            text = _text(pl.col(name), items.schema[name], name)
            text = text.str.replace_all(r"\s+", " ").str.strip_chars()
            text = text.str.head(characters[name]).str.strip_chars_end()
        else:
            text = pl.lit("")
        columns.append(text.fill_null("").alias(name))
    return items.with_columns(columns).select(attributes)


def most_characters(config: TextConfig, attributes: Sequence[str]) -> dict[str, int]:
    """Return how many characters of each attribute are read."""
    return {name: CHARACTERS_PER_TOKEN * config.limit(name) for name in attributes}


def frame_of_items(items: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Return items that came one by one (attributes by name) as a frame, one row each."""
    names = list(dict.fromkeys(name for item in items for name in item))
    columns = {name: pl.Series(name, [i.get(name) for i in items], strict=False) for name in names}
    return pl.DataFrame(columns) if names else pl.DataFrame({"_": [None] * len(items)})


def _is_text(dtype: pl.DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return inner in (pl.String, pl.Categorical, pl.Enum)


def _text(value: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """Return the text of a value of this type."""
    if isinstance(dtype, pl.List | pl.Array):
        values = value.arr.to_list() if isinstance(dtype, pl.Array) else value
        inner: pl.DataType = dtype.inner  # type: ignore[assignment]
        return values.list.eval(_filled(_text(pl.element(), inner, name))).list.join(" ")
    if isinstance(dtype, pl.Struct):
        parts = [_text(value.struct.field(f.name), f.dtype, name) for f in dtype.fields]  # type: ignore[arg-type]
        return pl.concat_str(
            [_null_if_empty(part) for part in parts], separator=" ", ignore_nulls=True
        )
    if dtype.is_float():
        whole = (value == value.round()) & (value.abs() < LARGEST_WHOLE)
        number = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String))
        return number.when(value.is_finite()).then(value.cast(pl.String)).otherwise(None)
    if dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"attribute {name!r} holds {dtype}, which is no text; leave it out of text.attributes"
        )
    return value.cast(pl.String)


def _null_if_empty(text: pl.Expr) -> pl.Expr:
    return pl.when(text.str.strip_chars() != "").then(text)


def _filled(text: pl.Expr) -> pl.Expr:
    return text.filter(text.str.strip_chars() != "")
